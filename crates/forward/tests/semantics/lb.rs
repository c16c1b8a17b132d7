use portolan_forward::Outcome;

use crate::build::*;

#[test]
fn lb_1_only_source_ranges_reach_the_balancer_address() {
    let mut service = load_balancer();
    service.source_ranges = vec![range("198.51.100.0/24")];
    let world = one(&service, &[local()]);
    goes_to(&world.send(OUTSIDE, LB_IP, 80), &[LOCAL]);
    assert_eq!(world.send("203.0.113.200", LB_IP, 80), Outcome::Drop);
    assert_eq!(world.send(POD, LB_IP, 80), Outcome::Drop);
    goes_to(&world.send("203.0.113.200", NODE_IP, NODE_PORT), &[LOCAL]);
    goes_to(&world.send("203.0.113.200", CLUSTER_IP, 80), &[LOCAL]);
}

#[test]
fn lb_1_holds_without_endpoints_too() {
    let mut service = load_balancer();
    service.source_ranges = vec![range("198.51.100.0/24")];
    let world = one(&service, &[]);
    assert_eq!(world.send("203.0.113.200", LB_IP, 80), Outcome::Drop);
    assert_eq!(world.send(OUTSIDE, LB_IP, 80), Outcome::Reject);
}

#[test]
fn lb_1_the_balancer_address_itself_is_allowed_where_the_node_is() {
    let mut service = load_balancer();
    service.source_ranges = vec![range("192.168.0.0/24")];
    goes_to(&one(&service, &[local()]).send(LB_IP, LB_IP, 80), &[LOCAL]);
    service.source_ranges = vec![range("198.51.100.0/24")];
    assert_eq!(one(&service, &[local()]).send(LB_IP, LB_IP, 80), Outcome::Drop);
}

#[test]
fn lb_1_a_range_of_length_zero_allows_all() {
    let mut service = load_balancer();
    service.source_ranges = vec![range("198.51.100.0/24"), range("0.0.0.0/0")];
    goes_to(&one(&service, &[local()]).send("203.0.113.200", LB_IP, 80), &[LOCAL]);
}

#[test]
fn lb_2_an_address_that_is_left_to_the_balancer_is_no_frontend() {
    let mut service = load_balancer();
    // The view has only those that the node handles.
    service.load_balancer_ips.clear();
    let world = one(&service, &[local()]);
    for source in [POD, NODE_IP, OUTSIDE] {
        assert_eq!(world.send(source, LB_IP, 80), Outcome::Pass);
    }
    goes_to(&world.send(OUTSIDE, NODE_IP, NODE_PORT), &[LOCAL]);
}

#[test]
fn lb_3_without_node_ports_the_balancer_address_serves_alone_and_a_node_port_that_stays_serves_too() {
    let mut service = load_balancer();
    goes_to(&one(&service, &[local()]).send(OUTSIDE, NODE_IP, NODE_PORT), &[LOCAL]);
    service.ports[0].node_port = None;
    let world = one(&service, &[local()]);
    assert_eq!(world.send(OUTSIDE, NODE_IP, NODE_PORT), Outcome::Pass);
    goes_to(&world.send(OUTSIDE, LB_IP, 80), &[LOCAL]);
}
