//! What becomes of an owner's dependents when it is deleted with a policy of its own: `Foreground` deletes them first,
//! `Orphan` lets them go. (`Background`, the default, is the garbage collector's alone: it finds them afterwards.)
//!
//! A deletion with such a policy leaves a finalizer on the owner; here are the tasks that take it off again. Every step
//! is idempotent, and a server that starts goes on with what another one left.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use portolan_api::meta::v1::{DeleteOptions, Preconditions};
use portolan_api::resource::{Resource, stored};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::errors::Result;
use crate::limits::{PROPAGATION_PAUSE_MAX, PROPAGATION_PAUSE_MIN};
use crate::object::{self, meta, meta_mut};
use crate::server::ApiServer;
use crate::write::{At, Part};

/// The finalizer of an owner that waits for its dependents to go.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents stay.
const ORPHAN: &str = "orphan";

/// An owner that waits to have its finalizer taken off.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    resource: &'static Resource,
    namespace: String,
    name: String,
    uid: String,
}

impl Owner {
    /// The object as such an owner; `None` if it is none, or nobody has to act.
    pub(crate) fn waiting(resource: &'static Resource, object: &Value) -> Option<Self> {
        let held = finalizers(object).any(|finalizer| finalizer == FOREGROUND || finalizer == ORPHAN);
        if !held || meta(object, "deletionTimestamp").is_none() {
            return None;
        }
        let text = |field| meta(object, field).unwrap_or_default().to_owned();
        Some(Self { resource, namespace: text("namespace"), name: text("name"), uid: text("uid") })
    }

    fn at(&self) -> At<'_> {
        At { resource: self.resource, namespace: &self.namespace, name: &self.name }
    }
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Puts the finalizer of the deletion's policy on the object. Without a policy those that are there stay.
pub(crate) fn mark(object: &mut Value, options: &DeleteOptions) {
    let wanted = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
        (Some("Foreground"), _) => Some(FOREGROUND),
        (Some(_), _) | (None, Some(false)) => None,
        (None, None) => return,
    };
    let mut list: Vec<Value> = finalizers(object)
        .filter(|finalizer| *finalizer != FOREGROUND && *finalizer != ORPHAN)
        .map(Value::from)
        .collect();
    list.extend(wanted.map(Value::from));
    let metadata = meta_mut(object);
    if list.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".into(), list.into());
    }
}

/// Works for owners until the server goes; first for those that were waiting before it came.
pub(crate) async fn run(server: Weak<ApiServer>, mut owners: mpsc::UnboundedReceiver<Owner>) {
    if let Some(server) = server.upgrade() {
        match left_over(&server).await {
            Ok(found) => {
                for owner in found {
                    tokio::spawn(finish(Arc::downgrade(&server), owner));
                }
            }
            Err(error) => {
                tracing::warn!(error = %error.0.message, "deletions left over cannot be looked for");
            }
        }
    }
    while let Some(owner) = owners.recv().await {
        tokio::spawn(finish(server.clone(), owner));
    }
}

async fn left_over(server: &ApiServer) -> Result<Vec<Owner>> {
    let mut found = Vec::new();
    for resource in stored() {
        for kv in server.store().list(&resource.key_prefix(None), None, 0, None).await?.items {
            if contains(&kv.value, FOREGROUND) || contains(&kv.value, "\"orphan\"") {
                found.extend(Owner::waiting(resource, &object::to_value(&kv)?));
            }
        }
    }
    Ok(found)
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

async fn finish(server: Weak<ApiServer>, owner: Owner) {
    let mut pause = PROPAGATION_PAUSE_MIN;
    loop {
        let Some(strong) = server.upgrade() else { return };
        if *strong.stopped().borrow() {
            return;
        }
        match advance(&strong, &owner).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) if error.is("NotFound") => return,
            Err(error) => {
                tracing::warn!(name = owner.name, error = %error.0.message, "dependents cannot be let go yet");
            }
        }
        drop(strong);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PROPAGATION_PAUSE_MAX);
    }
}

