//! What `nft list ruleset` shows of small tables, in the kernel (root and the nft tool are needed).
//!
//! The listings are kept in `tests/golden`; `PORTOLAN_BLESS=1 cargo test -p portolan-dataplane --test golden` writes
//! them anew. They come from nft 1.0.6 (Debian 12), which aborts on rules it has no words for: that it prints ours at
//! all is half of what these tests show. It can
//! also read its listing back, but for the rules that feed one map's data to another.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;
#[path = "common/net.rs"]
mod net;

use std::fs;
use std::path::Path;

use common::planes::{Nftables, Plane};
use common::{Case, World};
use net::Net;
use portolan_dataplane::Driver;
use portolan_forward::Algorithm;

fn check(name: &str, cases: impl IntoIterator<Item = Case>) {
    let net = Net::new(&[("outside", ["203.0.113.50", "2001:db8:113::50"])]);
    let world = World::with(cases);
    let mut driver = Driver::new(net.within("node", Nftables::open));
    driver.sync(&world.table).unwrap();
    let listing = net.nft_list(&["ruleset"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        fs::write(&path, &listing).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(listing == golden, "{} differs; the listing is now:\n{listing}", path.display());
    net.nft_check(&grammatical(&listing));
}

/// Without the rules that `nft` prints but would not accept: it takes a frontend's data for a mark, and no random
/// number for an index.
fn grammatical(listing: &str) -> String {
    let odd = |line: &&str| {
        ["vmap @classes", "dnat to ip", "dnat ip to", "dnat ip6 to"].iter().any(|odd| line.contains(odd))
    };
    listing.lines().filter(|line| !odd(line)).map(|line| line.to_owned() + "\n").collect()
}

fn endpoints(case: Case) -> Case {
    case.local_endpoint("10.1.0.11", 8080).endpoint("10.2.0.21", 8080)
}

#[test]
fn nothing_but_the_node() {
    check("bare.nft", []);
}

#[test]
fn a_cluster_ip_and_a_node_port() {
    let six = |case: Case| case.local_endpoint("fd00:10:1::11", 8080);
    let cases = [
        endpoints(Case::new("web", &["172.30.0.1"])),
        six(endpoints(Case::new("api", &["172.30.0.2", "fd00:30::2"]).node_port(30080))),
        Case::new("empty", &["172.30.0.3"]),
    ];
    check("basic.nft", cases);
}

#[test]
fn policy_local_with_source_ranges_and_affinity() {
    let case = Case::new("everything", &["172.30.0.1"]).node_port(30080).load_balancer("198.51.100.1");
    let case = case.external_local().affinity(10800).sources(&["203.0.113.0/24", "198.18.0.0/15"]);
    let six = Case::new("six", &["fd00:30::6"]).affinity(60).local_endpoint("fd00:10:1::11", 8080);
    check("policy.nft", [endpoints(case), six]);
}

#[test]
fn algorithms() {
    let six = |case: Case| case.local_endpoint("fd00:10:1::11", 8080).endpoint("fd00:10:2::21", 8080);
    let asking = |case: Case, algorithm| {
        let mut case = case;
        case.service.algorithm = Some(algorithm);
        case
    };
    let cases = [
        asking(endpoints(Case::new("turns", &["172.30.0.1"])), Algorithm::RoundRobin),
        asking(six(endpoints(Case::new("hash", &["172.30.0.2", "fd00:30::2"]))), Algorithm::SourceHash),
        asking(six(Case::new("both", &["fd00:30::3"]).affinity(60)), Algorithm::SourceHash),
    ];
    check("algorithms.nft", cases);
}
