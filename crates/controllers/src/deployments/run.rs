//! Writes what the plan says, one Deployment at a time, never on a view older than its own last writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portolan_api::Time;
use portolan_api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use portolan_client::EventType::{Normal, Warning};
use portolan_client::{DeleteOptions, Error, EventRecorder, EventType, Key, Patch, Subresource, paths};
use serde_json::json;

use super::REVISION;
use super::plan::{Change, Input, Plan, plan, same_template};
use crate::caches::{Shared, api_event, lock, lost_race, namespace, namespace_ends};
use crate::gc::plan::{Dependent, OwnerKey};
use crate::pending::{Pending, Seen, version};
use crate::queue::Outcome;

pub(crate) struct Controller {
    shared: Arc<Shared>,
    events: EventRecorder,
    pending: Mutex<HashMap<Key, Pending>>,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>, events: &EventRecorder) -> Self {
        Self { shared, events: events.clone(), pending: Mutex::default() }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let Some(deployment) = self.shared.caches.deployments.get(&key) else {
            lock(&self.pending).remove(&key);
            return Outcome::Done;
        };
        if let Some(wait) = self.wait(&key) {
            return Outcome::Again(wait);
        }
        let sets = self.sets(&key, &deployment);
        let plan = plan(&Input { deployment: &deployment, sets: &sets, now: Time::now() });
        let mut pending = Pending::new(Instant::now());
        let done = self.carry_out(&key, &deployment, &plan, &mut pending).await;
        if pending.is_empty() {
            lock(&self.pending).remove(&key);
        } else {
            lock(&self.pending).insert(key.clone(), pending);
        }
        match done {
            Ok(()) => plan.again.map_or(Outcome::Done, Outcome::Again),
            Err(error) if namespace_ends(&error) => Outcome::Done,
            Err(error) => {
                if !lost_race(&error) {
                    tracing::warn!(deployment = %key, %error, "cannot bring a Deployment in order");
                }
                Outcome::Failed
            }
        }
    }

    fn wait(&self, key: &Key) -> Option<Duration> {
        let pending = lock(&self.pending);
        pending.get(key)?.wait(Instant::now(), |name, holds| {
            let set = self
                .shared
                .caches
                .replica_sets
                .get(&Key { namespace: Arc::clone(&key.namespace), name: name.into() });
            holds(set.as_deref().map(|set| Seen {
                uid: &set.metadata.uid,
                version: version(&set.metadata.resource_version),
                deleting: set.metadata.deletion_timestamp.is_some(),
            }))
        })
    }

    fn sets(&self, key: &Key, deployment: &Deployment) -> Vec<Arc<ReplicaSet>> {
        let owner = OwnerKey { kind: "Deployment", object: key.clone() };
        let owned = self.shared.owners().dependents(&owner);
        let sets = owned.iter().filter(|(kind, _)| *kind == Dependent::ReplicaSet);
        let mine = |set: &Arc<ReplicaSet>| {
            let owners = &set.metadata.owner_references;
            owners.iter().any(|o| o.controller == Some(true) && o.uid == deployment.metadata.uid)
        };
        sets.filter_map(|(_, set)| self.shared.caches.replica_sets.get(set)).filter(mine).collect()
    }

    async fn carry_out(
        &self,
        key: &Key,
        deployment: &Deployment,
        plan: &Plan,
        pending: &mut Pending,
    ) -> Result<(), Error> {
        if let Some(set) = &plan.create {
            self.create(key, deployment, set, pending).await?;
        }
        for change in &plan.changes {
            self.change(key, deployment, change, pending).await?;
        }
        for set in &plan.delete {
            let meta = &set.metadata;
            let options = DeleteOptions { uid: Some(meta.uid.clone()), ..DeleteOptions::default() };
            match self.shared.client.delete(&paths::REPLICA_SETS, namespace(key), &meta.name, &options).await
            {
                Err(error) if !error.is_not_found() && !error.is_conflict() => return Err(error),
                _ => pending.deleted(&meta.name, &meta.uid),
            }
        }
        let mut newest = deployment.clone();
        if let Some(revision) = &plan.revision {
            let patch = json!({ "metadata": { "annotations": { REVISION: revision } } });
            let patch = Patch::Merge(&patch);
            let none = Subresource::None;
            let path = &paths::DEPLOYMENTS;
            newest = self.shared.client.patch(path, namespace(key), &key.name, none, patch).await?;
        }
        if plan.status == deployment.status {
            return Ok(());
        }
        self.report(key, newest, plan.status.clone()).await
    }

    /// Writes the status over the version that is known. A write of the status carries annotations as well: over a newer
    /// version it would undo those that somebody, this controller too, has set meanwhile.
    async fn report(&self, key: &Key, known: Deployment, status: DeploymentStatus) -> Result<(), Error> {
        let object = Deployment { status, ..known };
        let client = &self.shared.client;
        client.update_status(&paths::DEPLOYMENTS, namespace(key), &key.name, &object).await.map(drop)
    }

    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        set: &ReplicaSet,
        pending: &mut Pending,
    ) -> Result<(), Error> {
        match self.shared.client.create(&paths::REPLICA_SETS, namespace(key), set).await {
            Ok(created) => {
                pending.wrote(&created.metadata.name, &created.metadata.resource_version);
                let replicas = set.spec.replicas.unwrap_or(1);
                if replicas > 0 {
                    self.scaled(deployment, &set.metadata.name, (0, replicas));
                }
                Ok(())
            }
            Err(error) if error.is_already_exists() => self.collided(key, deployment, set, error).await,
            Err(error) => {
                if !namespace_ends(&error) {
                    let message =
                        format!("Failed to create new replica set {:?}: {error}", set.metadata.name);
                    self.event(deployment, Warning, "ReplicaSetCreateError", &message);
                }
                Err(error)
            }
        }
    }

    /// Somebody has the name. If it is our own set the cache will show it; if not, the next try takes another name.
    async fn collided(
        &self,
        key: &Key,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: Error,
    ) -> Result<(), Error> {
        let client = &self.shared.client;
        let other: ReplicaSet = client.get(&paths::REPLICA_SETS, namespace(key), &set.metadata.name).await?;
        let owned = other.metadata.owner_references.iter().any(|owner| owner.uid == deployment.metadata.uid);
        if owned && same_template(&other.spec.template, &deployment.spec.template) {
            return Err(error);
        }
        let mut status = deployment.status.clone();
        status.collision_count = Some(status.collision_count.unwrap_or(0) + 1);
        self.report(key, deployment.clone(), status).await?;
        Err(error)
    }

    async fn change(
        &self,
        key: &Key,
        deployment: &Deployment,
        change: &Change,
        pending: &mut Pending,
    ) -> Result<(), Error> {
        let meta = &change.set.metadata;
        let patch = json!({
            "metadata": { "uid": meta.uid, "annotations": change.annotations },
            "spec": { "replicas": change.replicas },
        });
        let patch = Patch::Merge(&patch);
        let none = Subresource::None;
        let patched: ReplicaSet =
            self.shared.client.patch(&paths::REPLICA_SETS, namespace(key), &meta.name, none, patch).await?;
        pending.wrote(&meta.name, &patched.metadata.resource_version);
        let before = change.set.spec.replicas.unwrap_or(1);
        if before != change.replicas {
            self.scaled(deployment, &meta.name, (before, change.replicas));
        }
        Ok(())
    }

    fn scaled(&self, deployment: &Deployment, set: &str, (from, to): (i32, i32)) {
        let way = if to < from { "down" } else { "up" };
        let message = format!("Scaled {way} replica set {set} from {from} to {to}");
        self.event(deployment, Normal, "ScalingReplicaSet", &message);
    }

    fn event(&self, deployment: &Deployment, kind: EventType, reason: &str, message: &str) {
        api_event(&self.events, ("apps/v1", "Deployment", &deployment.metadata), kind, reason, message);
    }
}
