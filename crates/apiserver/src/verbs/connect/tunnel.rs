//! Two connections that become one: the client's and that of who answers it, once they agree to speak something else.

use http::header::{CONNECTION, HeaderMap, HeaderName, UPGRADE};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use portolan_api::status;
use std::io;
use tokio::sync::watch;

use crate::body::{Body, full};
use crate::errors::Result;

/// Copies what belongs to the change of protocol.
pub(super) fn copy(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from.iter().filter(|(name, _)| passes(name)) {
        to.append(name, value.clone());
    }
}

fn passes(name: &HeaderName) -> bool {
    *name == UPGRADE
        || *name == CONNECTION
        || name.as_str().starts_with("sec-websocket-")
        || name == "x-stream-protocol-version"
}

/// Lets the client and who gave `answer` talk to each other until one of them ends, or the server does. A refusal is
/// handed on as it is. `held` is held for as long.
pub(super) fn open(
    mut stopped: watch::Receiver<bool>,
    client: OnUpgrade,
    mut answer: Response<Incoming>,
    held: impl Send + 'static,
) -> Result<Response<Body>> {
    let code = answer.status();
    if code.is_client_error() || code.is_server_error() {
        let mut refusal = answer.map(|body| body.map_err(io::Error::other).boxed_unsync());
        super::target::strip(refusal.headers_mut());
        return Ok(refusal);
    }
    if code != StatusCode::SWITCHING_PROTOCOLS {
        let text = format!("invalid upgrade response: status code {}", code.as_u16());
        return Err(status::untyped(text).into());
    }
    let other = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        let _held = held;
        let (Ok(client), Ok(other)) = tokio::join!(client, other) else { return };
        let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
        tokio::select! {
            // An end without farewell is an end.
            _ = tokio::io::copy_bidirectional(&mut client, &mut other) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    });
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy(answer.headers(), response.headers_mut());
    Ok(response)
}
