//! Pods, nodes, namespaces, configuration, and what makes pods.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{AGE, Column, NAME, NONE, UNKNOWN, age, column, items, name, or_none, since, text, wide};
use crate::core::v1::{ContainerStatus, Pod};
use crate::meta::v1::LabelSelector;
use crate::selector::LabelQuery;

pub static POD: &[Column] = &[
    NAME,
    column("Ready", "Containers that are ready, of all."),
    column("Status", "What the pod does."),
    column("Restarts", "How often its containers were restarted."),
    AGE,
    wide("IP", "Its first address."),
    wide("Node", "The node it runs on."),
    wide("Nominated Node", "The node it waits for."),
    wide("Readiness Gates", "Conditions that are true, of those it needs."),
];

pub fn pod(object: &Value, now: i64) -> Vec<Value> {
    let Ok(pod) = Pod::deserialize(object) else {
        return vec![name(object); POD.len()];
    };
    let summary = PodSummary::of(&pod);
    let restarts = match &summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            format!("{} ({} ago)", summary.restarts, since(Some(at), now))
        }
        _ => summary.restarts.to_string(),
    };
    let ip = pod.status.pod_ips.first().map(|ip| ip.ip.as_str()).unwrap_or_default();
    vec![
        name(object),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        age(object, now),
        or_none(ip).into(),
        or_none(&pod.spec.node_name).into(),
        or_none(&pod.status.nominated_node_name).into(),
        gates(&pod).into(),
    ]
}

fn gates(pod: &Pod) -> String {
    let all = &pod.spec.readiness_gates;
    if all.is_empty() {
        return NONE.to_owned();
    }
    let met = |t: &str| pod.status.condition(t).is_some_and(|c| c.status == "True");
    format!("{}/{}", all.iter().filter(|g| met(&g.condition_type)).count(), all.len())
}

/// What the state of a pod's containers adds up to.
struct PodSummary {
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<String>,
    reason: String,
}

impl PodSummary {
    fn of(pod: &Pod) -> Self {
        let sidecars: BTreeSet<&str> = pod
            .spec
            .init_containers
            .iter()
            .filter(|c| c.restart_policy.as_deref() == Some("Always"))
            .map(|c| c.name.as_str())
            .collect();
        let gated = pod.status.condition("PodScheduled").is_some_and(|c| c.reason == "SchedulingGated");
        let phase = [&pod.status.reason, &pod.status.phase].into_iter().find(|r| !r.is_empty());
        let mut summary = Self {
            ready: 0,
            total: pod.spec.containers.len() + sidecars.len(),
            restarts: 0,
            last_restart: None,
            reason: if gated { "SchedulingGated".to_owned() } else { phase.cloned().unwrap_or_default() },
        };
        let initializing = summary.init_containers(pod, &sidecars);
        if !initializing || pod.status.condition("Initialized").is_some_and(|c| c.status == "True") {
            summary.containers(pod, &sidecars);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            if pod.status.reason == "NodeLost" {
                "Unknown".clone_into(&mut summary.reason);
            } else if !["Succeeded", "Failed"].contains(&pod.status.phase.as_str()) {
                "Terminating".clone_into(&mut summary.reason);
            }
        }
        summary
    }

    fn count_restarts(&mut self, status: &ContainerStatus) {
        self.restarts += status.restart_count;
        let ended = status.last_state.terminated.as_ref().and_then(|t| t.finished_at).map(|t| t.to_string());
        // Times of one form compare as text.
        self.last_restart = self.last_restart.take().max(ended);
    }

    /// Goes through the init containers up to the first that is not done. Returns whether there is one.
    fn init_containers(&mut self, pod: &Pod, sidecars: &BTreeSet<&str>) -> bool {
        for (i, status) in pod.status.init_container_statuses.iter().enumerate() {
            self.count_restarts(status);
            let ended = status.state.terminated.as_ref();
            if ended.is_some_and(|t| t.exit_code == 0) {
                continue;
            }
            if sidecars.contains(status.name.as_str()) && status.started == Some(true) {
                self.ready += usize::from(status.ready);
                continue;
            }
            let waiting = status.state.waiting.as_ref().map(|w| w.reason.as_str()).unwrap_or_default();
            self.reason = if ended.is_some() {
                format!("Init:{}", end_reason(status))
            } else if !waiting.is_empty() && waiting != "PodInitializing" {
                format!("Init:{waiting}")
            } else {
                format!("Init:{i}/{}", pod.spec.init_containers.len())
            };
            return true;
        }
        false
    }

