//! What to write about a node that fell silent, and about its pods.

use serde_json::{Value, json};

use crate::objects::{Node, Pod, Taint};
use crate::scheduler::plan::tolerates;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const EFFECTS: [&str; 2] = ["NoSchedule", "NoExecute"];

/// Conditions that only the node itself can know.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The status patch (strategic: conditions merge by type) that turns what a silent node said into Unknown; `None` when
/// it says so already.
pub fn silent(node: &Node, now: &str) -> Option<Value> {
    let unknown = |kind: &str| match node.condition(kind) {
        Some(condition) => condition.status != "Unknown",
        None => kind == "Ready",
    };
    let conditions: Vec<Value> = REPORTED
        .iter()
        .filter(|kind| unknown(kind))
        .map(|kind| {
            let never = node.condition(kind).is_none();
            json!({
                "type": kind,
                "status": "Unknown",
                "reason": if never { "NodeStatusNeverUpdated" } else { "NodeStatusUnknown" },
                "message": if never { "Kubelet never posted node status." } else { "Kubelet stopped posting node status." },
                "lastTransitionTime": now,
                "lastHeartbeatTime": node.condition(kind).and_then(|c| c.last_heartbeat_time.clone()).unwrap_or_else(|| now.to_owned()),
            })
        })
        .collect();
    (!conditions.is_empty()).then(|| json!({ "status": { "conditions": conditions } }))
}

/// The status patch that makes a pod not ready because its node is not; `None` when it is not ready already.
pub fn not_ready(pod: &Pod, now: &str) -> Option<Value> {
    pod.ready().then(|| {
        json!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "lastTransitionTime": now }
        ] } })
    })
}

/// How long pods stay on a node that is gone if they do not say it. Admission has them say so much; these are older.
const TOLERATION_SECONDS: i64 = 300;

/// The patch that gives a node the taints of its state, for schedulers and for its pods, and a time to those that evict and
/// have none; `None` when all is so.
pub fn tainted(node: &Node, now: &str) -> Option<Value> {
    let key = match node.condition("Ready").map(|ready| ready.status.as_str()) {
        // A node that has said nothing yet is only just starting.
        None | Some("True") => None,
        Some("False") => Some(NOT_READY),
        Some(_) => Some(UNREACHABLE),
    };
    let ours = |taint: &&Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    let has =
        |effect: &str| node.spec.taints.iter().any(|t| Some(t.key.as_str()) == key && t.effect == effect);
    let (present, wanted) = (node.spec.taints.iter().filter(ours).count(), if key.is_some() { 2 } else { 0 });
    let timeless = |taint: &Taint| taint.effect == "NoExecute" && taint.time_added.is_none();
    let right = present == wanted && (key.is_none() || EFFECTS.iter().all(|effect| has(effect)));
    if right && !node.spec.taints.iter().any(timeless) {
        return None;
    }
    let mut taints: Vec<Taint> = node.spec.taints.iter().filter(|taint| !ours(taint)).cloned().collect();
    for taint in taints.iter_mut().filter(|taint| timeless(taint)) {
        taint.time_added = Some(now.to_owned());
    }
    taints.extend(key.into_iter().flat_map(|key| {
        EFFECTS.map(|effect| Taint {
            key: key.into(),
            effect: effect.into(),
            time_added: Some(now.to_owned()),
            ..Taint::default()
        })
    }));
    // Whoever changed the list meanwhile is not overwritten: the version says so.
    Some(json!({
        "metadata": { "resourceVersion": node.metadata.resource_version },
        "spec": { "taints": taints },
    }))
}

/// When a pod has to leave a node with these taints, in seconds since 1970; `None`: it may stay.
pub fn leaves_at(pod: &Pod, node: &Node) -> Option<i64> {
    if pod.metadata.deleting() || pod.finished() {
        return None;
    }
    let evicts = node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute");
    evicts.filter_map(|taint| leaves_for(pod, taint)).min()
}

