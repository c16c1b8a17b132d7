use portolan_forward::{Affinity, Outcome};

use crate::build::*;

#[test]
fn aff_1_and_2_every_frontend_of_the_port_carries_the_same_affinity() {
    let mut service = load_balancer();
    service.affinity = Some(Affinity { timeout_seconds: 60 });
    let world = one(&service, &[local(), remote()]);
    let mut ports = Vec::new();
    for (destination, port) in [(CLUSTER_IP, 80), (LB_IP, 80), (NODE_IP, NODE_PORT)] {
        let outcome = world.send(OUTSIDE, destination, port);
        let Outcome::Forward { service, affinity, .. } = outcome else { panic!("{outcome:?}") };
        assert_eq!(affinity, Some(Affinity { timeout_seconds: 60 }));
        ports.push(service);
    }
    ports.dedup();
    assert_eq!(ports.len(), 1);
}

#[test]
fn aff_3_a_client_may_keep_any_endpoint_that_is_still_eligible_and_no_other() {
    let mut service = service();
    service.affinity = Some(Affinity { timeout_seconds: 60 });
    let mut gone = remote();
    (gone.ready, gone.serving) = (false, false);
    for (endpoints, kept) in [
        (vec![local(), remote()], vec![LOCAL, REMOTE]),
        (vec![local(), gone], vec![LOCAL]),
        (vec![remote()], vec![REMOTE]),
    ] {
        // What is remembered counts while it is in the pool.
        goes_to(&one(&service, &endpoints).send(POD, CLUSTER_IP, 80), &kept);
    }
}
