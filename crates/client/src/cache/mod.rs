//! A watched copy of one kind of object: one writer task, many readers.
//!
//! Readers never see a half-listed cluster: a list replaces the content only when it is complete, and then as a
//! difference, so that only keys that really changed become dirty. Wake-ups carry no data: [`Dirty`] says which
//! keys changed, [`Cache::get`] returns the newest.
//!
//! [`store`] is the content and its subscribers, without I/O; [`reflector`] is the task that lists and watches;
//! [`wire`] reads lists and watch events; [`backoff`] says how long to wait after a failure.

mod backoff;
mod reflector;
mod store;
mod wire;

use std::sync::Arc;

use tokio::task::AbortHandle;

use self::reflector::Reflector;
use self::store::Store;
use crate::{BoxError, Client, Versions};

pub(crate) use self::backoff::Backoff;
pub use self::store::Dirty;

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
    /// Fields as well, only to be spared what `project` has no use for: a server that cannot select by them is asked
    /// without. Services are selected by fields since Kubernetes 1.22.
    pub spared: Option<String>,
}

/// A watched copy of one kind of object, each kept as a `T`. Cheap to clone; the last clone dropped ends the
/// watch.
#[derive(Debug)]
pub struct Cache<T> {
    store: Arc<Store<T>>,
    task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Clone for Cache<T> {
    fn clone(&self) -> Self {
        Cache { store: self.store.clone(), task: self.task.clone() }
    }
}

impl<T: Send + Sync + 'static> Cache<T> {
    /// List and watch from now on, in a task of the current tokio runtime.
    ///
    /// `project` makes a `T` of one object's JSON. Objects for which it fails are counted and logged, and the
    /// cache goes on as if they were not there.
    pub fn start(
        client: Client,
        api: impl Into<Versions>,
        selectors: Selectors,
        project: impl Fn(&[u8]) -> Result<T, BoxError> + Send + Sync + 'static,
    ) -> Cache<T> {
        let store = Arc::new(Store::default());
        let reflector = Reflector::new(client, api.into(), selectors, project, store.clone());
        let task = tokio::spawn(reflector.run());
        Cache { store, task: Arc::new(AbortOnDrop(task.abort_handle())) }
    }

    /// Wait until the first list is complete.
    pub async fn synced(&self) {
        self.store.synced().await;
    }

    pub fn is_synced(&self) -> bool {
        self.store.is_synced()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.store.get(key)
    }

    /// Every object, in no order.
    pub fn all(&self) -> Vec<(Key, Arc<T>)> {
        self.store.all()
    }

    pub fn len(&self) -> usize {
        self.store.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many times `project` has failed since the start.
    pub fn decode_failures(&self) -> u64 {
        self.store.failures()
    }

    /// A set of keys that change from now on. All keys present now start dirty.
    pub fn subscribe(&self) -> Dirty {
        self.store.subscribe()
    }
}

/// Decode with serde: the usual `project` for a slim struct.
pub fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, BoxError> {
    serde_json::from_slice(bytes).map_err(Into::into)
}
