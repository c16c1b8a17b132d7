//! Namespaces for tests, and a small ruleset to begin with.

use std::process::Command;

use portolan_netlink::nft::{Batch, Family, NfTables, Op, Socket, Table};
use rustix::thread::UnshareFlags;

/// Runs the test on a thread in a network namespace of its own, which is gone when the thread ends.
pub(crate) fn in_new_netns<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        // SAFETY: only the network namespace of this short-lived thread changes; it shares everything else.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
            .expect("kernel tests need root: they make network namespaces");
        test()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn table() -> Table {
    Table::new(Family::Inet, "portolan-test")
}

pub(crate) fn add_table() -> Op {
    Op::AddTable { table: table(), comment: None }
}

pub(crate) fn batch(ops: impl IntoIterator<Item = Op>) -> Batch {
    ops.into_iter().collect()
}

pub(crate) fn commit(nft: &mut dyn NfTables, ops: impl IntoIterator<Item = Op>) {
    if let Err(error) = nft.commit(&batch(ops)) {
        panic!("{error}");
    }
}

/// Runs a test on the kernel with a fresh ruleset.
pub(crate) fn with_kernel(test: impl FnOnce(&mut Socket) + Send + 'static) {
    in_new_netns(move || test(&mut Socket::open().unwrap()));
}

/// What the `nft` tool makes of the ruleset of this thread's namespace; `None` when the tool is not installed.
pub(crate) fn nft_list(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("nft").args(arguments).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("WARNING: nft is not installed, its view of the ruleset is NOT checked");
            return None;
        }
        Err(error) => panic!("nft: {error}"),
    };
    assert!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

pub(crate) fn assert_lists(expected: &[&str]) {
    let Some(listed) = nft_list(&["list", "ruleset"]) else { return };
    for line in expected {
        assert!(listed.contains(line), "nft does not print {line:?} but:\n{listed}");
    }
}
