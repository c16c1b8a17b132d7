//! What only the IPVS data plane promises: how destinations leave.

use portolan_dataplane::{DataPlane as _, Driver};
use portolan_netlink::ipvs::{Ipvs as _, Op, ServerKey};

use super::common::planes::{IpvsBehindNftables, Plane};
use super::common::{Case, World};

type FakeDriver = Driver<<IpvsBehindNftables as Plane>::Fake>;

const EBUSY: i32 = 16;

fn case() -> Case {
    Case::new("web", &["172.30.0.1"]).endpoint("10.2.0.1", 80).endpoint("10.2.0.2", 80)
}

/// The driver of a Service, and what was written to IPVS when one of its endpoints left.
fn leaves(case: &Case) -> (World, FakeDriver, Vec<Op>) {
    let mut world = World::with([case.clone()]);
    let mut driver = Driver::new(IpvsBehindNftables::fake());
    driver.sync(&world.table).unwrap();
    let (server, address) = (server(&mut driver), "10.2.0.1".parse().unwrap());
    driver.plane_mut().kernel().ipvs.set_connections(&server, address, 80, 1);
    driver.plane_mut().kernel().ipvs.take_log();
    let delta = world.put([case.clone().without("10.2.0.1")]);
    driver.apply(&delta).unwrap();
    let log = driver.plane_mut().kernel().ipvs.take_log();
    (world, driver, log)
}

fn server(driver: &mut FakeDriver) -> ServerKey {
    driver.plane_mut().kernel().ipvs.servers().unwrap()[0].key
}

fn destinations(driver: &mut FakeDriver) -> usize {
    let server = server(driver);
    driver.plane_mut().kernel().ipvs.destinations(&server).unwrap().len()
}

#[test]
fn a_destination_with_connections_gets_no_new_ones_and_stays() {
    let (_, mut driver, log) = leaves(&case());
    assert!(matches!(log[..], [Op::SetDestination(_, it)] if it.weight == 0), "{log:?}");
    assert_eq!(destinations(&mut driver), 2);
}

/// Else a port that a client had there would lead it there again as soon as the endpoint is back.
#[test]
fn aff_3_a_destination_that_clients_are_bound_to_goes_at_once() {
    let (_, mut driver, log) = leaves(&case().affinity(60));
    assert!(matches!(log[..], [Op::DelDestination(..)]), "{log:?}");
    assert_eq!(destinations(&mut driver), 1);
}

#[test]
fn what_cannot_be_removed_is_counted_and_tried_again() {
    let (mut world, mut driver, _) = leaves(&case());
    let (server, address) = (server(&mut driver), "10.2.0.1".parse().unwrap());
    let ipvs = &mut driver.plane_mut().kernel().ipvs;
    ipvs.set_connections(&server, address, 80, 0);
    ipvs.fail_next_with(|op| matches!(op, Op::DelDestination(..)), EBUSY);
    for (number, left, failures) in [(1, 2, 1), (2, 1, 1)] {
        let other = Case::new("other", &["172.30.0.2"]).endpoint(&format!("10.3.0.{number}"), 80);
        let delta = world.put([other]);
        driver.apply(&delta).unwrap();
        assert_eq!((destinations(&mut driver), driver.plane().cleanup_failures()), (left, failures));
    }
    assert!(driver.plane().transactions() > 0, "those of the front");
}
