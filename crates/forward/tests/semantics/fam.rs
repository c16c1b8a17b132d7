use portolan_forward::{EndpointPort, Outcome, Protocol};

use crate::build::*;

#[test]
fn fam_1_each_family_uses_its_own_endpoints() {
    let mut dual = service();
    dual.cluster_ips.push(ip("fd96::10"));
    let world = one(&dual, &[local(), endpoint("fd44::5", NODE)]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    goes_to(&world.send("fd44::99", "fd96::10", 80), &["fd44::5"]);
    let v4_only = one(&dual, &[local()]);
    assert_eq!(v4_only.send("fd44::99", "fd96::10", 80), Outcome::Reject);
}

#[test]
fn fam_1_a_family_without_cluster_ip_gets_nothing() {
    let mut service = load_balancer();
    service.external_ips = vec![ip("2001:db8::1")];
    let world = one(&service, &[local(), endpoint("fd44::5", NODE)]);
    assert_eq!(world.send("2001:db8::7", "2001:db8::1", 80), Outcome::Pass);
    assert_eq!(world.send("2001:db8::7", "fd00::1", NODE_PORT), Outcome::Pass);
}

#[test]
fn fam_2_sctp_is_a_protocol_of_its_own() {
    let mut service = service();
    service.ports.push(port("sctp", Protocol::Sctp, 80));
    let mut both = local();
    both.ports = vec![
        EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 },
        EndpointPort { name: "sctp".into(), protocol: Protocol::Sctp, port: 9899 },
    ]
    .into();
    let world = one(&service, &[both]);
    let outcome = world.send_protocol(Protocol::Sctp, POD, CLUSTER_IP, 80);
    let Outcome::Forward { backends, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(backends[0].endpoint.port, 9899);
}
