//! A tiny API server in memory, for tests of what uses a [`Client`].
//!
//! It stores any JSON object by path and knows list (paged), watch, get, create, update, patch (all kinds but JSON
//! patch are merged), delete with finalizers and graceful pods, the `status` subresource, resource versions,
//! conflicts, and label and field selectors. It validates and defaults nothing.
//!
//! [`FakeApi`] is the handle; [`handle`] maps requests to the [`objects`] kept; [`select`] matches selectors.

mod handle;
mod objects;
mod select;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::Value;

use self::objects::{Id, Objects};
use crate::{ApiPath, Body, Client, Error, Status, Transport};

/// The server. Share it; make clients of it.
#[derive(Debug, Default)]
pub struct FakeApi {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    objects: Objects,
    writes: Vec<String>,
    requests: Vec<String>,
    failures: VecDeque<Status>,
}

impl FakeApi {
    pub fn new() -> Arc<FakeApi> {
        Arc::new(FakeApi::default())
    }

    pub fn client(self: &Arc<Self>) -> Client {
        Client::from_transport(Arc::new(InProcess { api: self.clone() }), "test")
    }

    /// Create or replace an object, status and all, as somebody else would. Takes the name and namespace from its
    /// metadata and ignores its resource version.
    pub fn put(&self, api: &ApiPath, mut object: Value) {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let namespace = if api.namespaced && namespace.is_empty() { "default" } else { &namespace };
        if api.namespaced {
            object["metadata"]["namespace"] = namespace.into();
        }
        object["apiVersion"] = api.api_version().into();
        object["kind"] = api.kind.into();
        self.lock().objects.put(id(api, namespace, &name), object);
    }

    pub fn get(&self, api: &ApiPath, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&id(api, namespace, name)).cloned()
    }

    /// All objects of a kind, in order of namespace and name.
    pub fn all(&self, api: &ApiPath) -> Vec<Value> {
        self.lock().objects.collection(&collection(api)).map(|(_, object)| object.clone()).collect()
    }

    /// Delete an object as somebody else would, finalizers or not. `false`: there was none.
    pub fn remove(&self, api: &ApiPath, namespace: &str, name: &str) -> bool {
        self.lock().objects.remove(&id(api, namespace, name)).is_some()
    }

    /// Every successful write by clients so far as `VERB path`, oldest first: for tests that count what a change
    /// costs.
    pub fn writes(&self) -> Vec<String> {
        self.lock().writes.clone()
    }

    /// Every request so far as `VERB path?query`.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// Answer the next `count` requests with an error.
    pub fn fail_next(&self, count: usize, code: u16, reason: &str) {
        let status =
            Status { code, reason: reason.into(), message: format!("{reason} on request"), details: None };
        self.lock().failures.extend(std::iter::repeat_n(status, count));
    }

    /// How many watches are running.
    pub fn watches(&self) -> usize {
        self.lock().objects.watch_count()
    }

    /// End all watches, as a restarting server does.
    pub fn drop_watches(&self) {
        self.lock().objects.drop_watches();
    }

    /// Tell all watches how far they have come, as servers do about once a minute.
    pub fn bookmark(&self) {
        self.lock().objects.bookmark();
    }

    /// Forget the history: watches from older versions and old continue tokens get 410, running watches an
    /// Expired error.
    pub fn expire(&self) {
        self.lock().objects.expire();
    }

    /// Answer a request: what a transport, or a listener in a test, calls.
    pub fn respond(&self, request: &http::Request<Bytes>) -> http::Response<Body> {
        self.lock().respond(request)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InProcess {
    api: Arc<FakeApi>,
}

impl Transport for InProcess {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        ready(Ok(self.api.respond(&request))).boxed()
    }
}

fn collection(api: &ApiPath) -> String {
    api.collection(None)
}

fn id(api: &ApiPath, namespace: &str, name: &str) -> Id {
    let namespace = if api.namespaced { namespace } else { "" };
    Id { collection: collection(api), namespace: namespace.into(), name: name.into() }
}

#[cfg(test)]
mod tests;
