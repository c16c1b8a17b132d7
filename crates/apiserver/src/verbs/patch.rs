//! PATCH: a part of an object, in any of the four formats.
//!
//! The patch is applied to the newest object and retried when that changes meanwhile; a patch that names a resource
//! version gets the conflict instead, since the version it names is then the old one.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use portolan_api::decode::{self, DecodeError, Problem};
use portolan_api::field::FieldError;
use portolan_api::status;
use serde_json::{Value, json};

use crate::body::Body;
use crate::call::{Call, Validation, WriteOptions};
use crate::content;
use crate::errors::{ApiError, Result, invalid_options};
use crate::patch::{self, Kind, PatchError};
use crate::respond;
use crate::verbs::update::{check_name, part};
use crate::write::{At, Part};

/// Answers with the object as it is now.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let part = part(call)?;
    let kind = kind(call)?;
    let options = options(call, kind)?;
    let mut warnings: Vec<String> =
        call.resource.strategy.deprecation().map(str::to_string).into_iter().collect();
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    if kind == Kind::Apply && part == Part::Main {
        check_applied(call)?;
        if call.server.store().get(&at.key()).await?.0.is_none() {
            return create(call, options, warnings).await;
        }
    }
    let mut found = Vec::new();
    let change = &mut |old: &Value| {
        let (new, problems) = patched(call, kind, options.validation, old)?;
        found = problems;
        Ok(new)
    };
    let bytes = call.server.change(at, part, options.dry_run, &mut warnings, change).await?;
    if options.validation == Validation::Warn {
        warnings.extend(found.iter().map(Problem::to_string));
    }
    respond::object(call, StatusCode::OK, bytes, &warnings)
}

pub(crate) fn kind(call: &Call) -> Result<Kind> {
    let value = call.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    Kind::from_content_type(value).map_err(|error| refused(call, &error))
}

fn options(call: &Call, kind: Kind) -> Result<WriteOptions> {
    let options = WriteOptions::read(&call.query, "PatchOptions")?;
    if kind == Kind::Apply {
        if call.query.get("fieldManager").is_none() {
            let error = FieldError::required("fieldManager", "is required for apply patch");
            return Err(invalid_options("PatchOptions", error));
        }
    } else if call.query.flag("force").is_some() {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(invalid_options("PatchOptions", error));
    }
    Ok(options)
}

/// The new object and what strict decoding found in it.
fn patched(call: &Call, kind: Kind, validation: Validation, old: &Value) -> Result<(Value, Vec<Problem>)> {
    let schema = (call.resource.schema)();
    let new = patch::apply(kind, schema, old, &call.body).map_err(|error| refused(call, &error))?;
    let decoded = decode::check(&new, schema).map_err(|error| undecodable(call, &new, error))?;
    if validation == Validation::Strict && !decoded.problems.is_empty() {
        let shown = String::from_utf8_lossy(&call.body).into_owned();
        let error = FieldError::invalid("patch", shown, decode::strict_error(&decoded.problems));
        return Err(status::invalid_kind("", "", "", &[error]).into());
    }
    let problems = decoded.problems.clone();
    let mut object = content::accept(call.resource, decoded, Validation::Ignore, &mut Vec::new())?;
    check_name(call, &object)?;
    crate::metadata::place(&mut object, call.namespace.as_deref())?;
    Ok((object, problems))
}

/// Apply makes what is not there.
async fn create(call: &Call, options: WriteOptions, mut warnings: Vec<String>) -> Result<Response<Body>> {
    let empty = json!({
        "apiVersion": call.resource.api_version(),
        "kind": call.resource.kind,
        "metadata": { "name": call.object_name() },
    });
    let (object, problems) = patched(call, Kind::Apply, options.validation, &empty)?;
    if options.validation == Validation::Warn {
        warnings.extend(problems.iter().map(Problem::to_string));
    }
    let bytes = call.server.insert(call.resource, object, options.dry_run, &mut warnings).await?;
    respond::object(call, StatusCode::CREATED, bytes, &warnings)
}

fn check_applied(call: &Call) -> Result<()> {
    let value = content::yaml(&call.body)
        .map_err(|error| ApiError::from(status::bad_request(format!("error decoding YAML: {error}"))))?;
    if value["metadata"].get("managedFields").is_some_and(|v| !v.is_null()) {
        return Err(status::bad_request("metadata.managedFields must be nil").into());
    }
    Ok(())
}

pub(crate) fn refused(call: &Call, error: &PatchError) -> ApiError {
    if let PatchError::DoesNotApply { detail } = error {
        tracing::debug!(%detail, resource = call.resource.plural, name = call.object_name(), "patch does not apply");
    }
    let code = i32::from(error.code());
    let mut status = status::bad_request(error.to_string());
    status.code = code;
    status.reason = error.reason().into();
    status.into()
}

fn undecodable(call: &Call, new: &Value, error: DecodeError) -> ApiError {
    match error {
        DecodeError::TooLarge => crate::errors::too_large(),
        DecodeError::Type(text) | DecodeError::Syntax(text) => {
            tracing::debug!(resource = call.resource.plural, %new, "patched object does not fit its schema");
            status::bad_request(decode::cannot_be_handled(call.resource, text)).into()
        }
    }
}
