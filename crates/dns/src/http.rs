//! Health, readiness and metrics over HTTP: one handler for every request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections of one server at once; more wait. Probes and scrapers are few.
const CONNECTIONS_MAX: usize = 64;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until a taken address is tried again.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

pub(crate) const TEXT: &str = "text/plain; charset=utf-8";
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is said for a path; `None` for paths that are not known.
pub(crate) struct Said {
    pub(crate) code: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// Serves until dropped. A taken address is tried for ever: names matter more than the news about them.
pub(crate) async fn serve<F>(address: SocketAddr, what: &'static str, handler: F)
where
    F: Fn(&str) -> Option<Said> + Send + Sync + 'static,
{
    let listener = listen(address, what).await;
    let handler = Arc::new(handler);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let handler = handler.clone();
        connections.spawn(async move {
            let _slot = slot;
            let service = service_fn(move |request: Request<Incoming>| {
                let response = response(handler(request.uri().path()));
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that breaks off is its own affair.
            _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn response(said: Option<Said>) -> Response<Full<Bytes>> {
    let said = said.unwrap_or_else(|| Said {
        code: StatusCode::NOT_FOUND,
        content_type: TEXT,
        body: "404 page not found\n".into(),
    });
    let mut response = Response::new(Full::new(said.body.into()));
    *response.status_mut() = said.code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(said.content_type));
    response
}

async fn listen(address: SocketAddr, what: &'static str) -> TcpListener {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                if !told {
                    tracing::warn!(%address, %error, "cannot serve {what}; set another address if something else runs there");
                    told = true;
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        }
    }
}
