//! From a `ReplicaSet` and its pods to what has to be done.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use portolan_api::Time;
use portolan_api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use portolan_api::selector::LabelQuery;
use serde_json::{Value, json};

use crate::objects::Pod;

/// At most so many pods are made or ended in one go.
const BURST: usize = 500;
/// Lower costs are ended first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// All that the plan depends on.
pub struct Input<'a> {
    pub set: &'a ReplicaSet,
    /// Pods that it controls, and pods of its labels that nobody controls.
    pub pods: &'a [Arc<Pod>],
    pub now: Time,
}

#[derive(Debug, Default)]
pub struct Plan {
    /// Pods with its labels and without a controller.
    pub adopt: Vec<Arc<Pod>>,
    /// Pods that have lost its labels.
    pub release: Vec<Arc<Pod>>,
    pub create: usize,
    pub delete: Vec<Arc<Pod>>,
    pub status: ReplicaSetStatus,
    /// When a pod will have been ready for long enough.
    pub again: Option<Duration>,
}

/// Plans one `ReplicaSet`.
pub fn plan(input: &Input<'_>) -> Plan {
    let (set, meta) = (input.set, &input.set.metadata);
    let deleting = meta.deletion_timestamp.is_some();
    let query = set.spec.selector.as_ref().and_then(|selector| LabelQuery::of_selector(selector).ok());
    let matches =
        |pod: &Pod| query.as_ref().is_some_and(|query| query.matches_by(|key| pod.metadata.labels.get(key)));
    let mut plan = Plan::default();
    let mut own = Vec::new();
    for pod in input.pods {
        match (pod.metadata.controller(), matches(pod)) {
            (Some(owner), true) if *owner.uid == *meta.uid => own.push(pod),
            (Some(owner), false) if *owner.uid == *meta.uid && !deleting => {
                plan.release.push(Arc::clone(pod));
            }
            (None, true) if !deleting && !pod.metadata.deleting() && !pod.finished() => {
                plan.adopt.push(Arc::clone(pod));
                own.push(pod);
            }
            _ => {}
        }
    }
    let (ending, active): (Vec<_>, Vec<_>) =
        own.into_iter().filter(|pod| !pod.finished()).partition(|pod| pod.metadata.deleting());
    let wanted = usize::try_from(set.spec.replicas.unwrap_or(1)).unwrap_or(0);
    if !deleting {
        plan.create = wanted.saturating_sub(active.len()).min(BURST);
        plan.delete = surplus(&active, active.len().saturating_sub(wanted).min(BURST));
    }
    status(&mut plan, input, &active, ending.len());
    plan
}

fn status(plan: &mut Plan, input: &Input<'_>, active: &[&Arc<Pod>], ending: usize) {
    let set = input.set;
    let labels = &set.spec.template.metadata.labels;
    let labelled = active
        .iter()
        .filter(|pod| labels.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value.as_str())));
    let waits: Vec<Option<i64>> = active
        .iter()
        .filter(|pod| pod.ready())
        .map(|pod| missing_seconds(pod, set.spec.min_ready_seconds, input.now))
        .collect();
    plan.again =
        waits.iter().flatten().min().map(|seconds| Duration::from_secs(u64::try_from(*seconds).unwrap_or(0)));
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    plan.status = ReplicaSetStatus {
        replicas: number(active.len()),
        fully_labeled_replicas: number(labelled.count()),
        ready_replicas: number(waits.len()),
        available_replicas: number(waits.iter().filter(|wait| wait.is_none()).count()),
        terminating_replicas: Some(number(ending)),
        observed_generation: set.metadata.generation,
        conditions: set.status.conditions.clone(),
    };
}

/// How many seconds a ready pod lacks to be available; `None` for one that is.
fn missing_seconds(pod: &Pod, min_ready: i32, now: Time) -> Option<i64> {
    if min_ready <= 0 {
        return None;
    }
    let since = pod.condition("Ready")?.last_transition_time.as_deref()?.parse::<jiff::Timestamp>().ok()?;
    let left = since.as_second() + i64::from(min_ready) - now.as_second();
    (left > 0).then_some(left)
}

