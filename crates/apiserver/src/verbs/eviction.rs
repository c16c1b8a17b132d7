//! POST to `pods/NAME/eviction`: a polite deletion, as `kubectl drain` asks for. There are no disruption budgets that
//! could refuse it.

use http::{Response, StatusCode};
use portolan_api::meta::v1::{DeleteOptions, Status};
use portolan_api::status;
use serde::Deserialize;

use crate::authz::node;
use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::write::At;
use crate::{content, respond};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Eviction {
    metadata: Metadata,
    delete_options: DeleteOptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

/// Answers with Success.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let options = WriteOptions::read(&call.query, "CreateOptions")?;
    let Eviction { metadata, mut delete_options } = content::options(call, "Eviction")?.unwrap_or_default();
    if !metadata.name.is_empty() && metadata.name != call.object_name() {
        let text = "name in URL does not match name in Eviction object";
        return Err(ApiError::from(status::bad_request(text)));
    }
    if options.dry_run {
        delete_options.dry_run = vec!["All".into()];
    }
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    node::check_pod(&call.server, &call.user, "evict", at.namespace, at.name).await?;
    call.server.delete(at, &delete_options).await?;
    let done = Status {
        api_version: "v1".into(),
        kind: "Status".into(),
        status: "Success".into(),
        code: i32::from(StatusCode::CREATED.as_u16()),
        ..Status::default()
    };
    Ok(respond::status(call, StatusCode::CREATED, &done))
}
