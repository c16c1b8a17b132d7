//! Real packets through the real kernel, checked against `forward::trace`, which says what every data plane must do.
//!
//! Each test makes a node with pods, a pod elsewhere and an outside client in network namespaces (root is needed) and
//! sends connections from all of them to every frontend.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

#[path = "packets/affinity.rs"]
mod affinity;
#[path = "packets/algorithms.rs"]
mod algorithms;
mod common;
#[path = "packets/handover.rs"]
mod handover;
#[path = "packets/ipvs_kernel.rs"]
mod ipvs_kernel;
#[path = "common/net.rs"]
mod net;
#[path = "packets/random.rs"]
mod random;
#[path = "packets/semantics.rs"]
mod semantics;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use common::kernels::has_nftables;
use common::planes::Plane;
use common::{Case, World, ip, node, on_every_kernel, on_plane};
use net::{Host, IMPATIENT, NODE_ADDRESSES, Net, PATIENT, Seen};
use portolan_dataplane::Driver;
use portolan_forward::{LocalTraffic, NodePortAddresses, NodeView, Outcome, Packet, Protocol, trace};

const PORT: u16 = 8080;
const POD_1: [&str; 2] = ["10.1.0.11", "fd00:10:1::11"];
const POD_2: [&str; 2] = ["10.1.0.12", "fd00:10:1::12"];
const ELSEWHERE: [&str; 2] = ["10.2.0.21", "fd00:10:2::21"];
const OUTSIDE: [&str; 2] = ["203.0.113.50", "2001:db8:113::50"];

struct Lab<P: Plane> {
    net: Net,
    world: World,
    driver: Driver<P::Real>,
}

impl<P: Plane> Lab<P> {
    fn new(node: NodeView, cases: impl IntoIterator<Item = Case>) -> Self {
        let net =
            Net::new(&[("outside", OUTSIDE), ("pod-1", POD_1), ("pod-2", POD_2), ("elsewhere", ELSEWHERE)]);
        for pod in ["pod-1", "pod-2", "elsewhere"] {
            net.serve(pod, PORT);
        }
        let mut world = World::new(node);
        world.put(cases);
        let mut driver = open::<P>(&net);
        driver.sync(&world.table).unwrap();
        Self { net, world, driver }
    }

    fn put(&mut self, cases: impl IntoIterator<Item = Case>) {
        let delta = self.world.put(cases);
        self.driver.apply(&delta).unwrap();
    }

    fn packet(from: &Host, protocol: Protocol, to: SocketAddr) -> Packet {
        let from_node = from.name == "node";
        Packet {
            source: from.addresses[usize::from(to.is_ipv6())],
            destination: to.ip(),
            protocol,
            port: to.port(),
            interface: (!from_node).then(|| from.interface.clone()),
            from_node,
            to_node: NODE_ADDRESSES.map(ip).contains(&to.ip()),
        }
    }

    /// What the model allows a client to see; `None` for packets that are no matter of Services.
    fn expected(&self, from: &Host, protocol: Protocol, to: SocketAddr) -> Option<BTreeSet<Seen>> {
        let packet = Self::packet(from, protocol, to);
        let outcome = trace(&self.world.table, &packet).outcome;
        Some(match outcome {
            Outcome::Pass => return None,
            Outcome::Reject => BTreeSet::from([Seen::Refused]),
            Outcome::Drop => BTreeSet::from([Seen::Nothing]),
            Outcome::Forward { backends, .. } => backends
                .iter()
                .map(|backend| {
                    let server =
                        self.net.hosts.iter().find(|host| host.addresses.contains(&backend.endpoint.address));
                    let masqueraded = ip(NODE_ADDRESSES[usize::from(to.is_ipv6())]);
                    let client = if backend.masquerade { masqueraded } else { packet.source };
                    // A pod elsewhere that goes through this node to reach itself meets a packet of its own.
                    if client == backend.endpoint.address {
                        return Seen::Nothing;
                    }
                    Seen::Answer { server: server.unwrap().name.into(), client }
                })
                .collect(),
        })
    }

    /// Sends connections from one host until everything that the model allows was seen, and nothing else.
    fn check(&self, from: &str, protocol: Protocol, to: SocketAddr) {
        let Some(expected) = self.expected(self.net.host(from), protocol, to) else {
            panic!("{from} to {to}/{protocol} is no matter of Services")
        };
        // With uniform choice among up to three, one is missed in 64 tries once in 10^11 runs.
        let tries = if expected.len() == 1 { 2 } else { 64 };
        let patience = if expected.contains(&Seen::Nothing) { IMPATIENT } else { PATIENT };
        let seen = self.net.connect_all(from, protocol, to, tries, patience);
        let seen: BTreeSet<_> = seen.into_iter().collect();
        assert_eq!(seen, expected, "from {from} to {to}/{protocol}");
    }

