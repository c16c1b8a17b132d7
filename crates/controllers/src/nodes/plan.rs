//! What to write about a node that fell silent, and about its pods.

use serde_json::{Value, json};

use crate::objects::{Node, Pod};

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

#[cfg(test)]
mod tests {
    use super::*;
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
}
