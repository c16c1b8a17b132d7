//! Gives nodes their ranges, and marks silent nodes and their pods.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_client::{
    Client, DeleteOptions, Error, EventRecorder, EventType, Key, Patch, Subresource, paths,
};
use serde_json::{Value, json};

use super::cidr::{self, Ranges};
use super::monitor::Monitor;
use super::plan;
use crate::caches::{LEASE_NAMESPACE, Shared, event, lock, now};
use crate::objects::{Node, Pod};
use crate::queue::Outcome;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    ranges: Mutex<Ranges>,
    monitor: Mutex<Monitor>,
}

impl Controller {
    /// Reads what all nodes have already, before anything is given to one that has nothing.
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        let mut ranges = Ranges::new(&shared.config.cluster_cidrs);
        for (_, node) in shared.caches.nodes.all() {
            occupy(&mut ranges, &node);
        }
        let monitor = Mutex::new(Monitor::new(shared.config.node_grace));
        Self { shared, events: events.clone(), ranges: Mutex::new(ranges), monitor }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let Some(node) = self.shared.caches.nodes.get(&key) else {
            lock(&self.ranges).release(&key.name);
            lock(&self.monitor).forget(&key.name);
            return Outcome::Done;
        };
        let ranged = self.range(&node).await;
        let left = self.look(&key, &node);
        let marked =
            if left.is_zero() || node_said_no(&node) { self.mark(&node, left).await } else { Ok(()) };
        let marked = ranged.and(marked);
        let marked = if marked.is_ok() { self.taint(&node).await } else { marked };
        let left = if left.is_zero() { None } else { Some(left) };
        let evicted = if marked.is_ok() { self.evict(&node).await } else { marked.map(|()| None) };
        match evicted {
            Ok(next) => left.into_iter().chain(next).min().map_or(Outcome::Done, Outcome::Again),
            Err(error) if error.is_not_found() => Outcome::Done,
            Err(error) => {
                if !error.is_conflict() {
                    tracing::warn!(node = %key, %error, "cannot update the node or its pods");
                }
                Outcome::Failed
            }
        }
    }

    /// Looks for a sign of life; how much longer the node may be silent.
    fn look(&self, key: &Key, node: &Node) -> Duration {
        let lease = self.shared.caches.leases.get(&Key::new(LEASE_NAMESPACE, Arc::clone(&key.name)));
        let renewed = lease.and_then(|lease| lease.spec.renew_time.clone());
        // Nodes without a Lease give their sign with their status.
        let sign =
            renewed.or_else(|| node.condition("Ready").and_then(|ready| ready.last_heartbeat_time.clone()));
        let now = Instant::now();
        let mut monitor = lock(&self.monitor);
        monitor.observe(&key.name, sign.as_deref(), now);
        monitor.left(&key.name, now).unwrap_or_default()
    }

    async fn range(&self, node: &Node) -> Result<(), Error> {
        let assigned = {
            let mut ranges = lock(&self.ranges);
            if !node.spec.pod_cidr.is_empty() || !node.spec.pod_cidrs.is_empty() {
                occupy(&mut ranges, node);
                return Ok(());
            }
            ranges.assign(&node.metadata.name)
        };
        let cidrs: Vec<String> = match assigned {
            Ok(ranges) => ranges.iter().map(IpNet::to_string).collect(),
            Err(error) => {
                self.cannot_range(node, &error);
                return Ok(());
            }
        };
        let Some(first) = cidrs.first() else { return Ok(()) };
        let patch = json!({ "spec": { "podCIDR": first, "podCIDRs": cidrs } });
        let name = &node.metadata.name;
        let patched: Result<Value, Error> = self
            .shared
            .client
            .patch(&paths::NODES, None, name, Subresource::None, Patch::Merge(&patch))
            .await;
        patched.map(|_| ())
    }

    fn cannot_range(&self, node: &Node, error: &cidr::Error) {
        tracing::warn!(node = %node.metadata.name, %error, "no pod range");
        let about = ("v1", "Node", &node.metadata);
        let message = format!("Node {} status is now: CIDRNotAvailable", node.metadata.name);
        event(&self.events, about, EventType::Normal, "CIDRNotAvailable", &message);
    }

    async fn taint(&self, node: &Node) -> Result<(), Error> {
        let Some(patch) = plan::tainted(node, &now()) else { return Ok(()) };
        let (name, patch) = (&node.metadata.name, Patch::Merge(&patch));
        let none = Subresource::None;
        self.shared.client.patch::<Value>(&paths::NODES, None, name, none, patch).await.map(drop)
    }

    /// Deletes the pods that have been on a node that is gone for long enough; when the next one's time comes.
    async fn evict(&self, node: &Node) -> Result<Option<Duration>, Error> {
        let now = jiff::Timestamp::now().as_second();
        let pods: Vec<Arc<Pod>> = self.shared.world().pods_on(&node.metadata.name).cloned().collect();
        let mut next: Option<i64> = None;
        for pod in pods {
            let Some(at) = plan::leaves_at(&pod, node) else { continue };
            if at > now {
                next = Some(next.map_or(at, |next| next.min(at)));
                continue;
            }
            let meta = &pod.metadata;
            let message = format!("Marking for deletion Pod {}/{}", meta.namespace, meta.name);
            event(&self.events, ("v1", "Pod", meta), EventType::Normal, "TaintManagerEviction", &message);
            let options = DeleteOptions { uid: Some(meta.uid.to_string()), ..DeleteOptions::default() };
            match self.shared.client.delete(&paths::PODS, Some(&meta.namespace), &meta.name, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => {}
            }
        }
        Ok(next.map(|at| Duration::from_secs(u64::try_from(at - now).unwrap_or(0))))
    }

    /// NODE-1: a node that fell silent is Unknown, and no pod of a node that is not ready is ready.
    async fn mark(&self, node: &Node, left: Duration) -> Result<(), Error> {
        let (client, name, now) = (&self.shared.client, &node.metadata.name, now());
        if left.is_zero()
            && let Some(patch) = plan::silent(node, &now)
        {
            patch_status(client, &paths::NODES, None, name, &patch).await?;
            let message = format!("Node {name} status is now: NodeNotReady");
            event(&self.events, ("v1", "Node", &node.metadata), EventType::Normal, "NodeNotReady", &message);
        }
        let pods: Vec<Arc<Pod>> = self.shared.world().pods_on(name).cloned().collect();
        for pod in pods {
            let Some(patch) = plan::not_ready(&pod, &now) else { continue };
            let meta = &pod.metadata;
            match patch_status(client, &paths::PODS, Some(&meta.namespace), &meta.name, &patch).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => event(
                    &self.events,
                    ("v1", "Pod", meta),
                    EventType::Warning,
                    "NodeNotReady",
                    "Node is not ready",
                ),
            }
        }
        Ok(())
    }
}

/// The node's Ready condition is there and is not True.
fn node_said_no(node: &Node) -> bool {
    node.condition("Ready").is_some_and(|ready| ready.status != "True")
}

async fn patch_status(
    client: &Client,
    api: &portolan_client::ApiPath,
    namespace: Option<&str>,
    name: &str,
    patch: &Value,
) -> Result<(), Error> {
    let patch = Patch::Strategic(patch);
    client.patch::<Value>(api, namespace, name, Subresource::Status, patch).await.map(|_| ())
}

fn occupy(ranges: &mut Ranges, node: &Node) {
    let texts = if node.spec.pod_cidrs.is_empty() {
        std::slice::from_ref(&node.spec.pod_cidr)
    } else {
        node.spec.pod_cidrs.as_slice()
    };
    let parsed: Vec<IpNet> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    if parsed.is_empty() {
        return;
    }
    if let Err(error) = ranges.occupy(&node.metadata.name, &parsed) {
        tracing::debug!(%error, "a range from elsewhere");
    }
}
