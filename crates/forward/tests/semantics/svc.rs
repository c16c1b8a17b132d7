use portolan_forward::{EndpointPort, NoteKind, Outcome, Protocol, ServiceKey};

use crate::build::*;

#[test]
fn svc_1_neither_external_name_nor_headless_nor_unallocated_is_proxied() {
    let mut external_name = service();
    external_name.external_name = true;
    let mut headless = service();
    headless.cluster_ips.clear();
    for service in [external_name, headless] {
        let world = one(&service, &[local()]);
        assert!(world.table.get(&service.key).unwrap().ports.is_empty());
    }
}

#[test]
fn svc_2_a_service_of_another_proxy_is_left_alone() {
    let mut other = service();
    other.other_proxy = true;
    let world = one(&other, &[local()]);
    assert_eq!(world.send(OUTSIDE, "10.97.0.1", 80), Outcome::Pass);
    assert!(world.table.get(&other.key).unwrap().ports.is_empty());
}

#[test]
fn svc_3_a_port_uses_endpoint_ports_of_the_same_name_and_protocol() {
    let mut service = service();
    service.ports.push(port("admin", Protocol::Tcp, 81));
    service.ports.push(port("http-udp", Protocol::Udp, 80));
    let mut a = local();
    a.ports = vec![
        EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 },
        EndpointPort { name: "http-udp".into(), protocol: Protocol::Udp, port: 8053 },
    ]
    .into();
    let mut b = remote();
    b.ports = vec![EndpointPort { name: "admin".into(), protocol: Protocol::Tcp, port: 9000 }].into();
    let world = one(&service, &[a, b]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    goes_to(&world.send(POD, CLUSTER_IP, 81), &[REMOTE]);
    goes_to(&world.send_protocol(Protocol::Udp, POD, CLUSTER_IP, 80), &[LOCAL]);
    assert_eq!(world.send_protocol(Protocol::Udp, POD, CLUSTER_IP, 81), Outcome::Reject);
}

#[test]
fn svc_4_an_endpoint_in_several_slices_counts_once() {
    let world = one(&service(), &[local(), remote(), local()]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
    assert!(world.notes.iter().any(|note| matches!(note.kind, NoteKind::DuplicateEndpoint { .. })));
}

#[test]
fn svc_4_a_terminating_duplicate_gives_way_whatever_the_order() {
    for endpoints in [[terminating(local()), local()], [local(), terminating(local())]] {
        let world = one(&service(), &[endpoints[0].clone(), endpoints[1].clone(), remote()]);
        goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
    }
}

#[test]
fn svc_5_every_frontend_of_a_port_is_served() {
    let mut service = load_balancer();
    service.external_ips = vec![ip("203.0.113.99")];
    let world = one(&service, &[local()]);
    for (destination, port) in [(CLUSTER_IP, 80), (LB_IP, 80), ("203.0.113.99", 80), (NODE_IP, NODE_PORT)] {
        goes_to(&world.send(OUTSIDE, destination, port), &[LOCAL]);
    }
    assert_eq!(world.send(OUTSIDE, NODE_IP, 80), Outcome::Pass);
    assert_eq!(world.send(OUTSIDE, "203.0.113.1", NODE_PORT), Outcome::Pass);
}

#[test]
fn two_services_with_one_address_are_decided_the_same_way_in_any_order() {
    let first = service();
    let mut second = service();
    second.key = ServiceKey::new("default", "zzz");
    let mut thief = service();
    thief.key = ServiceKey::new("aaa", "thief");
    thief.cluster_ips = vec![ip("10.96.0.66")];
    thief.external_ips = vec![ip(CLUSTER_IP)];
    let all = [(first, vec![local()]), (second, vec![remote()]), (thief, vec![remote()])];
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let world = world(node(), &order.map(|index| all[index].clone()));
        goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
        goes_to(&world.send(POD, "10.96.0.66", 80), &[REMOTE]);
        assert!(world.notes.iter().any(|note| matches!(note.kind, NoteKind::FrontendTaken { .. })));
    }
}

#[test]
fn a_frontend_passes_to_the_next_service_when_its_holder_goes() {
    let mut second = service();
    second.key = ServiceKey::new("default", "zzz");
    let mut world = world(node(), &[(service(), vec![local()]), (second.clone(), vec![remote()])]);
    let (changes, _) = world.table.update([(service().key, None)]);
    let changed: Vec<&str> = changes.iter().map(|change| &*change.key.name).collect();
    assert_eq!(changed, ["web", "zzz"]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[REMOTE]);
}

#[test]
fn an_address_that_no_service_should_have_affects_that_service_alone() {
    let mut odd = service();
    odd.key = ServiceKey::new("default", "odd");
    odd.cluster_ips = vec![ip("10.96.0.77")];
    odd.external_ips = vec![ip("127.0.0.1"), ip("0.0.0.0"), ip("224.0.0.5")];
    odd.ports.push(port("zero", Protocol::Tcp, 0));
    odd.ports.push(port("again", Protocol::Tcp, 80));
    let world = world(node(), &[(odd, vec![remote()]), (service(), vec![local()])]);
    let invalid = world.notes.iter().filter(|note| matches!(note.kind, NoteKind::Invalid { .. })).count();
    assert_eq!(invalid, 5, "{:?}", world.notes);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    goes_to(&world.send(POD, "10.96.0.77", 80), &[REMOTE]);
}
