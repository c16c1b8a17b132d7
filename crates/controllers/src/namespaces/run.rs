//! Empties a namespace that is being deleted, looks until nothing is left, then finalizes it.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use portolan_client::{Error, Key, paths};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::{GroupList, ResourceList, collections, without_finalizer};
use crate::caches::Shared;
use crate::queue::Outcome;
use crate::requests::{delete, write_subresource};

/// What is left after the deletes are pods that end in their own time: look again this often.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

pub(crate) struct Controller {
    shared: Arc<Shared>,
}

impl Controller {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) async fn sync(&self, key: Key) -> Outcome {
        let ending = self.shared.caches.namespaces.get(&key).is_some_and(|namespace| {
            namespace.metadata.deleting()
                && namespace.spec.finalizers.iter().any(|f| f == super::plan::FINALIZER)
        });
        if !ending {
            return Outcome::Done;
        }
        match self.empty_and_finalize(&key.name).await {
            Ok(true) => Outcome::Done,
            Ok(false) => Outcome::Again(LOOK_AGAIN),
            Err(error) if error.is_not_found() => Outcome::Done,
            Err(error) => {
                if !error.is_conflict() {
                    tracing::warn!(namespace = %key, %error, "cannot empty the namespace");
                }
                Outcome::Failed
            }
        }
    }

    /// `false`: something is left.
    async fn empty_and_finalize(&self, namespace: &str) -> Result<bool, Error> {
        let client = &self.shared.client;
        let mut left = 0;
        for collection in self.collections(namespace).await? {
            let (items, deleting) = self.names(&collection).await?;
            left += items.len() + deleting;
            for name in items {
                match delete(client, format!("{collection}/{name}")).await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        if left > 0 {
            return Ok(false);
        }
        let live: Value = client.get(&paths::NAMESPACES, None, namespace).await?;
        if let Some(finalized) = without_finalizer(live) {
            let object = (&paths::NAMESPACES, None, namespace);
            write_subresource(client, Method::PUT, object, "finalize", &finalized).await?;
        }
        Ok(true)
    }

    async fn collections(&self, namespace: &str) -> Result<Vec<String>, Error> {
        let core: ResourceList = self.get("/api/v1").await?;
        let mut found = collections("/api/v1", &core, namespace);
        let groups: GroupList = self.get("/apis").await?;
        for group in groups.groups {
            let prefix = format!("/apis/{}", group.preferred_version.group_version);
            let list: ResourceList = self.get(&prefix).await?;
            found.extend(collections(&prefix, &list, namespace));
        }
        Ok(found)
    }

    /// The names of what is there, and how many are already on their way out.
    async fn names(&self, collection: &str) -> Result<(Vec<String>, usize), Error> {
        let list: Value = self.get(collection).await?;
        let (mut names, mut deleting) = (Vec::new(), 0);
        for item in list["items"].as_array().into_iter().flatten() {
            let meta = &item["metadata"];
            if !meta["deletionTimestamp"].is_null() {
                deleting += 1;
            } else if let Some(name) = meta["name"].as_str() {
                names.push(name.to_owned());
            }
        }
        Ok((names, deleting))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let body = self.shared.client.get_raw(path).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Decode(error.to_string()))
    }
}
