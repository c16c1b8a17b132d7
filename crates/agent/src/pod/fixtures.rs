//! Containers in given states, for the tests of what is decided about them.

use std::time::Instant;

use portolan_api::Time;

use super::backoff::Backoff;
use super::container::{Ended, Record, Role, Running, State};
use crate::config::BackoffLimits;

/// Containers `c0`, `c1`, ... that have not started.
pub(crate) fn pod_of(roles: &[Role]) -> Vec<Record> {
    let record = |(index, role): (usize, &Role)| Record {
        name: format!("c{index}"),
        image: "portolan.dev/echo".into(),
        role: *role,
        state: State::Waiting,
        last: None,
        restarts: 0,
        backoff: Backoff::new(BackoffLimits::default()),
    };
    roles.iter().enumerate().map(record).collect()
}

pub(crate) fn running(started: bool) -> State {
    State::Running(Running {
        id: "portolan://1".into(),
        started_at: Time::from_second(100),
        since: Instant::now(),
        started,
        ready: started,
        kill_at: None,
    })
}

pub(crate) fn ended(exit_code: i32) -> State {
    State::Ended(Ended {
        id: "portolan://1".into(),
        exit_code,
        signal: 0,
        reason: (if exit_code == 0 { "Completed" } else { "Error" }).into(),
        message: String::new(),
        started_at: Some(Time::from_second(100)),
        finished_at: Time::from_second(200),
        at: Instant::now(),
    })
}
