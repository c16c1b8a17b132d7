//! What every data plane must keep, shown for each on a fake kernel that refuses what the real one would.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;
#[path = "contract/ipvs.rs"]
mod ipvs_alone;
#[path = "contract/nftables.rs"]
mod nftables_alone;

use std::collections::BTreeSet;

use common::planes::Plane;
use common::{Case, World, node, on_every_plane, synthetic};
use portolan_dataplane::{DataPlane, Driver, Error};
use portolan_forward::{LocalTraffic, NodePortAddresses, Protocol};

fn fake_driver<P: Plane>() -> Driver<P::Fake> {
    Driver::new(P::fake())
}

/// Everything the data plane owns in the kernel, for comparison.
fn state<D: DataPlane>(driver: &mut Driver<D>) -> BTreeSet<String> {
    let objects = driver.plane_mut().observe().unwrap();
    objects.iter().map(|(key, value)| format!("{key:?} {value:?}")).collect()
}

/// One Service of every shape.
fn shapes() -> Vec<Case> {
    let many = |case: Case| {
        case.endpoint("10.2.0.1", 8080).local_endpoint("10.1.0.1", 8080).local_endpoint("10.1.0.2", 8080)
    };
    let v6 = |case: Case| case.endpoint("fd00:10:2::1", 8080).local_endpoint("fd00:10:1::1", 8080);
    vec![
        Case::new("empty", &["172.30.0.1"]),
        many(Case::new("cluster", &["172.30.0.2"])),
        v6(many(Case::new("dual", &["172.30.0.3", "fd00:30::3"]))),
        many(Case::new("udp", &["172.30.0.4"]).port(Protocol::Udp, 53)),
        many(Case::new("node-port", &["172.30.0.5"]).node_port(30005)),
        many(Case::new("internal-local", &["172.30.0.6"]).internal_local()),
        many(Case::new("external-local", &["172.30.0.7"]).node_port(30007).external_local()),
        Case::new("external-local-elsewhere", &["172.30.0.8"])
            .node_port(30008)
            .external_local()
            .endpoint("10.2.0.1", 8080),
        many(Case::new("sticky", &["172.30.0.9"]).node_port(30009).affinity(10800)),
        many(
            Case::new("sticky-local", &["172.30.0.10"])
                .load_balancer("198.51.100.10")
                .node_port(30010)
                .external_local()
                .affinity(60),
        ),
        many(Case::new("guarded", &["172.30.0.11"]).load_balancer("198.51.100.11").sources(&[
            "203.0.113.0/24",
            "203.0.113.128/25",
            "192.0.2.0/25",
        ])),
        Case::new("guarded-empty", &["172.30.0.12"])
            .load_balancer("198.51.100.12")
            .sources(&["203.0.113.0/24"]),
        v6(Case::new("sticky-six", &["fd00:30::13"])
            .node_port(30013)
            .affinity(7)
            .load_balancer("2001:db8:99::1")
            .sources(&["2001:db8:1::/48"])),
    ]
}

fn a_second_sync_writes_nothing<P: Plane>() {
    let world = World::with(shapes());
    let mut driver = fake_driver::<P>();
    let first = driver.sync(&world.table).unwrap();
    assert!(first.operations > 100 && first.refused.is_empty(), "{first:?}");
    assert!(driver.sync(&world.table).unwrap().is_noop());
    assert!(driver.verify(&world.table).unwrap().is_empty());
}

fn a_restart_writes_nothing_even_when_endpoints_have_moved<P: Plane>() {
    let mut world = World::with(shapes());
    let mut before = fake_driver::<P>();
    before.sync(&world.table).unwrap();
    let moved = shapes().into_iter().map(|case| case.without("10.1.0.1").endpoint("10.0.0.1", 8080));
    let delta = world.put(moved.filter(|case| !case.key().name.contains("elsewhere")));
    before.apply(&delta).unwrap();
    let mut after = Driver::new(P::restart(before.plane_mut()));
    let report = after.sync(&world.table).unwrap();
    assert!(report.is_noop(), "{report:?}");
    let drift = after.verify(&world.table).unwrap();
    assert!(drift.is_empty(), "{drift:?}");
}

fn step_by_step_and_from_scratch_end_alike<P: Plane>() {
    let cases = shapes();
    let mut world = World::new(node());
    let mut stepwise = fake_driver::<P>();
    stepwise.sync(&world.table).unwrap();
    let steps = [
        world.put(cases.iter().take(6).cloned()),
        world.put(cases.iter().skip(6).cloned()),
        world.put(cases.iter().cloned().map(|case| case.without("10.2.0.1").without("fd00:10:1::1"))),
        world.put(cases.iter().cloned().map(|case| case.affinity(99))),
        world.remove(cases.iter().map(Case::key).step_by(2)),
        world.put(cases.iter().cloned()),
    ];
    for delta in &steps {
        stepwise.apply(delta).unwrap();
    }
    assert!(stepwise.verify(&world.table).unwrap().is_empty());
    let keys = |driver: &mut Driver<P::Fake>| -> BTreeSet<String> {
        let observed = driver.plane_mut().observe().unwrap();
        observed.keys().map(|key| format!("{key:?}")).collect()
    };
    let mut scratch = fake_driver::<P>();
    scratch.sync(&world.table).unwrap();
    assert_eq!(keys(&mut stepwise), keys(&mut scratch), "only the order of endpoints may differ");
}

