use portolan_forward::{NodePortAddresses, Outcome, Packet, Protocol, trace};

use crate::build::*;

#[test]
fn np_1_one_number_serves_tcp_and_udp_apart() {
    let mut service = load_balancer();
    let mut udp = port("dns", Protocol::Udp, 53);
    udp.node_port = Some(NODE_PORT);
    service.ports.push(udp);
    let world = one(&service, &[local()]);
    goes_to(&world.send(OUTSIDE, NODE_IP, NODE_PORT), &[LOCAL]);
    assert_eq!(world.send_protocol(Protocol::Udp, OUTSIDE, NODE_IP, NODE_PORT), Outcome::Reject);
}

#[test]
fn np_2_node_ports_listen_on_the_configured_addresses_only() {
    let world = one(&load_balancer(), &[local()]);
    assert_eq!(world.send(OUTSIDE, "192.168.0.2", NODE_PORT), Outcome::Pass);
}

#[test]
fn np_2_all_addresses_means_every_local_one() {
    let mut all = node();
    all.node_port_addresses = NodePortAddresses::All;
    let world = world(all, &[(load_balancer(), vec![local()])]);
    let packet = |to_node| Packet {
        source: ip(OUTSIDE),
        destination: ip("192.168.7.7"),
        protocol: Protocol::Tcp,
        port: NODE_PORT,
        interface: None,
        from_node: false,
        to_node,
    };
    goes_to(&trace(&world.table, &packet(true)).outcome, &[LOCAL]);
    assert_eq!(trace(&world.table, &packet(false)).outcome, Outcome::Pass);
}

#[test]
fn np_3_the_health_check_counts_local_ready_addresses_once() {
    let mut service = load_balancer();
    service.external_policy = portolan_forward::Policy::Local;
    service.health_check_node_port = Some(32000);
    let second = endpoint("10.244.1.6", NODE);
    let world =
        one(&service, &[local(), local(), second, terminating(endpoint("10.244.1.7", NODE)), remote()]);
    let check = world.table.get(&service.key).unwrap().health_check.unwrap();
    assert_eq!((check.port, check.local_endpoints), (32000, 2));
}
