use portolan_forward::{Outcome, Policy};

use crate::build::*;

fn internal_local() -> portolan_forward::ServiceView {
    let mut service = load_balancer();
    service.internal_policy = Policy::Local;
    service
}

fn external_local() -> portolan_forward::ServiceView {
    let mut service = load_balancer();
    service.external_policy = Policy::Local;
    service
}

#[test]
fn pol_1_internal_policy_cluster_uses_all_local_only_this_nodes() {
    goes_to(&one(&service(), &[local(), remote()]).send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
    goes_to(&one(&internal_local(), &[local(), remote()]).send(POD, CLUSTER_IP, 80), &[LOCAL]);
}

#[test]
fn pol_1_internal_policy_local_drops_with_endpoints_elsewhere_and_rejects_with_none() {
    assert_eq!(one(&internal_local(), &[remote()]).send(POD, CLUSTER_IP, 80), Outcome::Drop);
    assert_eq!(one(&internal_local(), &[]).send(POD, CLUSTER_IP, 80), Outcome::Reject);
}

#[test]
fn pol_2_external_policy_cluster_masquerades_everybody() {
    let world = one(&load_balancer(), &[local(), remote()]);
    for (destination, port) in [(LB_IP, 80), (NODE_IP, NODE_PORT)] {
        for source in [OUTSIDE, POD, NODE_IP] {
            let (to, masquerade) = forwards(&world.send(source, destination, port));
            assert_eq!((to.len(), masquerade), (2, true));
        }
    }
}

#[test]
fn pol_3_external_policy_local_keeps_the_source_and_stays_on_the_node() {
    let world = one(&external_local(), &[local(), remote()]);
    for (destination, port) in [(LB_IP, 80), (NODE_IP, NODE_PORT)] {
        let (to, masquerade) = forwards(&world.send(OUTSIDE, destination, port));
        assert_eq!((to, masquerade), (vec![LOCAL.to_string()], false));
    }
}

#[test]
fn pol_3_external_policy_local_drops_with_endpoints_elsewhere_and_rejects_with_none() {
    assert_eq!(one(&external_local(), &[remote()]).send(OUTSIDE, NODE_IP, NODE_PORT), Outcome::Drop);
    assert_eq!(one(&external_local(), &[]).send(OUTSIDE, NODE_IP, NODE_PORT), Outcome::Reject);
}

#[test]
fn pol_4_pods_and_the_node_short_circuit_external_policy_local() {
    for endpoints in [vec![remote()], vec![local(), remote()]] {
        let world = one(&external_local(), &endpoints);
        for (destination, port) in [(LB_IP, 80), (NODE_IP, NODE_PORT)] {
            let (to, masquerade) = forwards(&world.send(POD, destination, port));
            assert_eq!((to.len(), masquerade), (endpoints.len(), false));
            let (to, masquerade) = forwards(&world.send(NODE_IP, destination, port));
            assert_eq!((to.len(), masquerade), (endpoints.len(), true));
        }
    }
}

#[test]
fn pol_5_the_two_policies_are_independent() {
    let mut both = external_local();
    both.internal_policy = Policy::Local;
    let world = one(&both, &[local(), remote()]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    goes_to(&world.send(OUTSIDE, LB_IP, 80), &[LOCAL]);
    goes_to(&world.send(POD, LB_IP, 80), &[LOCAL, REMOTE]);
}

#[test]
fn pol_6_no_usable_endpoint_rejects_at_every_frontend() {
    for service in [load_balancer(), internal_local(), external_local()] {
        let world = one(&service, &[not_ready(local())]);
        for (destination, port) in [(CLUSTER_IP, 80), (LB_IP, 80), (NODE_IP, NODE_PORT)] {
            for source in [OUTSIDE, POD, NODE_IP] {
                assert_eq!(world.send(source, destination, port), Outcome::Reject);
            }
        }
    }
}

#[test]
fn pol_7_unknown_port_rejects_and_unallocated_address_drops() {
    let world = one(&service(), &[local()]);
    assert_eq!(world.send(POD, CLUSTER_IP, 81), Outcome::Reject);
    assert_eq!(world.send(POD, "10.96.200.200", 80), Outcome::Drop);
    assert_eq!(world.send(POD, "10.98.0.1", 80), Outcome::Pass);
}