    fn check_all(&self, protocol: Protocol, to: &[(&str, u16)]) {
        for (address, port) in to {
            for from in ["outside", "node", "pod-1", "pod-2", "elsewhere"] {
                self.check(from, protocol, SocketAddr::new(ip(address), *port));
            }
        }
    }
}

fn everywhere(case: Case, family: usize) -> Case {
    case.local_endpoint(POD_1[family], PORT)
        .local_endpoint(POD_2[family], PORT)
        .endpoint(ELSEWHERE[family], PORT)
}

/// A data plane over the kernel of the net's node, as a process that has just started.
fn open<P: Plane>(net: &Net) -> Driver<P::Real> {
    Driver::new(net.within("node", P::open))
}

/// A Service of every kind in one family, and every frontend to be tried.
fn kinds(family: usize, protocol: Protocol) -> (Vec<Case>, Vec<(String, u16)>) {
    let (prefix, balancer) = [("172.30.0.", "198.51.100."), ("fd00:30::", "2001:db8:51::")][family];
    let case = |number: u16, name: &str| {
        let case = Case::new(name, &[&format!("{prefix}{number}")]).port(protocol, 80);
        case.node_port(30000 + number).load_balancer(&format!("{balancer}{number}"))
    };
    let sources = [["203.0.113.0/24", "10.1.0.11/32"], ["2001:db8:113::/48", "fd00:10:1::11/128"]][family];
    let cases = vec![
        case(1, "empty"),
        everywhere(case(2, "cluster"), family),
        everywhere(case(3, "internal-local"), family).internal_local(),
        everywhere(case(4, "external-local"), family).external_local(),
        case(5, "external-local-elsewhere").external_local().endpoint(ELSEWHERE[family], PORT),
        case(6, "internal-local-elsewhere").internal_local().endpoint(ELSEWHERE[family], PORT),
        everywhere(case(7, "guarded"), family).sources(&sources),
        everywhere(case(8, "guarded-local"), family).sources(&sources).external_local(),
        case(9, "guarded-empty").sources(&sources),
        case(10, "one-pod").local_endpoint(POD_1[family], PORT),
    ];
    let numbers = 1..=cases.len() as u16;
    let mut frontends: Vec<_> = numbers
        .flat_map(|n| {
            let own = NODE_ADDRESSES[family].to_owned();
            [(format!("{prefix}{n}"), 80), (own, 30000 + n), (format!("{balancer}{n}"), 80)]
        })
        .collect();
    frontends.push((format!("{prefix}2"), 81));
    frontends.push((format!("{prefix}99"), 80));
    (cases, frontends)
}

fn every_frontend<P: Plane>(node: NodeView, family: usize, protocol: Protocol) {
    let (cases, frontends) = kinds(family, protocol);
    let lab = Lab::<P>::new(node, cases);
    let frontends: Vec<_> = frontends.iter().map(|(address, port)| (address.as_str(), *port)).collect();
    std::thread::scope(|scope| {
        for chunk in frontends.chunks(4) {
            let lab = &lab;
            scope.spawn(move || lab.check_all(protocol, chunk));
        }
    });
}

fn every_frontend_from_everywhere_by_tcp_over_ipv4<P: Plane>() {
    every_frontend::<P>(node(), 0, Protocol::Tcp);
}

fn every_frontend_from_everywhere_by_udp_over_ipv4<P: Plane>() {
    every_frontend::<P>(node(), 0, Protocol::Udp);
}

fn every_frontend_from_everywhere_by_tcp_over_ipv6<P: Plane>() {
    every_frontend::<P>(node(), 1, Protocol::Tcp);
}

fn every_frontend_from_everywhere_by_udp_over_ipv6<P: Plane>() {
    every_frontend::<P>(node(), 1, Protocol::Udp);
}

fn local_traffic_by_interface_and_node_ports_on_every_address<P: Plane>() {
    let node = NodeView {
        local_traffic: LocalTraffic::InterfacePrefix("veth".into()),
        node_port_addresses: NodePortAddresses::All,
        ..node()
    };
    every_frontend::<P>(node, 0, Protocol::Tcp);
}

fn local_traffic_that_cannot_be_told<P: Plane>() {
    every_frontend::<P>(NodeView { local_traffic: LocalTraffic::Unknown, ..node() }, 0, Protocol::Tcp);
}

fn local_traffic_by_interface_over_ipv6_with_masquerade_all<P: Plane>() {
    let node = NodeView {
        local_traffic: LocalTraffic::Interface("veth1".into()),
        node_port_addresses: NodePortAddresses::All,
        masquerade_all: true,
        ..node()
    };
    every_frontend::<P>(node, 1, Protocol::Tcp);
}

fn server_of(seen: &Seen) -> &str {
    match seen {
        Seen::Answer { server, .. } => server,
        other => panic!("no answer: {other:?}"),
    }
}

