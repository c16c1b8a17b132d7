//! Status of pods in given states.

use serde_json::{Value, json};

use super::super::fixtures::{ended, pod_of, running};
use super::*;

fn pod(spec: &Value) -> Pod {
    let meta = json!({"name": "web", "namespace": "shop", "uid": "u1", "generation": 3});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

struct Case {
    pod: Pod,
    records: Vec<Record>,
    network_ready: bool,
    ending: bool,
    previous: PodStatus,
}

fn case(roles: &[Role], policy: &str) -> Case {
    Case {
        pod: pod(&json!({ "restartPolicy": policy })),
        records: pod_of(roles),
        network_ready: true,
        ending: false,
        previous: PodStatus::default(),
    }
}

impl Case {
    fn derive(&self) -> PodStatus {
        self.derive_at(1000)
    }

    fn derive_at(&self, second: i64) -> PodStatus {
        derive(&View {
            pod: &self.pod,
            records: &self.records,
            network_ready: self.network_ready,
            ending: self.ending,
            pod_ips: &["10.1.0.5".parse().unwrap()],
            host_ips: &["192.0.2.1".parse().unwrap()],
            start_time: Time::from_second(50),
            previous: &self.previous,
            now: Time::from_second(second),
        })
    }

    fn condition(&self, type_: &str) -> (String, String, String) {
        let status = self.derive();
        let c = status.condition(type_).unwrap().clone();
        (c.status, c.reason, c.message)
    }
}

fn expect(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.into(), reason.into(), message.into())
}

#[test]
fn a_new_pod_is_pending() {
    let mut case = case(&[Role::Main], "Always");
    case.network_ready = false;
    let status = case.derive();
    assert_eq!(status.phase, "Pending");
    assert_eq!(status.container_statuses[0].state.waiting.as_ref().unwrap().reason, "ContainerCreating");
    assert_eq!(status.condition("PodReadyToStartContainers").unwrap().status, "False");
    assert_eq!(status.condition("PodScheduled").unwrap().status, "True");
    assert_eq!(status.condition("Initialized").unwrap().status, "True");
    let unready = expect("False", "ContainersNotReady", "containers with unready status: [c0]");
    assert_eq!(case.condition("Ready"), unready);
    assert_eq!(case.condition("ContainersReady"), unready);
    assert_eq!(status.observed_generation, 3);
}

#[test]
fn a_running_pod_is_ready_with_all_its_containers() {
    let mut case = case(&[Role::Main, Role::Main], "Always");
    case.records[0].state = running(true);
    case.records[1].state = running(true);
    let status = case.derive();
    assert_eq!(status.phase, "Running");
    assert!(status.is_ready());
    assert_eq!((status.pod_ip.as_str(), status.host_ip.as_str()), ("10.1.0.5", "192.0.2.1"));
    case.records[1].running_mut().unwrap().ready = false;
    let unready = expect("False", "ContainersNotReady", "containers with unready status: [c1]");
    assert_eq!(case.condition("Ready"), unready);
    assert_eq!(case.derive().phase, "Running");
}

#[test]
fn prb_4_readiness_gates_must_be_true_too() {
    let mut case = case(&[Role::Main], "Always");
    case.records[0].state = running(true);
    case.pod.spec.readiness_gates = serde_json::from_value(json!([{"conditionType": "lb"}])).unwrap();
    let missing = "corresponding condition of pod readiness gate \"lb\" does not exist.";
    assert_eq!(case.condition("Ready"), expect("False", "ReadinessGatesNotReady", missing));
    assert_eq!(case.condition("ContainersReady"), expect("True", "", ""));
    let mut set = |status: &str| {
        case.pod.status.conditions =
            serde_json::from_value(json!([{"type": "lb", "status": status}])).unwrap();
        case.condition("Ready")
    };
    let not_true = "the status of pod readiness gate \"lb\" is not \"True\", but False";
    assert_eq!(set("False"), expect("False", "ReadinessGatesNotReady", not_true));
    assert_eq!(set("True"), expect("True", "", ""));
}

#[test]
fn a_container_that_keeps_ending_waits() {
    let mut case = case(&[Role::Main], "Always");
    case.records[0].state = ended(1);
    let at = case.records[0].ended().unwrap().at;
    case.records[0].backoff.restarted(at, at);
    case.records[0].restarts = 1;
    let status = case.derive();
    assert_eq!(status.phase, "Running");
    let container = &status.container_statuses[0];
    let waiting = container.state.waiting.as_ref().unwrap();
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=c0 pod=web_shop(u1)");
    assert_eq!(container.last_state.terminated.as_ref().unwrap().exit_code, 1);
    assert_eq!(container.restart_count, 1);
}

