//! Session affinity: who keeps its endpoint, for how long, and what happens when that endpoint goes and comes back.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use portolan_forward::Protocol;

use super::common::planes::Plane;
use super::common::{Case, ip, node, on_every_kernel, on_plane};
use super::net::{NODE_ADDRESSES, PATIENT, Seen};
use super::{ELSEWHERE, Lab, OUTSIDE, everywhere, server_of};

/// AFF-1 to AFF-4, in one family.
fn affinity<P: Plane>(family: usize) {
    let (cluster_ip, balancer) = [("172.30.0.1", "198.51.100.1"), ("fd00:30::1", "2001:db8:51::1")][family];
    let case = Case::new("sticky", &[cluster_ip]).node_port(30001).load_balancer(balancer).affinity(10800);
    let all = everywhere(case, family);
    let mut lab = Lab::<P>::new(node(), [all.clone()]);
    let frontends = [(cluster_ip, 80), (balancer, 80), (NODE_ADDRESSES[family], 30001)];
    let to = frontends.map(|(address, port)| SocketAddr::new(ip(address), port));
    let servers = |lab: &Lab<P>, from: &str, count: usize| -> BTreeSet<String> {
        let seen = to.iter().flat_map(|to| lab.net.connect_all(from, Protocol::Tcp, *to, count, PATIENT));
        seen.map(|seen| server_of(&seen).to_owned()).collect()
    };
    let given: Vec<_> = ["outside", "node", "elsewhere", "pod-1"]
        .into_iter()
        .map(|from| {
            let servers = servers(&lab, from, 6);
            assert_eq!(servers.len(), 1, "{from} changes between {servers:?}");
            (from, servers.into_iter().next().unwrap())
        })
        .collect();
    let (client, gone) = given[0].clone();
    let address = lab.net.host(&gone).addresses[family].to_string();
    lab.put([all.clone().without(&address)]);
    for (from, before) in &given {
        let now = servers(&lab, from, 6);
        assert_eq!(now.len(), 1, "{from} changes between {now:?}");
        assert_eq!(now.contains(before), *before != gone, "{from} had {before}, {gone} is gone, now {now:?}");
    }
    let second: BTreeSet<_> = servers(&lab, client, 1);
    lab.put([all]);
    assert_eq!(servers(&lab, client, 6), second, "the endpoint that is back takes nobody away");
}

fn aff_1_2_3_a_client_keeps_its_endpoint_over_ipv4<P: Plane>() {
    affinity::<P>(0);
}

fn aff_1_2_3_a_client_keeps_its_endpoint_over_ipv6<P: Plane>() {
    affinity::<P>(1);
}

fn aff_1_affinity_ends_after_its_time<P: Plane>() {
    // IPVS remembers a client while it has an entry of one of its connections, and the last of them takes a second to go.
    let case = everywhere(Case::new("sticky", &["172.30.0.1"]).affinity(3), 0);
    let lab = Lab::<P>::new(node(), [case]);
    let to = SocketAddr::new(ip("172.30.0.1"), 80);
    let first = lab.net.connect("outside", Protocol::Tcp, to);
    let deadline = Instant::now() + Duration::from_mins(1);
    let mut pause = Duration::from_millis(3200);
    // Each connection starts the time anew, so the pauses must be longer.
    while lab.net.connect("outside", Protocol::Tcp, to) == first {
        assert!(Instant::now() < deadline, "it never ends");
        thread::sleep(pause);
        pause += Duration::from_millis(50);
    }
}

fn affinity_of_policy_local_knows_both_pools<P: Plane>() {
    let case = Case::new("sticky", &["172.30.0.1"]).node_port(30001).external_local().affinity(60);
    let lab = Lab::<P>::new(node(), [everywhere(case, 0)]);
    let node_port = SocketAddr::new(ip(NODE_ADDRESSES[0]), 30001);
    let outside = lab.net.connect_all("outside", Protocol::Tcp, node_port, 8, PATIENT);
    let servers: BTreeSet<_> = outside.iter().map(server_of).collect();
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert!(servers.iter().all(|server| server.starts_with("pod-")), "{servers:?}");
    let client = ip(OUTSIDE[0]);
    assert!(outside.iter().all(|seen| matches!(seen, Seen::Answer { client: c, .. } if *c == client)));
}

/// The client uses a port again that it had in a connection to the endpoint that left. Whatever the kernel still has of that
/// connection must not lead it there.
fn aff_3_nor_does_an_old_port_of_the_client_lead_it_back<P: Plane>() {
    let case = Case::new("sticky", &["172.30.0.1"]).node_port(30001).load_balancer("198.51.100.1");
    let all = everywhere(case.affinity(10800), 0);
    let mut lab = Lab::<P>::new(node(), [all.clone()]);
    let to = |address, port| SocketAddr::new(ip(address), port);
    let connect = |lab: &Lab<P>, to| server_of(&lab.net.connect_from("outside", 20_000, to)).to_owned();
    let first = connect(&lab, to("172.30.0.1", 80));
    let address = lab.net.host(&first).addresses[0].to_string();
    lab.put([all.clone().without(&address)]);
    let second = server_of(&lab.net.connect("outside", Protocol::Tcp, to("172.30.0.1", 80))).to_owned();
    assert_ne!(second, first);
    // IPVS forgets the connections of a destination that is gone a moment after it says that it has.
    thread::sleep(Duration::from_millis(200));
    lab.put([all]);
    for to in [to("198.51.100.1", 80), to(NODE_ADDRESSES[0], 30001)] {
        assert_eq!(connect(&lab, to), second, "at {to}");
    }
}

fn ct_1_established_connections_outlive_the_endpoint_they_are_bound_to<P: Plane>() {
    let case = Case::new("long", &["172.30.0.1"]).affinity(10800);
    let mut lab = Lab::<P>::new(node(), [case.clone().endpoint(ELSEWHERE[0], 9090)]);
    let listener = lab.net.within("elsewhere", || TcpListener::bind((ip(ELSEWHERE[0]), 9090)).unwrap());
    let to = SocketAddr::new(ip("172.30.0.1"), 80);
    let mut client = lab.net.within("pod-1", || TcpStream::connect(to).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    let mut works = || {
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        server.write_all(b"y").unwrap();
        client.read_exact(&mut byte).unwrap();
    };
    works();
    lab.put([everywhere(case.clone(), 0)]);
    works();
    let seen = lab.net.connect_all("pod-1", Protocol::Tcp, to, 4, PATIENT);
    let to_others: BTreeSet<_> = seen.iter().map(server_of).collect();
    assert_eq!(to_others.len(), 1, "{to_others:?}");
    works();
    lab.put([everywhere(case, 0).endpoint(ELSEWHERE[0], 9090)]);
    works();
}

on_every_kernel! {
    aff_1_2_3_a_client_keeps_its_endpoint_over_ipv4,
    aff_1_2_3_a_client_keeps_its_endpoint_over_ipv6,
    aff_3_nor_does_an_old_port_of_the_client_lead_it_back,
    aff_1_affinity_ends_after_its_time,
    affinity_of_policy_local_knows_both_pools,
    ct_1_established_connections_outlive_the_endpoint_they_are_bound_to,
}

on_plane! {
    iptables_legacy,
    IptablesLegacy,
    aff_1_2_3_a_client_keeps_its_endpoint_over_ipv4,
    aff_3_nor_does_an_old_port_of_the_client_lead_it_back,
}
