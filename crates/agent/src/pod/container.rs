//! What the agent remembers of each container of a pod.

use std::time::Instant;

use portolan_api::Time;
use portolan_api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod};

use super::backoff::Backoff;
use super::image::Refusal;
use crate::config::BackoffLimits;

/// When in the life of its pod a container runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// To its end, before the others.
    Init,
    /// From before the others until after them.
    Sidecar,
    Main,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn of(pod: &Pod) -> Self {
        match pod.spec.restart_policy.as_str() {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum State {
    /// Its turn has not come.
    Waiting,
    /// It cannot be started, and trying again would not help.
    Blocked(Refusal),
    Running(Running),
    Ended(Ended),
}

#[derive(Debug, Clone)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) started_at: Time,
    pub(crate) since: Instant,
    /// It passed its startup probe, or has none.
    pub(crate) started: bool,
    /// Its readiness probe says so, or there is none.
    pub(crate) ready: bool,
    /// When it is killed, once it has been asked to stop.
    pub(crate) kill_at: Option<Instant>,
}

/// How a container ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) id: String,
    pub(crate) exit_code: i32,
    pub(crate) signal: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) started_at: Option<Time>,
    pub(crate) finished_at: Time,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) role: Role,
    pub(crate) state: State,
    /// The end before the present state.
    pub(crate) last: Option<Ended>,
    pub(crate) restarts: i32,
    pub(crate) backoff: Backoff,
}

impl Record {
    pub(crate) fn running(&self) -> Option<&Running> {
        if let State::Running(running) = &self.state { Some(running) } else { None }
    }

    pub(crate) fn running_mut(&mut self) -> Option<&mut Running> {
        if let State::Running(running) = &mut self.state { Some(running) } else { None }
    }

    pub(crate) fn ended(&self) -> Option<&Ended> {
        if let State::Ended(ended) = &self.state { Some(ended) } else { None }
    }

    /// Started, and its readiness probe succeeds.
    pub(crate) fn is_ready(&self) -> bool {
        match (&self.state, self.role) {
            (State::Running(running), Role::Sidecar | Role::Main) => running.started && running.ready,
            (State::Ended(ended), Role::Init) => ended.exit_code == 0,
            _ => false,
        }
    }

    /// A container that has ended is to be started again.
    pub(crate) fn wants_restart(&self, policy: RestartPolicy) -> bool {
        let Some(ended) = self.ended() else { return false };
        match (self.role, policy) {
            (Role::Sidecar, _) | (Role::Main, RestartPolicy::Always) => true,
            (Role::Init | Role::Main, RestartPolicy::OnFailure) | (Role::Init, RestartPolicy::Always) => {
                ended.exit_code != 0
            }
            (_, RestartPolicy::Never) => false,
        }
    }

    /// When the container that has ended may start again.
    pub(crate) fn restart_at(&self) -> Option<Instant> {
        self.ended().map(|ended| ended.at + self.backoff.wait(ended.at))
    }
}

/// The containers of a pod in the order in which they start, with those of `initContainers` first.
pub(crate) fn specs(pod: &Pod) -> impl Iterator<Item = (Role, &Container)> {
    let init = pod.spec.init_containers.iter().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (if sidecar { Role::Sidecar } else { Role::Init }, container)
    });
    init.chain(pod.spec.containers.iter().map(|container| (Role::Main, container)))
}

/// Records for a pod that this agent starts with. What the pod's status says of earlier runs, by an agent that is no
/// more, counts as ended: its processes died with it.
pub(crate) fn records(pod: &Pod, limits: BackoffLimits, now: Instant, wall: Time) -> Vec<Record> {
    let statuses = || pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
    specs(pod)
        .map(|(role, spec)| {
            let earlier = statuses().find(|status| status.name == spec.name);
            let ended = earlier.and_then(|status| ended_before(status, now, wall));
            Record {
                name: spec.name.clone(),
                image: spec.image.clone(),
                role,
                restarts: earlier.map_or(0, |status| status.restart_count),
                backoff: Backoff::new(limits),
                last: None,
                // A new network namespace is initialised anew.
                state: ended.filter(|_| role == Role::Main).map_or(State::Waiting, State::Ended),
            }
        })
        .collect()
}

fn ended_before(status: &ContainerStatus, now: Instant, wall: Time) -> Option<Ended> {
    if let Some(running) = &status.state.running {
        return Some(Ended {
            id: status.container_id.clone(),
            exit_code: 137,
            signal: 0,
            reason: "ContainerStatusUnknown".into(),
            message: "The container ended together with the node agent that ran it".into(),
            started_at: running.started_at,
            finished_at: wall,
            at: now,
        });
    }
    let terminated = status.state.terminated.as_ref().or(status.last_state.terminated.as_ref())?;
    Some(Ended {
        id: terminated.container_id.clone(),
        exit_code: terminated.exit_code,
        signal: terminated.signal,
        reason: terminated.reason.clone(),
        message: terminated.message.clone(),
        started_at: terminated.started_at,
        finished_at: terminated.finished_at.unwrap_or(wall),
        at: now,
    })
}

impl From<&Ended> for ContainerStateTerminated {
    fn from(ended: &Ended) -> Self {
        Self {
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: ended.reason.clone(),
            message: ended.message.clone(),
            started_at: ended.started_at,
            finished_at: Some(ended.finished_at),
            container_id: ended.id.clone(),
        }
    }
}
