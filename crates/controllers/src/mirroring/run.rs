//! Writes what the plan says, one Endpoints object at a time.

use std::sync::Arc;

use portolan_client::{EventRecorder, EventType, Key, ObjectRef};

use super::plan::{ADDRESSES_PER_SUBSET_MAX, Input, Plan, plan};
use crate::caches::{Shared, lost_race, namespace_ends};
use crate::endpointslice::SliceWriter;
use crate::kept::Manager;
use crate::queue::Outcome;
use crate::slices;
use crate::written::Endpoints;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    writer: SliceWriter,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        let writer = SliceWriter::new(Arc::clone(&shared));
        Self { shared, events: events.clone(), writer }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        if let Some(wait) = self.writer.wait(&key) {
            return Outcome::Again(wait);
        }
        let slices = self.shared.slices().of(&key, Manager::Mirroring);
        let slices = slices::open(&slices);
        let service = self.shared.world().service_at(&key).cloned();
        let endpoints = self.shared.caches.endpoints.get(&key).and_then(|kept| kept.open());
        let plan =
            plan(&Input { service: service.as_deref(), endpoints: endpoints.as_ref(), slices: &slices });
        if let Some(endpoints) = &endpoints {
            self.tell(endpoints, &plan);
        }
        match self.writer.write(&key, plan.writes).await {
            Ok(()) => Outcome::Done,
            Err(error) if namespace_ends(&error) => Outcome::Done,
            Err(error) => {
                if !lost_race(&error) {
                    tracing::warn!(%key, %error, "cannot mirror Endpoints");
                }
                Outcome::Failed
            }
        }
    }

    /// Says what was left out, when something is written.
    fn tell(&self, endpoints: &Endpoints, plan: &Plan) {
        if plan.writes.is_empty() {
            return;
        }
        let meta = &endpoints.metadata;
        let about = ObjectRef {
            api_version: "v1".into(),
            kind: "Endpoints".into(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            field_path: String::new(),
        };
        if plan.invalid > 0 {
            let message =
                format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", plan.invalid);
            self.events.record(&about, EventType::Warning, "InvalidIPAddress", &message);
        }
        if plan.skipped > 0 {
            let message = format!(
                "A max of {ADDRESSES_PER_SUBSET_MAX} addresses can be mirrored to EndpointSlices per Endpoints \
                 subset. {} addresses were skipped",
                plan.skipped
            );
            self.events.record(&about, EventType::Warning, "TooManyAddressesToMirror", &message);
        }
    }
}
