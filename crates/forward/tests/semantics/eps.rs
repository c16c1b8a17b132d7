use portolan_forward::Outcome;

use crate::build::*;

#[test]
fn eps_1_only_ready_endpoints_are_used() {
    let world = one(&service(), &[local(), not_ready(remote())]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
}

#[test]
fn eps_2_serving_and_terminating_ones_step_in_when_none_is_ready() {
    let world = one(&service(), &[terminating(local()), not_ready(remote())]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    let mut not_serving = terminating(local());
    not_serving.serving = false;
    assert_eq!(one(&service(), &[not_serving]).send(POD, CLUSTER_IP, 80), Outcome::Reject);
}

#[test]
fn eps_2_holds_for_the_local_set_on_its_own() {
    let mut service = load_balancer();
    service.external_policy = portolan_forward::Policy::Local;
    let world = one(&service, &[terminating(local()), remote()]);
    goes_to(&world.send(OUTSIDE, LB_IP, 80), &[LOCAL]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[REMOTE]);
}

#[test]
fn eps_3_a_published_unready_endpoint_comes_marked_ready() {
    let mut published = remote();
    published.serving = false;
    goes_to(&one(&service(), &[published]).send(POD, CLUSTER_IP, 80), &[REMOTE]);
}

#[test]
fn eps_4_zone_hints_narrow_policy_cluster_when_every_ready_endpoint_has_one() {
    let world = one(&service(), &[hinted(local(), "zone-a"), hinted(remote(), "zone-b")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    let world = one(&service(), &[hinted(local(), "zone-a"), remote()]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
    let world = one(&service(), &[hinted(local(), "zone-c"), hinted(remote(), "zone-b")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
    let world = one(&service(), &[hinted(local(), "zone-a"), hinted(not_ready(remote()), "zone-b")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
}

#[test]
fn eps_4_node_hints_come_before_zone_hints() {
    let on_node = |mut endpoint: portolan_forward::EndpointView, node: &str| {
        endpoint.for_nodes = vec![node.into()];
        hinted(endpoint, "zone-a")
    };
    let world = one(&service(), &[on_node(local(), NODE), on_node(remote(), "node-2")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
    let world = one(&service(), &[on_node(local(), "node-3"), on_node(remote(), "node-2")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
}

#[test]
fn eps_4_hints_never_apply_to_policy_local() {
    let mut service = service();
    service.internal_policy = portolan_forward::Policy::Local;
    let world = one(&service, &[hinted(local(), "zone-b"), hinted(remote(), "zone-a")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL]);
}

#[test]
fn eps_4_terminating_fallback_ignores_hints() {
    let world =
        one(&service(), &[hinted(terminating(local()), "zone-a"), hinted(terminating(remote()), "zone-b")]);
    goes_to(&world.send(POD, CLUSTER_IP, 80), &[LOCAL, REMOTE]);
}

#[test]
fn eps_5_every_endpoint_stands_in_the_pool_once() {
    let endpoints: Vec<_> = (1..=20).map(|i| endpoint(&format!("10.244.3.{i}"), "node-3")).collect();
    let (addresses, _) = forwards(&one(&service(), &endpoints).send(POD, CLUSTER_IP, 80));
    assert_eq!(addresses.len(), 20);
}
