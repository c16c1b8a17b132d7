//! What a pod's status says, derived from what its containers do. Pure; reasons and messages are kubelet's.

use std::net::IpAddr;

use portolan_api::Time;
use portolan_api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus,
};

use super::container::{Record, RestartPolicy, Role, State};
use super::plan::is_initialized;

/// The conditions that the agent writes; others are somebody else's.
pub(crate) const OWN_CONDITIONS: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// All there is to know about a pod at a moment.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) records: &'a [Record],
    /// The pod has its namespace and its address.
    pub(crate) network_ready: bool,
    /// The pod is being deleted: what ends now has ended for good.
    pub(crate) ending: bool,
    pub(crate) pod_ips: &'a [IpAddr],
    pub(crate) host_ips: &'a [IpAddr],
    pub(crate) start_time: Time,
    /// What was reported before: conditions that stay the same keep their time.
    pub(crate) previous: &'a PodStatus,
    pub(crate) now: Time,
}

/// The status without conditions of others, which [`merge`] puts back.
pub(crate) fn derive(view: &View<'_>) -> PodStatus {
    let status = &view.pod.status;
    let containers = |main| {
        let of = move |record: &&Record| (record.role == Role::Main) == main;
        view.records.iter().filter(of).map(|record| container_status(view, record)).collect::<Vec<_>>()
    };
    let ip = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let phase = phase(view);
    PodStatus {
        observed_generation: view.pod.metadata.generation,
        phase: phase.into(),
        conditions: conditions(view, phase),
        host_ip: ip(view.host_ips),
        host_ips: view.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect(),
        pod_ip: ip(view.pod_ips),
        pod_ips: view.pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect(),
        start_time: Some(view.start_time),
        init_container_statuses: containers(false),
        container_statuses: containers(true),
        qos_class: status.qos_class.clone(),
        ..PodStatus::default()
    }
}

/// Adds what others wrote into `base` to a derived status.
pub(crate) fn merge(mut derived: PodStatus, base: &PodStatus) -> PodStatus {
    let foreign = |c: &&PodCondition| !OWN_CONDITIONS.contains(&c.type_.as_str());
    derived.conditions.extend(base.conditions.iter().filter(foreign).cloned());
    PodStatus {
        nominated_node_name: base.nominated_node_name.clone(),
        ephemeral_container_statuses: base.ephemeral_container_statuses.clone(),
        resize: base.resize.clone(),
        resource_claim_statuses: base.resource_claim_statuses.clone(),
        qos_class: base.qos_class.clone(),
        ..derived
    }
}

/// `name_namespace(uid)`, as kubelet's messages name a pod.
pub(crate) fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}_{}({})", meta.name, meta.namespace, meta.uid)
}

