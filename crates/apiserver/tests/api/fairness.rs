//! Requests that find no seat, as clients over TLS see it: 429 with `Retry-After`, and nothing of it for anybody else.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use portolan_apiserver::pki::{Identity, Pki};
use portolan_apiserver::{ApiServer, Config, serve, tls};
use portolan_store::embedded::Embedded;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

type Body = BoxBody<Bytes, Infallible>;
type Client = SendRequest<Body>;

/// What one user may have at once: seats, and places in the queue.
const ROOM: usize = 300 + 500;

/// A connection with this client's certificate.
async fn connect(pki: &Pki, identity: &Identity, address: std::net::SocketAddr) -> Client {
    let certified = pki.client(identity).unwrap();
    let mut config = (*tls::node_client_config(&certified, pki.ca_pem()).unwrap()).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = address.ip().into();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(rustls::pki_types::ServerName::IpAddress(name), stream)
        .await
        .unwrap();
    let (client, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn send(client: &Client, method: &str, path: &str, body: Body) -> Response<Incoming> {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://api{path}"))
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    client.clone().send_request(request).await.unwrap()
}

fn nothing() -> Body {
    Empty::new().boxed()
}

/// A body that begins and never ends: a request that keeps its seat.
fn endless() -> Body {
    let begin = stream::once(async { Ok(Frame::data(Bytes::from_static(b"{"))) });
    BodyExt::boxed(StreamBody::new(begin.chain(stream::pending())))
}

async fn metric(client: &Client, name: &str) -> f64 {
    let answer = send(client, "GET", "/metrics", nothing()).await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[tokio::test]
async fn a_flood_is_answered_429_and_nobody_else_feels_it() {
    let dir = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let pki = Pki::open(&dir.path().join("pki")).unwrap();
    let server_tls = tls::server_config(&pki.server(&[], &[address.ip()]).unwrap(), pki.ca_pem()).unwrap();
    let store = Arc::new(Embedded::open(dir.path().join("store")).unwrap());
    let config = Config::new("192.0.2.1".parse().unwrap(), address.port());
    let server = ApiServer::start(config, store).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(serve(server, listener, server_tls, async { drop(stopped.await) }));

    let flood = connect(&pki, &Identity::node("flood"), address).await;
    let admin = connect(&pki, &Identity::admin(), address).await;
    let mut held = JoinSet::new();
    for _ in 0..ROOM {
        let flood = flood.clone();
        held.spawn(async move { send(&flood, "POST", "/api/v1/namespaces/default/events", endless()).await });
    }
    let waiting = "apiserver_flowcontrol_current_inqueue_requests{";
    while metric(&admin, waiting).await < 500.0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }

    let refused = send(&flood, "GET", "/api/v1/nodes/flood", nothing()).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "1");
    let body = refused.into_body().collect().await.unwrap().to_bytes();
    let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&status["kind"], &status["reason"]), (&"Status".into(), &"TooManyRequests".into()));
    assert_eq!(status["details"]["retryAfterSeconds"], 1);

    // Another user, and health, are served as ever.
    let other = send(&admin, "GET", "/api/v1/namespaces/default", nothing()).await;
    assert_eq!(other.status(), StatusCode::OK);
    assert_eq!(send(&flood, "GET", "/readyz", nothing()).await.status(), StatusCode::OK);

    for (name, least) in [
        (
            "apiserver_flowcontrol_rejected_requests_total{priority_level=\"global-default\",flow_schema=\"global-default\",reason=\"queue-full\"}",
            1.0,
        ),
        ("apiserver_flowcontrol_dispatched_requests_total{", 301.0),
        ("apiserver_flowcontrol_current_executing_requests{", 300.0),
        ("apiserver_flowcontrol_nominal_limit_seats{", 400.0),
    ] {
        let value = metric(&admin, name).await;
        assert!(value >= least, "{name} {value}");
    }

    // When the flood ends there is room again.
    held.shutdown().await;
    while metric(&admin, waiting).await > 0.0 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let again = send(&flood, "GET", "/api/v1/nodes/flood", nothing()).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND, "the node is not there, but the server looked");
    drop((flood, admin, stop));
    serving.await.unwrap();
}