/// [`leaves_at`] for one taint.
fn leaves_for(pod: &Pod, taint: &Taint) -> Option<i64> {
    let since = taint.time_added.as_deref()?.parse::<jiff::Timestamp>().ok()?.as_second();
    let tolerations: Vec<_> = pod.spec.tolerations.iter().filter(|t| tolerates(t, taint)).collect();
    if tolerations.is_empty() {
        let gone = taint.key == NOT_READY || taint.key == UNREACHABLE;
        return Some(if gone { since + TOLERATION_SECONDS } else { since });
    }
    // Without a time it stays for ever; of several times the shortest counts.
    let seconds = tolerations.iter().filter_map(|t| t.toleration_seconds).min()?;
    Some(since + seconds.max(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Toleration;
    use crate::testing::{node, pod};

    #[test]
    fn conditions_turn_unknown_once() {
        let mut it = node("a", "");
        let patch = silent(&it, "2026-01-01T00:00:00Z").unwrap();
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions.len(), 1, "conditions that the node never reported are not invented");
        assert_eq!(conditions[0]["reason"], "NodeStatusUnknown");
        it.status.conditions[0].status = "Unknown".into();
        assert_eq!(silent(&it, "2026-01-01T00:00:00Z"), None);
        it.status.conditions.clear();
        let patch = silent(&it, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(patch["status"]["conditions"][0]["reason"], "NodeStatusNeverUpdated");
    }

    #[test]
    fn ready_pods_turn_not_ready_once() {
        let mut it = pod("a", "10.0.0.1");
        let patch = not_ready(&it, "2026-01-01T00:00:00Z").unwrap();
        assert_eq!(patch["status"]["conditions"][0]["status"], "False");
        crate::testing::set_ready(&mut it, false);
        assert_eq!(not_ready(&it, "2026-01-01T00:00:00Z"), None);
    }

    fn with_taints(mut node: Node, patch: &Value) -> Node {
        node.spec.taints = serde_json::from_value(patch["spec"]["taints"].clone()).unwrap();
        node
    }

    #[test]
    fn taints_follow_the_state_and_leave_others_alone() {
        let now = "2026-01-01T00:00:00Z";
        let mut it = node("a", "");
        assert_eq!(tainted(&it, now), None);
        let own = Taint { key: "gpu".into(), effect: "NoSchedule".into(), ..Taint::default() };
        it.spec.taints = vec![own.clone()];
        it.status.conditions[0].status = "Unknown".into();
        let mut it = with_taints(it.clone(), &tainted(&it, now).unwrap());
        let keys = |node: &Node| -> Vec<String> { node.spec.taints.iter().map(|t| t.key.clone()).collect() };
        assert_eq!(keys(&it), ["gpu", UNREACHABLE, UNREACHABLE]);
        assert_eq!(tainted(&it, "2026-01-01T00:00:09Z"), None, "once");
        it.status.conditions[0].status = "False".into();
        let mut it = with_taints(it.clone(), &tainted(&it, now).unwrap());
        assert_eq!(keys(&it), ["gpu", NOT_READY, NOT_READY]);
        it.status.conditions[0].status = "True".into();
        assert_eq!(with_taints(it.clone(), &tainted(&it, now).unwrap()).spec.taints, [own]);
    }

    #[test]
    fn a_taint_that_evicts_gets_a_time_and_pods_leave_at_once_or_when_they_said() {
        let mut it = node("a", "");
        let taint = |effect: &str| Taint { key: "k".into(), effect: effect.into(), ..Taint::default() };
        it.spec.taints = vec![taint("NoSchedule")];
        assert_eq!(tainted(&it, "1970-01-01T00:10:00Z"), None);
        it.spec.taints.push(taint("NoExecute"));
        let mut pod = pod("a", "10.0.0.1");
        assert_eq!(leaves_at(&pod, &it), None, "not before it has a time");
        let it = with_taints(it.clone(), &tainted(&it, "1970-01-01T00:10:00Z").unwrap());
        assert_eq!(it.spec.taints.iter().filter(|taint| taint.time_added.is_some()).count(), 1);
        assert_eq!(tainted(&it, "1970-01-01T00:11:00Z"), None, "once");
        assert_eq!(leaves_at(&pod, &it), Some(600));
        let toleration = |seconds| Toleration {
            operator: "Exists".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        pod.spec.tolerations = vec![toleration(Some(30))];
        assert_eq!(leaves_at(&pod, &it), Some(630));
        pod.spec.tolerations = vec![toleration(None)];
        assert_eq!(leaves_at(&pod, &it), None);
    }

    #[test]
    fn pods_leave_after_their_time() {
        let mut it = node("a", "");
        it.status.conditions[0].status = "Unknown".into();
        let it = with_taints(it.clone(), &tainted(&it, "1970-01-01T00:10:00Z").unwrap());
        let mut pod = pod("a", "10.0.0.1");
        assert_eq!(leaves_at(&pod, &it), Some(900));
        let toleration = |seconds| Toleration {
            key: UNREACHABLE.into(),
            operator: "Exists".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        pod.spec.tolerations = vec![toleration(Some(30)), toleration(Some(20))];
        assert_eq!(leaves_at(&pod, &it), Some(620));
        pod.spec.tolerations = vec![toleration(None)];
        assert_eq!(leaves_at(&pod, &it), None);
        pod.spec.tolerations.clear();
        pod.metadata.deletion_timestamp = Some("1970-01-01T00:10:00Z".into());
        assert_eq!(leaves_at(&pod, &it), None);
        assert_eq!(leaves_at(&crate::testing::pod("b", ""), &node("b", "")), None);
    }
}
