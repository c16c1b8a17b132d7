//! Which node a pod goes to, or why to none.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::objects::{Node, Pod, Taint, Toleration};

/// A node as the choice sees it.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub node: &'a Node,
    /// Pods bound to it.
    pub pods: usize,
    /// Pods bound to it that look like the one to place: [`alike`].
    pub alike: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Node(String),
    /// The sentence for the event and the condition.
    None {
        message: String,
    },
}

/// Whether this scheduler places the pod.
pub fn is_ours(pod: &Pod) -> bool {
    pod.spec.node_name.is_empty()
        && !pod.metadata.deleting()
        && !pod.finished()
        && pod.spec.scheduling_gates.is_empty()
        && (pod.spec.scheduler_name.is_empty() || pod.spec.scheduler_name == super::NAME)
}

/// Whether two pods do the same work, so that they are better apart: the same labels, or names that differ only after
/// their last dash (`web-1`, `web-2`).
pub fn alike(a: &Pod, b: &Pod) -> bool {
    let family = |pod: &Pod| pod.metadata.name.rsplit_once('-').map(|(family, _)| family.to_owned());
    a.metadata.namespace == b.metadata.namespace
        && ((!a.metadata.labels.is_empty() && a.metadata.labels == b.metadata.labels)
            || (family(a).is_some() && family(a) == family(b)))
}

/// Chooses among all nodes.
pub fn choose(pod: &Pod, nodes: &[Candidate<'_>]) -> Choice {
    if nodes.is_empty() {
        return Choice::None { message: "no nodes available to schedule pods".into() };
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut fitting: Vec<&Candidate<'_>> = Vec::new();
    for candidate in nodes {
        match obstacle(pod, candidate.node) {
            None => fitting.push(candidate),
            Some(reason) => *reasons.entry(reason).or_default() += 1,
        }
    }
    match fitting.into_iter().min_by(|a, b| better(a, b)) {
        Some(best) => Choice::Node(best.node.metadata.name.to_string()),
        None => Choice::None { message: message(nodes.len(), &reasons) },
    }
}

fn better(a: &Candidate<'_>, b: &Candidate<'_>) -> Ordering {
    let rank = |candidate: &Candidate<'_>| (candidate.alike, candidate.pods);
    rank(a).cmp(&rank(b)).then_with(|| a.node.metadata.name.cmp(&b.node.metadata.name))
}

/// Why the pod cannot run there, in kube-scheduler's words.
fn obstacle(pod: &Pod, node: &Node) -> Option<String> {
    let tolerated =
        |taint: &Taint| pod.spec.tolerations.iter().any(|toleration| tolerates(toleration, taint));
    let unschedulable = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        effect: "NoSchedule".into(),
        ..Taint::default()
    };
    if node.spec.unschedulable && !tolerated(&unschedulable) {
        return Some("node(s) were unschedulable".into());
    }
    let repels = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(taint);
    if let Some(taint) = node.spec.taints.iter().find(repels) {
        return Some(format!("node(s) had untolerated taint(s) {{{}: {}}}", taint.key, taint.value));
    }
    // A node that is not ready carries this taint as soon as its controller has seen it; here at once.
    let not_ready =
        Taint { key: "node.kubernetes.io/not-ready".into(), effect: "NoSchedule".into(), ..Taint::default() };
    if (!node.ready() || node.metadata.deleting()) && !tolerated(&not_ready) {
        return Some("node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }".into());
    }
    let labels = &node.metadata.labels;
    let selected = pod.spec.node_selector.iter().all(|(label, value)| labels.get(label) == Some(value));
    (!selected).then(|| "node(s) didn't match Pod's node affinity/selector".into())
}

pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let key = toleration.key == taint.key || (toleration.key.is_empty() && toleration.operator == "Exists");
    let value = toleration.operator == "Exists" || toleration.value == taint.value;
    effect && key && value
}

fn message(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    let preemption = format!(
        "preemption: 0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    );
    format!("0/{nodes} nodes are available: {}. {preemption}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{labels, node, pod};

    fn candidate(node: &Node, pods: usize, alike: usize) -> Candidate<'_> {
        Candidate { node, pods, alike }
    }

    #[test]
    fn alike_pods_are_spread_before_anything_else() {
        let (a, b, c) = (node("a", ""), node("b", ""), node("c", ""));
        let it = pod("web-1", "");
        let nodes = [candidate(&a, 1, 1), candidate(&b, 9, 0), candidate(&c, 8, 0)];
        assert_eq!(choose(&it, &nodes), Choice::Node("c".into()));
        let nodes = [candidate(&b, 1, 0), candidate(&a, 1, 0)];
        assert_eq!(choose(&it, &nodes), Choice::Node("a".into()), "among equals the first name");
    }

    #[test]
    fn alike_means_same_labels_or_same_family_of_names() {
        let (mut a, mut b) = (pod("x", ""), pod("y", ""));
        assert!(alike(&a, &b));
        b.metadata.labels.clear();
        assert!(!alike(&a, &b));
        a.metadata.name = "web-1".into();
        b.metadata.name = "web-2".into();
        assert!(alike(&a, &b));
        b.metadata.namespace = "other".into();
        assert!(!alike(&a, &b));
    }

    #[test]
    fn selectors_taints_and_readiness_rule_nodes_out() {
        let (good, mut sick, mut tainted, mut closed) =
            (node("a", ""), node("b", ""), node("c", ""), node("d", ""));
        sick.status.conditions[0].status = "Unknown".into();
        tainted.spec.taints = vec![Taint {
            key: "gpu".into(),
            value: "yes".into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        }];
        closed.spec.unschedulable = true;
        let mut it = pod("web-1", "");
        it.spec.node_selector = labels(&[("disk", "ssd")]);
        let all = [&good, &sick, &tainted, &closed].map(|node| candidate(node, 0, 0));
        assert_eq!(
            choose(&it, &all),
            Choice::None {
                message: "0/4 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, \
                          1 node(s) had untolerated taint(s) {gpu: yes}, \
                          1 node(s) had untolerated taint(s) {node.kubernetes.io/not-ready: }, \
                          1 node(s) were unschedulable. preemption: 0/4 nodes are available: \
                          4 Preemption is not helpful for scheduling."
                    .into()
            }
        );
        it.spec.node_selector.clear();
        it.spec.tolerations =
            vec![Toleration { key: "gpu".into(), operator: "Exists".into(), ..Toleration::default() }];
        assert_eq!(choose(&it, &all[2..]), Choice::Node("c".into()));
        it.spec.tolerations = vec![Toleration { operator: "Exists".into(), ..Toleration::default() }];
        assert_eq!(choose(&it, &all[1..2]), Choice::Node("b".into()), "tolerates everything");
        assert_eq!(choose(&it, &[]), Choice::None { message: "no nodes available to schedule pods".into() });
    }

    #[test]
    fn only_pending_pods_of_this_scheduler_are_placed() {
        let mut it = pod("web-1", "");
        assert!(!is_ours(&it), "already on a node");
        it.spec.node_name = "".into();
        assert!(is_ours(&it));
        it.spec.scheduler_name = "other".into();
        assert!(!is_ours(&it));
        it.spec.scheduler_name = "default-scheduler".into();
        assert!(is_ours(&it));
        it.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert!(!is_ours(&it));
    }
}
