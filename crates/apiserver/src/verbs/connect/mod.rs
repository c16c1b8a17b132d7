//! `pods/log`, `pods/exec`, `pods/attach`, `pods/portforward`: answered by the agent of the pod's node, and handed through.
//! And `proxy`, answered by whoever serves there.
//!
//! Here it is decided which container is meant and whether the request makes sense; bytes of a session pass unread
//! (`tunnel`). `proxy` is the subresource of that name; `target` says, purely, where its requests go and as what.

pub(crate) mod proxy;
pub(crate) mod target;
mod tunnel;

use std::fmt::Write as _;
use std::net::IpAddr;

use futures_util::StreamExt as _;
use http::header::{CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use portolan_api::core::v1::Pod;
use portolan_api::field::FieldError;
use portolan_api::percent::encode;
use portolan_api::status;

use crate::body::{self, Body, Unread, full};
use crate::call::{Call, Verb};
use crate::errors::{ApiError, Result};
use crate::limits::NODE_REFUSAL_BYTES_MAX;
use crate::nodes;
use crate::outbound::{self, Failed, Outgoing};
use crate::write::At;

/// Whether a subresource is answered by somebody else.
pub(crate) fn is_connect(subresource: &str) -> bool {
    matches!(subresource, "log" | "proxy") || is_session(subresource)
}

/// Whether a subresource takes the connection over. Each needs the permission to create, also with GET: a websocket can
/// begin with nothing else.
pub(crate) fn is_session(subresource: &str) -> bool {
    matches!(subresource, "exec" | "attach" | "portforward")
}

/// What of a request only those use that hand it through.
pub(crate) struct Wire {
    /// As it was sent.
    pub(crate) method: Method,
    /// As it was sent.
    pub(crate) uri: Uri,
    /// The client's address, where it came over a connection.
    pub(crate) from: Option<IpAddr>,
    /// The connection, if the client may want to take it over.
    pub(crate) upgrade: Option<OnUpgrade>,
    /// The body, where it was not read.
    pub(crate) unread: Option<Unread>,
}

/// Hands the question on.
pub(crate) async fn run(call: &Call, wire: Wire) -> Result<Response<Body>> {
    let subresource = call.subresource.as_deref().unwrap_or_default();
    if subresource == "proxy" {
        return proxy::run(call, wire).await;
    }
    if !(call.verb == Verb::Get || call.verb == Verb::Create && is_session(subresource)) {
        return Err(status::method_not_allowed(call.resource, wire.method.as_str()).into());
    }
    let at = At { resource: call.resource, namespace: call.ns(), name: call.object_name() };
    let kv = call.server.fetch(at).await?;
    let pod: Pod = serde_json::from_slice(&kv.value).map_err(status::internal_error)?;
    if subresource == "log" {
        return log(call, &pod).await;
    }
    let container = if subresource == "portforward" { None } else { Some(container(call, &pod)?) };
    if pod.spec.node_name.is_empty() {
        return Err(
            status::bad_request(format!("pod {} does not have a host assigned", pod.metadata.name)).into()
        );
    }
    let Some(upgrade) = wire.upgrade.filter(|_| call.headers.contains_key(UPGRADE)) else {
        return Err(status::bad_request("Upgrade request required").into());
    };
    let path = match container {
        Some(container) => session_path(call, subresource, container),
        None => ports_path(call),
    };
    let mut request = request(&wire.method, &path)?;
    tunnel::copy(&call.headers, request.headers_mut());
    let node = &pod.spec.node_name;
    let address = nodes::address(&call.server, node).await?;
    let answer = nodes::request(&call.server, node, address, request).await.map_err(Failed::of_session)?;
    tunnel::open(call.server.stopped(), upgrade, answer, ())
}

/// Where the agent serves a session with a container, and what of it the client wants, in kubelet's words.
fn session_path(call: &Call, subresource: &str, container: &str) -> String {
    let mut path = format!("/{subresource}{}?", place(call, container));
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if call.query.flag(ours) == Some(true) {
            let _ = write!(path, "{theirs}=1&");
        }
    }
    for word in call.query.all("command") {
        let _ = write!(path, "command={}&", escaped(word));
    }
    path.trim_end_matches(['&', '?']).to_owned()
}

/// Where the agent forwards ports. Clients name them in one parameter or in several, or later.
fn ports_path(call: &Call) -> String {
    let mut path = format!("/portForward/{}/{}?", escaped(call.ns()), escaped(call.object_name()));
    for port in call.query.all("ports").flat_map(|ports| ports.split(',')) {
        let _ = write!(path, "port={}&", escaped(port));
    }
    path.trim_end_matches(['&', '?']).to_owned()
}

