//! What `nft list ruleset` and `iptables-save` show of small tables, in the kernel (root and the tools are needed).
//!
//! The listings are kept in `tests/golden`; `PORTOLAN_BLESS=1 cargo test -p portolan-dataplane --test golden` writes
//! them anew. Those of iptables are one for both variants, from iptables 1.8.9 (Debian 12), and read back by it. Those of
//! nftables come from nft 1.0.6, which aborts on rules it has no words for: that it prints ours at
//! all is half of what these tests show. It can
//! also read its listing back, but for the rules that feed one map's data to another.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;
#[path = "common/net.rs"]
mod net;

use std::fs;
use std::path::Path;

use common::planes::{Nftables, Plane as _};
use common::{Case, World};
use net::Net;
use portolan_dataplane::iptables::layout::{self, Table};
use portolan_dataplane::iptables::{Kernel as _, Programs, Variant};
use portolan_dataplane::{Driver, iptables};
use portolan_forward::{Algorithm, Family};

fn outside() -> Net {
    Net::new(&[("outside", ["203.0.113.50", "2001:db8:113::50"])])
}

fn check(name: &str, cases: impl IntoIterator<Item = Case>) {
    let net = outside();
    let world = World::with(cases);
    let mut driver = Driver::new(net.within("node", Nftables::open));
    driver.sync(&world.table).unwrap();
    let listing = net.nft_list(&["ruleset"]);
    compare(name, &listing);
    net.nft_check(&grammatical(&listing));
}

fn compare(name: &str, listing: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        fs::write(&path, listing).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(listing == golden, "{} differs; the listing is now:\n{listing}", path.display());
}

/// In both variants, which must show the same; and each takes what it has shown.
fn check_iptables(name: &str, cases: impl IntoIterator<Item = Case>) {
    let world = World::with(cases);
    let [nft, legacy] = [Variant::Nft, Variant::Legacy].map(|variant| {
        let net = outside();
        let mut driver = Driver::new(iptables::Iptables::new(
            net.within("node", || Programs::of(variant)).unwrap(),
            iptables::Config::default(),
        ));
        driver.sync(&world.table).unwrap();
        let mut listing = String::new();
        for family in Family::ALL {
            for table in Table::ALL {
                let saved = driver.plane_mut().kernel().save(family, table).unwrap();
                driver.plane_mut().kernel().restore(family, &chains_of(&saved)).unwrap();
                let again = driver.plane_mut().kernel().save(family, table).unwrap();
                assert_eq!(settled(&again), settled(&saved), "{variant:?} does not take its own listing");
                listing +=
                    ["# ", layout::family_name(family), "tables\n", &settled(&saved)].concat().as_str();
            }
        }
        listing
    });
    compare(name, &nft);
    assert!(legacy == nft, "the legacy variant shows:\n{legacy}");
}

/// Without comments, which tell the time, and what was counted.
fn settled(saved: &str) -> String {
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect()
}

/// Chains of ours with their rules, as they are.
fn chains_of(saved: &str) -> String {
    let ours = |line: &&str| {
        line.starts_with('*')
            || line.starts_with(":PORTOLAN")
            || line.starts_with("-A PORTOLAN")
            || *line == "COMMIT"
    };
    saved.lines().filter(ours).map(|line| line.to_owned() + "\n").collect()
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
    check_iptables("bare.iptables", []);
}

#[test]
fn a_cluster_ip_and_a_node_port() {
    let six = |case: Case| case.local_endpoint("fd00:10:1::11", 8080);
    let cases = [
        endpoints(Case::new("web", &["172.30.0.1"])),
        six(endpoints(Case::new("api", &["172.30.0.2", "fd00:30::2"]).node_port(30080))),
        Case::new("empty", &["172.30.0.3"]),
    ];
    check("basic.nft", cases.clone());
    check_iptables("basic.iptables", cases);
}

#[test]
fn policy_local_with_source_ranges_and_affinity() {
    let case = Case::new("everything", &["172.30.0.1"]).node_port(30080).load_balancer("198.51.100.1");
    let case = case.external_local().affinity(10800).sources(&["203.0.113.0/24", "198.18.0.0/15"]);
    let six = Case::new("six", &["fd00:30::6"]).affinity(60).local_endpoint("fd00:10:1::11", 8080);
    let cases = [endpoints(case), six];
    check("policy.nft", cases.clone());
    check_iptables("policy.iptables", cases);
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