#[test]
fn ends_by_restart_policy() {
    let table = [
        ("Always", [0, 0], "Running"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("OnFailure", [0, 1], "Running"),
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 1], "Failed"),
    ];
    for (policy, exits, phase) in table {
        let mut case = case(&[Role::Main, Role::Main], policy);
        case.records[0].state = ended(exits[0]);
        case.records[1].state = ended(exits[1]);
        assert_eq!(case.derive().phase, phase, "{policy} {exits:?}");
    }
}

#[test]
fn a_deleted_pod_ends_succeeded_or_failed() {
    let mut case = case(&[Role::Main], "Always");
    case.ending = true;
    case.records[0].state = running(true);
    let status = case.derive();
    assert_eq!(status.phase, "Running");
    assert!(status.is_ready(), "the probe still decides");
    case.records[0].state = ended(0);
    assert_eq!(case.derive().phase, "Succeeded");
    assert_eq!(case.condition("Ready"), expect("False", "PodCompleted", ""));
    assert_eq!(case.condition("Initialized"), expect("True", "PodCompleted", ""));
    case.records[0].state = ended(137);
    assert_eq!(case.derive().phase, "Failed");
    assert_eq!(case.condition("Ready"), expect("False", "PodFailed", ""));
    let terminated = case.derive().container_statuses[0].state.terminated.clone().unwrap();
    assert_eq!((terminated.exit_code, terminated.reason.as_str()), (137, "Error"));
}

#[test]
fn terminal_phases_never_revert() {
    let mut case = case(&[Role::Main], "Always");
    case.records[0].state = running(true);
    case.pod.status.phase = "Failed".into();
    assert_eq!(case.derive().phase, "Failed");
}

#[test]
fn init_containers() {
    let mut case = case(&[Role::Init, Role::Sidecar, Role::Main], "Never");
    case.records[0].state = running(true);
    let status = case.derive();
    assert_eq!(status.phase, "Pending");
    assert_eq!(status.init_container_statuses.len(), 2);
    assert_eq!(status.container_statuses[0].state.waiting.as_ref().unwrap().reason, "PodInitializing");
    let incomplete = "containers with incomplete status: [c0 c1]";
    assert_eq!(case.condition("Initialized"), expect("False", "ContainersNotInitialized", incomplete));
    let unready = expect("False", "ContainersNotReady", "containers with unready status: [c1 c2]");
    assert_eq!(case.condition("Ready"), unready);
    case.records[0].state = ended(1);
    assert_eq!(case.derive().phase, "Failed");
    case.records[0].state = ended(0);
    case.records[1].state = running(true);
    case.records[2].state = running(true);
    assert_eq!(case.condition("Initialized"), expect("True", "", ""));
    let status = case.derive();
    assert_eq!(status.phase, "Running");
    assert!(status.is_ready());
    case.records[2].state = ended(0);
    assert_eq!(case.derive().phase, "Running", "until the sidecar has stopped");
    case.records[1].state = ended(143);
    assert_eq!(case.derive().phase, "Succeeded", "whatever the sidecar's exit code");
}

#[test]
fn an_image_that_cannot_run_is_waiting() {
    let mut case = case(&[Role::Main], "Always");
    let refusal = super::super::image::Refusal {
        reason: "ErrImageNeverPull",
        message: "no image store".into(),
        retry_at: None,
    };
    case.records[0].state = State::Blocked(refusal);
    let status = case.derive();
    assert_eq!(status.phase, "Pending");
    let waiting = status.container_statuses[0].state.waiting.clone().unwrap();
    assert_eq!((waiting.reason.as_str(), waiting.message.as_str()), ("ErrImageNeverPull", "no image store"));
}

#[test]
fn transition_times_change_with_the_status_only() {
    let mut case = case(&[Role::Main], "Always");
    case.records[0].state = running(true);
    case.previous = case.derive_at(1000);
    let time =
        |status: &PodStatus| status.condition("Ready").unwrap().last_transition_time.unwrap().as_second();
    assert_eq!(time(&case.derive_at(2000)), 1000);
    case.records[0].running_mut().unwrap().ready = false;
    assert_eq!(time(&case.derive_at(2000)), 2000);
}

#[test]
fn conditions_of_others_are_kept() {
    let mut case = case(&[Role::Main], "Always");
    case.records[0].state = running(true);
    let base: PodStatus = serde_json::from_value(json!({
        "qosClass": "BestEffort",
        "conditions": [{"type": "lb", "status": "True"}, {"type": "Ready", "status": "False"}],
    }))
    .unwrap();
    let merged = merge(case.derive(), &base);
    let types: Vec<&str> = merged.conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(types.len(), 6);
    assert_eq!(types.last(), Some(&"lb"));
    assert!(merged.is_ready());
    assert_eq!(merged.qos_class, "BestEffort");
}