fn ct_1_and_3_established_connections_survive_every_change_and_a_restart<P: Plane>() {
    use std::io::{Read, Write};
    let case = Case::new("long", &["172.30.0.1"]).endpoint(ELSEWHERE[0], 9090);
    let mut lab = Lab::<P>::new(node(), [case.clone()]);
    let listener =
        lab.net.within("elsewhere", || std::net::TcpListener::bind((ip(ELSEWHERE[0]), 9090)).unwrap());
    let to = SocketAddr::new(ip("172.30.0.1"), 80);
    let mut client = lab.net.within("pod-1", || std::net::TcpStream::connect(to).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let mut works = || {
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    };
    works();
    lab.put([everywhere(Case::new("long", &["172.30.0.1"]), 0)]);
    works();
    let mut restarted = open::<P>(&lab.net);
    assert!(restarted.sync(&lab.world.table).unwrap().is_noop());
    works();
    lab.put([Case::new("long", &["172.30.0.1"])]);
    works();
    assert_eq!(lab.net.connect("pod-1", Protocol::Tcp, to), Seen::Refused, "new ones follow the new rules");
}

fn ct_4_no_new_connection_fails_while_the_pool_changes<P: Plane>() {
    let all = everywhere(Case::new("busy", &["172.30.0.1"]), 0);
    let mut lab = Lab::<P>::new(node(), [all.clone()]);
    let to = SocketAddr::new(ip("172.30.0.1"), 80);
    let net = &lab.net;
    let clients = |from| net.connect_all(from, Protocol::Tcp, to, 1000, PATIENT);
    std::thread::scope(|scope| {
        let running = ["pod-1", "outside", "node"].map(|from| scope.spawn(move || clients(from)));
        while running.iter().any(|client| !client.is_finished()) {
            for case in [all.clone().without(ELSEWHERE[0]), all.clone().without(POD_1[0]), all.clone()] {
                let delta = lab.world.put([case]);
                lab.driver.apply(&delta).unwrap();
            }
        }
        for client in running {
            for seen in client.join().unwrap() {
                server_of(&seen);
            }
        }
    });
}

fn masq_4_other_bits_of_the_mark_stay_as_they_were<P: Plane>() {
    let case = everywhere(Case::new("marked", &["172.30.0.1"]).node_port(30001), 0);
    let lab = Lab::<P>::new(node(), [case]);
    if !lab.net.within("node", has_nftables) {
        // IPVS in User-Mode Linux. What is seen there is before the rules that masquerade.
        let mark = |chain: &str, args: &str| {
            lab.net.run("node", &format!("iptables-legacy -t mangle -A {chain} -p tcp {args}"));
        };
        mark("PREROUTING", "--dport 30001 -j MARK --set-mark 0x00010003");
        mark("POSTROUTING", "--dport 8080 -m mark --mark 0x00010003/0xffffbfff -j ACCEPT");
        let to = SocketAddr::new(ip(NODE_ADDRESSES[0]), 30001);
        server_of(&lab.net.connect("outside", Protocol::Tcp, to));
        let listing = lab.net.run("node", "iptables-legacy -t mangle -vnL POSTROUTING");
        let rule = listing.lines().find(|line| line.contains("mark match")).unwrap_or_default();
        assert!(rule.split_whitespace().next().is_some_and(|packets| packets != "0"), "{listing}");
        return;
    }
    let script = "table ip witness {
        chain before { type filter hook prerouting priority raw; tcp dport 30001 meta mark set 0x00010003; }
        chain after { type filter hook postrouting priority 300; tcp dport 8080 ct state new meta mark 0x00010003 counter; }
    }";
    lab.net.nft_load(script);
    let to = SocketAddr::new(ip(NODE_ADDRESSES[0]), 30001);
    let seen = lab.net.connect("outside", Protocol::Tcp, to);
    let masqueraded: IpAddr = ip(NODE_ADDRESSES[0]);
    assert!(matches!(seen, Seen::Answer { client, .. } if client == masqueraded), "{seen:?}");
    let listing = lab.net.nft_list(&["table", "ip", "witness"]);
    assert!(listing.contains("counter packets 1 "), "{listing}");
}

on_every_kernel! {
    every_frontend_from_everywhere_by_tcp_over_ipv4,
    every_frontend_from_everywhere_by_udp_over_ipv4,
    every_frontend_from_everywhere_by_tcp_over_ipv6,
    every_frontend_from_everywhere_by_udp_over_ipv6,
    local_traffic_by_interface_and_node_ports_on_every_address,
    local_traffic_that_cannot_be_told,
    local_traffic_by_interface_over_ipv6_with_masquerade_all,
    ct_1_and_3_established_connections_survive_every_change_and_a_restart,
    ct_4_no_new_connection_fails_while_the_pool_changes,
    masq_4_other_bits_of_the_mark_stay_as_they_were,
}

// The legacy variant of iptables beside the one that this machine uses.
on_plane! {
    iptables_legacy,
    IptablesLegacy,
    every_frontend_from_everywhere_by_tcp_over_ipv4,
    every_frontend_from_everywhere_by_tcp_over_ipv6,
    ct_4_no_new_connection_fails_while_the_pool_changes,
}
