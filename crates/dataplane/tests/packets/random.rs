//! Random small clusters, changed at random, on the real kernel: what the model says of a packet happens to it, and a
//! ruleset reached change by change is the one that is built at once.
//!
//! `PORTOLAN_CASES` says how many clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ipnet::IpNet;
use portolan_dataplane::{DataPlane, Driver};
use portolan_forward::{
    Affinity, EndpointPort, EndpointView, LocalTraffic, NodePortAddresses, NodeView, Outcome, Policy,
    Protocol, ServicePortView, trace,
};
use portolan_netlink::conntrack::{Conntrack, Filter};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use super::common::planes::{ObjectsOf, Plane};
use super::common::{Case, NODE, World, ip, node, on_every_kernel, on_plane};
use super::net::{IMPATIENT, NODE_ADDRESSES, Net, PATIENT, Seen};
use super::{ELSEWHERE, Lab, POD_1, POD_2, PORT, open};

const CASES: u32 = 20;
const HOSTS: [&str; 5] = ["outside", "node", "pod-1", "pod-2", "elsewhere"];
const SECOND_PORT: u16 = 8081;
const TRIES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Put(Box<Case>),
    Remove(u8),
    Node(NodeView),
    /// Another process takes over what is in the kernel.
    Restart,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    from: &'static str,
    protocol: Protocol,
    to: SocketAddr,
}

fn cluster_ip(family: usize, number: u8) -> String {
    [format!("172.30.0.{number}"), format!("fd00:30::{number}")][family].clone()
}

/// Load-balancer addresses and external IPs come from one small range, so that Services want the same ones.
fn balancer(family: usize, number: u8) -> String {
    [format!("198.51.100.{number}"), format!("2001:db8:51::{number}")][family].clone()
}

fn families() -> impl Strategy<Value = Vec<usize>> {
    subsequence(vec![0, 1], 1..=2)
}

fn maybe_port() -> impl Strategy<Value = Option<u16>> {
    proptest::option::of(30001..30004_u16)
}

/// A TCP port, a UDP port, or both under names of their own; the same node port may serve either.
fn ports() -> impl Strategy<Value = Vec<ServicePortView>> {
    let port = |name: &str, protocol, node_port| ServicePortView {
        name: name.into(),
        protocol,
        port: 80,
        node_port,
    };
    (0..3u8, maybe_port(), maybe_port()).prop_map(move |(which, tcp, udp)| match which {
        0 => vec![port("", Protocol::Tcp, tcp)],
        1 => vec![port("", Protocol::Udp, udp)],
        _ => vec![port("tcp", Protocol::Tcp, tcp), port("udp", Protocol::Udp, udp)],
    })
}

/// Where an endpoint is, its port, its condition, its zone hint.
fn endpoints() -> impl Strategy<Value = Vec<(usize, u16, u8, u8)>> {
    vec((0..3usize, select(vec![PORT, SECOND_PORT]), 0..9u8, 0..4u8), 0..6)
}

fn case() -> impl Strategy<Value = Case> {
    let names = (0..5u8, 1..5u8, families());
    let addresses = (vec((1..4u8, 0..2usize), 0..2), vec((1..4u8, 0..2usize), 0..2));
    let flags = (any::<[bool; 2]>(), select(vec![None, None, Some(60), Some(10800)]));
    let sources =
        subsequence(vec!["203.0.113.0/24", "10.1.0.11/32", "192.0.2.1/32", "2001:db8:113::/48"], 0..3);
    (names, addresses, flags, sources, ports(), endpoints()).prop_map(
        |((name, number, families), (balancers, externals), (local, affinity), sources, ports, endpoints)| {
            let ips: Vec<String> = families.iter().map(|family| cluster_ip(*family, number)).collect();
            let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
            let mut case = Case::new(&format!("service-{name}"), &ips);
            let policy = |local| if local { Policy::Local } else { Policy::Cluster };
            let service = &mut case.service;
            service.internal_policy = policy(local[0]);
            service.external_policy = policy(local[1]);
            service.affinity = affinity.map(|timeout_seconds| Affinity { timeout_seconds });
            service.load_balancer_ips =
                balancers.iter().map(|(n, family)| ip(&balancer(*family, *n))).collect();
            service.external_ips = externals.iter().map(|(n, family)| ip(&balancer(*family, *n))).collect();
            service.source_ranges = sources.iter().map(|range| range.parse::<IpNet>().unwrap()).collect();
            service.ports = ports;
            case.endpoints = endpoints.into_iter().flat_map(|one| endpoint(&case, one)).collect();
            case
        },
    )
}

