//! Carries out what is planned for one ServiceCIDR.

use std::sync::Arc;

use jiff::Timestamp;
use portolan_api::networking::v1::ServiceCIDR;
use portolan_client::{Error, EventRecorder, EventType, Key, Patch, Subresource, paths};
use serde_json::{Value, json};

use super::plan::{self, FINALIZER, READY, Ready, Step};
use crate::caches::{Shared, api_event, now};
use crate::queue::Outcome;

/// The name that events and field managers bear, as in Kubernetes.
pub(crate) const CONTROLLER: &str = "service-cidr-controller";

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        Self { shared, events: events.clone() }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let caches = &self.shared.caches;
        let Some(own) = caches.service_cidrs.get(&key) else { return Outcome::Done };
        let all: Vec<Arc<ServiceCIDR>> =
            caches.service_cidrs.all().into_iter().map(|(_, cidr)| cidr).collect();
        // Looked at only when a range is to go, which is seldom: a cluster may have many.
        let held = own.metadata.deletion_timestamp.map(|_| caches.ip_addresses.all()).unwrap_or_default();
        let addresses = held.iter().filter_map(|(key, _)| key.name.parse().ok());
        let mut outcome = Outcome::Done;
        for step in plan::plan(&own, &all, addresses, Timestamp::now()) {
            let done = match step {
                Step::AddFinalizer => self.patch(&key.name, &json!({ "finalizers": [FINALIZER] })).await,
                Step::RemoveFinalizer => {
                    self.patch(&key.name, &json!({ "$deleteFromPrimitiveList/finalizers": [FINALIZER] }))
                        .await
                }
                Step::Say(ready) => self.say(&own, ready).await,
                Step::LookAgain(after) => {
                    outcome = Outcome::Again(after);
                    Ok(())
                }
            };
            match done {
                Err(error) if error.is_not_found() => return Outcome::Done,
                Err(error) => {
                    if !error.is_conflict() {
                        tracing::warn!(service_cidr = %key, %error, "cannot update the ServiceCIDR");
                    }
                    return Outcome::Failed;
                }
                Ok(()) => {}
            }
        }
        outcome
    }

    async fn patch(&self, name: &str, metadata: &Value) -> Result<(), Error> {
        let patch = json!({ "metadata": metadata });
        let (path, patch) = (&paths::SERVICE_CIDRS, Patch::Strategic(&patch));
        self.shared.client.patch::<Value>(path, None, name, Subresource::None, patch).await.map(drop)
    }

    async fn say(&self, own: &ServiceCIDR, ready: Ready) -> Result<(), Error> {
        let (path, meta) = (&paths::SERVICE_CIDRS, &own.metadata);
        let object = json!({
            "apiVersion": path.api_version(),
            "kind": path.kind,
            "metadata": { "name": meta.name },
            "status": { "conditions": [{
                "type": "Ready", "status": ready.status, "reason": ready.reason, "message": ready.message,
                "lastTransitionTime": now(),
            }] },
        });
        let patch = Patch::Apply { manager: CONTROLLER, force: true, object: &object };
        let client = &self.shared.client;
        let said = client.patch::<Value>(path, None, &meta.name, Subresource::Status, patch).await.map(drop);
        if ready == READY && said.as_ref().is_err_and(|error| !error.is_not_found()) {
            let about = (&*path.api_version(), path.kind, meta);
            let message = "The ServiceCIDR Status can not be set to Ready=True";
            api_event(&self.events, about, EventType::Warning, "KubernetesServiceCIDRError", message);
        }
        said
    }
}
