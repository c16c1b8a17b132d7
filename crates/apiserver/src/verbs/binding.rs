//! POST to `pods/NAME/binding`: a scheduler gives a pod its node.

use http::{Response, StatusCode};
use portolan_api::Time;
use portolan_api::field::FieldError;
use portolan_api::meta::v1::Status;
use portolan_api::status;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::object::meta;
use crate::write::{At, Part};
use crate::{content, respond};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Binding {
    metadata: Metadata,
    target: Target,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    uid: String,
    annotations: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Target {
    kind: String,
    name: String,
}

/// Answers with Success.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let binding: Binding = content::options(call, "Binding")?.unwrap_or_default();
    check(call, &binding)?;
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    let change = &mut |old: &Value| bind(call, &binding, old);
    call.server.change(at, Part::Raw, options.dry_run, &mut Vec::new(), change).await?;
    let done = Status {
        api_version: "v1".into(),
        kind: "Status".into(),
        status: "Success".into(),
        code: i32::from(StatusCode::CREATED.as_u16()),
        ..Status::default()
    };
    Ok(respond::status(call, StatusCode::CREATED, &done))
}

fn check(call: &Call, binding: &Binding) -> Result<()> {
    let mut errors = Vec::new();
    if !binding.target.kind.is_empty() && binding.target.kind != "Node" {
        errors.push(FieldError::not_supported("target.kind", &binding.target.kind, &["Node", "<empty>"]));
    }
    if binding.target.name.is_empty() {
        errors.push(FieldError::required("target.name", ""));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid_kind("", "Binding", call.object_name(), &errors).into())
    }
}

fn bind(call: &Call, binding: &Binding, old: &Value) -> Result<Value> {
    let name = call.object_name();
    let conflict = |why: String| {
        let mut status = status::conflict_because(call.resource, name, &why);
        status.message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
        Err(ApiError::from(status))
    };
    if !binding.metadata.uid.is_empty() && Some(binding.metadata.uid.as_str()) != meta(old, "uid") {
        return conflict(format!("pod {name} has another UID than the binding names"));
    }
    if meta(old, "deletionTimestamp").is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    if let Some(node) = old["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node {node:?}"));
    }
    let mut pod = old.clone();
    pod["spec"]["nodeName"] = binding.target.name.as_str().into();
    if let Some(annotations) = &binding.metadata.annotations {
        for (key, value) in annotations {
            pod["metadata"]["annotations"][key] = value.clone();
        }
    }
    set_condition(&mut pod, "PodScheduled");
    Ok(pod)
}

fn set_condition(pod: &mut Value, kind: &str) {
    let condition = json!({
        "type": kind, "status": "True", "lastTransitionTime": Time::now().to_string(),
    });
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|c| c["type"] != kind);
        conditions.push(condition);
    }
}
