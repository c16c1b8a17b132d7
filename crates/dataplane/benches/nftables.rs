//! First sync, restart and one endpoint's change on the real kernel, in a network namespace made here (root is needed).
//!
//! `cargo bench -p portolan-dataplane` prints figures; `cargo bench -p portolan-dataplane -- 1000 10000 100000` for
//! other numbers of Services. Each has ten endpoints. Nothing is asserted: machines differ.

#![allow(clippy::unwrap_used, reason = "a step that fails ends the benchmark")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/net.rs"]
mod net;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Case, World, synthetic};
use net::{Net, Seen};
use portolan_dataplane::nftables::{self, Config};
use portolan_dataplane::{Driver, Nftables};
use portolan_forward::Protocol;
use portolan_netlink::netns::{IP_NETNS_DIR, Netns};
use portolan_netlink::nft::{NfTables, Socket};

const ENDPOINTS: u32 = 10;
const CHANGES: u32 = 400;
const ROUNDS: usize = 8;
const CONNECTIONS: usize = 1_000;

fn driver<N: NfTables>(nft: N) -> Driver<Nftables<N>> {
    Driver::new(nftables::Nftables::new(nft, Config::default()))
}

fn main() {
    let numbers: Vec<u32> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let numbers = if numbers.is_empty() { vec![1_000, 10_000] } else { numbers };
    println!(
        "{:>9} {:>11} {:>11} {:>11} {:>11} {:>11} {:>11} {:>9} {:>9}",
        "services",
        "sync",
        "of it plan",
        "restart",
        "change p50",
        "change p99",
        "of it plan",
        "peak MiB",
        "now MiB"
    );
    for services in &numbers {
        measure(*services);
    }
    println!("\nnew connections per second from a pod, one after the other, to a pod of the same node");
    println!("{:>9} {:>11} {:>11} {:>11}", "services", "straight", "ClusterIP", "ratio");
    for services in numbers {
        connect(services);
    }
}

/// In turns, so that what else the machine does touches both alike.
fn connect(services: u32) {
    let pods = [("10.1.0.11", "fd00:10:1::11"), ("10.1.0.12", "fd00:10:1::12")];
    let net = Net::new(&[("pod-1", [pods[0].0, pods[0].1]), ("pod-2", [pods[1].0, pods[1].1])]);
    net.serve("pod-2", 8080);
    // Another port, so that translated connections do not meet the remains of the others.
    net.serve("pod-2", 8081);
    let mut world = World::with((0..services).map(|n| synthetic(n, ENDPOINTS)));
    world.put([Case::new("measured", &["172.30.0.1"]).local_endpoint(pods[1].0, 8080)]);
    driver(net.nft()).sync(&world.table).unwrap();
    let (mut straight, mut through) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        for (to, total) in [("10.1.0.12:8081", &mut straight), ("172.30.0.1:80", &mut through)] {
            let all =
                || net.connect_all("pod-1", Protocol::Tcp, to.parse().unwrap(), CONNECTIONS, net::PATIENT);
            let (time, seen) = timed(all);
            assert!(seen.iter().all(|seen| matches!(seen, Seen::Answer { .. })));
            *total += time;
        }
    }
    let rate = |total: Duration| (ROUNDS * CONNECTIONS) as f64 / total.as_secs_f64();
    let ratio = rate(through) / rate(straight);
    println!("{services:>9} {:>11.0} {:>11.0} {ratio:>11.2}", rate(straight), rate(through));
}

fn measure(services: u32) {
    let path = PathBuf::from(IP_NETNS_DIR).join(format!("ptdp-bench-{}", std::process::id()));
    let netns = Netns::create(&path).unwrap();
    let socket = || netns.run(Socket::open).unwrap().unwrap();
    let world = World::with((0..services).map(|n| synthetic(n, ENDPOINTS)));
    let before = memory("VmRSS");
    reset_peak();
    let mut plane = driver(Timed { inner: socket(), commits: Duration::ZERO });
    let (sync, _) = timed(|| plane.sync(&world.table).unwrap());
    let planning = sync.saturating_sub(plane.plane_mut().nft().commits);
    let (peak, now) = (memory("VmHWM") - before, memory("VmRSS") - before);
    let mut restarted = driver(socket());
    let (restart, report) = timed(|| restarted.sync(&world.table).unwrap());
    assert!(report.is_noop());
    let (changes, plans) = change_endpoints(world, &mut plane, services);
    let at = |durations: &[Duration], percent: usize| durations[durations.len() * percent / 100];
    println!(
        "{services:>9} {sync:>11.1?} {planning:>11.1?} {restart:>11.1?} {:>11.1?} {:>11.1?} {:>11.1?} {:>9.1} {:>9.1}",
        at(&changes, 50),
        at(&changes, 99),
        at(&plans, 50),
        peak,
        now
    );
    Netns::delete(&path).unwrap();
}

type Plane = Driver<Nftables<Timed>>;

/// One endpoint goes, and comes back; how long each step took, sorted, in all and without the kernel.
fn change_endpoints(mut world: World, plane: &mut Plane, services: u32) -> (Vec<Duration>, Vec<Duration>) {
    let (mut changes, mut plans) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let case = synthetic(change / 2 * 7919 % services, ENDPOINTS);
        let case = if change % 2 == 0 { case.without_endpoint(3) } else { case };
        let delta = world.put([case]);
        plane.plane_mut().nft().commits = Duration::ZERO;
        let (change, _) = timed(|| plane.apply(&delta).unwrap());
        changes.push(change);
        plans.push(change.saturating_sub(plane.plane_mut().nft().commits));
    }
    changes.sort_unstable();
    plans.sort_unstable();
    (changes, plans)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// A field of `/proc/self/status`, in MiB.
fn memory(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024.0
}

/// The peak starts anew from what is used now.
fn reset_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The kernel, with the time that commits take.
struct Timed {
    inner: Socket,
    commits: Duration,
}

mod forwarding {
    use portolan_netlink::nft::{
        Batch, Chain, CommitError, DumpError, Element, Handled, NfTables, Rule, Set, Table, TableInfo,
    };

    use super::{Timed, timed};

    impl NfTables for Timed {
        fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
            let (time, result) = timed(|| self.inner.commit(batch));
            self.commits += time;
            result
        }
        fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
            self.inner.tables()
        }
        fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
            self.inner.chains(table)
        }
        fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
            self.inner.rules(table, chain)
        }
        fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
            self.inner.sets(table)
        }
        fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
            self.inner.elements(table, set)
        }
        fn generation(&mut self) -> Result<u32, DumpError> {
            self.inner.generation()
        }
    }
}