/// In both families; the Service takes those of its own.
fn endpoint(case: &Case, (place, port, condition, hint): (usize, u16, u8, u8)) -> [EndpointView; 2] {
    let addresses = [POD_1, POD_2, ELSEWHERE][place];
    let of = |port_of: &ServicePortView| EndpointPort {
        name: port_of.name.clone(),
        protocol: port_of.protocol,
        port,
    };
    let ports: Arc<[EndpointPort]> = case.service.ports.iter().map(of).collect();
    addresses.map(|address| EndpointView {
        address: ip(address),
        ready: condition > 1,
        serving: condition > 0,
        terminating: condition == 1,
        node_name: Some(if place == 2 { "another-node" } else { NODE }.into()),
        for_zones: if hint == 0 { vec!["zone-b".into()] } else { vec!["zone-a".into()] },
        for_nodes: Vec::new(),
        ports: ports.clone(),
    })
}

fn node_view() -> impl Strategy<Value = NodeView> {
    let local = select(vec![
        node().local_traffic,
        LocalTraffic::Unknown,
        LocalTraffic::InterfacePrefix("veth".into()),
        LocalTraffic::Interface("veth1".into()),
    ]);
    (local, any::<bool>(), prop::bool::weighted(0.2), any::<bool>()).prop_map(
        |(local_traffic, all, masquerade_all, zone)| {
            let addresses = node().node_port_addresses;
            let node_port_addresses = if all { NodePortAddresses::All } else { addresses };
            let zone = zone.then(|| "zone-a".into());
            NodeView { local_traffic, node_port_addresses, masquerade_all, zone, ..node() }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => case().prop_map(|case| Step::Put(Box::new(case))),
        2 => (0..5u8).prop_map(Step::Remove),
        1 => node_view().prop_map(Step::Node),
        1 => Just(Step::Restart),
    ]
}

fn probe() -> impl Strategy<Value = Probe> {
    let to = prop_oneof![
        8 => (0..2usize, 1..5u8, select(vec![80, 80, 80, 80, 80, 81]))
            .prop_map(|(family, n, port)| (cluster_ip(family, n), port)),
        4 => (0..2usize, 1..4u8).prop_map(|(family, n)| (balancer(family, n), 80)),
        4 => (0..2usize, 30001..30004_u16)
            .prop_map(|(family, port)| (NODE_ADDRESSES[family].to_owned(), port)),
        1 => (0..2usize, select(vec![POD_1, ELSEWHERE]))
            .prop_map(|(family, pod)| (pod[family].to_owned(), PORT)),
    ];
    let protocol = select(vec![Protocol::Tcp, Protocol::Udp]);
    (select(HOSTS.to_vec()), protocol, to).prop_map(|(from, protocol, (to, port))| Probe {
        from,
        protocol,
        to: SocketAddr::new(ip(&to), port),
    })
}

/// A cluster that is changed. What the kernel holds from the one before must not matter.
struct Site<P: Plane> {
    lab: Lab<P>,
    cases: BTreeMap<String, Case>,
}

impl<P: Plane> Site<P> {
    fn new() -> Self {
        let lab = Lab::<P>::new(node(), []);
        for pod in ["pod-1", "pod-2", "elsewhere"] {
            lab.net.serve(pod, SECOND_PORT);
        }
        Self { lab, cases: BTreeMap::new() }
    }

    fn begin(&mut self, node: NodeView) {
        self.cases.clear();
        self.lab.world = World::new(node);
        self.lab.driver = open::<P>(&self.lab.net);
        self.lab.driver.sync(&self.lab.world.table).unwrap();
    }

    fn take(&mut self, step: &Step) {
        let (world, driver_of) = (&mut self.lab.world, &mut self.lab.driver);
        let delta = match step {
            Step::Put(case) => {
                self.cases.insert(case.key().to_string(), (**case).clone());
                world.put([(**case).clone()])
            }
            Step::Remove(name) => {
                let key = Case::new(&format!("service-{name}"), &[]).key();
                self.cases.remove(&key.to_string());
                world.remove([key])
            }
            Step::Node(node) => world.set_node(node.clone(), self.cases.values().cloned()),
            Step::Restart => {
                *driver_of = open::<P>(&self.lab.net);
                driver_of.sync(&world.table).unwrap();
                return;
            }
        };
        driver_of.apply(&delta).unwrap();
        let drift = driver_of.verify(&world.table).unwrap();
        assert!(drift.is_empty(), "after {step:?}: {drift:?}");
    }

    /// The kernel holds what a fresh one would.
    fn equals_from_scratch(&mut self) {
        let mut scratch = Driver::new(P::fake());
        scratch.sync(&self.lab.world.table).unwrap();
        let held = content::<P>(self.lab.driver.plane_mut().observe().unwrap());
        assert_eq!(held, content::<P>(scratch.plane_mut().observe().unwrap()));
    }

    /// Sends the packets; each host's one after the other, since a client's affinity depends on the order.
    fn agrees(&self, probes: &[Probe]) {
        self.lab.net.within("node", || {
            Conntrack::open().unwrap().delete_matching(&Filter::default()).unwrap();
        });
        std::thread::scope(|scope| {
            for host in HOSTS {
                let of_host = probes.iter().filter(move |probe| probe.from == host);
                scope.spawn(move || of_host.for_each(|probe| self.agrees_on(probe)));
            }
        });
    }

    fn agrees_on(&self, probe: &Probe) {
        let Probe { from, protocol, to } = *probe;
        let net = &self.lab.net;
        let packet = Lab::<P>::packet(net.host(from), protocol, to);
        let outcome = trace(&self.lab.world.table, &packet).outcome;
        let expected = match &outcome {
            Outcome::Pass => match passes(net, from, to) {
                Some(seen) => BTreeSet::from([seen]),
                None => return,
            },
            _ => self.lab.expected(net.host(from), protocol, to).unwrap(),
        };
        let patience = if expected.contains(&Seen::Nothing) { IMPATIENT } else { PATIENT };
        let tries = if expected == BTreeSet::from([Seen::Nothing]) { 1 } else { TRIES };
        let seen = net.connect_all(from, protocol, to, tries, patience);
        let odd = seen.iter().find(|seen| !expected.contains(seen));
        assert!(odd.is_none(), "{probe:?}: {odd:?}, but the model says {outcome:?}");
        if matches!(outcome, Outcome::Forward { affinity: Some(_), .. }) {
            let first = &seen[0];
            assert!(seen.iter().all(|seen| seen == first), "{probe:?}: affinity, but {seen:?}");
        }
    }
}

/// What an untouched packet meets; `None` where nobody is.
fn passes(net: &Net, from: &str, to: SocketAddr) -> Option<Seen> {
    if NODE_ADDRESSES.map(ip).contains(&to.ip()) {
        return Some(Seen::Refused);
    }
    let server = net.hosts.iter().find(|host| host.addresses.contains(&to.ip()))?;
    let client = net.host(from).addresses[usize::from(to.is_ipv6())];
    Some(Seen::Answer { server: server.name.into(), client })
}

/// Everything in the kernel but what depends on how it came there, with how often it is there.
fn content<P: Plane>(objects: ObjectsOf<P>) -> BTreeMap<String, usize> {
    let mut content = BTreeMap::new();
    for (key, object) in objects {
        *content.entry(P::content(&key, &object)).or_default() += 1;
    }
    content
}

fn random_clusters_and_changes_do_on_the_kernel_what_the_model_says<P: Plane>() {
    let cases = std::env::var("PORTOLAN_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    let site = Mutex::new(Site::<P>::new());
    let first = vec(case().prop_map(|case| Step::Put(Box::new(case))), 3..7);
    let strategy = (node_view(), first, vec(step(), 0..8), vec(probe(), 24));
    let result = TestRunner::new(config).run(&strategy, |(node, first, steps, probes)| {
        let mut site = site.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        site.begin(node);
        for step in first.iter().chain(&steps) {
            site.take(step);
        }
        site.equals_from_scratch();
        site.agrees(&probes);
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

on_every_kernel! {
    random_clusters_and_changes_do_on_the_kernel_what_the_model_says,
}

// Another way into the kernel than that of the variant which this machine uses.
on_plane! {
    iptables_legacy,
    IptablesLegacy,
    random_clusters_and_changes_do_on_the_kernel_what_the_model_says,
}
