//! Writing the tables of iptables-legacy without its programs: the kernel must hold the same bytes as when the programs
//! write, and what is not ours must stay as it is, counters too (root and iptables-legacy are needed).

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;

use common::{Case, World, node, synthetic};
use portolan_dataplane::iptables::{Config, Kernel as _, Programs, Variant, layout::Table};
use portolan_dataplane::{Driver, Iptables};
use portolan_forward::{Delta, Family, LocalTraffic, NodePortAddresses, NodeView, Protocol};
use portolan_netlink::netns::{IP_NETNS_DIR, Netns};
use portolan_netlink::rt::Rt;
use portolan_netlink::xtables::Socket;

/// A namespace that goes whatever happens, and a data plane in it.
struct Place {
    netns: Netns,
    path: PathBuf,
    driver: Driver<Iptables<Programs>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(Netns::delete(&self.path));
    }
}

impl Place {
    fn new(name: &str, directly: bool) -> Self {
        let path = PathBuf::from(IP_NETNS_DIR).join(format!("ptdp-legacy-{name}-{}", std::process::id()));
        let netns = Netns::create(&path).unwrap();
        let programs = netns.run(|| Programs::of(Variant::Legacy)).unwrap().unwrap();
        let programs = if directly { programs } else { programs.without_kernel_interface() };
        Self { netns, path, driver: Driver::new(Iptables::new(programs, Config::default())) }
    }

    fn run(&self, program: &str, arguments: &str) -> String {
        let output = self.netns.run(|| Command::new(program).args(arguments.split(' ')).output());
        let output = output.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Without comments, which tell the time, and the counters of chains.
    fn saved(&self, family: Family, table: Table) -> Vec<String> {
        let text = self.run(&Variant::Legacy.program(family, "save"), &format!("-t {}", table.as_str()));
        let kept = text.lines().filter(|line| !line.starts_with('#'));
        kept.map(|line| line.split(" [").next().unwrap().to_owned()).collect()
    }

    /// The kernel's bytes, without what it counts and notes for itself.
    fn bytes(&self, family: Family, table: Table) -> Vec<u8> {
        let (open, noted): (fn() -> _, _) = match family {
            Family::V4 => (Socket::v4, 88..112),
            Family::V6 => (Socket::v6, 140..168),
        };
        let socket = self.netns.run(open).unwrap().unwrap();
        let info = socket.info(table.as_str()).unwrap();
        let mut buffer = Vec::new();
        let mut bytes = socket.entries(table.as_str(), info.size, &mut buffer).unwrap().to_vec();
        let mut at = 0;
        for _ in 0..info.entries {
            let next = u16::from_ne_bytes(*bytes[at + noted.start + 2..].first_chunk().unwrap());
            bytes[at + noted.start + 4..at + noted.end].fill(0);
            at += usize::from(next);
        }
        assert_eq!(at, bytes.len());
        bytes
    }
}

/// One place where programs write, and one where we do.
struct Pair {
    directly: Place,
    programs: Place,
}

impl Pair {
    fn new(name: &str) -> Self {
        let directly = Place::new(name, true);
        let programs = Place::new(&format!("{name}-programs"), false);
        Self { directly, programs }
    }

    fn both(&mut self) -> [&mut Place; 2] {
        [&mut self.directly, &mut self.programs]
    }

    fn sync(&mut self, world: &World) {
        self.both().into_iter().for_each(|place| drop(place.driver.sync(&world.table).unwrap()));
        self.compare("the first sync");
    }

    fn apply(&mut self, what: &str, delta: &Delta) {
        self.both().into_iter().for_each(|place| drop(place.driver.apply(delta).unwrap()));
        self.compare(what);
    }

