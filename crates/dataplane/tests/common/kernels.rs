//! Tests that need IPVS, which is not in every kernel: those below a module `ipvs` run in User-Mode Linux, those below
//! `behind_nftables` in Debian's own kernel, and each fails or passes as it did in there. Where the kernel at hand has what
//! they need they run directly.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this one and uses its own part")]

use std::process::Command;

use portolan_guest::{Kernel, Suite, is_inside};
use portolan_netlink::ipvs;

/// IPVS, with the legacy variant of iptables before it.
static IPVS: Suite = Suite::new(Kernel::UserMode, "ipvs");
/// IPVS, with nftables before it.
static BEHIND_NFTABLES: Suite = Suite::new(Kernel::Debian, "behind_nftables");

/// `name`: the test's path, the crate first.
pub fn with_ipvs(name: &str, test: fn()) {
    run(&IPVS, has_ipvs(), name, test);
}

/// `name`: the test's path, the crate first.
pub fn with_ipvs_and_nftables(name: &str, test: fn()) {
    run(&BEHIND_NFTABLES, has_ipvs() && has_nftables(), name, test);
}

fn run(suite: &'static Suite, here: bool, name: &str, test: fn()) {
    if here || is_inside() {
        return test();
    }
    IPVS.begin();
    BEHIND_NFTABLES.begin();
    suite.verdict(name);
}

fn has_ipvs() -> bool {
    ipvs::Socket::open().is_ok_and(|it| it.is_some())
}

/// Whether the kernel has `nf_tables` of IP. Nothing is written.
pub fn has_nftables() -> bool {
    let check = Command::new("nft").args(["--check", "add", "table", "ip", "probe"]).output();
    check.expect("the tests need the nft tool").status.success()
}
