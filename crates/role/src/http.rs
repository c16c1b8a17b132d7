//! Health, readiness and metrics over HTTP, by the smallest server that does: one handler for every request, no routing,
//! no state.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
pub use hyper::{StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::listen::{self, Families};

/// Connections of one server at once; more wait. Probes and scrapers are few.
const CONNECTIONS_MAX: usize = 128;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until a taken address is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

pub const JSON: &str = "application/json";
pub const TEXT: &str = "text/plain; charset=utf-8";
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub type Answer = Response<Full<Bytes>>;

pub fn answer(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

pub fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

/// Serves until dropped. `handler` sees the path only.
pub async fn serve<F>(listener: TcpListener, handler: F)
where
    F: Fn(&str) -> Answer + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, as a rule: let some go first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let handler = Arc::clone(&handler);
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = handler(request.uri().path());
                async move { Ok::<_, Infallible>(answer) }
            });
            // A client that breaks off is its own affair.
            _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                // As Go spells them: what balancers parse is not always HTTP by the book.
                .title_case_headers(true)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// Listens, trying again for as long as it takes; `failed` hears of the first failure.
pub async fn listen(
    address: SocketAddr,
    families: Families,
    failed: impl Fn(&std::io::Error),
) -> TcpListener {
    let mut told = false;
    loop {
        match listen::tcp(address, families) {
            Ok(listener) => return listener,
            Err(error) => {
                if !told {
                    failed(&error);
                    told = true;
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }
    }
}
