//! Checks objects that have owners, and deletes those that outlived them.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_client::{ApiPath, Client, DeleteOptions, Error, Key, paths};
use serde::Deserialize;

use super::plan::{Dependent, key, known, orphaned};
use crate::caches::{Shared, namespace};
use crate::objects::{Meta, Owner};
use crate::queue::Outcome;

pub(crate) struct Controller {
    shared: Arc<Shared>,
}

/// Enough of any object to know it.
#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) async fn sync(&self, (kind, object): (Dependent, Key)) -> Outcome {
        let owners = self.shared.owners().owners_of(kind, &object);
        if !orphaned(&owners, &object, |path, key| self.cached_uid(path, key)) {
            return Outcome::Done;
        }
        match self.collect(kind, &object, &owners).await {
            Ok(()) => Outcome::Done,
            Err(error) if error.is_not_found() || error.is_conflict() => Outcome::Done,
            Err(error) => {
                tracing::warn!(kind = ?kind, %object, %error, "cannot delete what lost its owner");
                Outcome::Failed
            }
        }
    }

    fn cached_uid(&self, path: &ApiPath, key: &Key) -> Option<String> {
        let caches = &self.shared.caches;
        match path.kind {
            "Service" => caches.services.get(key).map(|object| object.metadata.uid.to_string()),
            "Node" => caches.nodes.get(key).map(|object| object.metadata.uid.to_string()),
            "Deployment" => caches.deployments.get(key).map(|object| object.metadata.uid.clone()),
            "ReplicaSet" => caches.replica_sets.get(key).map(|object| object.metadata.uid.clone()),
            "Pod" => caches.pods.get(key).map(|object| object.metadata.uid.to_string()),
            _ => caches.endpoints.get(key).map(|object| object.uid.to_string()),
        }
    }

    /// The caches of owner and dependent are not of the same moment: the API server has the last word.
    async fn collect(&self, kind: Dependent, object: &Key, owners: &[Owner]) -> Result<(), Error> {
        let client = &self.shared.client;
        let mut live = HashMap::new();
        for owner in owners {
            let Some(path) = known(owner) else { continue };
            let key = key(owner, &path, &object.namespace);
            if let Some(found) = get(client, &path, &key).await? {
                live.insert(key, found.metadata.uid.to_string());
            }
        }
        if !orphaned(owners, object, |_, key| live.get(key).cloned()) {
            return Ok(());
        }
        let path = kind.path();
        let Some(found) = get(client, &path, object).await? else { return Ok(()) };
        if found.metadata.deleting() || *found.metadata.owner_references != *owners {
            return Ok(());
        }
        let options = DeleteOptions { uid: Some(found.metadata.uid.to_string()), ..DeleteOptions::default() };
        client.delete(&path, namespace(object), &object.name, &options).await
    }
}

async fn get(client: &Client, path: &ApiPath, key: &Key) -> Result<Option<Object>, Error> {
    debug_assert!(path.namespaced || *path == paths::NODES);
    match client.get(path, namespace(key), &key.name).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
