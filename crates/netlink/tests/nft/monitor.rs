//! Hearing of others' transactions.

use std::time::Duration;

use portolan_netlink::nft::{Family, Intruder, Monitor, NfTables, Op, Socket, Table};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{add_table, batch, commit, nft_list, table, with_kernel};

fn listening(own: &Socket) -> Monitor {
    let monitor = Monitor::open(vec![table()], own.port().unwrap()).unwrap();
    monitor.listen().unwrap();
    monitor
}

/// Messages are in the queue when the transaction's system call returns.
fn heard(monitor: &mut Monitor) -> Option<Intruder> {
    monitor.heard().unwrap()
}

fn name_of(intruder: Option<Intruder>) -> String {
    intruder.unwrap().program.unwrap().0
}

#[test]
fn transactions_of_others_are_heard_and_own_ones_are_not() {
    with_kernel(|own| {
        let mut monitor = listening(own);
        commit(own, [add_table()]);
        assert_eq!(heard(&mut monitor), None, "our own");
        let mut other = Socket::open().unwrap();
        commit(&mut other, [Op::AddTable { table: Table::new(Family::Ip, "elsewhere"), comment: None }]);
        assert_eq!(heard(&mut monitor), None, "another table");
        commit(&mut other, [Op::AddTable { table: Table::new(Family::Ip, "portolan-test"), comment: None }]);
        assert_eq!(heard(&mut monitor), None, "another family");
        commit(&mut other, [Op::DelTable(table())]);
        assert!(heard(&mut monitor).is_some(), "our table is gone");
        assert_eq!(heard(&mut monitor), None, "told once");
    });
}

#[test]
fn the_program_is_named() {
    with_kernel(|own| {
        commit(own, [add_table()]);
        let mut monitor = listening(own);
        if nft_list(&["flush", "ruleset"]).is_some() {
            assert_eq!(name_of(heard(&mut monitor)), "nft");
        }
    });
}

#[test]
fn a_queue_that_overflows_is_an_intruder_without_a_name() {
    with_kernel(|own| {
        let mut monitor = listening(own);
        let mut other = Socket::open().unwrap();
        let toggle = batch([add_table(), Op::DelTable(table())]);
        let mut ready = [PollFd::new(&monitor, PollFlags::ERR)];
        let now = Timespec::try_from(Duration::ZERO).unwrap();
        while poll(&mut ready, Some(&now)).unwrap() == 0 {
            other.commit(&toggle).unwrap();
        }
        assert!(heard(&mut monitor).is_some());
    });
}

#[test]
fn during_a_pause_others_are_noticed_by_the_generation() {
    with_kernel(|own| {
        let mut monitor = listening(own);
        let mut other = Socket::open().unwrap();
        let pause = monitor.pause().unwrap();
        commit(own, [add_table()]);
        commit(own, [Op::DelTable(table())]);
        assert_eq!(monitor.resume(&pause, 2).unwrap(), None, "only our own");
        let pause = monitor.pause().unwrap();
        commit(own, [add_table()]);
        commit(&mut other, [Op::DelTable(table())]);
        assert_eq!(heard(&mut monitor), None, "nobody listens");
        assert!(monitor.resume(&pause, 1).unwrap().is_some());
        commit(&mut other, [add_table()]);
        assert!(heard(&mut monitor).is_some(), "it listens again");
    });
}
