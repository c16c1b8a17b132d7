//! The HTTP answers.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use super::{Shared, canonical};

type Answer = Response<Full<Bytes>>;

pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, peer) = super::streams::accept(&listener).await;
        let local = stream.local_addr().unwrap_or(peer);
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&request, peer, local, &shared).await) }
            });
            // A connection that breaks is its client's affair.
            drop(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

async fn answer(request: &Request<Incoming>, peer: SocketAddr, local: SocketAddr, shared: &Shared) -> Answer {
    let query = |name: &str| {
        let pairs = request.uri().query()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    match request.uri().path() {
        "/ready" => return ready(request.method(), query("value"), shared),
        "/sleep" => {
            let ms = query("ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        "/exit" => std::process::exit(query("code").and_then(|code| code.parse().ok()).unwrap_or(0)),
        _ => {}
    }
    let wants_text = |value: &HeaderValue| value.as_bytes().starts_with(b"text/plain");
    if query("format") == Some("text") || request.headers().get(ACCEPT).is_some_and(wants_text) {
        return text(StatusCode::OK, shared.identity.line(peer).to_string());
    }
    let who = &shared.identity;
    let body = json!({
        "name": who.name, "namespace": who.namespace, "ip": who.ip, "node": who.node,
        "peer": canonical(peer).to_string(), "local": canonical(local).to_string(),
        "method": request.method().as_str(), "path": request.uri().to_string(),
    });
    let mut answer = text(StatusCode::OK, format!("{body}\n"));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Reads the switch, or flips it.
fn ready(method: &Method, value: Option<&str>, shared: &Shared) -> Answer {
    if [Method::POST, Method::PUT].contains(method) {
        let Some(Ok(value)) = value.map(str::parse) else {
            return text(StatusCode::BAD_REQUEST, "say /ready?value=true or /ready?value=false\n".into());
        };
        shared.ready.store(value, Ordering::Relaxed);
        return text(StatusCode::OK, format!("ready={value}\n"));
    }
    if shared.is_ready() {
        text(StatusCode::OK, "ready\n".into())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n".into())
    }
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Flips the switch of the server on this port of this host.
pub(super) async fn set_ready(port: u16, value: bool) -> io::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("nothing serves HTTP on port {port} here ({e}); name its port with --http"),
        )
    })?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = format!("/ready?value={value}").parse().map_err(io::Error::other)?;
    request.headers_mut().insert("host", HeaderValue::from_static("localhost"));
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(io::Error::other(format!("the server answered {status}"))),
    }
}