    fn containers(&mut self, pod: &Pod, sidecars: &BTreeSet<&str>) {
        (self.restarts, self.last_restart) = (0, None);
        for status in pod.status.init_container_statuses.iter().filter(|s| sidecars.contains(s.name.as_str()))
        {
            self.count_restarts(status);
        }
        let (mut running, mut failed) = (false, None);
        for status in pod.status.container_statuses.iter().rev() {
            self.count_restarts(status);
            let waiting = status.state.waiting.as_ref().map(|w| w.reason.as_str()).unwrap_or_default();
            if !waiting.is_empty() {
                waiting.clone_into(&mut self.reason);
            } else if let Some(ended) = &status.state.terminated {
                self.reason = end_reason(status);
                if ended.exit_code != 0 || ended.signal != 0 {
                    failed = Some(self.reason.clone());
                }
            } else if status.ready && status.state.running.is_some() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" {
            if running && pod.status.is_ready() {
                "Running".clone_into(&mut self.reason);
            } else if let Some(failed) = failed {
                self.reason = failed;
            } else if running {
                "NotReady".clone_into(&mut self.reason);
            }
        }
    }
}

/// How a container ended: the reason given, else its signal or exit code.
fn end_reason(status: &ContainerStatus) -> String {
    match &status.state.terminated {
        Some(t) if !t.reason.is_empty() => t.reason.clone(),
        Some(t) if t.signal != 0 => format!("Signal:{}", t.signal),
        Some(t) => format!("ExitCode:{}", t.exit_code),
        None => String::new(),
    }
}

pub static NODE: &[Column] = &[
    NAME,
    column("Status", "Whether it is ready for pods."),
    column("Roles", "What it is for."),
    AGE,
    column("Version", "Version of its agent."),
    wide("Internal-IP", "Its address in the cluster."),
    wide("External-IP", "Its address from outside."),
    wide("OS-Image", "Release of its operating system."),
    wide("Kernel-Version", "Release of its kernel."),
    wide("Container-Runtime", "What runs its containers."),
];

pub fn node(object: &Value, now: i64) -> Vec<Value> {
    let ready = items(object, "/status/conditions").iter().find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if object["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    let address = |kind: &str| {
        let found = items(object, "/status/addresses").iter().find(|a| a["type"] == kind);
        or_none(found.map(|a| text(a, "/address")).unwrap_or_default())
    };
    let info = |field: &str| {
        let found = text(object, &format!("/status/nodeInfo/{field}"));
        if found.is_empty() { UNKNOWN.to_owned() } else { found.to_owned() }
    };
    let mut kernel = info("kernelVersion");
    let architecture = text(object, "/status/nodeInfo/architecture");
    if kernel != UNKNOWN && !architecture.is_empty() {
        kernel = format!("{kernel} ({architecture})");
    }
    vec![
        name(object),
        status.into(),
        roles(object).into(),
        age(object, now),
        text(object, "/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP").into(),
        address("ExternalIP").into(),
        info("osImage").into(),
        kernel.into(),
        info("containerRuntimeVersion").into(),
    ]
}

fn roles(object: &Value) -> String {
    let labels = object["metadata"]["labels"].as_object();
    let roles: BTreeSet<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    or_none(&roles.into_iter().collect::<Vec<_>>().join(","))
}

pub static NAMESPACE: &[Column] = &[NAME, column("Status", "Active, or on its way out."), AGE];

pub fn namespace(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), text(object, "/status/phase").into(), age(object, now)]
}

pub static CONFIG_MAP: &[Column] = &[NAME, column("Data", "How many keys it has."), AGE];

pub fn config_map(object: &Value, now: i64) -> Vec<Value> {
    let keys = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    vec![name(object), json!(keys("data") + keys("binaryData")), age(object, now)]
}

pub static SECRET: &[Column] =
    &[NAME, column("Type", "What it is for."), column("Data", "How many keys it has."), AGE];

pub fn secret(object: &Value, now: i64) -> Vec<Value> {
    let keys = object["data"].as_object().map_or(0, serde_json::Map::len);
    vec![name(object), text(object, "/type").into(), json!(keys), age(object, now)]
}

pub static SERVICE_ACCOUNT: &[Column] = &[NAME, column("Secrets", "How many secrets its pods may use."), AGE];

pub fn service_account(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), json!(items(object, "/secrets").len()), age(object, now)]
}

pub static DEPLOYMENT: &[Column] = &[
    NAME,
    column("Ready", "Pods that are ready, of those wanted."),
    column("Up-to-date", "Pods made from the present template."),
    column("Available", "Pods that have been ready for long enough."),
    AGE,
    wide("Containers", "Names of the containers."),
    wide("Images", "Images of the containers."),
    wide("Selector", "Labels of its pods."),
];

