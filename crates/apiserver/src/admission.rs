//! What must hold in the cluster before an object may come into being or go.

use portolan_api::meta::v1::{StatusCause, StatusDetails};
use portolan_api::resource::{NAMESPACES, Resource};
use portolan_api::status;
use portolan_store::Compare;
use serde_json::{Value, json};

use crate::errors::{ApiError, Result};
use crate::limits::POD_TOLERATION_SECONDS;
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::write::unchanged;

/// Namespaces that always exist.
pub(crate) const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// The namespace of a new object must exist and not be on its way out. The answer is the condition for the object's
/// transaction that this is still so.
pub(crate) async fn namespace(
    server: &ApiServer,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Compare>> {
    if !resource.namespaced {
        return Ok(None);
    }
    let (Some(kv), _) = server.store().get(&NAMESPACES.key("", namespace)).await? else {
        return Err(status::not_found(&NAMESPACES, namespace).into());
    };
    let object = object::to_value(&kv)?;
    if meta(&object, "deletionTimestamp").is_some() {
        return Err(terminating(resource, namespace, name));
    }
    Ok(Some(unchanged(&kv)))
}

fn terminating(resource: &Resource, namespace: &str, name: &str) -> ApiError {
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut error = ApiError::from(status::forbidden(resource, name, &why));
    let details = error.0.details.get_or_insert_with(StatusDetails::default);
    details.causes.push(StatusCause {
        reason: "NamespaceTerminating".into(),
        message: format!("namespace {namespace} is being terminated"),
        field: "metadata.namespace".into(),
    });
    error
}

/// A pod that does not say how long it stays on a node that is not ready, or is not heard of, stays for a while.
pub(crate) fn tolerations(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let list = spec.entry("tolerations").or_insert_with(|| Value::Array(Vec::new()));
    if list.is_null() {
        *list = Value::Array(Vec::new());
    }
    let Some(list) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is = |toleration: &Value, field: &str, value: &str| {
            let said = toleration.get(field).and_then(Value::as_str).unwrap_or_default();
            said.is_empty() || said == value
        };
        let says = |toleration: &Value| is(toleration, "key", key) && is(toleration, "effect", "NoExecute");
        if !list.iter().any(says) {
            list.push(json!({
                "key": key,
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": POD_TOLERATION_SECONDS,
            }));
        }
    }
}

/// Some namespaces may not be deleted.
pub(crate) fn may_delete(resource: &Resource, name: &str) -> Result<()> {
    if resource.group.is_empty() && resource.plural == "namespaces" && IMMORTAL.contains(&name) {
        return Err(status::forbidden(resource, name, "this namespace may not be deleted").into());
    }
    Ok(())
}
