use portolan_forward::LocalTraffic;

use crate::build::*;

#[test]
fn masq_1_internal_traffic_is_masqueraded_unless_local() {
    let world = one(&service(), &[remote()]);
    assert!(!forwards(&world.send(POD, CLUSTER_IP, 80)).1);
    assert!(forwards(&world.send(OUTSIDE, CLUSTER_IP, 80)).1);
    assert!(forwards(&world.send(NODE_IP, CLUSTER_IP, 80)).1);
}

#[test]
fn masq_1_not_without_local_detection_and_always_with_masquerade_all() {
    let mut blind = node();
    blind.local_traffic = LocalTraffic::Unknown;
    let plain = world(blind.clone(), &[(service(), vec![remote()])]);
    assert!(!forwards(&plain.send(OUTSIDE, CLUSTER_IP, 80)).1);
    blind.masquerade_all = true;
    let all = world(blind, &[(service(), vec![remote()])]);
    assert!(forwards(&all.send(POD, CLUSTER_IP, 80)).1);
}

#[test]
fn masq_1_local_detection_by_interface() {
    let mut by_name = node();
    by_name.local_traffic = LocalTraffic::InterfacePrefix("eth".into());
    let world = world(by_name, &[(service(), vec![remote()])]);
    assert!(!forwards(&world.send(OUTSIDE, CLUSTER_IP, 80)).1);
}

#[test]
fn masq_2_an_endpoint_that_reaches_itself_is_masqueraded() {
    let world = one(&service(), &[local(), remote()]);
    let outcome = world.send(LOCAL, CLUSTER_IP, 80);
    let portolan_forward::Outcome::Forward { backends, .. } = outcome else { panic!("{outcome:?}") };
    let masqueraded: Vec<String> =
        backends.iter().filter(|b| b.masquerade).map(|b| b.endpoint.address.to_string()).collect();
    assert_eq!(masqueraded, [LOCAL]);
}
