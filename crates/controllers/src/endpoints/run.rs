//! Writes what the plan says, one Service at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use portolan_client::{DeleteOptions, EventRecorder, EventType, Key, paths};

use super::plan::{Write, leftover, plan};
use crate::caches::{Shared, event, lock, lost_race, namespace, namespace_ends};
use crate::objects::Service;
use crate::queue::Outcome;
use crate::trigger::Tracker;
use crate::written::Endpoints;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    tracker: Mutex<Tracker>,
    /// Services that were seen to go: their Endpoints go too, whoever wrote them.
    gone: Mutex<HashSet<Key>>,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        Self { shared, events: events.clone(), tracker: Mutex::default(), gone: Mutex::default() }
    }

    pub(crate) fn service_gone(&self, key: &Key) {
        lock(&self.gone).insert(key.clone());
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let current = self.shared.caches.endpoints.get(&key).and_then(|kept| kept.open());
        let known = {
            let world = self.shared.world();
            world.service_at(&key).cloned().map(|service| (service, world.pods_of(&key)))
        };
        let Some((service, pods)) = known else {
            lock(&self.tracker).forget(&key);
            return self.remove_leftover(&key, current.as_ref()).await;
        };
        lock(&self.gone).remove(&key);
        if service.selector().is_none() {
            return Outcome::Done;
        }
        let trigger = lock(&self.tracker).look(&key, &service, &pods);
        let Some(write) = plan(&service, &pods, current.as_ref(), trigger.as_deref()) else {
            return Outcome::Done;
        };
        self.write(&key, &service, write).await
    }

    async fn write(&self, key: &Key, service: &Service, write: Write) -> Outcome {
        let (client, path) = (&self.shared.client, &paths::ENDPOINTS);
        let (result, reason, verb) = match &write {
            Write::Create(new) => {
                let result = client.create::<Endpoints>(path, namespace(key), new).await;
                (result, "FailedToCreateEndpoint", "create")
            }
            Write::Update(new) => {
                let result = client.update::<Endpoints>(path, namespace(key), &key.name, new).await;
                (result, "FailedToUpdateEndpoint", "update")
            }
        };
        match result {
            Ok(_) => Outcome::Done,
            Err(error) if namespace_ends(&error) => Outcome::Done,
            Err(error) if lost_race(&error) => Outcome::Failed,
            Err(error) => {
                let message = format!("Failed to {verb} endpoint for service {key}: {error}");
                tracing::warn!("{message}");
                event(
                    &self.events,
                    ("v1", "Service", &service.metadata),
                    EventType::Warning,
                    reason,
                    &message,
                );
                Outcome::Failed
            }
        }
    }

    async fn remove_leftover(&self, key: &Key, current: Option<&Endpoints>) -> Outcome {
        let seen = lock(&self.gone).contains(key);
        let Some(current) = current.filter(|current| leftover(current, seen)) else { return Outcome::Done };
        let uid = Some(current.metadata.uid.clone()).filter(|uid| !uid.is_empty());
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        let deleted = self.shared.client.delete(&paths::ENDPOINTS, namespace(key), &key.name, &options).await;
        match deleted {
            Ok(()) => self.forget(key),
            Err(error) if error.is_not_found() || error.is_conflict() => self.forget(key),
            Err(error) => {
                tracing::warn!(%key, %error, "cannot delete the Endpoints of a Service that is gone");
                Outcome::Failed
            }
        }
    }

    fn forget(&self, key: &Key) -> Outcome {
        lock(&self.gone).remove(key);
        Outcome::Done
    }
}