fn phase(view: &View<'_>) -> &'static str {
    match view.pod.status.phase.as_str() {
        "Succeeded" => return "Succeeded",
        "Failed" => return "Failed",
        _ => {}
    }
    let policy = RestartPolicy::of(view.pod);
    let failed_init = |r: &Record| r.role == Role::Init && r.ended().is_some_and(|e| e.exit_code != 0);
    let unstarted = |r: &Record| matches!(r.state, State::Waiting | State::Blocked(_)) && r.last.is_none();
    let main = || view.records.iter().filter(|r| r.role == Role::Main);
    // A pod that ends before all of it ran is judged by what did run.
    let cut_short = view.ending && any_started(view.records);
    if policy == RestartPolicy::Never && view.records.iter().any(failed_init) {
        return "Failed";
    }
    if !cut_short && (!is_initialized(view.records) || main().any(unstarted)) {
        return "Pending";
    }
    if view.records.iter().any(|r| r.running().is_some()) {
        return "Running";
    }
    if !view.ending && main().any(|r| r.wants_restart(policy)) {
        return "Running";
    }
    let succeeded = main().all(|r| r.ended().is_some_and(|e| e.exit_code == 0));
    if succeeded { "Succeeded" } else { "Failed" }
}

fn any_started(records: &[Record]) -> bool {
    records.iter().any(|r| r.running().is_some() || r.ended().is_some() || r.last.is_some())
}

fn container_status(view: &View<'_>, record: &Record) -> ContainerStatus {
    let waiting = |reason: &str, message: String| ContainerState {
        waiting: Some(ContainerStateWaiting { reason: reason.into(), message }),
        ..ContainerState::default()
    };
    let mut last = record.last.as_ref();
    let mut id = last.map(|ended| ended.id.clone()).unwrap_or_default();
    let state = match &record.state {
        State::Waiting => {
            let initializing = view.network_ready && !is_initialized(view.records)
                || record.role != Role::Main
                || view.records.iter().any(|r| r.role != Role::Main);
            waiting(if initializing { "PodInitializing" } else { "ContainerCreating" }, String::new())
        }
        State::Blocked(refusal) => waiting(refusal.reason, refusal.message.clone()),
        State::Running(running) => {
            id.clone_from(&running.id);
            let started_at = Some(running.started_at);
            ContainerState {
                running: Some(ContainerStateRunning { started_at }),
                ..ContainerState::default()
            }
        }
        State::Ended(ended) => {
            id.clone_from(&ended.id);
            let restarts = !view.ending && record.wants_restart(RestartPolicy::of(view.pod));
            if restarts && !record.backoff.wait(ended.at).is_zero() {
                last = Some(ended);
                let message = format!(
                    "back-off {} restarting failed container={} pod={}",
                    go_duration(record.backoff.wait(ended.at)),
                    record.name,
                    full_name(view.pod)
                );
                waiting("CrashLoopBackOff", message)
            } else {
                ContainerState { terminated: Some(ended.into()), ..ContainerState::default() }
            }
        }
    };
    ContainerStatus {
        name: record.name.clone(),
        state,
        last_state: ContainerState { terminated: last.map(Into::into), ..ContainerState::default() },
        ready: record.is_ready(),
        restart_count: record.restarts,
        image: record.image.clone(),
        image_id: if id.is_empty() { String::new() } else { record.image.clone() },
        container_id: id,
        started: Some(record.running().is_some_and(|running| running.started)),
        ..ContainerStatus::default()
    }
}

/// A duration as Go prints it: `10s`, `1m20s`, `5m0s`.
fn go_duration(duration: std::time::Duration) -> String {
    match (duration.as_secs() / 60, duration.as_secs() % 60) {
        (0, 0) => format!("{}ms", duration.as_millis()),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// True, or why not: reason and message.
type Verdict = Result<(), (&'static str, String)>;

fn conditions(view: &View<'_>, phase: &str) -> Vec<PodCondition> {
    let containers = containers_ready(view, phase);
    let ready = containers.clone().and_then(|()| gates(view.pod));
    let network = if view.network_ready { Ok(()) } else { Err(("", String::new())) };
    let verdicts = [network, initialized(view, phase), ready, containers, Ok(())];
    let condition = |(type_, verdict): (&str, Verdict)| {
        let completed = phase == "Succeeded" && type_ == "Initialized";
        let (status, reason, message) = match verdict {
            Ok(()) => ("True", if completed { "PodCompleted" } else { "" }, String::new()),
            Err((reason, message)) => ("False", reason, message),
        };
        PodCondition {
            type_: type_.into(),
            observed_generation: view.pod.metadata.generation,
            status: status.into(),
            last_transition_time: Some(transition(view, type_, status)),
            reason: reason.into(),
            message,
            ..PodCondition::default()
        }
    };
    OWN_CONDITIONS.into_iter().zip(verdicts).map(condition).collect()
}

fn transition(view: &View<'_>, type_: &str, status: &str) -> Time {
    let earlier = view.previous.condition(type_).or_else(|| view.pod.status.condition(type_));
    earlier.filter(|c| c.status == status).and_then(|c| c.last_transition_time).unwrap_or(view.now)
}

fn unready(records: &[Record], bad: impl Fn(&Record) -> bool) -> Option<String> {
    let names: Vec<&str> = records.iter().filter(|r| bad(r)).map(|r| r.name.as_str()).collect();
    (!names.is_empty()).then(|| names.join(" "))
}

fn containers_ready(view: &View<'_>, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Err(("PodCompleted", String::new())),
        "Failed" => return Err(("PodFailed", String::new())),
        _ => {}
    }
    match unready(view.records, |r| r.role != Role::Init && !r.is_ready()) {
        Some(names) => Err(("ContainersNotReady", format!("containers with unready status: [{names}]"))),
        None => Ok(()),
    }
}

fn initialized(view: &View<'_>, phase: &str) -> Verdict {
    if phase == "Succeeded" || is_initialized(view.records) {
        return Ok(());
    }
    let incomplete = |r: &Record| match (r.role, &r.state) {
        (Role::Main, _) => false,
        (Role::Init, State::Ended(ended)) => ended.exit_code != 0,
        (Role::Sidecar, State::Running(running)) => !running.started,
        _ => true,
    };
    let names = unready(view.records, incomplete).unwrap_or_default();
    Err(("ContainersNotInitialized", format!("containers with incomplete status: [{names}]")))
}

/// The conditions that others must have set.
fn gates(pod: &Pod) -> Verdict {
    let complaint = |gate: &str| match pod.status.condition(gate) {
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        Some(c) if c.status != "True" => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {}", c.status))
        }
        Some(_) => None,
    };
    let complaints: Vec<String> =
        pod.spec.readiness_gates.iter().filter_map(|gate| complaint(&gate.condition_type)).collect();
    if complaints.is_empty() { Ok(()) } else { Err(("ReadinessGatesNotReady", complaints.join(", "))) }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