fn removing_every_service_leaves_the_bare_ruleset<P: Plane>() {
    let mut world = World::new(node());
    let mut driver = fake_driver::<P>();
    driver.sync(&world.table).unwrap();
    let bare = state(&mut driver);
    let delta = world.put(shapes());
    driver.apply(&delta).unwrap();
    assert_ne!(state(&mut driver), bare);
    let delta = world.remove(shapes().iter().map(Case::key));
    driver.apply(&delta).unwrap();
    assert_eq!(state(&mut driver), bare);
    assert!(driver.cleanup().is_empty());
    assert!(state(&mut driver).is_empty());
}

fn the_cost_of_a_change_does_not_depend_on_the_number_of_services<P: Plane>() {
    let mut costs = BTreeSet::new();
    for count in [1, 10, 300] {
        let mut world = World::with((0..count).map(|n| synthetic(n, 10)));
        let mut driver = fake_driver::<P>();
        driver.sync(&world.table).unwrap();
        // So that what Services with nine and with ten endpoints share exists whatever the number of Services.
        let stay = [synthetic(1000, 10), synthetic(1001, 9)];
        let delta = world.put(stay);
        driver.apply(&delta).unwrap();
        let fewer = synthetic(0, 10).without("10.0.0.3");
        let remove = world.put([fewer.clone()]);
        let removed = driver.apply(&remove).unwrap();
        let add = world.put([synthetic(0, 10)]);
        let added = driver.apply(&add).unwrap();
        let replace = world.put([fewer.endpoint("10.99.0.1", 8080)]);
        let replaced = driver.apply(&replace).unwrap();
        costs.insert((removed.operations, added.operations, replaced.operations));
    }
    assert_eq!(costs, BTreeSet::from([P::CHANGE_COSTS]));
}

fn a_frontend_passes_from_one_service_to_another_in_one_step<P: Plane>() {
    let mut world = World::with([Case::new("old", &["172.30.0.1"]).endpoint("10.2.0.1", 80)]);
    let mut driver = fake_driver::<P>();
    driver.sync(&world.table).unwrap();
    let key = Case::new("old", &[]).key();
    let mut delta = world.remove([key]);
    delta.services.extend(world.put([Case::new("new", &["172.30.0.1"]).endpoint("10.2.0.2", 80)]).services);
    let report = driver.apply(&delta).unwrap();
    assert!(driver.verify(&world.table).unwrap().is_empty(), "{report:?}");
    assert!(!report.is_noop());
}

fn what_somebody_else_broke_is_mended<P: Plane>() {
    let world = World::with(shapes());
    let mut driver = fake_driver::<P>();
    driver.sync(&world.table).unwrap();
    let good = state(&mut driver);
    for (name, sabotage) in P::sabotages() {
        sabotage(driver.plane_mut());
        assert!(!driver.verify(&world.table).unwrap().is_empty(), "{name}");
        assert!(!driver.sync(&world.table).unwrap().is_noop(), "{name}");
        assert_eq!(state(&mut driver), good, "{name}");
    }
}

fn after_a_failed_write_a_sync_must_come_first<P: Plane>() {
    let mut world = World::with(shapes());
    let mut driver = fake_driver::<P>();
    assert!(matches!(driver.apply(&portolan_forward::Delta::default()), Err(Error::NotSynced)));
    driver.sync(&world.table).unwrap();
    P::fail_next(driver.plane_mut());
    let delta = world.put([synthetic(1, 3)]);
    assert!(matches!(driver.apply(&delta), Err(Error::Commit(_))));
    assert!(matches!(driver.apply(&delta), Err(Error::NotSynced)));
    driver.sync(&world.table).unwrap();
    assert!(driver.verify(&world.table).unwrap().is_empty());
}

fn a_change_of_the_node_reaches_every_chain<P: Plane>() {
    let mut world = World::with(shapes());
    let mut driver = fake_driver::<P>();
    driver.sync(&world.table).unwrap();
    let mut changed = node();
    changed.node_port_addresses = NodePortAddresses::All;
    changed.local_traffic = LocalTraffic::InterfacePrefix("veth".into());
    changed.service_cidrs = vec!["172.30.0.0/17".parse().unwrap()];
    let delta = world.set_node(changed, shapes());
    assert!(delta.node.is_some());
    driver.apply(&delta).unwrap();
    let drift = driver.verify(&world.table).unwrap();
    assert!(drift.is_empty(), "{drift:?}");
}

on_every_plane! {
    a_second_sync_writes_nothing,
    a_restart_writes_nothing_even_when_endpoints_have_moved,
    step_by_step_and_from_scratch_end_alike,
    removing_every_service_leaves_the_bare_ruleset,
    the_cost_of_a_change_does_not_depend_on_the_number_of_services,
    a_frontend_passes_from_one_service_to_another_in_one_step,
    what_somebody_else_broke_is_mended,
    after_a_failed_write_a_sync_must_come_first,
    a_change_of_the_node_reaches_every_chain,
}