pub fn deployment(object: &Value, now: i64) -> Vec<Value> {
    let count = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let mut cells = vec![
        name(object),
        format!("{}/{}", count("/status/readyReplicas"), count("/spec/replicas")).into(),
        json!(count("/status/updatedReplicas")),
        json!(count("/status/availableReplicas")),
        age(object, now),
    ];
    cells.extend(template(object));
    cells
}

pub static REPLICA_SET: &[Column] = &[
    NAME,
    column("Desired", "Pods wanted."),
    column("Current", "Pods there are."),
    column("Ready", "Pods that are ready."),
    AGE,
    wide("Containers", "Names of the containers."),
    wide("Images", "Images of the containers."),
    wide("Selector", "Labels of its pods."),
];

pub fn replica_set(object: &Value, now: i64) -> Vec<Value> {
    let count = |pointer: &str| json!(object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0));
    let mut cells = vec![
        name(object),
        count("/spec/replicas"),
        count("/status/replicas"),
        count("/status/readyReplicas"),
        age(object, now),
    ];
    cells.extend(template(object));
    cells
}

pub static SCALE: &[Column] = &[
    NAME,
    column("Desired", "Replicas that are wanted."),
    column("Available", "Replicas that are there."),
    AGE,
];

pub fn scale(object: &Value, now: i64) -> Vec<Value> {
    let count = |part: &str| json!(object[part]["replicas"].as_i64().unwrap_or(0));
    vec![name(object), count("spec"), count("status"), age(object, now)]
}

