//! What the agent serves about its pods, at the port and in the form that API servers know from kubelet: logs, sessions
//! with processes beside a container's, and connections to its ports.
//!
//! Here: TLS, who may ask (the cluster's API servers and nobody else), one request after the other. `request` takes
//! paths and queries apart, `logs`, `exec`, `attach` and `portforward` answer, `session` runs a process for a client. How
//! the client is spoken to: `upgrade` takes the connection over, `websocket` and `channels` (over `spdy`) carry a session.
//! Start at [`serve`].

mod attach;
mod channels;
mod exec;
mod logs;
pub(crate) mod portforward;
mod request;
mod session;
pub(crate) mod spdy;
mod terminal;
mod upgrade;
pub(crate) mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portolan_client::Key;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT};
use crate::process::Spawner;
use crate::registry::{Container, Missing, Registry};
use crate::state_dir::PodDirs;
use request::{About, Action, Asked};

/// The common name that API servers show to nodes, as kubeadm issues it.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Where and with what certificate the agent serves.
#[derive(Debug, Clone)]
pub struct Serving {
    pub address: SocketAddr,
    tls: Arc<ServerConfig>,
}

/// Why an agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("the node's certificate: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the authority that API servers are known by: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Serving {
    /// At `address`, with the node's own certificate, for API servers that `authority` vouches for; all PEM.
    pub fn new(
        address: SocketAddr,
        certificate: &[u8],
        key: &[u8],
        authority: &[u8],
    ) -> Result<Self, ServingError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority) {
            roots.add(root?)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key)?)?;
        Ok(Self { address, tls: Arc::new(config) })
    }
}

/// What requests are answered from.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) dirs: PodDirs,
    pub(crate) spawner: Spawner,
}

/// Answers on `listener` until dropped.
pub(crate) async fn serve(listener: TcpListener, serving: Serving, world: World) {
    let acceptor = TlsAcceptor::from(serving.tls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: wait for some to be closed.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let (acceptor, world) = (acceptor.clone(), world.clone());
        connections.spawn(async move {
            connection(stream, acceptor, world).await;
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, world: World) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let known = certificate.is_some_and(|der| is_api_server(der));
    let service = service_fn(move |request| {
        let world = world.clone();
        async move {
            let response = if known { answer(&world, request).await } else { Err(forbidden()) };
            Ok::<_, Infallible>(response.unwrap_or_else(Refusal::response))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    // Somebody who went away needs no answer.
    drop(builder.serve_connection(TokioIo::new(stream), service).with_upgrades().await);
}

fn is_api_server(der: &[u8]) -> bool {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let mut names = certificate.subject().iter_common_name();
    names.next().is_some_and(|name| name.as_str() == Ok(API_SERVER))
}

/// A refusal in plain text, which the API server hands on.
#[derive(Debug)]
struct Refusal {
    code: StatusCode,
    text: String,
}

impl Refusal {
    fn new(code: StatusCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn response(self) -> Response<Body> {
        let mut response = Response::new(whole(self.text));
        *response.status_mut() = self.code;
        response
    }
}

fn forbidden() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, format!("only API servers may ask, as {API_SERVER}"))
}

async fn answer(world: &World, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let Some(Asked { about, key, uid }) = request::read(&request)? else {
        return Ok(Response::new(whole("ok")));
    };
    let (container, action) = match about {
        About::Container(container, action) => (container, action),
        About::Ports(ports) => return portforward::answer(world, request, &key, uid.as_deref(), ports),
    };
    let found = world.registry.find(&key, uid.as_deref(), &container);
    let found = found.map_err(|missing| not_found(missing, &key, &container))?;
    match action {
        Action::Logs(asked) => logs::answer(world, &key, &container, &found, asked).await,
        Action::Exec(asked) => exec::answer(world, request, &key, &container, found, asked),
        Action::Attach(asked) => attach::answer(world, request, &key, &container, &found, asked),
    }
}

fn not_found(missing: Missing, key: &Key, container: &str) -> Refusal {
    match missing {
        Missing::Pod => Refusal::new(StatusCode::NOT_FOUND, format!("pods {:?} not found", key.name)),
        Missing::Container => {
            let text = format!("container {container:?} not found in pod {:?}", key.name);
            Refusal::new(StatusCode::NOT_FOUND, text)
        }
    }
}

/// Why there is nothing of a container yet.
fn waiting(container: &Container, name: &str, key: &Key) -> Refusal {
    let text = format!("container {name:?} in pod {:?} is waiting to start: {}", key.name, container.waiting);
    Refusal::new(StatusCode::BAD_REQUEST, text)
}

fn whole(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

fn stream(pieces: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync()
}
