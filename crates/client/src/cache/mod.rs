//! A watched copy of one kind of object: one writer task, many readers.
//!
//! Readers never see a half-listed cluster: a list replaces the content only when it is complete, and then as a
//! difference, so that only keys that really changed become dirty. Wake-ups carry no data: [`Dirty`] says which
//! keys changed, [`Cache::get`] returns the newest.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::{ApiPath, BoxError, Client};

/// Names one object of a kind. The namespace is empty for cluster-scoped kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Which objects of the kind to watch. The default is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selectors {
    pub namespace: Option<String>,
    pub labels: Option<String>,
    pub fields: Option<String>,
}

/// A watched copy of one kind of object, each kept as a `T`. Cheap to clone; the last clone dropped ends the
/// watch.
#[derive(Debug)]
pub struct Cache<T> {
    todo: PhantomData<T>,
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Cache { todo: PhantomData }
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// List and watch from now on, in a task of the current tokio runtime.
    ///
    /// `project` makes a `T` of one object's JSON. Objects for which it fails are counted and logged, and the
    /// cache goes on as if they were not there.
    pub fn start(
        client: Client,
        api: ApiPath,
        selectors: Selectors,
        project: impl Fn(&[u8]) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Cache<T> {
        let _ = (client, api, selectors, project);
        todo!()
    }

    /// Wait until the first list is complete.
    pub async fn synced(&self) {
        todo!()
    }

    pub fn is_synced(&self) -> bool {
        todo!()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        let _ = key;
        todo!()
    }

    /// Every object, in no order.
    pub fn all(&self) -> Vec<(Key, Arc<T>)> {
        todo!()
    }

    pub fn len(&self) -> usize {
        todo!()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many times `project` has failed since the start.
    pub fn decode_failures(&self) -> u64 {
        todo!()
    }

    /// A set of keys that change from now on. All keys present now start dirty.
    pub fn subscribe(&self) -> Dirty {
        todo!()
    }
}

/// Decode with serde: the usual `project` for a slim struct.
pub fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BoxError> {
    serde_json::from_slice(bytes).map_err(Into::into)
}

/// One subscriber's own set of changed keys.
#[derive(Debug)]
pub struct Dirty {}

impl Dirty {
    /// Wait until at least one key is dirty. Pending forever once the cache is gone. Cancel-safe.
    pub async fn wait(&mut self) {
        todo!()
    }

    /// Take all dirty keys, leaving none.
    pub fn take(&mut self) -> HashSet<Key> {
        todo!()
    }
}
