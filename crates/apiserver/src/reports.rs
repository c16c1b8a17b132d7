//! Events that the server itself writes, about objects that it looks after.
//!
//! The same thing said again is the same event: its name is made of what it says, so that several servers agree and a
//! restart forgets nothing. That a report cannot be written is no trouble of the object's: the log has it then.

use std::hash::{DefaultHasher, Hash, Hasher};

use portolan_api::resource::EVENTS;
use portolan_api::{MicroTime, Time};
use serde_json::{Value, json};

use crate::errors::Result;
use crate::object::meta;
use crate::server::ApiServer;
use crate::write::{At, Part};

/// Who speaks, and in which of the two forms that events have.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Voice {
    /// As clients of the core group's events do.
    Source(&'static str),
    /// As clients of `events.k8s.io` do.
    Controller { name: &'static str, action: &'static str },
}

/// The object that an event is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) api_version: String,
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource_version: String,
}

impl About {
    pub(crate) fn of(api_version: String, kind: &'static str, object: &Value) -> Self {
        let text = |field| meta(object, field).unwrap_or_default().to_owned();
        Self {
            api_version,
            kind,
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            resource_version: text("resourceVersion"),
        }
    }
}

/// Writes a Warning, or counts it if it is there.
pub(crate) async fn warn(server: &ApiServer, about: &About, voice: Voice, reason: &str, message: &str) {
    tracing::warn!(reason, kind = about.kind, namespace = about.namespace, name = about.name, "{message}");
    if let Err(error) = write(server, about, voice, reason, message).await {
        tracing::warn!(error = %error.0.message, reason, "the event could not be written");
    }
}

async fn write(server: &ApiServer, about: &About, voice: Voice, reason: &str, message: &str) -> Result<()> {
    // Where Kubernetes' clients put what is said of objects that have no namespace.
    let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
    let name = event_name(about, reason, message);
    let at = At { resource: &EVENTS, namespace, name: &name };
    if server.fetch(at).await.is_ok() {
        let again = &mut |old: &Value| Ok(again(old, voice));
        return server.change(at, Part::Main, false, &mut Vec::new(), again).await.map(drop);
    }
    let mut event = first(about, voice, reason, message);
    event["metadata"] = json!({ "namespace": namespace, "name": name });
    match server.insert(&EVENTS, event, false, &mut Vec::new()).await {
        // Another server has said it just now.
        Err(error) if error.is("AlreadyExists") => Ok(()),
        written => written.map(drop),
    }
}

fn event_name(about: &About, reason: &str, message: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (about.kind, &about.uid, reason, message).hash(&mut hasher);
    format!("{}.{:016x}", about.name, hasher.finish())
}

fn first(about: &About, voice: Voice, reason: &str, message: &str) -> Value {
    let About { api_version, kind, namespace, name, uid, resource_version } = about;
    let mut event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "involvedObject": {
            "apiVersion": api_version, "kind": kind, "namespace": namespace, "name": name, "uid": uid,
            "resourceVersion": resource_version,
        },
        "type": "Warning",
        "reason": reason,
        "message": message,
    });
    match voice {
        Voice::Source(component) => {
            let now = Time::now().to_string();
            event["source"] = json!({ "component": component });
            event["reportingComponent"] = component.into();
            event["count"] = 1.into();
            event["firstTimestamp"] = now.clone().into();
            event["lastTimestamp"] = now.into();
        }
        Voice::Controller { name, action } => {
            event["eventTime"] = MicroTime::now().to_string().into();
            event["reportingComponent"] = name.into();
            event["reportingInstance"] = name.into();
            event["action"] = action.into();
        }
    }
    event
}

fn again(old: &Value, voice: Voice) -> Value {
    let mut event = old.clone();
    match voice {
        Voice::Source(_) => {
            event["count"] = (old["count"].as_i64().unwrap_or(0) + 1).into();
            event["lastTimestamp"] = Time::now().to_string().into();
        }
        Voice::Controller { .. } => {
            let count = old["series"]["count"].as_i64().unwrap_or(1) + 1;
            event["series"] = json!({ "count": count, "lastObservedTime": MicroTime::now().to_string() });
        }
    }
    event
}