/// What a container wrote.
async fn log(call: &Call, pod: &Pod) -> Result<Response<Body>> {
    check_log(call)?;
    let container = container(call, pod)?;
    if pod.spec.node_name.is_empty() {
        let mut response = Response::new(full(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let mut path = format!("/containerLogs{}?", place(call, container));
    for name in
        ["follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stream"]
    {
        if let Some(value) = call.query.get(name) {
            let _ = write!(path, "{name}={}&", escaped(value));
        }
    }
    let path = path.trim_end_matches(['&', '?']);
    let node = &pod.spec.node_name;
    let address = nodes::address(&call.server, node).await?;
    let answer = nodes::request(&call.server, node, address, request(&Method::GET, path)?).await;
    let response = answer.map_err(|failed| match failed {
        Failed::Nobody(error) => error,
        Failed::Dial(why) | Failed::Answer(why) => {
            status::untyped(format!("Get {:?}: {why}", format!("https://{address}{path}"))).into()
        }
    })?;
    if !response.status().is_success() {
        return Err(refusal(call, response).await);
    }
    let pieces = response.into_body().into_data_stream();
    let mut stopped = call.server.stopped();
    // A follower must not hold up a server that goes.
    let pieces = pieces
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| std::future::ready(piece.ok()))
        .take_until(Box::pin(async move { drop(stopped.wait_for(|stop| *stop).await) }));
    let mut response = Response::new(body::stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}

fn check_log(call: &Call) -> Result<()> {
    let query = &call.query;
    let mut errors = Vec::new();
    let mut at_least = |name: &str, min: i64, words: &str| -> Result<()> {
        if let Some(number) = query.number(name)?
            && number < min
        {
            errors.push(FieldError::invalid(name, number, words));
        }
        Ok(())
    };
    at_least("tailLines", 0, "must be greater than or equal to 0")?;
    at_least("limitBytes", 1, "must be greater than 0")?;
    at_least("sinceSeconds", 1, "must be greater than 0")?;
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let words = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("sinceTime", words));
    }
    if let Some(stream) = query.get("stream") {
        if !matches!(stream, "All" | "Stdout" | "Stderr") {
            errors.push(FieldError::not_supported("stream", stream, &["All", "Stderr", "Stdout"]));
        } else if stream != "All" && query.get("tailLines").is_some() {
            let words = "`tailLines` and specific `stream` are mutually exclusive for now";
            errors.push(FieldError::forbidden("", words));
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(status::invalid_kind("", "PodLogOptions", call.object_name(), &errors).into())
    }
}

/// The container that is meant: the named one, or the only one.
fn container<'a>(call: &Call, pod: &'a Pod) -> Result<&'a str> {
    let name = &pod.metadata.name;
    let all: Vec<&str> =
        pod.spec.init_containers.iter().chain(&pod.spec.containers).map(|c| c.name.as_str()).collect();
    match (call.query.get("container"), &pod.spec.containers[..]) {
        (Some(wanted), _) => match all.iter().find(|known| **known == wanted) {
            Some(known) => Ok(known),
            None => {
                Err(status::bad_request(format!("container {wanted} is not valid for pod {name}")).into())
            }
        },
        (None, [only]) => Ok(&only.name),
        (None, _) => Err(status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))
        .into()),
    }
}

fn place(call: &Call, container: &str) -> String {
    format!("/{}/{}/{}", escaped(call.ns()), escaped(call.object_name()), escaped(container))
}

fn request(method: &Method, path: &str) -> Result<Request<Outgoing>> {
    let request = Request::builder().method(method).uri(path).body(outbound::empty());
    request.map_err(|e| status::internal_error(e).into())
}

/// The agent's no to a question for logs, as a Status: kubelet's text, in the words of Kubernetes' clients.
async fn refusal(call: &Call, response: Response<Incoming>) -> ApiError {
    let code = response.status();
    let body = Limited::new(response.into_body(), NODE_REFUSAL_BYTES_MAX).collect().await;
    let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    match code {
        StatusCode::BAD_REQUEST => status::bad_request(text).into(),
        StatusCode::NOT_FOUND => {
            let mut status = status::not_found(call.resource, call.object_name());
            status.message = text;
            status.into()
        }
        StatusCode::INTERNAL_SERVER_ERROR => status::internal_error(text).into(),
        _ => {
            let mut status = status::forbidden(call.resource, call.object_name(), "");
            status.message = format!("{text} ( pods/log {})", call.object_name());
            status.code = code.as_u16().into();
            if code != StatusCode::FORBIDDEN {
                status.reason = String::new();
            }
            status.into()
        }
    }
}

/// For a path or a query.
fn escaped(text: &str) -> String {
    encode(text.as_bytes(), "")
}
