//! What only the nftables data plane promises: which chains it has, and when they are made.

use portolan_dataplane::{DataPlane as _, Driver, Nftables};
use portolan_netlink::nft::{CommitError, CommitErrorKind, Fake, NfTables, Op};

use super::common::planes::{self, Plane};
use super::common::{World, synthetic};

type FakeDriver = Driver<Nftables<Fake>>;

fn fake_driver() -> FakeDriver {
    Driver::new(planes::Nftables::fake())
}

#[test]
fn chains_come_before_they_are_needed_and_stay_for_a_while() {
    let mut world = World::with([synthetic(0, 3)]);
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let chains = |driver: &mut FakeDriver| -> Vec<u32> {
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

/// Kernels before 6.2 may refuse it; the Service is served all the same, and it is tried again.
#[test]
fn what_cannot_be_removed_stays_and_is_counted() {
    let mut world = World::with([synthetic(0, 3)]);
    let mut driver = fake_driver();
    driver.sync(&world.table).unwrap();
    let error = CommitError {
        kind: CommitErrorKind::Busy,
        op_index: None,
        op: String::new(),
        errno: 16,
        extack: None,
    };
    driver.plane_mut().nft().fail_next_with(|op| matches!(op, Op::DelChain { .. }), error);
    let mut count = 3;
    while driver.plane().cleanup_failures() == 0 {
        assert!(count < 1_000, "nothing superfluous was ever removed");
        count += 1;
        let delta = world.put([synthetic(0, count)]);
        driver.apply(&delta).unwrap();
        assert!(driver.verify(&world.table).unwrap().is_empty());
    }
    for count in count..count + 200 {
        let delta = world.put([synthetic(0, count)]);
        driver.apply(&delta).unwrap();
    }
    assert_eq!(driver.plane().cleanup_failures(), 1);
    let table = portolan_dataplane::nftables::layout::table(portolan_forward::Family::V4);
    let chains = driver.plane_mut().nft().chains(&table).unwrap();
    assert!(!chains.iter().any(|chain| chain.name.starts_with("pick-2-")), "what had stayed has gone");
}
