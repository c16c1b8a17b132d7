//! Binds pods to the nodes chosen for them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use http::Method;
use portolan_client::{Error, EventRecorder, EventType, Key, Patch, Subresource, paths};
use serde_json::{Value, json};

use super::plan::{Candidate, Choice, alike, choose, is_ours};
use crate::caches::{Shared, event, lock, lost_race, namespace, now};
use crate::objects::{Node, Pod};
use crate::queue::Outcome;
use crate::requests::write_subresource;
use crate::world::World;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Pods given a node that the cache does not show on it yet.
    assumed: HashMap<Key, (Arc<Pod>, String)>,
    /// Pods that found no node.
    waiting: HashSet<Key>,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        Self { shared, events: events.clone(), state: Mutex::default() }
    }

    /// The pods that found no node so far, to try again.
    pub(crate) fn waiting(&self) -> Vec<Key> {
        lock(&self.state).waiting.drain().collect()
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let Some((pod, choice)) = self.choose(&key) else { return Outcome::Done };
        match choice {
            Choice::Node(node) => self.bind(&key, &pod, &node).await,
            Choice::None { message } => self.wait(&key, &pod, &message).await,
        }
    }

    /// Chooses and counts the pod as placed in the same breath, so that pods chosen for at once see each other.
    fn choose(&self, key: &Key) -> Option<(Arc<Pod>, Choice)> {
        let mut state = lock(&self.state);
        state.waiting.remove(key);
        let world = self.shared.world();
        // A pod of the same name made anew is another pod, and still without a node.
        state.assumed.retain(|key, (assumed, _)| {
            world
                .pod_at(key)
                .is_some_and(|pod| pod.metadata.uid == assumed.metadata.uid && pod.spec.node_name.is_empty())
        });
        let pod = Arc::clone(world.pod_at(key).filter(|pod| is_ours(pod))?);
        if state.assumed.contains_key(key) {
            return None;
        }
        let counts = count_alike(&world, &state, &pod);
        let mut assumed: HashMap<&str, usize> = HashMap::new();
        for (_, node) in state.assumed.values() {
            *assumed.entry(node).or_default() += 1;
        }
        let nodes: Vec<&Arc<Node>> = world.nodes().collect();
        let candidates: Vec<Candidate<'_>> = nodes
            .iter()
            .map(|node| {
                let name = &*node.metadata.name;
                let assumed = assumed.get(name).copied().unwrap_or_default();
                let alike = counts.get(name).copied().unwrap_or_default();
                Candidate { node, pods: world.pod_count(name) + assumed, alike }
            })
            .collect();
        let choice = choose(&pod, &candidates);
        if let Choice::Node(node) = &choice {
            state.assumed.insert(key.clone(), (Arc::clone(&pod), node.clone()));
        }
        Some((pod, choice))
    }

    async fn bind(&self, key: &Key, pod: &Pod, node: &str) -> Outcome {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": &*key.name, "namespace": &*key.namespace, "uid": &*pod.metadata.uid },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        let object = (&paths::PODS, namespace(key), &*key.name);
        let bound = write_subresource(&self.shared.client, Method::POST, object, "binding", &binding).await;
        match bound {
            Ok(()) => {
                let message = format!("Successfully assigned {key} to {node}");
                let about = ("v1", "Pod", &pod.metadata);
                event(&self.events, about, EventType::Normal, "Scheduled", &message);
                Outcome::Done
            }
            Err(error) => {
                lock(&self.state).assumed.remove(key);
                if lost_race(&error) {
                    // Bound by somebody else, or gone: the cache will say so.
                    return Outcome::Done;
                }
                tracing::warn!(pod = %key, node, %error, "cannot bind");
                Outcome::Failed
            }
        }
    }

    async fn wait(&self, key: &Key, pod: &Pod, message: &str) -> Outcome {
        lock(&self.state).waiting.insert(key.clone());
        let Some(patch) = unschedulable(pod, message) else { return Outcome::Done };
        event(&self.events, ("v1", "Pod", &pod.metadata), EventType::Warning, "FailedScheduling", message);
        let patch = Patch::Strategic(&patch);
        let patched: Result<Value, Error> = self
            .shared
            .client
            .patch(&paths::PODS, namespace(key), &key.name, Subresource::Status, patch)
            .await;
        match patched {
            Ok(_) => Outcome::Done,
            Err(error) if lost_race(&error) => Outcome::Done,
            Err(error) => {
                tracing::warn!(pod = %key, %error, "cannot say why the pod waits");
                Outcome::Failed
            }
        }
    }
}

/// Alike pods by node, those just placed included.
fn count_alike(world: &World, state: &State, pod: &Pod) -> HashMap<String, usize> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for other in world.perhaps_alike(pod).into_iter().filter(|other| alike(other, pod) && !other.finished()) {
        *counts.entry(other.spec.node_name.to_string()).or_default() += 1;
    }
    for (_, node) in state.assumed.values().filter(|(other, _)| alike(other, pod)) {
        *counts.entry(node.clone()).or_default() += 1;
    }
    counts
}

/// The status patch that says why the pod waits; `None` when it says so already.
fn unschedulable(pod: &Pod, message: &str) -> Option<Value> {
    let known = pod.condition("PodScheduled").is_some_and(|condition| {
        condition.status == "False" && condition.reason == "Unschedulable" && condition.message == message
    });
    (!known).then(|| {
        json!({ "status": { "conditions": [{
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastTransitionTime": now(),
        }] } })
    })
}
