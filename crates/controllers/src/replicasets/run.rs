//! Makes and ends the pods of `ReplicaSet`s, one at a time, never on a view older than its own last writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use portolan_api::Time;
use portolan_api::apps::v1::{ReplicaSet, ReplicaSetCondition};
use portolan_client::EventType::{Normal, Warning};
use portolan_client::{DeleteOptions, Error, EventRecorder, EventType, Key, Patch, Subresource, paths};
use serde_json::{Value, json};

use super::plan::{Input, Plan, owner, plan, pod_of};
use crate::caches::{Shared, api_event, lock, lost_race, namespace, namespace_ends};
use crate::gc::plan::{Dependent, OwnerKey};
use crate::objects::{Meta, Pod};
use crate::pending::{Pending, Seen, version};
use crate::queue::Outcome;

/// Requests for pods of one set at the same time.
const AT_ONCE: usize = 16;
/// A look at a large set takes a while: so much time passes between two looks, for each of its pods.
const PAUSE_PER_POD: Duration = Duration::from_micros(20);

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    state: Mutex<HashMap<Key, Memory>>,
}

/// What is remembered of one set between two looks.
#[derive(Debug)]
struct Memory {
    pending: Pending,
    /// No look before.
    rest: Instant,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        Self { shared, events: events.clone(), state: Mutex::default() }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let Some(set) = self.shared.caches.replica_sets.get(&key) else {
            lock(&self.state).remove(&key);
            return Outcome::Done;
        };
        if let Some(wait) = self.wait(&key) {
            return Outcome::Again(wait);
        }
        let pods = self.pods(&key, &set);
        let plan = plan(&Input { set: &set, pods: &pods, now: Time::now() });
        let mut pending = Pending::new(Instant::now());
        let made = self.carry_out(&key, &set, &plan, &mut pending).await;
        let rest = Instant::now() + PAUSE_PER_POD * u32::try_from(pods.len()).unwrap_or(u32::MAX);
        lock(&self.state).insert(key.clone(), Memory { pending, rest });
        let reported = self.report(&key, &set, &plan, made.as_ref().err()).await;
        match made.and(reported) {
            Ok(()) => plan.again.map_or(Outcome::Done, Outcome::Again),
            Err(error) if namespace_ends(&error) => Outcome::Done,
            Err(error) => {
                if !lost_race(&error) {
                    tracing::warn!(set = %key, %error, "cannot bring a ReplicaSet in order");
                }
                Outcome::Failed
            }
        }
    }

    fn wait(&self, key: &Key) -> Option<Duration> {
        let state = lock(&self.state);
        let memory = state.get(key)?;
        let now = Instant::now();
        let world = self.shared.world();
        let unseen = memory.pending.wait(now, |name, holds| {
            let pod = world.pod_at(&Key { namespace: Arc::clone(&key.namespace), name: name.into() });
            holds(pod.map(|pod| Seen {
                uid: &pod.metadata.uid,
                version: version(&pod.metadata.resource_version),
                deleting: pod.metadata.deleting(),
            }))
        });
        let rest = memory.rest.saturating_duration_since(now);
        unseen.into_iter().chain(Some(rest).filter(|rest| !rest.is_zero())).max()
    }

    /// Pods that it controls, and pods of its labels.
    fn pods(&self, key: &Key, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let owner = OwnerKey { kind: "ReplicaSet", object: key.clone() };
        let owned = self.shared.owners().dependents(&owner);
        let world = self.shared.world();
        let mut pods: HashMap<Arc<str>, Arc<Pod>> = HashMap::new();
        let owned = owned.iter().filter(|(kind, _)| *kind == Dependent::Pod);
        let labels = set.spec.selector.as_ref().map(|selector| selector.match_labels.iter().collect());
        let alike = labels.iter().flat_map(|labels| world.pods_matching(&key.namespace, labels));
        for pod in owned.filter_map(|(_, pod)| world.pod_at(pod)).chain(alike) {
            pods.entry(Arc::clone(&pod.metadata.name)).or_insert_with(|| Arc::clone(pod));
        }
        pods.into_values().collect()
    }

    /// Does everything that is planned, whatever fails of it; the first error is what counts.
    async fn carry_out(
        &self,
        key: &Key,
        set: &ReplicaSet,
        plan: &Plan,
        pending: &mut Pending,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        let wrote = |pod: Value, pending: &mut Pending| {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
            pending.wrote(&text("name"), &text("resourceVersion"));
        };
        let adopt = plan.adopt.iter().map(|pod| (pod, json!([owner(set)])));
        let release =
            plan.release.iter().map(|pod| (pod, json!([{ "$patch": "delete", "uid": set.metadata.uid }])));
        for (pod, owners) in adopt.chain(release) {
            let patch = json!({ "metadata": { "uid": &*pod.metadata.uid, "ownerReferences": owners } });
            let patched = self
                .shared
                .client
                .patch(
                    &paths::PODS,
                    namespace(key),
                    &pod.metadata.name,
                    Subresource::None,
                    Patch::Strategic(&patch),
                )
                .await;
            result = result.and(patched.map(|pod| wrote(pod, pending)));
        }
        let template = pod_of(set);
        let mut missing = plan.create;
        // Where one failed the next would likely fail as well: no more after the batch with the first failure.
        while missing > 0 && result.is_ok() {
            let batch = missing.min(AT_ONCE);
            missing -= batch;
            for created in join_all((0..batch).map(|_| self.create(key, set, &template))).await {
                result = result.and(created.map(|pod| wrote(pod, pending)));
            }
        }
        for batch in plan.delete.chunks(AT_ONCE) {
            for deleted in join_all(batch.iter().map(|pod| self.delete(key, set, pod))).await {
                result = result.and(deleted.map(|meta| pending.deleted(&meta.name, &meta.uid)));
            }
        }
        result
    }

    async fn create(&self, key: &Key, set: &ReplicaSet, template: &Value) -> Result<Value, Error> {
        let created = self.shared.client.create(&paths::PODS, namespace(key), template).await;
        match &created {
            Ok(pod) => {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                self.event(set, Normal, "SuccessfulCreate", &format!("Created pod: {name}"));
            }
            Err(error) if namespace_ends(error) => {}
            Err(error) => self.event(set, Warning, "FailedCreate", &format!("Error creating: {error}")),
        }
        created
    }

    async fn delete<'a>(&self, key: &Key, set: &ReplicaSet, pod: &'a Pod) -> Result<&'a Meta, Error> {
        let meta = &pod.metadata;
        let options = DeleteOptions { uid: Some(meta.uid.to_string()), ..DeleteOptions::default() };
        match self.shared.client.delete(&paths::PODS, namespace(key), &meta.name, &options).await {
            Ok(()) => self.event(set, Normal, "SuccessfulDelete", &format!("Deleted pod: {}", meta.name)),
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                self.event(set, Warning, "FailedDelete", &format!("Error deleting: {error}"));
                return Err(error);
            }
        }
        Ok(meta)
    }

    async fn report(
        &self,
        key: &Key,
        set: &ReplicaSet,
        plan: &Plan,
        failed: Option<&Error>,
    ) -> Result<(), Error> {
        let mut status = plan.status.clone();
        let failed = failed.filter(|error| !lost_race(error));
        let known = status.conditions.iter().find(|c| c.type_ == "ReplicaFailure").cloned();
        status.conditions.retain(|condition| condition.type_ != "ReplicaFailure");
        status.conditions.extend(failed.map(|error| {
            known.filter(|known| known.message == error.to_string()).unwrap_or_else(|| ReplicaSetCondition {
                type_: "ReplicaFailure".into(),
                status: "True".into(),
                last_transition_time: Some(Time::now()),
                reason: if plan.create > 0 { "FailedCreate" } else { "FailedDelete" }.into(),
                message: error.to_string(),
            })
        }));
        if status == set.status {
            return Ok(());
        }
        // Over the version that is known: a write of the status carries annotations as well, and over a newer version would
        // undo those that the Deployment's controller has set meanwhile.
        let object = ReplicaSet { status, ..set.clone() };
        self.shared
            .client
            .update_status(&paths::REPLICA_SETS, namespace(key), &key.name, &object)
            .await
            .map(drop)
    }

    fn event(&self, set: &ReplicaSet, kind: EventType, reason: &str, message: &str) {
        api_event(&self.events, ("apps/v1", "ReplicaSet", &set.metadata), kind, reason, message);
    }
}
