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
