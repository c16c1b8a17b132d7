//! POST to `serviceaccounts/NAME/token`: a token of the account, as `kubectl create token` and node agents ask for it.

use http::{Response, StatusCode};
use portolan_api::authentication::v1::{BoundObjectReference, TokenRequest};
use portolan_api::field::{FieldError, FieldErrors};
use portolan_api::resource::{NODES, PODS, Resource, SECRETS};
use portolan_api::{Time, status};
use serde_json::{Value, json};

use crate::authz::node;
use crate::body::Body;
use crate::call::{Call, WriteOptions};
use crate::errors::{ApiError, Result};
use crate::limits::{TOKEN_SECONDS_DEFAULT, TOKEN_SECONDS_MAX, TOKEN_SECONDS_MIN};
use crate::object::{self, meta};
use crate::tokens::{self, Named, Wish};
use crate::write::At;
use crate::{content, respond};

const GROUP: &str = "authentication.k8s.io";

/// Answers with the request and the token in it.
pub(crate) async fn run(call: &Call) -> Result<Response<Body>> {
    WriteOptions::read(&call.query, "CreateOptions")?;
    let request: TokenRequest = content::options(call, "TokenRequest")?.unwrap_or_default();
    let mut spec = request.spec;
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    let account = object::to_value(&call.server.fetch(at).await?)?;
    let seconds = *spec.expiration_seconds.get_or_insert(TOKEN_SECONDS_DEFAULT);
    let errors = wrong(seconds);
    if !errors.is_empty() {
        return Err(status::invalid_kind(GROUP, "TokenRequest", at.name, &errors).into());
    }
    if spec.audiences.is_empty() {
        spec.audiences.push(call.server.config().issuer.clone());
    }
    let mut wish = Wish {
        namespace: at.namespace.into(),
        account: named(&account),
        audiences: spec.audiences.clone(),
        seconds,
        ..Wish::default()
    };
    bind(call, spec.bound_object_ref.as_ref(), &mut wish).await?;
    let (token, end) = tokens::issue(&call.server, wish).ok_or_else(status::no_such_path)?;
    let answer = json!({
        "kind": "TokenRequest",
        "apiVersion": format!("{GROUP}/v1"),
        "metadata": {
            "name": at.name,
            "namespace": at.namespace,
            "creationTimestamp": Time::now().to_string(),
        },
        "spec": spec,
        "status": { "token": token, "expirationTimestamp": end.to_string() },
    });
    respond::object(call, StatusCode::CREATED, object::encode(&answer), &[])
}

fn wrong(seconds: i64) -> FieldErrors {
    let mut errors = Vec::new();
    let mut say = |detail: &str| errors.push(FieldError::invalid("spec.expirationSeconds", seconds, detail));
    if seconds < TOKEN_SECONDS_MIN {
        say("may not specify a duration less than 10 minutes");
    }
    if seconds > TOKEN_SECONDS_MAX {
        say("may not specify a duration larger than 2^32 seconds");
    }
    errors
}

fn named(object: &Value) -> Named {
    let text = |field| meta(object, field).unwrap_or_default().to_string();
    Named { name: text("name"), uid: text("uid") }
}

/// Puts into the token what it is to end with.
async fn bind(call: &Call, bound: Option<&BoundObjectReference>, wish: &mut Wish) -> Result<()> {
    let node = node::name_of(&call.user);
    let forbid = |why: &str| Err(status::forbidden(call.resource, call.object_name(), why).into());
    let Some(bound) = bound else {
        return if node.is_some() { forbid("node requested token not bound to a pod") } else { Ok(()) };
    };
    if node.is_some() && bound.kind != "Pod" {
        return forbid("node requested token not bound to a pod");
    }
    match (bound.api_version.as_str(), bound.kind.as_str()) {
        ("v1", "Pod") => {
            let pod = referred(call, &PODS, call.ns(), bound).await?;
            let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
            if account != call.object_name() {
                return bad(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    call.object_name()
                ));
            }
            let place = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if node.is_some_and(|node| node != place) {
                return forbid("node requested token bound to a pod scheduled on a different node");
            }
            if let (Some(kv), _) = call.server.store().get(&NODES.key("", place)).await? {
                wish.node = Some(named(&object::to_value(&kv)?));
            }
            wish.pod = Some(named(&pod));
        }
        ("v1", "Secret") => wish.secret = Some(named(&referred(call, &SECRETS, call.ns(), bound).await?)),
        ("v1", "Node") => wish.node = Some(named(&referred(call, &NODES, "", bound).await?)),
        (version, kind) => {
            return bad(format!("cannot bind token to object of type {version}, Kind={kind}"));
        }
    }
    Ok(())
}

fn bad(text: String) -> Result<()> {
    Err(ApiError::from(status::bad_request(text)))
}

async fn referred(
    call: &Call,
    resource: &'static Resource,
    namespace: &str,
    bound: &BoundObjectReference,
) -> Result<Value> {
    let at = At { resource, namespace, name: &bound.name };
    let object = object::to_value(&call.server.fetch(at).await?)?;
    let uid = meta(&object, "uid").unwrap_or_default();
    if !bound.uid.is_empty() && bound.uid != uid {
        let mut conflict = status::conflict(resource, &bound.name);
        conflict.message = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound.uid
        );
        return Err(conflict.into());
    }
    Ok(object)
}
