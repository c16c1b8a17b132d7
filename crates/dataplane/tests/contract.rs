//! What every data plane must keep, shown for nftables on a fake kernel that refuses what the real one would.

#![allow(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod common;

use std::collections::BTreeSet;

use common::{Case, World, driver, fake_driver, node, synthetic};
use portolan_dataplane::{DataPlane, Driver, Error};
use portolan_forward::{LocalTraffic, NodePortAddresses, Protocol};
use portolan_netlink::nft::NfTables;

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

#[test]
fn a_second_sync_writes_nothing() {
    let world = World::with(shapes());
    let mut driver = fake_driver();
    let first = driver.sync(&world.table).unwrap();
    assert!(first.operations > 100 && first.refused.is_empty(), "{first:?}");
    assert!(driver.sync(&world.table).unwrap().is_noop());
    assert!(driver.verify(&world.table).unwrap().is_empty());
}

#[test]
fn a_restart_writes_nothing_even_when_endpoints_have_moved() {
    let mut world = World::with(shapes());
    let mut before = fake_driver();
    before.sync(&world.table).unwrap();
    let moved = shapes().into_iter().map(|case| case.without("10.1.0.1").endpoint("10.0.0.1", 8080));
    let delta = world.put(moved.filter(|case| !case.key().name.contains("elsewhere")));
    before.apply(&delta).unwrap();
    let mut kernel = portolan_netlink::nft::Fake::new();
    std::mem::swap(before.plane_mut().nft(), &mut kernel);
    let mut after = driver(kernel);
    let report = after.sync(&world.table).unwrap();
    assert!(report.is_noop(), "{report:?}");
    let drift = after.verify(&world.table).unwrap();
    assert!(drift.is_empty(), "{drift:?}");
}

#[test]
fn step_by_step_and_from_scratch_end_alike() {
    let cases = shapes();
    let mut world = World::new(node());
    let mut stepwise = fake_driver();
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
    let keys = |driver: &mut common::FakeDriver| -> BTreeSet<String> {
        let observed = driver.plane_mut().observe().unwrap();
        observed.keys().map(|key| format!("{key:?}")).collect()
    };
    let mut scratch = fake_driver();
    scratch.sync(&world.table).unwrap();
    assert_eq!(keys(&mut stepwise), keys(&mut scratch), "only the order of endpoints may differ");
}

