//! How the allocator of the C library keeps memory, for processes that need much for a moment and little in between.
//!
//! The first sync of a large cluster, or the list of all its objects, needs much, and by itself the allocator would keep
//! most of that: it learns from the first large block that is freed to keep blocks of that size, gives each thread a heap
//! of its own, and returns only what is free at a heap's end.

use std::time::Duration;

/// Blocks of this size and more come from the kernel one by one and go back to it.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: i32 = 256 << 10;
/// So much may be free at the end of a heap before it is given back.
#[cfg(target_env = "gnu")]
const FREE_END_BYTES: i32 = 1 << 20;
/// Heaps; threads share them. Ours wait for the network and the kernel, not for the allocator.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

/// How often a control plane looks whether it has grown.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Growth after which free pages are given back: that takes milliseconds, for which some requests wait.
const GROWTH_BYTES: u64 = 8 << 20;

/// To be called before the first thread starts.
pub(crate) fn keep_little() {
    #[cfg(target_env = "gnu")]
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES),
        (libc::M_TRIM_THRESHOLD, FREE_END_BYTES),
        (libc::M_ARENA_MAX, HEAPS),
    ] {
        // SAFETY: it changes numbers that the allocator reads, under the allocator's own lock.
        let taken = unsafe { libc::mallopt(option, value) };
        debug_assert_eq!(taken, 1, "mallopt {option}");
    }
}

/// Gives every free page back, also those between blocks in use.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator takes its own locks; no block in use is touched.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives free pages back whenever the process has grown, until the runtime ends.
pub(crate) async fn give_back_after_growth() {
    let mut lowest = u64::MAX;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Some(mut now) = resident_bytes() else { return };
        if now > lowest.saturating_add(GROWTH_BYTES) {
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return;
            }
            now = resident_bytes().unwrap_or(now);
            lowest = now;
        }
        lowest = lowest.min(now);
    }
}

/// `None` where the kernel does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}