/// The pods that are missed least, in the order of `kubectl scale`'s documentation: without a node, not running, not
/// ready, cheaper by annotation, more of them on a node, younger.
fn surplus(active: &[&Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    if count == 0 {
        return Vec::new();
    }
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for pod in active {
        *per_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let phase = |pod: &Pod| match pod.status.phase.as_str() {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let mut pods = active.to_vec();
    pods.sort_by_cached_key(|pod| {
        let cost = pod.metadata.annotations.get(DELETION_COST).and_then(|cost| cost.parse::<i32>().ok());
        let ready_since = pod.condition("Ready").and_then(|ready| ready.last_transition_time.clone());
        (
            (!pod.spec.node_name.is_empty(), phase(pod), pod.ready(), cost.unwrap_or(0)),
            Reverse(per_node.get(&*pod.spec.node_name).copied().unwrap_or(0)),
            Reverse(ready_since),
            Reverse(pod.metadata.creation_timestamp.clone()),
            Arc::clone(&pod.metadata.name),
        )
    });
    pods.into_iter().take(count).cloned().collect()
}

/// A pod of the template, to be created.
pub fn pod_of(set: &ReplicaSet) -> Value {
    let template = &set.spec.template;
    let mut metadata = BTreeMap::from([
        ("generateName", json!(format!("{}-", set.metadata.name))),
        ("namespace", json!(set.metadata.namespace)),
        ("labels", json!(template.metadata.labels)),
        ("ownerReferences", json!([owner(set)])),
    ]);
    if !template.metadata.annotations.is_empty() {
        metadata.insert("annotations", json!(template.metadata.annotations));
    }
    if !template.metadata.finalizers.is_empty() {
        metadata.insert("finalizers", json!(template.metadata.finalizers));
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.spec })
}

/// The reference to a `ReplicaSet` by which its pods are known.
pub fn owner(set: &ReplicaSet) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": set.metadata.name,
        "uid": set.metadata.uid,
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Owner;
    use crate::testing::{pod, set_ready};

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "set", "generation": 3 },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } },
                              "spec": { "containers": [{ "name": "c", "image": "i" }] } },
            },
        }))
        .unwrap()
    }

    fn own(name: &str) -> Pod {
        let mut pod = pod(name, "10.0.0.1");
        pod.metadata.owner_references =
            [Owner { uid: "set".into(), kind: "ReplicaSet".into(), controller: true, ..Owner::default() }]
                .into();
        pod
    }

    fn planned(set: &ReplicaSet, pods: Vec<Pod>) -> Plan {
        let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
        plan(&Input { set, pods: &pods, now: Time::from_second(1_000_000) })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| &*pod.metadata.name).collect()
    }

    #[test]
    fn what_is_missing_is_made_and_what_ends_does_not_count() {
        let (mut ending, mut failed, mut unready) = (own("b"), own("c"), own("d"));
        ending.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        failed.status.phase = "Failed".into();
        set_ready(&mut unready, false);
        let plan = planned(&set(3), vec![own("a"), ending, failed, unready]);
        assert_eq!((plan.create, names(&plan.delete)), (1, vec![]));
        let status = &plan.status;
        assert_eq!((status.replicas, status.ready_replicas, status.terminating_replicas), (2, 1, Some(1)));
        assert_eq!(status.observed_generation, 3);
    }

    #[test]
    fn the_least_missed_go_first() {
        let (mut homeless, mut pending, mut unready, mut cheap) = (own("a"), own("b"), own("c"), own("d"));
        homeless.spec.node_name = "".into();
        pending.status.phase = "Pending".into();
        set_ready(&mut unready, false);
        cheap.metadata.annotations.insert(DELETION_COST, "-5");
        let mut alone = own("e");
        alone.spec.node_name = "n2".into();
        let mut young = own("f");
        young.metadata.creation_timestamp = Some("2026-02-02T00:00:00Z".into());
        let all = || {
            vec![
                young.clone(),
                alone.clone(),
                cheap.clone(),
                unready.clone(),
                pending.clone(),
                homeless.clone(),
                own("g"),
            ]
        };
        let plan = planned(&set(0), all());
        assert_eq!(names(&plan.delete), ["a", "b", "c", "d", "f", "g", "e"]);
        assert_eq!(names(&planned(&set(5), all()).delete), ["a", "b"]);
    }

    #[test]
    fn pods_come_and_go_with_their_labels() {
        let mut strayed = own("a");
        strayed.metadata.labels.insert("app", "debug");
        let mut others = pod("c", "10.0.0.3");
        others.metadata.owner_references =
            [Owner { uid: "other".into(), controller: true, ..Owner::default() }].into();
        let plan = planned(&set(2), vec![strayed, pod("b", "10.0.0.2"), others]);
        assert_eq!((names(&plan.release), names(&plan.adopt), plan.create), (vec!["a"], vec!["b"], 1));
    }

    #[test]
    fn available_after_so_many_seconds() {
        let mut set = set(2);
        set.spec.min_ready_seconds = 10;
        let since = |second: i64| {
            let mut pod = own(&format!("p{second}"));
            pod.status.conditions[0].last_transition_time = Some(Time::from_second(second).to_string());
            pod
        };
        let plan = planned(&set, vec![since(999_990), since(999_996)]);
        assert_eq!((plan.status.ready_replicas, plan.status.available_replicas), (2, 1));
        assert_eq!(plan.again, Some(Duration::from_secs(6)));
    }

    #[test]
    fn one_that_is_deleted_makes_nothing() {
        let mut set = set(3);
        set.metadata.deletion_timestamp = Some(Time::now());
        let plan = planned(&set, vec![own("a"), pod("b", "10.0.0.2")]);
        assert_eq!((plan.create, plan.delete.len(), plan.adopt.len()), (0, 0, 0));
    }

    #[test]
    fn a_pod_is_the_template_with_an_owner() {
        let pod = pod_of(&set(1));
        assert_eq!(pod["metadata"]["generateName"], "web-");
        assert_eq!(pod["metadata"]["labels"], json!({ "app": "web" }));
        assert_eq!(pod["metadata"]["ownerReferences"][0]["uid"], "set");
        assert_eq!(pod["spec"]["containers"][0]["image"], "i");
    }
}
