//! POST: a new object.

use bytes::Bytes;
use http::{Response, StatusCode};
use portolan_api::status;

use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::errors::Result;
use crate::managed::Operation;
use crate::write::Writer;
use crate::{content, metadata, respond};

/// Answers with the new object.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    match call.subresource.as_deref() {
        Some("binding") => return crate::verbs::binding::run(call).await,
        Some("token") => return crate::verbs::token::run(call).await,
        Some("eviction") => return crate::verbs::eviction::run(call).await,
        _ => {}
    }
    if call.name.is_some() || (call.resource.namespaced && call.namespace.is_none()) {
        return Err(status::method_not_allowed(call.resource, "POST").into());
    }
    let mut warnings = Vec::new();
    let made = make(call, &mut warnings).await;
    respond::written(call, made.map(|bytes| (StatusCode::CREATED, bytes)), &warnings)
}

async fn make(call: &Call, warnings: &mut Vec<String>) -> Result<Bytes> {
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let mut object = content::object(call, options.validation, warnings)?;
    metadata::place(&mut object, call.namespace.as_deref())?;
    call.may_write(None, &object)?;
    let manager = call.manager(Operation::Update);
    call.server.insert_by(Writer::Updates(&manager), call.resource, object, options.dry_run, warnings).await
}
