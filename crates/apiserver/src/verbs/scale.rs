//! GET, PUT and PATCH of `scale`: how many replicas, the same for every kind that has any.

use http::{Response, StatusCode};
use portolan_api::autoscaling::v1::Scale;
use portolan_api::decode;
use portolan_api::field::FieldError;
use portolan_api::status;
use portolan_api::{meta::v1::LabelSelector, selector::LabelQuery};
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::{Call, Verb, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::managed::Operation;
use crate::object::{self, meta};
use crate::patch;
use crate::respond;
use crate::verbs::patch::{kind, refused};
use crate::write::{At, Part, Writer};

/// Answers with the scale as it is now.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    let object = match call.verb {
        Verb::Get => object::to_value(&call.server.fetch(at).await?)?,
        Verb::Update | Verb::Patch => change(call, at).await?,
        _ => return Err(status::method_not_allowed(call.resource, call.verb.name()).into()),
    };
    respond::object(call, StatusCode::OK, object::encode(&scale_of(&object)), &[])
}

async fn change(call: &Call, at: At<'_>) -> Result<Value> {
    let patching = call.verb == Verb::Patch;
    let options = WriteOptions::read(&call.query, if patching { "PatchOptions" } else { "UpdateOptions" })?;
    let change = &mut |old: &Value| {
        let scale = if patching { patched(call, &scale_of(old))? } else { decoded(call, &call.body)? };
        apply(call, &scale, old)
    };
    let manager = call.manager(Operation::Update);
    let writer = Writer::Updates(&manager);
    let bytes =
        call.server.change_by(writer, at, Part::Main, options.dry_run, &mut Vec::new(), change).await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or_default())
}

/// The object with the number of replicas that `scale` asks for.
fn apply(call: &Call, scale: &Value, old: &Value) -> Result<Value> {
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let detail = "must be greater than or equal to 0";
        let error = FieldError::invalid("spec.replicas", replicas, detail);
        return Err(status::invalid_kind("autoscaling", "Scale", call.object_name(), &[error]).into());
    }
    if meta(scale, "uid").is_some_and(|uid| Some(uid) != meta(old, "uid")) {
        return Err(status::conflict(call.resource, call.object_name()).into());
    }
    let mut new = old.clone();
    new["spec"]["replicas"] = replicas.into();
    // The version that the client names, if any, must be the present one: the object's own rule sees to that.
    if let (Some(version), Some(metadata)) =
        (scale["metadata"].get("resourceVersion"), new["metadata"].as_object_mut())
    {
        metadata.insert("resourceVersion".into(), version.clone());
    }
    Ok(new)
}

fn patched(call: &Call, old: &Value) -> Result<Value> {
    let kind = kind(call)?;
    let new = patch::apply(kind, Scale::schema(), old, &call.body).map_err(|error| refused(call, &error))?;
    decoded(call, &object::encode(&new))
}

fn decoded(call: &Call, json: &[u8]) -> Result<Value> {
    let text = |error: &dyn std::fmt::Display| {
        let name = call.object_name();
        ApiError::from(status::bad_request(format!("the scale of {name} cannot be understood: {error}")))
    };
    let decoded = decode::decode(json, Scale::schema()).map_err(|error| text(&format!("{error:?}")))?;
    match meta(&decoded.value, "name") {
        Some(name) if name != call.object_name() => Err(text(&format!("it is called {name}"))),
        _ => Ok(decoded.value),
    }
}

fn scale_of(object: &Value) -> Value {
    let of = |field: &str| object["metadata"].get(field).cloned();
    let fields = ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        fields.iter().filter_map(|field| Some(((*field).to_owned(), of(field)?))).collect();
    let selector: LabelSelector =
        serde_json::from_value(object["spec"]["selector"].clone()).unwrap_or_default();
    let selector = LabelQuery::of_selector(&selector).map(|query| query.to_string()).unwrap_or_default();
    json!({
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": { "replicas": object["spec"]["replicas"].as_i64().unwrap_or(1) },
        "status": {
            "replicas": object["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": selector,
        },
    })
}
