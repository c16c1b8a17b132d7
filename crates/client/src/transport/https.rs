//! Requests over the network: hyper with TLS, HTTP/2 where the server offers it, else HTTP/1.1 with connections
//! kept for reuse.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::stream::Stream;
use super::{Body, BoxError, Transport, tls};
use crate::limits::{
    CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, PING_INTERVAL, PING_TIMEOUT, STREAM_WINDOW_BYTES, TOKEN_AGE_MAX,
};
use crate::{Config, Error};

/// The network transport. Dropping it closes its connections.
#[derive(Debug)]
pub struct HttpTransport {
    client: legacy::Client<Connector, Full<Bytes>>,
    scheme: Scheme,
    authority: Authority,
    /// What the server's URL has before `/api`; mostly empty.
    base_path: String,
    credentials: Credentials,
}

impl HttpTransport {
    pub fn new(config: &Config) -> Result<HttpTransport, Error> {
        let bad = |e: &dyn std::fmt::Display| Error::Config(format!("server {:?}: {e}", config.server));
        let server: Uri = config.server.parse().map_err(|e| bad(&e))?;
        let parts = server.into_parts();
        let scheme = parts.scheme.ok_or_else(|| bad(&"must begin with https:// or http://"))?;
        let authority = parts.authority.ok_or_else(|| bad(&"has no host"))?;
        let base_path =
            parts.path_and_query.map_or(String::new(), |p| p.path().trim_end_matches('/').to_owned());
        let server_name = server_name(config, &authority)?;
        let connector = Connector {
            tcp: tcp_connector(),
            tls: TlsConnector::from(Arc::new(tls::client_config(config)?)),
            server_name,
        };
        Ok(HttpTransport {
            client: client(connector),
            scheme,
            authority,
            base_path,
            credentials: Credentials::new(config)?,
        })
    }

    fn uri(&self, of: &Uri) -> Result<Uri, http::Error> {
        let path = of.path_and_query().map_or("/", PathAndQuery::as_str);
        let builder = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        if self.base_path.is_empty() {
            return builder.path_and_query(path).build();
        }
        builder.path_and_query(format!("{}{path}", self.base_path)).build()
    }
}

impl Transport for HttpTransport {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Body>, Error>> {
        async move {
            let (mut parts, body) = request.into_parts();
            parts.uri = self.uri(&parts.uri).map_err(|e| Error::Config(e.to_string()))?;
            if let Some(value) = self.credentials.header()? {
                parts.headers.insert(header::AUTHORIZATION, value);
            }
            let request = Request::from_parts(parts, Full::new(body));
            let response = self.client.request(request).await.map_err(|e| self.explain(&e))?;
            Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()))
        }
        .boxed()
    }
}

impl HttpTransport {
    /// The whole chain of causes: the first alone says only "client error (Connect)".
    fn explain(&self, error: &legacy::Error) -> Error {
        let mut text = format!("{}://{}", self.scheme, self.authority);
        let mut cause: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text = format!("{text}: {part}");
            }
            cause = error.source();
        }
        Error::Transport(text)
    }
}

fn client(connector: Connector) -> legacy::Client<Connector, Full<Bytes>> {
    legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}

fn tcp_connector() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    // HTTP/1.1 has no ping of its own; a watch on a dead connection would wait for ever.
    tcp.set_keepalive(Some(PING_INTERVAL));
    tcp.set_keepalive_interval(Some(PING_TIMEOUT / 2));
    tcp.set_keepalive_retries(Some(2));
    tcp
}

fn server_name(config: &Config, authority: &Authority) -> Result<ServerName<'static>, Error> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let (field, name) = match &config.tls_server_name {
        Some(name) => ("tls-server-name", name.as_str()),
        None => ("server", host),
    };
    ServerName::try_from(name.to_owned())
        .map_err(|e| Error::Config(format!("{field} {name:?} is neither a DNS name nor an address: {e}")))
}

/// Makes the connections that hyper asks for.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: TlsConnector,
    server_name: ServerName<'static>,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let tcp = self.tcp.call(uri);
        let (tls, name) = (self.tls.clone(), self.server_name.clone());
        Box::pin(async move {
            let tcp = tcp.await?;
            if !encrypted {
                return Ok(Stream::Plain(tcp));
            }
            let handshake = tls.connect(name, tcp.into_inner());
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
                .await
                .map_err(|_| "the TLS handshake took too long")??;
            Ok(Stream::Tls(TokioIo::new(Box::new(stream))))
        })
    }
}

/// What goes into the Authorization header.
#[derive(Debug)]
enum Credentials {
    None,
    Token(HeaderValue),
    File { path: PathBuf, read: Mutex<Option<(Instant, HeaderValue)>> },
}

impl Credentials {
    fn new(config: &Config) -> Result<Credentials, Error> {
        if let Some(path) = &config.token_file {
            return Ok(Credentials::File { path: path.clone(), read: Mutex::new(None) });
        }
        match &config.token {
            Some(token) => bearer(token).map(Credentials::Token),
            None => Ok(Credentials::None),
        }
    }

    fn header(&self) -> Result<Option<HeaderValue>, Error> {
        match self {
            Credentials::None => Ok(None),
            Credentials::Token(value) => Ok(Some(value.clone())),
            Credentials::File { path, read } => {
                let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((at, value)) = &*read
                    && at.elapsed() < TOKEN_AGE_MAX
                {
                    return Ok(Some(value.clone()));
                }
                let value = read_token(path)?;
                *read = Some((Instant::now(), value.clone()));
                Ok(Some(value))
            }
        }
    }
}

fn read_token(path: &Path) -> Result<HeaderValue, Error> {
    let token = std::fs::read_to_string(path)
        .map_err(|e| Error::Config(format!("cannot read token file {}: {e}", path.display())))?;
    bearer(token.trim())
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Error::Config("the token has characters that no HTTP header can carry".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
