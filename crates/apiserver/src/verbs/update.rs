//! PUT: a whole object in place of the old one, or a new one where the kind allows that.

use bytes::Bytes;
use http::{Response, StatusCode};
use portolan_api::status;
use serde_json::Value;

use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::managed::Operation;
use crate::object::{meta, meta_mut};
use crate::write::{At, Part, Writer};
use crate::{content, metadata, respond};

/// Answers with the object as it is now.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let mut warnings = Vec::new();
    let put = put(call, &mut warnings).await;
    respond::written(call, put, &warnings)
}

async fn put(call: &Call, warnings: &mut Vec<String>) -> Result<(StatusCode, Bytes)> {
    let part = part(call)?;
    let options = WriteOptions::read(&call.query, "UpdateOptions")?;
    let mut object = content::object(call, options.validation, warnings)?;
    check_name(call, &object)?;
    metadata::place(&mut object, call.namespace.as_deref())?;
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    let manager = call.manager(Operation::Update);
    let writer = Writer::Updates(&manager);
    let exists = call.server.store().get(&at.key()).await?.0.is_some();
    if !exists && part == Part::Main && call.resource.create_on_update {
        if meta(&object, "resourceVersion").is_some_and(|version| version != "0") {
            return Err(status::conflict(call.resource, at.name).into());
        }
        call.may_write(None, &object)?;
        let bytes = call.server.insert_by(writer, call.resource, object, options.dry_run, warnings).await?;
        return Ok((StatusCode::CREATED, bytes));
    }
    let finalize = call.subresource.as_deref() == Some("finalize");
    let change = &mut |old: &Value| {
        call.may_write(Some(old), &object)?;
        Ok(if finalize { finalized(old, &object) } else { object.clone() })
    };
    let bytes = call.server.change_by(writer, at, part, options.dry_run, warnings, change).await?;
    Ok((StatusCode::OK, bytes))
}

/// Which part of the object the path names.
pub(crate) fn part(call: &Call) -> Result<Part> {
    match call.subresource.as_deref() {
        None => Ok(Part::Main),
        Some("status") => Ok(Part::Status),
        Some("finalize") => Ok(Part::Raw),
        Some(_) => Err(status::method_not_allowed(call.resource, call.verb.name()).into()),
    }
}

/// A namespace with the finalizers of another.
fn finalized(old: &Value, new: &Value) -> Value {
    let mut object = old.clone();
    let finalizers = new["spec"].get("finalizers").cloned();
    if let Some(spec) = object["spec"].as_object_mut() {
        match finalizers {
            Some(finalizers) => spec.insert("finalizers".into(), finalizers),
            None => spec.remove("finalizers"),
        };
    }
    if let (Some(metadata), Some(finalizers)) =
        (Some(meta_mut(&mut object)), new["metadata"].get("finalizers").cloned())
    {
        metadata.insert("finalizers".into(), finalizers);
    }
    object
}

/// The object must be the one that the path names.
pub(crate) fn check_name(call: &Call, object: &Value) -> Result<()> {
    let wanted = call.object_name();
    let bad = |text: String| -> Result<()> { Err(ApiError::from(status::bad_request(text))) };
    match meta(object, "name") {
        None => bad(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        )),
        Some(name) if name != wanted => {
            bad(format!("the name of the object ({name}) does not match the name on the URL ({wanted})"))
        }
        Some(_) => match (meta(object, "namespace"), call.namespace.as_deref()) {
            (Some(own), Some(wanted)) if own != wanted => bad(format!(
                "the namespace of the object ({own}) does not match the namespace on the request ({wanted})"
            )),
            _ => Ok(()),
        },
    }
}