    fn compare(&mut self, what: &str) {
        let directly = self.directly.driver.plane_mut().kernel().writes_directly();
        assert_eq!(directly, Ok(()), "{what}");
        let by_program = |place: &mut Place| place.driver.plane_mut().kernel().writes().by_program;
        let [ours, theirs] = self.both().map(by_program);
        assert!(ours == 0 && theirs > 0, "{what}: {ours} writes by programs, and {theirs} where all are");
        for family in Family::ALL {
            for table in Table::ALL {
                let [ours, theirs] = self.both().map(|place| place.saved(family, table));
                let differ = ours.iter().zip(&theirs).find(|(ours, theirs)| ours != theirs);
                assert!(ours == theirs, "{what}, {family:?} {table:?}: {differ:?}");
                let [ours, theirs] = self.both().map(|place| place.bytes(family, table));
                let differ = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
                let around = differ.map(|at| [&ours, &theirs].map(|bytes| bytes[at - 40..at + 8].to_vec()));
                assert!(ours == theirs, "{what}, {family:?} {table:?}: at {differ:?}: {around:?}");
            }
        }
    }
}

fn endpoints(case: Case) -> Case {
    let four = case.local_endpoint("10.1.0.11", 8080).endpoint("10.2.0.21", 8080);
    four.local_endpoint("fd00:10:1::11", 8080).endpoint("fd00:10:2::21", 8080)
}

fn cases() -> Vec<Case> {
    let dual = |name: &str, n: u8| Case::new(name, &[&format!("172.30.0.{n}"), &format!("fd00:30::{n}")]);
    let sources = ["203.0.113.0/24", "2001:db8:113::/48"];
    let guarded = dual("guarded", 2).node_port(30080).load_balancer("198.51.100.1").sources(&sources);
    vec![
        endpoints(dual("web", 1)),
        endpoints(guarded.external_local().affinity(10800)),
        endpoints(dual("internal", 3).internal_local().port(Protocol::Udp, 53).node_port(30053)),
        endpoints(dual("sctp", 4).port(Protocol::Sctp, 3868).node_port(30868)),
        dual("empty", 5),
        (0..40).fold(dual("large", 6), |case, n| case.endpoint(&format!("10.3.0.{n}"), 8080)),
    ]
}

fn node_with(local_traffic: LocalTraffic) -> NodeView {
    NodeView { local_traffic, node_port_addresses: NodePortAddresses::All, ..node() }
}

#[test]
fn the_kernel_holds_the_bytes_that_the_programs_would_have_written() {
    let mut pair = Pair::new("bytes");
    let mut world = World::with(cases());
    pair.sync(&world);
    let delta = world.put([endpoints(cases()[0].clone().without_endpoint(1))]);
    pair.apply("another endpoint", &delta);
    let delta = world.put((0..50).map(|n| synthetic(n, 3)));
    pair.apply("fifty more", &delta);
    let delta = world.put([cases()[5].clone().without_endpoint(7), endpoints(cases()[4].clone())]);
    pair.apply("a large one, and an empty one that has endpoints", &delta);
    let delta = world.remove([cases()[1].key(), synthetic(7, 3).key()]);
    pair.apply("two that go", &delta);
    for local in [LocalTraffic::InterfacePrefix("veth".into()), LocalTraffic::Interface("cni0".into())] {
        let all = cases().into_iter().filter(|case| case.key() != cases()[1].key());
        let delta = world.set_node(node_with(local), all);
        pair.apply("another node", &delta);
    }
    let turns = "*nat\n:PORTOLAN-TURNS - [0:0]\n-A PORTOLAN-TURNS -m statistic --mode nth --every 3 --packet 0 -j RETURN\nCOMMIT\n";
    for place in pair.both() {
        place.driver.plane_mut().kernel().restore(Family::V6, turns).unwrap();
    }
    pair.compare("turns");
    let gone = pair.both().map(|place| place.driver.cleanup());
    assert!(gone.iter().all(Vec::is_empty), "{gone:?}");
    pair.compare("cleanup");
    assert!(!pair.directly.saved(Family::V4, Table::Nat).iter().any(|line| line.contains("PORTOLAN")));
}

const OTHERS: [&str; 9] = [
    "-t nat -N AA-BEFORE",
    "-t nat -N ZZ-BEHIND",
    "-t nat -A AA-BEFORE -m limit --limit 3/min -g ZZ-BEHIND",
    "-t nat -A ZZ-BEHIND -m comment --comment without-target",
    "-t nat -A OUTPUT -j AA-BEFORE",
    "-t nat -A ZZ-BEHIND -p tcp -j REDIRECT --to-ports 8080",
    "-N ZZ-FILTER",
    "-A OUTPUT -p udp --dport 9 -j ZZ-FILTER",
    "-P FORWARD DROP",
];

#[test]
fn what_is_not_ours_stays_with_its_counters() {
    let mut pair = Pair::new("others");
    for place in pair.both() {
        Rt::open_in(&place.netns).unwrap().set_up("lo").unwrap();
        for arguments in OTHERS {
            place.run("iptables-legacy", arguments);
        }
        let send = || {
            let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
            for _ in 0..3 {
                socket.send_to(b"x", ("127.0.0.1", 9)).unwrap();
            }
        };
        place.netns.run(send).unwrap();
    }
    let counted = |place: &Place| -> Vec<String> {
        let text = place.run("iptables-legacy-save", "-c");
        let others = text.lines().filter(|line| !line.starts_with('#') && !line.contains("PORTOLAN"));
        others.map(str::to_owned).collect()
    };
    let before = counted(&pair.directly);
    assert!(before.iter().any(|line| line.starts_with("[3:87] -A OUTPUT -p udp")), "{before:?}");
    let mut world = World::with(cases());
    pair.sync(&world);
    assert_eq!(counted(&pair.directly), before);
    for place in pair.both() {
        place.run("iptables-legacy", "-t nat -I OUTPUT -d 192.0.2.77 -j ZZ-BEHIND");
    }
    let before = counted(&pair.directly);
    let delta = world.put([endpoints(cases()[0].clone().without_endpoint(1))]);
    pair.apply("a change behind somebody else's", &delta);
    assert_eq!(counted(&pair.directly), before);
    assert!(pair.both().iter_mut().all(|place| place.driver.cleanup().is_empty()));
    assert_eq!(counted(&pair.directly), before);
    pair.compare("cleanup");
}

#[test]
fn what_cannot_be_written_directly_goes_by_the_program() {
    let mut place = Place::new("foreign", true);
    let kernel = place.driver.plane_mut().kernel();
    // A match we have no words for.
    let foreign = "*nat\n:PORTOLAN-X - [0:0]\n-A PORTOLAN-X -m length --length 40 -j RETURN\nCOMMIT\n";
    kernel.restore(Family::V4, foreign).unwrap();
    assert_eq!(kernel.writes_directly(), Ok(()), "one rule is no reason to give up");
    let error = kernel.restore(Family::V4, "*nat\n-A PORTOLAN-X -j PORTOLAN-NOWHERE\nCOMMIT\n").unwrap_err();
    assert!(error.to_string().starts_with("iptables-legacy-restore: "), "{error}");
    assert_eq!(kernel.writes_directly(), Ok(()));
    let saved = place.saved(Family::V4, Table::Nat);
    assert!(saved.iter().any(|line| line == "-A PORTOLAN-X -m length --length 40 -j RETURN"), "{saved:?}");
    assert!(!saved.iter().any(|line| line.contains("NOWHERE")));
}
