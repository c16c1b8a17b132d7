//! GET of one object.

use http::{Response, StatusCode};
use portolan_api::resource::is_act;
use portolan_api::status;

use crate::body::Body;
use crate::call::Call;
use crate::errors::Result;
use crate::verbs::list::{Version, wait_for};
use crate::write::At;
use crate::{object, respond};

/// Answers with the object.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    // Every read sees the newest state, so "at least" needs no more than that state to be new enough.
    match Version::parse(call.query.get("resourceVersion"))? {
        Version::At(revision) => wait_for(&call.server, revision).await?,
        Version::Unset | Version::Any => {}
    }
    if call.subresource.as_deref().is_some_and(is_act) {
        return Err(status::method_not_allowed(call.resource, "get").into());
    }
    let kv = call.server.fetch(at).await?;
    respond::object(call, StatusCode::OK, object::to_bytes(&kv)?, &[])
}