/// One step; true when nothing is left to do.
async fn advance(server: &ApiServer, owner: &Owner) -> Result<bool> {
    let object = object::to_value(&server.fetch(owner.at()).await?)?;
    if meta(&object, "uid") != Some(owner.uid.as_str()) {
        return Ok(true);
    }
    let policy = finalizers(&object).find(|finalizer| [FOREGROUND, ORPHAN].contains(finalizer));
    let Some(policy) = policy.map(str::to_owned) else { return Ok(true) };
    let (dependents, owners) = dependents(server, owner).await?;
    let mut blocked = false;
    for (resource, dependent) in dependents {
        if policy == ORPHAN {
            disown(server, owner, resource, &dependent).await?;
        } else if blocks(&dependent, &owner.uid) {
            blocked = true;
            delete(server, resource, &dependent, &owners).await?;
        }
    }
    if blocked {
        return Ok(false);
    }
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        if let Some(list) = new["metadata"]["finalizers"].as_array_mut() {
            list.retain(|finalizer| *finalizer != policy);
        }
        Ok(new)
    };
    server.change(owner.at(), Part::Raw, false, &mut Vec::new(), change).await?;
    Ok(true)
}

type Dependents = Vec<(&'static Resource, Value)>;

/// What the owner owns, and the UIDs of all that own anything in the same place.
async fn dependents(server: &ApiServer, owner: &Owner) -> Result<(Dependents, HashSet<String>)> {
    let (mut found, mut owners) = (Vec::new(), HashSet::new());
    let place = owner.resource.namespaced.then_some(owner.namespace.as_str());
    for resource in stored().filter(|r| r.namespaced || place.is_none()) {
        for kv in server.store().list(&resource.key_prefix(place), None, 0, None).await?.items {
            if !contains(&kv.value, "\"ownerReferences\"") {
                continue;
            }
            let object = object::to_value(&kv)?;
            owners.extend(references(&object).filter_map(|r| r["uid"].as_str()).map(str::to_owned));
            if references(&object).any(|reference| reference["uid"] == *owner.uid) {
                found.push((resource, object));
            }
        }
    }
    Ok((found, owners))
}

fn references(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["ownerReferences"].as_array().into_iter().flatten()
}

fn blocks(object: &Value, uid: &str) -> bool {
    references(object).any(|r| r["uid"] == *uid && r["blockOwnerDeletion"] == true)
}

async fn disown(
    server: &ApiServer,
    owner: &Owner,
    resource: &'static Resource,
    object: &Value,
) -> Result<()> {
    let text = |field| meta(object, field).unwrap_or_default();
    let at = At { resource, namespace: text("namespace"), name: text("name") };
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        if let Some(list) = new["metadata"]["ownerReferences"].as_array_mut() {
            list.retain(|reference| reference["uid"] != *owner.uid);
            if list.is_empty() {
                meta_mut(&mut new).remove("ownerReferences");
            }
        }
        Ok(new)
    };
    match server.change(at, Part::Raw, false, &mut Vec::new(), change).await {
        Err(error) if !error.is("NotFound") => Err(error),
        _ => Ok(()),
    }
}

/// Deletes a dependent, its own dependents first if it has any.
async fn delete(
    server: &ApiServer,
    resource: &'static Resource,
    object: &Value,
    owners: &HashSet<String>,
) -> Result<()> {
    if meta(object, "deletionTimestamp").is_some() {
        return Ok(());
    }
    let text = |field| meta(object, field).unwrap_or_default();
    let policy = if owners.contains(text("uid")) { "Foreground" } else { "Background" };
    let options = DeleteOptions {
        propagation_policy: Some(policy.into()),
        preconditions: Some(Preconditions { uid: Some(text("uid").into()), ..Preconditions::default() }),
        ..DeleteOptions::default()
    };
    let at = At { resource, namespace: text("namespace"), name: text("name") };
    match server.delete(at, &options).await {
        Err(error) if !error.is("NotFound") && !error.is("Conflict") => Err(error),
        _ => Ok(()),
    }
}
