//! Which containers of a pod start now, and when to look again. Pure.

use std::time::Instant;

use super::container::{Record, RestartPolicy, Role, State};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// Indexes of the containers to start, in order.
    pub(crate) start: Vec<usize>,
    /// When a container's wait is over.
    pub(crate) wake: Option<Instant>,
}

impl Plan {
    /// Starts the container if it wants to and its wait is over.
    fn consider(&mut self, index: usize, record: &Record, policy: RestartPolicy, now: Instant) {
        match &record.state {
            State::Waiting => self.start.push(index),
            State::Blocked(refusal) => match refusal.retry_at {
                Some(at) if at > now => self.wake = Some(self.wake.map_or(at, |wake| wake.min(at))),
                Some(_) => self.start.push(index),
                None => {}
            },
            State::Ended(_) if record.wants_restart(policy) => match record.restart_at() {
                Some(at) if at > now => self.wake = Some(self.wake.map_or(at, |wake| wake.min(at))),
                _ => self.start.push(index),
            },
            _ => {}
        }
    }
}

/// Init containers run one after the other, each to its success; a sidecar lets the next one start once it has itself
/// started; all main containers start together after them.
pub(crate) fn plan(records: &[Record], policy: RestartPolicy, now: Instant) -> Plan {
    let mut plan = Plan::default();
    if is_over(records, policy) {
        return plan;
    }
    for (index, record) in records.iter().enumerate() {
        plan.consider(index, record, policy, now);
        let passed = match (record.role, &record.state) {
            (Role::Init, State::Ended(ended)) => ended.exit_code == 0,
            (Role::Init, _) => false,
            (Role::Sidecar, State::Running(running)) => running.started,
            // Once main containers run, a sidecar that restarts does not hold them back.
            (Role::Sidecar, _) => record.restarts > 0 && initialized_before(records),
            (Role::Main, _) => true,
        };
        if !passed {
            break;
        }
    }
    plan
}

/// Nothing is left to do but to stop the sidecars: the main containers have ended for good, or an init container has
/// failed for good.
pub(crate) fn is_over(records: &[Record], policy: RestartPolicy) -> bool {
    let ended = |r: &Record| r.ended().is_some() && !r.wants_restart(policy);
    let failed_init =
        |r: &Record| r.role == Role::Init && ended(r) && r.ended().is_some_and(|e| e.exit_code != 0);
    records.iter().filter(|r| r.role == Role::Main).all(ended) || records.iter().any(failed_init)
}

fn initialized_before(records: &[Record]) -> bool {
    records.iter().any(|r| r.role == Role::Main && !matches!(r.state, State::Waiting))
}

/// Every init container has succeeded and every sidecar has started at least once.
pub(crate) fn is_initialized(records: &[Record]) -> bool {
    records.iter().all(|record| match (record.role, &record.state) {
        (Role::Main, _) => true,
        (Role::Init, State::Ended(ended)) => ended.exit_code == 0,
        (Role::Sidecar, State::Running(running)) => running.started || initialized_before(records),
        (Role::Sidecar, State::Ended(_)) => initialized_before(records),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{ended, pod_of, running};
    use super::super::image::Refusal;
    use super::*;
    use std::time::Duration;

    const NONE: [usize; 0] = [];

    fn starts(records: &[Record], policy: RestartPolicy) -> Vec<usize> {
        plan(records, policy, Instant::now()).start
    }

    #[test]
    fn main_containers_start_together() {
        let records = pod_of(&[Role::Main, Role::Main]);
        assert_eq!(starts(&records, RestartPolicy::Always), [0, 1]);
    }

    #[test]
    fn init_containers_go_first_one_by_one() {
        let mut records = pod_of(&[Role::Init, Role::Sidecar, Role::Init, Role::Main]);
        let mut order: Vec<usize> = Vec::new();
        for state in [ended(0), running(true), ended(0), running(true)] {
            let next = starts(&records, RestartPolicy::Always);
            assert_eq!(next.len(), 1);
            order.extend(&next);
            records[next[0]].state = state;
        }
        assert_eq!(order, [0, 1, 2, 3]);
        assert!(is_initialized(&records));
    }

    #[test]
    fn a_sidecar_holds_the_next_until_it_has_started() {
        let mut records = pod_of(&[Role::Sidecar, Role::Main]);
        records[0].state = running(false);
        assert_eq!(starts(&records, RestartPolicy::Always), NONE);
        records[0].state = running(true);
        assert_eq!(starts(&records, RestartPolicy::Always), [1]);
    }

    #[test]
    fn restart_policies() {
        let table = [
            (Role::Main, RestartPolicy::Always, 0, true),
            (Role::Main, RestartPolicy::Always, 1, true),
            (Role::Main, RestartPolicy::OnFailure, 0, false),
            (Role::Main, RestartPolicy::OnFailure, 1, true),
            (Role::Main, RestartPolicy::Never, 1, false),
            (Role::Init, RestartPolicy::Always, 1, true),
            (Role::Init, RestartPolicy::Never, 1, false),
            (Role::Sidecar, RestartPolicy::Never, 0, true),
        ];
        for (role, policy, exit, restarts) in table {
            let mut records = pod_of(&[role, Role::Main]);
            records[0].state = ended(exit);
            records[1].state = running(true);
            assert_eq!(!starts(&records, policy).is_empty(), restarts, "{role:?} {policy:?} exit {exit}");
        }
    }

    #[test]
    fn a_failed_init_container_keeps_the_others_away() {
        let mut records = pod_of(&[Role::Init, Role::Main]);
        records[0].state = ended(1);
        assert_eq!(starts(&records, RestartPolicy::Never), NONE);
        assert!(!is_initialized(&records));
    }

    #[test]
    fn sidecars_do_not_start_again_once_the_rest_is_over() {
        let mut records = pod_of(&[Role::Sidecar, Role::Main]);
        records[0].state = ended(0);
        records[1].state = running(true);
        assert_eq!(starts(&records, RestartPolicy::Never), [0]);
        records[1].state = ended(0);
        assert!(is_over(&records, RestartPolicy::Never));
        assert_eq!(starts(&records, RestartPolicy::Never), NONE);
        assert_eq!(starts(&records, RestartPolicy::Always), [0]);
    }

    #[test]
    fn what_is_missing_is_looked_for_again() {
        let mut records = pod_of(&[Role::Main, Role::Main]);
        let refusal = Refusal::config("configmap \"a\" not found".into());
        let at = refusal.retry_at.unwrap();
        records[0].state = State::Blocked(Refusal { retry_at: None, ..refusal.clone() });
        records[1].state = State::Blocked(refusal);
        let before = at.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(plan(&records, RestartPolicy::Always, before), Plan { start: vec![], wake: Some(at) });
        assert_eq!(plan(&records, RestartPolicy::Always, at).start, [1]);
    }

    #[test]
    fn a_wait_ends_at_its_time() {
        let mut records = pod_of(&[Role::Main, Role::Main]);
        records[0].state = ended(1);
        records[1].state = running(true);
        let at = records[0].ended().unwrap().at;
        records[0].backoff.restarted(at, at);
        let wake = at + Duration::from_secs(10);
        assert_eq!(plan(&records, RestartPolicy::Always, at), Plan { start: vec![], wake: Some(wake) });
        assert_eq!(plan(&records, RestartPolicy::Always, wake).start, [0]);
    }
}
