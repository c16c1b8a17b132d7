//! Connections: TLS, HTTP/1.1 and HTTP/2, reading bodies, and ending well.
//!
//! Here a connection becomes requests with a caller attached; what a request does is [`ApiServer::handle`].
//! Start at [`serve`].

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use portolan_api::status;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::authn::{self, User};
use crate::body::{Body, Unread};
use crate::errors::{self, ApiError};
use crate::limits::{
    BODY_BYTES_MAX, BODY_READ_TIMEOUT, CONNECTIONS_MAX, HEADER_READ_TIMEOUT, HTTP2_STREAMS_MAX,
    SHUTDOWN_GRACE, TLS_HANDSHAKE_TIMEOUT, TOKEN_BYTES_MAX, TOO_MANY_RETRY_SECONDS,
};
use crate::path::split_proxied;
use crate::query::Query;
use crate::server::{ApiServer, Peer, SNAPSHOT_PATH};

/// Answers clients on `listener` until `shutdown` resolves; then takes no new connections, ends watches, lets open
/// requests finish for a moment, and returns.
pub async fn serve(
    server: Arc<ApiServer>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let acceptor = TlsAcceptor::from(tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (server, acceptor, stopped) = (server.clone(), acceptor.clone(), stopped.clone());
        connections.spawn(async move {
            connection(server, acceptor, stream, Peer(peer.ip()), stopped).await;
            drop(slot);
        });
    }
    drop(listener);
    server.stop();
    let _ = stop.send(true);
    let _ = timeout(SHUTDOWN_GRACE, async { while connections.join_next().await.is_some() {} }).await;
}

async fn connection(
    server: Arc<ApiServer>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: Peer,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(TLS_HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else { return };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let user = certificate.and_then(|der| User::from_certificate(der));
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (server, user) = (server.clone(), user.clone());
        async move { Ok::<_, Infallible>(answer(&server, request, user).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
    let mut connection =
        std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        _ = connection.as_mut() => true,
        _ = async { stopped.wait_for(|stop| *stop).await.map(drop) } => false,
    };
    if !ended {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn answer(server: &Arc<ApiServer>, request: Request<Incoming>, user: Option<User>) -> Response<Body> {
    let user = match user {
        Some(user) => user,
        None => match authn::bearer(request.headers()) {
            None => User::anonymous(),
            Some(token) if token.len() > TOKEN_BYTES_MAX => {
                return ApiError::from(status::unauthorized()).response();
            }
            Some(token) => match server.authenticate(token, &[]).await {
                Ok((user, _)) => user,
                Err(why) => {
                    tracing::debug!(%why, "a bearer token is refused");
                    return ApiError::from(status::unauthorized()).response();
                }
            },
        },
    };
    // Before the body is read: who waits costs next to nothing.
    let _seat = if takes_seat(&request) {
        let Ok(seat) = server.flows().enter(&user.name).await else {
            let text = "too many requests, please try again later";
            return ApiError::from(status::too_many_requests(text, TOO_MANY_RETRY_SECONDS)).response();
        };
        Some(seat)
    } else {
        None
    };
    let (mut parts, body) = request.into_parts();
    let bytes = if split_proxied(parts.uri.path()).1.is_some() {
        parts.extensions.insert(Unread::new(body));
        Bytes::new()
    } else {
        match read(body).await {
            Ok(bytes) => bytes,
            Err(response) => return response,
        }
    };
    let mut request = Request::from_parts(parts, bytes);
    request.extensions_mut().insert(user);
    server.handle(request).await
}

/// Requests that last would keep a seat for as long, and health must be told to the end.
fn takes_seat(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    let query = Query::parse(request.uri().query());
    let get = request.method() == Method::GET;
    let lasts = (get && (query.flag("watch") == Some(true) || path.contains("/v1/watch/")))
        || (get && path.ends_with("/log") && query.flag("follow") == Some(true))
        || ["/exec", "/attach", "/portforward"].iter().any(|act| path.ends_with(act))
        || split_proxied(path).1.is_some()
        || path == SNAPSHOT_PATH;
    let health = ["/healthz", "/livez", "/readyz"].iter().any(|prefix| path.starts_with(prefix));
    !lasts && !health
}

async fn read(body: Incoming) -> Result<Bytes, Response<Body>> {
    match timeout(BODY_READ_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(errors::too_large().response()),
        Ok(Err(error)) => {
            Err(ApiError::from(status::bad_request(format!("body could not be read: {error}"))).response())
        }
        Err(_) => Err(ApiError::from(status::timeout("the body was not sent in time", 0)).response()),
    }
}