/// Containers, images and selector of what makes pods.
fn template(object: &Value) -> [Value; 3] {
    let containers = items(object, "/spec/template/spec/containers");
    let joined = |field: &str| containers.iter().map(|c| text(c, field)).collect::<Vec<_>>().join(",");
    let empty = BTreeMap::<String, String>::new();
    let selector = match LabelSelector::deserialize(&object["spec"]["selector"]) {
        Ok(selector) => LabelQuery::of_selector(&selector).map(|q| or_none(&q.to_string())),
        Err(_) => Ok(or_none(&LabelQuery::of_map(&empty).to_string())),
    };
    let selector = selector.unwrap_or_else(|_| "<invalid>".to_owned());
    [joined("/name").into(), joined("/image").into(), selector.into()]
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // Tables of json! values read better unborrowed.
mod tests {
    use super::*;

    fn pod_cells(spec: Value, status: Value) -> Vec<String> {
        let object = json!({"metadata": {"name": "p", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": spec, "status": status});
        pod(&object, 600).iter().map(|c| c.as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_running_pod() {
        let cells = pod_cells(
            json!({"nodeName": "n1", "containers": [{"name": "a"}, {"name": "b"}], "readinessGates": [{"conditionType": "x"}]}),
            json!({"phase": "Running", "podIPs": [{"ip": "10.1.0.1"}], "containerStatuses": [
                {"name": "a", "ready": true, "state": {"running": {}}, "restartCount": 2,
                 "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:05:00Z"}}},
                {"name": "b", "state": {"running": {}}}]}),
        );
        assert_eq!(cells, ["p", "1/2", "Running", "2 (5m ago)", "10m", "10.1.0.1", "n1", "<none>", "0/1"]);
    }

    #[test]
    fn the_status_says_what_holds_a_pod_up() {
        let one = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
        let status = |status: Value| pod_cells(one.clone(), status)[2].clone();
        let container =
            |state: Value| json!({"phase": "Running", "containerStatuses": [{"name": "a", "state": state}]});
        let init = |state: Value| json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": state}]});
        assert_eq!(status(json!({"phase": "Pending"})), "Pending");
        assert_eq!(status(json!({"phase": "Failed", "reason": "Evicted"})), "Evicted");
        assert_eq!(status(container(json!({"waiting": {"reason": "CrashLoopBackOff"}}))), "CrashLoopBackOff");
        assert_eq!(status(container(json!({"terminated": {"exitCode": 3}}))), "ExitCode:3");
        assert_eq!(status(container(json!({"terminated": {"exitCode": 137, "signal": 9}}))), "Signal:9");
        assert_eq!(
            status(container(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))),
            "Completed"
        );
        assert_eq!(status(init(json!({"running": {}}))), "Init:0/1");
        assert_eq!(status(init(json!({"waiting": {"reason": "ErrImagePull"}}))), "Init:ErrImagePull");
        assert_eq!(status(init(json!({"terminated": {"exitCode": 2}}))), "Init:ExitCode:2");
        let gated = json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]});
        assert_eq!(status(gated), "SchedulingGated");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let cells = pod_cells(
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}),
            json!({"phase": "Running", "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [{"name": "a", "ready": true, "state": {"running": {}}}]}),
        );
        assert_eq!(cells[1], "2/2");
        let early = pod_cells(
            json!({"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]}),
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "s", "started": true, "ready": true, "restartCount": 1, "state": {"running": {}}},
                {"name": "i", "restartCount": 2, "state": {"terminated": {"exitCode": 1, "signal": 15}}}]}),
        );
        assert_eq!(early[1..4], ["1/2", "Init:Signal:15", "3"]);
    }

    #[test]
    fn init_containers_hold_up_until_they_are_done() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let done = json!({"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}});
        let waiting = json!({"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}});
        let init = json!({"phase": "Pending", "initContainerStatuses": [done, waiting]});
        assert_eq!(pod_cells(spec.clone(), init)[1..4], ["0/1", "Init:1/2", "4"]);
        let ended = json!({"name": "j", "state": {"terminated": {"exitCode": 0}}});
        let run = json!({"phase": "Running", "initContainerStatuses": [done, ended], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 1, "state": {"running": {}}}]});
        assert_eq!(
            pod_cells(spec, run)[1..4],
            ["1/1", "Running", "1"],
            "restarts of what is done do not count"
        );
    }

    #[test]
    fn of_several_containers_the_first_that_says_something_counts() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let of = |a: Value, b: Value, ready: &str| {
            let running = |state: &Value| state.get("running").is_some();
            let (ready_a, ready_b) = (running(&a), running(&b));
            pod_cells(
                spec.clone(),
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
                    {"name": "a", "ready": ready_a, "state": a}, {"name": "b", "ready": ready_b, "state": b}]}),
            )[2]
            .clone()
        };
        let runs = json!({"running": {}});
        let completed = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let failed = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
        let waits = json!({"waiting": {"reason": "ImagePullBackOff"}});
        assert_eq!(of(completed.clone(), runs.clone(), "True"), "Running");
        assert_eq!(of(completed.clone(), runs, "False"), "NotReady");
        assert_eq!(of(completed.clone(), failed.clone(), "False"), "Error", "what failed is not hidden");
        assert_eq!(of(failed, completed.clone(), "False"), "Error");
        assert_eq!(of(waits, completed, "False"), "ImagePullBackOff");
    }

    #[test]
    fn a_dying_pod_says_so() {
        let object = |phase: &str| {
            json!({"metadata": {"name": "p", "deletionTimestamp": "1970-01-01T00:00:00Z"},
            "status": {"phase": phase}})
        };
        assert_eq!(pod(&object("Running"), 0)[2], "Terminating");
        assert_eq!(pod(&object("Succeeded"), 0)[2], "Succeeded");
        let mut lost = object("Running");
        lost["status"]["reason"] = "NodeLost".into();
        assert_eq!(pod(&lost, 0)[2], "Unknown");
    }

    #[test]
    fn a_node_shows_its_state_and_roles() {
        let object = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "",
            "kubernetes.io/role": "edge"}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.168.0.1"}],
                "nodeInfo": {"kernelVersion": "6.1", "architecture": "amd64", "kubeletVersion": "v1"}}});
        let cells = node(&object, 0);
        assert_eq!(
            cells,
            [
                "n",
                "Ready,SchedulingDisabled",
                "edge,worker",
                "<unknown>",
                "v1",
                "192.168.0.1",
                "<none>",
                "<unknown>",
                "6.1 (amd64)",
                "<unknown>"
            ]
        );
        assert_eq!(node(&json!({"metadata": {"name": "n"}}), 0)[1], "Unknown");
        for (status, shown) in [("True", "Ready"), ("False", "NotReady"), ("Unknown", "NotReady")] {
            let conditions =
                json!([{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": status}]);
            let cells = node(&json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}), 0);
            assert_eq!((&cells[1], &cells[2]), (&json!(shown), &json!("<none>")));
        }
    }

    #[test]
    fn a_namespace_shows_its_phase() {
        let object = json!({"metadata": {"name": "n", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "status": {"phase": "Terminating"}});
        assert_eq!(namespace(&object, 60), ["n", "Terminating", "60s"]);
    }

    #[test]
    fn a_deployment_shows_its_template() {
        let object = json!({"metadata": {"name": "d"}, "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "x", "image": "i"}, {"name": "y", "image": "j"}]}}},
            "status": {"readyReplicas": 2, "updatedReplicas": 3}});
        assert_eq!(
            deployment(&object, 0)[1..],
            [json!("2/3"), json!(3), json!(0), json!("<unknown>"), json!("x,y"), json!("i,j"), json!("a=b")]
        );
        let odd = json!({"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}});
        assert_eq!(deployment(&odd, 0)[7], "<invalid>");
    }
}
