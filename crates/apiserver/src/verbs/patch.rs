//! PATCH: a part of an object, in any of the three old formats; `apply` is the fourth.
//!
//! The patch is applied to the newest object and retried when that changes meanwhile; a patch that names a resource
//! version gets the conflict instead, since the version it names is then the old one.

use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use portolan_api::decode::{self, DecodeError};
use portolan_api::field::FieldError;
use portolan_api::status;
use serde_json::Value;

use crate::body::Body;
use crate::call::{Call, Validation, WriteOptions};
use crate::content;
use crate::errors::{ApiError, Result, invalid_options};
use crate::managed::Operation;
use crate::patch::{self, Kind, PatchError};
use crate::respond;
use crate::verbs::update::{check_name, part};
use crate::write::{At, Writer};

/// Answers with the object as it is now.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let part = part(call)?;
    let kind = kind(call)?;
    let options = options(call, kind)?;
    let mut warnings = Vec::new();
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    if kind == Kind::Apply {
        return crate::verbs::apply::run(call, part, options, warnings).await;
    }
    let manager = call.manager(Operation::Update);
    let writer = Writer::Updates(&manager);
    let mut found = Vec::new();
    let change = &mut |old: &Value| {
        let (new, problems) = patched(call, kind, options.validation, old)?;
        call.may_write(Some(old), &new)?;
        found = problems;
        Ok(new)
    };
    let changed = call.server.change_by(writer, at, part, options.dry_run, &mut warnings, change).await;
    if options.validation == Validation::Warn {
        warnings.append(&mut found);
    }
    respond::written(call, changed.map(|bytes| (StatusCode::OK, bytes)), &warnings)
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

/// The new object and what strict decoding found in the patch and in it.
fn patched(call: &Call, kind: Kind, validation: Validation, old: &Value) -> Result<(Value, Vec<String>)> {
    let schema = (call.resource.schema)();
    let new = patch::apply(kind, schema, old, &call.body).map_err(|error| refused(call, &error))?;
    let nonsense = |text: String| -> ApiError {
        let error = FieldError::invalid("patch", patch::shown(kind, &call.body, &new), text);
        status::invalid_kind("", "", "", &[error]).into()
    };
    let decoded = decode::check(&new, schema).map_err(|error| match error {
        DecodeError::TooLarge => crate::errors::too_large(),
        DecodeError::Type(text) | DecodeError::Syntax(text) => {
            let misfit = (kind == Kind::Strategic).then(|| patch::misfit(&new, schema)).flatten();
            nonsense(misfit.unwrap_or(text))
        }
    })?;
    let mut problems = match validation {
        Validation::Ignore => Vec::new(),
        Validation::Warn | Validation::Strict => patch::problems(kind, &call.body),
    };
    problems.extend(decoded.problems.iter().map(ToString::to_string));
    if validation == Validation::Strict && !problems.is_empty() {
        return Err(nonsense(decode::strict_error(&problems)));
    }
    let mut object = content::accept(call.resource, decoded, Validation::Ignore, &mut Vec::new())?;
    check_name(call, &object)?;
    crate::metadata::place(&mut object, call.namespace.as_deref())?;
    Ok((object, problems))
}

pub(crate) fn refused(call: &Call, error: &PatchError) -> ApiError {
    if let PatchError::DoesNotApply { detail } = error {
        tracing::debug!(%detail, resource = call.resource.plural, name = call.object_name(), "patch does not apply");
    }
    let code = i32::from(error.code());
    let mut status = status::bad_request(error.to_string());
    status.code = code;
    status.reason = error.reason().into();
    status.details = matches!(error, PatchError::DoesNotApply { .. }).then(Default::default);
    status.into()
}

pub(crate) fn undecodable(call: &Call, new: &Value, error: DecodeError) -> ApiError {
    match error {
        DecodeError::TooLarge => crate::errors::too_large(),
        DecodeError::Type(text) | DecodeError::Syntax(text) => {
            tracing::debug!(resource = call.resource.plural, %new, "patched object does not fit its schema");
            status::bad_request(decode::cannot_be_handled(call.resource, text)).into()
        }
    }
}
