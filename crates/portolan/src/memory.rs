//! How the allocator of the C library keeps memory, for processes that grow once and then stay.
//!
//! The first sync of a large cluster needs much for a moment, and by itself the allocator would keep most of that: it
//! learns from the first large block that is freed to keep blocks of that size, and gives each thread a heap of its own.

/// Blocks of this size and more come from the kernel one by one and go back to it.
#[cfg(target_env = "gnu")]
const OWN_PAGES_BYTES: i32 = 256 << 10;
/// So much may be free at the end of a heap before it is given back.
#[cfg(target_env = "gnu")]
const FREE_END_BYTES: i32 = 1 << 20;
/// Heaps; threads share them. Ours wait for the network and the kernel, not for the allocator.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;

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
