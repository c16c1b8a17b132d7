//! Says yes to every probe: HTTP, connections, and gRPC's health check, on one port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use super::site::HOST;

pub(crate) const ANSWERER_PORT: u16 = 9101;
/// A message of one field: serving.
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// How many connections were taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicU64>);

impl Answered {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts it on a thread of its own, in the caller's namespace, for as long as the program lives.
pub(crate) fn start() -> anyhow::Result<Answered> {
    let listener = std::net::TcpListener::bind(SocketAddr::new(HOST.into(), ANSWERER_PORT))?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answered = Answered::default();
    let counted = answered.clone();
    std::thread::spawn(move || runtime.block_on(serve(listener, counted)));
    Ok(answered)
}

async fn serve(listener: std::net::TcpListener, answered: Answered) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        answered.0.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let grpc = *request.method() == Method::POST;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let body = Full::new(Bytes::from_static(if grpc { SERVING } else { b"" }));
                let body =
                    body.with_trailers(std::future::ready(grpc.then_some(Ok::<_, Infallible>(trailers))));
                let mut response = Response::new(body);
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                Ok::<_, Infallible>(response)
            });
            // A connection that only wanted to be taken ends here with an error.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
