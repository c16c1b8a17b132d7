//! A real TLS server on 127.0.0.1 in front of the fake API.

// Clippy does not see that this module is a part of tests.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use portolan_client::testing::FakeApi;
use portolan_client::{Body, BoxError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

pub(crate) const TOKEN: &str = "the-right-token";

pub(crate) struct Server {
    pub(crate) api: Arc<FakeApi>,
    pub(crate) address: SocketAddr,
    /// Has `ca.pem`, `client.pem`, `client.key`; for kubeconfigs.
    pub(crate) dir: tempfile::TempDir,
    /// TLS connections so far.
    pub(crate) connections: Arc<AtomicUsize>,
    running: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: AbortHandle,
    tls: TlsAcceptor,
}

impl Server {
    /// A server whose certificate is for `name` and that offers these protocols.
    pub(crate) async fn start(name: &str, protocols: &[&str]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls_config(dir.path(), name, protocols)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (api, connections) = (FakeApi::new(), Arc::new(AtomicUsize::new(0)));
        let running = Arc::new(Mutex::new(Vec::new()));
        let accepting = accept(listener, tls.clone(), api.clone(), connections.clone(), running.clone());
        Server { api, address, dir, connections, running, accepting, tls }
    }

    /// A kubeconfig of this server with these user fields, written next to its certificates.
    pub(crate) fn kubeconfig(&self, cluster: &str, user: &str) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let server = format!("https://{}", self.address);
        let text = format!(
            "current-context: x\ncontexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Cut all connections and stop listening, as a crash does.
    pub(crate) fn stop(&self) {
        self.accepting.abort();
        self.running.lock().unwrap().drain(..).for_each(|connection| connection.abort());
        self.api.drop_watches();
    }

    /// Listen again on the same address.
    pub(crate) async fn restart(&mut self) {
        let listener = loop {
            // The old listener's task may not have been dropped yet.
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let (api, connections) = (self.api.clone(), self.connections.clone());
        self.accepting = accept(listener, self.tls.clone(), api, connections, self.running.clone());
    }

    pub(crate) fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    api: Arc<FakeApi>,
    connections: Arc<AtomicUsize>,
    running: Arc<Mutex<Vec<AbortHandle>>>,
) -> AbortHandle {
    let task = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let connection = tokio::spawn(serve(tcp, tls.clone(), api.clone(), connections.clone()));
            running.lock().unwrap().push(connection.abort_handle());
        }
    });
    task.abort_handle()
}

async fn serve(tcp: TcpStream, tls: TlsAcceptor, api: Arc<FakeApi>, connections: Arc<AtomicUsize>) {
    let Ok(stream) = tls.accept(tcp).await else { return };
    connections.fetch_add(1, Ordering::SeqCst);
    let certified = stream.get_ref().1.peer_certificates().is_some();
    let service = service_fn(move |request: Request<Incoming>| {
        let api = api.clone();
        async move {
            let (parts, body) = request.into_parts();
            let token = parts.headers.get("authorization").and_then(|v| v.to_str().ok());
            if !certified && token != Some(&format!("Bearer {TOKEN}")) {
                return Ok::<_, Infallible>(unauthorized());
            }
            let body = body.collect().await.unwrap().to_bytes();
            Ok(api.respond(&Request::from_parts(parts, body)))
        }
    });
    // It fails when the client goes away, as clients do.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

fn unauthorized() -> Response<Body> {
    let text = "a proxy says: who are you?".to_owned();
    let body = http_body_util::Full::from(text).map_err(|never| BoxError::from(never.to_string()));
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

fn tls_config(dir: &Path, name: &str, protocols: &[&str]) -> ServerConfig {
    let mut params = CertificateParams::new(vec!["test-ca".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (client, client_key) = issue("client");
    std::fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(dir.join("client.pem"), client.pem()).unwrap();
    std::fs::write(dir.join("client.key"), client_key.serialize_pem()).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (server, server_key) = issue(name);
    let key = PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}
