//! The end of a namespace: everything in it is deleted, then the namespace itself.
//!
//! One task follows the namespaces of the store. Deleting is repeated until nothing is left, because pods take their
//! time. Every server of a cluster may run this: all steps are idempotent.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use portolan_api::meta::v1::DeleteOptions;
use portolan_api::resource::{NAMESPACES, stored};
use serde_json::Value;

use crate::errors::Result;
use crate::object::{self, meta, meta_mut};
use crate::server::ApiServer;
use crate::write::{At, Part};

/// Pause before the first look at what is left, doubled for each further one up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Follows the namespaces until the server goes.
pub(crate) async fn run(server: Weak<ApiServer>) {
    let busy = Arc::new(Mutex::new(HashSet::new()));
    let mut pause = PAUSE_MIN;
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        let followed = follow(&strong, &busy);
        let outcome = tokio::select! {
            outcome = followed => outcome,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        drop(strong);
        if let Err(error) = outcome {
            tracing::warn!(error = %error.0.message, "namespaces cannot be followed; trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

type Busy = Arc<Mutex<HashSet<String>>>;

async fn follow(server: &Arc<ApiServer>, busy: &Busy) -> Result<()> {
    let prefix = NAMESPACES.key_prefix(None);
    let page = server.store().list(&prefix, None, 0, None).await?;
    for kv in &page.items {
        consider(server, busy, &object::to_value(kv)?);
    }
    let mut watch = server.store().watch(&prefix, page.revision).await?;
    while let Some(events) = watch.next().await {
        for event in &*events? {
            if let Some(value) = &event.value {
                consider(server, busy, &object::parse(&event.key, value, event.revision)?);
            }
        }
    }
    Ok(())
}

/// Starts the work on a namespace that is being deleted, unless it is under way.
fn consider(server: &Arc<ApiServer>, busy: &Busy, namespace: &Value) {
    let Some(name) = meta(namespace, "name") else { return };
    if meta(namespace, "deletionTimestamp").is_none() || !lock(busy).insert(name.to_string()) {
        return;
    }
    let (server, busy, name) = (Arc::downgrade(server), busy.clone(), name.to_string());
    tokio::spawn(async move {
        finalize(&server, &name).await;
        lock(&busy).remove(&name);
    });
}

fn lock(busy: &Busy) -> std::sync::MutexGuard<'_, HashSet<String>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn finalize(server: &Weak<ApiServer>, name: &str) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(server) = server.upgrade() else { return };
        match empty(&server, name).await {
            Ok(true) => match release(&server, name).await {
                Ok(()) => return,
                Err(error) if error.is("NotFound") => return,
                Err(error) => {
                    tracing::warn!(name, error = %error.0.message, "namespace cannot be removed yet");
                }
            },
            Ok(false) => {}
            Err(error) => tracing::warn!(name, error = %error.0.message, "namespace cannot be emptied yet"),
        }
        drop(server);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Deletes what is in the namespace; true when nothing was left.
async fn empty(server: &ApiServer, name: &str) -> Result<bool> {
    let mut nothing_left = true;
    for resource in stored().filter(|resource| resource.namespaced) {
        let page = server.store().list(&resource.key_prefix(Some(name)), None, 0, None).await?;
        if !page.items.is_empty() {
            nothing_left = false;
            server.delete_all(resource, &page.items, &DeleteOptions::default()).await?;
        }
    }
    Ok(nothing_left)
}

/// Takes Kubernetes' own finalizer off; the namespace goes with its last one.
async fn release(server: &ApiServer, name: &str) -> Result<()> {
    let at = At { resource: &NAMESPACES, namespace: "", name };
    let change = &mut |old: &Value| {
        let mut object = old.clone();
        meta_mut(&mut object);
        if let Some(finalizers) = object["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != "kubernetes");
        }
        Ok(object)
    };
    server.change(at, Part::Raw, false, &mut Vec::new(), change).await.map(drop)
}