#[test]
fn removing_every_service_leaves_the_bare_ruleset() {
    let mut world = World::new(node());
    let mut driver = fake_driver();
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

#[test]
fn the_cost_of_a_change_does_not_depend_on_the_number_of_services() {
    let mut costs = BTreeSet::new();
    for count in [1, 10, 300] {
        let mut world = World::with((0..count).map(|n| synthetic(n, 10)));
        let mut driver = fake_driver();
        driver.sync(&world.table).unwrap();
        // So that the classes of nine and of ten endpoints exist whatever the number of Services.
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
    // Removing: the frontend, the hole and the last place. Adding: the frontend and the new place. A place or a
    // frontend that changes is deleted and added.
    assert_eq!(costs, BTreeSet::from([(5, 3, 2)]));
}

#[test]
fn a_frontend_passes_from_one_service_to_another_in_one_step() {
    let mut world = World::with([Case::new("old", &["172.30.0.1"]).endpoint("10.2.0.1", 80)]);
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let key = Case::new("old", &[]).key();
    let mut delta = world.remove([key]);
    delta.services.extend(world.put([Case::new("new", &["172.30.0.1"]).endpoint("10.2.0.2", 80)]).services);
    let report = driver.apply(&delta).unwrap();
    assert!(driver.verify(&world.table).unwrap().is_empty(), "{report:?}");
    assert_eq!((report.added, report.removed), (0, 0), "the same objects, other contents");
}

#[test]
fn what_somebody_else_broke_is_mended() {
    use portolan_netlink::nft::{Batch, Op};
    let world = World::with(shapes());
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let good = state(&mut driver);
    let table = portolan_dataplane::nftables::layout::table(portolan_forward::Family::V4);
    let sabotage = [
        Op::FlushSet { table: table.clone(), set: "frontends".into() },
        Op::FlushSet { table: table.clone(), set: "sources".into() },
        Op::FlushChain { table: table.clone(), chain: "services".into() },
        Op::DelTable(table.clone()),
    ];
    for op in sabotage {
        driver.plane_mut().nft().commit(&Batch { ops: vec![op.clone()] }).unwrap();
        assert!(!driver.verify(&world.table).unwrap().is_empty(), "{op}");
        assert!(!driver.sync(&world.table).unwrap().is_noop(), "{op}");
        assert_eq!(state(&mut driver), good, "{op}");
    }
}

#[test]
fn after_a_failed_write_a_sync_must_come_first() {
    use portolan_netlink::nft::{CommitError, CommitErrorKind};
    let mut world = World::with(shapes());
    let mut driver = fake_driver();
    assert!(matches!(driver.apply(&portolan_forward::Delta::default()), Err(Error::NotSynced)));
    driver.sync(&world.table).unwrap();
    let error = CommitError {
        kind: CommitErrorKind::Unknown,
        op_index: None,
        op: String::new(),
        errno: 105,
        extack: None,
    };
    driver.plane_mut().nft().fail_next(error);
    let delta = world.put([synthetic(1, 3)]);
    assert!(matches!(driver.apply(&delta), Err(Error::Commit(_))));
    assert!(matches!(driver.apply(&delta), Err(Error::NotSynced)));
    driver.sync(&world.table).unwrap();
    assert!(driver.verify(&world.table).unwrap().is_empty());
}

#[test]
fn a_change_of_the_node_reaches_every_chain() {
    let mut world = World::with(shapes());
    let mut driver = fake_driver();
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

#[test]
fn chains_come_before_they_are_needed_and_stay_for_a_while() {
    let mut world = World::with([synthetic(0, 3)]);
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let chains = |driver: &mut common::FakeDriver| -> Vec<u32> {
        let table = portolan_dataplane::nftables::layout::table(portolan_forward::Family::V4);
        let chains = driver.plane_mut().nft().chains(&table).unwrap();
        let picks = chains.iter().filter_map(|chain| chain.name.strip_prefix("pick-"));
        let mut counts: Vec<_> = picks.map(|rest| rest.split('-').next().unwrap().parse().unwrap()).collect();
        counts.sort_unstable();
        counts
    };
    assert_eq!(chains(&mut driver), [2, 3, 4]);
    let delta = world.put([synthetic(0, 3).without("10.0.0.1")]);
    driver.apply(&delta).unwrap();
    assert_eq!(chains(&mut driver), [1, 2, 3, 4], "a new neighbour; 4 may be wanted again");
    let delta = world.put([synthetic(0, 3)]);
    let report = driver.apply(&delta).unwrap();
    assert_eq!(report.operations, 3, "the endpoint and the frontend: {report:?}");
    for count in 4..200 {
        let delta = world.put([synthetic(0, count)]);
        driver.apply(&delta).unwrap();
        assert!(chains(&mut driver).len() < 140, "but not for ever");
        assert!(driver.verify(&world.table).unwrap().is_empty());
    }
    assert!(chains(&mut driver).contains(&198) && !chains(&mut driver).contains(&10));
}

#[test]
fn the_chain_for_the_next_change_is_there_already() {
    let mut world = World::with([synthetic(0, 10)]);
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let delta = world.put([synthetic(0, 10).without("10.0.0.3")]);
    driver.apply(&delta).unwrap();
    let commits = driver.plane_mut().nft().commits();
    let [.., change, spare] = commits else { panic!("two transactions, not {commits:?}") };
    assert_eq!((change.chains_added, change.rules_added), (0, 0), "{change:?}");
    assert_eq!(spare.chains_added, 1, "{spare:?}");
}
