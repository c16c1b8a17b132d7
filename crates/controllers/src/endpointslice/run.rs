//! Writes what the plan says, one Service at a time, never on a view older than its own last write.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use portolan_client::{DeleteOptions, Error, EventRecorder, EventType, Key, paths};

use super::plan::{Input, Plan, Topology, Write, plan};
use super::topology::{Obstacle, is_auto, shares};
use crate::caches::{Shared, event, lock, lost_race, namespace, namespace_ends};
use crate::kept::Manager;
use crate::objects::Service;
use crate::queue::Outcome;
use crate::slices::{self, Pending};
use crate::trigger::Tracker;
use crate::written::AddressType;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    tracker: Mutex<Tracker>,
    pending: SliceWriter,
    /// Services whose slices carry hints by share of processors.
    hinted: Mutex<HashSet<(Key, AddressType)>>,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        let pending = SliceWriter::new(Arc::clone(&shared));
        Self { shared, events: events.clone(), tracker: Mutex::default(), pending, hinted: Mutex::default() }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        if let Some(wait) = self.pending.wait(&key) {
            return Outcome::Again(wait);
        }
        let Some((service, plan)) = self.plan(&key) else {
            lock(&self.tracker).forget(&key);
            lock(&self.hinted).retain(|(service, _)| *service != key);
            return Outcome::Done;
        };
        self.tell(&key, &service, &plan.topology);
        match self.pending.write(&key, plan.writes).await {
            Ok(()) => Outcome::Done,
            Err(error) if namespace_ends(&error) => Outcome::Done,
            Err(error) if lost_race(&error) => Outcome::Failed,
            Err(error) => {
                let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                tracing::warn!("{message}");
                let about = ("v1", "Service", &service.metadata);
                event(&self.events, about, EventType::Warning, "FailedToUpdateEndpointSlices", &message);
                Outcome::Failed
            }
        }
    }

    /// Events about hints by share of processors.
    fn tell(&self, key: &Key, service: &Service, topology: &[(AddressType, Topology)]) {
        let say = |kind, reason: &str, family: AddressType, text: &str| {
            let message = format!("{text}, addressType: {}", family.as_str());
            event(&self.events, ("v1", "Service", &service.metadata), kind, reason, &message);
        };
        let mut hinted = lock(&self.hinted);
        for (family, state) in topology {
            let id = (key.clone(), *family);
            match state {
                Topology::Enabled { new } => {
                    if hinted.insert(id) && *new {
                        let text = "Topology Aware Hints has been enabled";
                        say(EventType::Normal, "TopologyAwareHintsEnabled", *family, text);
                    }
                }
                Topology::Impossible(obstacle) => {
                    hinted.remove(&id);
                    say(EventType::Warning, "TopologyAwareHintsDisabled", *family, &obstacle.to_string());
                }
            }
        }
        for family in [AddressType::V4, AddressType::V6] {
            let on = topology.iter().any(|(of, _)| *of == family);
            if !on && hinted.remove(&(key.clone(), family)) {
                let text = "Topology Aware Hints has been disabled";
                say(EventType::Warning, "TopologyAwareHintsDisabled", family, text);
            }
        }
    }

    /// The writes for a Service as everything is now; `None` for one that is gone or that a user looks after.
    fn plan(&self, key: &Key) -> Option<(Arc<Service>, Plan)> {
        let slices = self.shared.slices().of(key, Manager::EndpointSlices);
        let slices = slices::open(&slices);
        let (service, pods, zones, shares) = {
            let world = self.shared.world();
            let service = Arc::clone(world.service_at(key)?);
            service.selector()?;
            let pods = world.pods_of(key);
            let mut zones: HashMap<Arc<str>, Option<String>> = HashMap::new();
            for pod in &pods {
                let name = &pod.spec.node_name;
                if !zones.contains_key(name)
                    && let Some(node) = world.node_at(name)
                {
                    zones.insert(Arc::clone(name), node.zone().map(str::to_owned));
                }
            }
            // Most Services do not ask for them.
            let shares = if is_auto(&service) {
                shares(world.nodes().map(AsRef::as_ref))
            } else {
                Err(Obstacle::OneZone)
            };
            (service, pods, zones, shares)
        };
        let trigger = lock(&self.tracker).look(key, &service, &pods);
        let plan = plan(&Input {
            service: &service,
            pods: &pods,
            slices: &slices,
            zone_of: &|node| zones.get(node).cloned(),
            trigger: trigger.as_deref(),
            max_per_slice: self.shared.config.max_endpoints_per_slice,
            shares: &shares,
        });
        Some((service, plan))
    }
}

/// Writes slices and remembers what the cache must show before the same Service is planned again.
pub(crate) struct SliceWriter {
    shared: Arc<Shared>,
    pending: Mutex<HashMap<Key, Pending>>,
}

impl SliceWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pending: Mutex::default() }
    }

    /// How long the Service has to wait for its own writes to show, at most. The slice's event queues it before that.
    pub(crate) fn wait(&self, service: &Key) -> Option<std::time::Duration> {
        let mut pending = lock(&self.pending);
        let wait = pending.get(service)?.wait(service, &self.shared.slices(), Instant::now());
        if wait.is_none() {
            pending.remove(service);
            if pending.is_empty() {
                // A burst is over.
                pending.shrink_to_fit();
            }
        }
        wait
    }

    /// Does the writes in their order; the first that fails ends it.
    pub(crate) async fn write(&self, service: &Key, writes: Vec<Write>) -> Result<(), Error> {
        let mut pending = Pending::new(Instant::now());
        let mut result = Ok(());
        for write in writes {
            result = self.write_one(service, write, &mut pending).await;
            if result.is_err() {
                break;
            }
        }
        if !pending.is_empty() {
            lock(&self.pending).insert(service.clone(), pending);
        }
        result
    }

    async fn write_one(&self, service: &Key, write: Write, pending: &mut Pending) -> Result<(), Error> {
        let (client, path) = (&self.shared.client, &paths::ENDPOINT_SLICES);
        match write {
            Write::Create(slice) => pending.wrote(&client.create(path, namespace(service), &slice).await?),
            Write::Update { slice, .. } => {
                let name = &slice.metadata.name;
                pending.wrote(&client.update(path, namespace(service), name, &slice).await?);
            }
            Write::Delete(slice) => {
                let uid = Some(slice.metadata.uid.clone()).filter(|uid| !uid.is_empty());
                let options = DeleteOptions { uid, ..DeleteOptions::default() };
                match client.delete(path, namespace(service), &slice.metadata.name, &options).await {
                    Ok(()) => pending.deleted(&slice),
                    Err(error) if error.is_not_found() => pending.deleted(&slice),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}
