//! One etcd member: an HTTP/2 connection, made when it is needed, and gRPC's framing on it.
//!
//! gRPC is an HTTP/2 POST whose bodies are messages behind five bytes (a flag and the length) and whose outcome is in
//! the trailers. That is all of it that etcd needs.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, Request, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits::{ETCD_CONNECT_TIMEOUT_MS, ETCD_KEEP_ALIVE_MS, ETCD_MESSAGE_BYTES_MAX};

/// Why a call at one member failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Nothing was sent.
    #[error("{0}")]
    Connect(String),
    /// Something was sent, and no answer came.
    #[error("{0}")]
    Lost(String),
    /// The member answered so.
    #[error("{message}")]
    Status { code: u32, message: String },
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Debug)]
pub(super) struct Channel {
    /// `https://host:port`
    endpoint: Uri,
    tls: Option<Arc<rustls::ClientConfig>>,
    sender: Mutex<Option<SendRequest<Body>>>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
}

impl Channel {
    pub(super) fn new(endpoint: Uri, tls: Option<Arc<rustls::ClientConfig>>) -> Channel {
        Channel { endpoint, tls, sender: Mutex::new(None), connecting: tokio::sync::Mutex::new(()) }
    }

    /// One request, one answer.
    pub(super) async fn call(&self, path: &str, message: Bytes, within: Duration) -> Result<Bytes, Failure> {
        let mut sender = self.connected().await?;
        let request = self.request(path, Full::new(frame(&message)).boxed_unsync(), Some(within))?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| lost(&e))?;
            let (head, body) = response.into_parts();
            let mut frames = Frames::new(&head.headers, body)?;
            let message =
                frames.next().await?.ok_or_else(|| Failure::Lost("an answer without a message".into()))?;
            // The outcome is in the trailers, behind the message.
            while frames.next().await?.is_some() {}
            Ok(message)
        };
        let outcome = timeout(within, exchange).await;
        outcome.unwrap_or_else(|_| Err(Failure::Lost(format!("no answer within {within:?}"))))
    }

    /// Sends one message and keeps the stream open. Ends when what is returned is dropped.
    pub(super) async fn open(
        &self,
        path: &str,
        message: &Bytes,
        within: Duration,
    ) -> Result<Stream, Failure> {
        let mut sender = self.connected().await?;
        let (keep, messages) = mpsc::channel::<Bytes>(1);
        let _ = keep.try_send(frame(message));
        let body = stream::unfold(messages, |mut messages| async move {
            let message = messages.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(message)), messages))
        });
        let mut request = self.request(path, StreamBody::new(body).boxed_unsync(), None)?;
        // A member that has lost the others must end the watch, not keep it silent.
        request.headers_mut().insert("hasleader", http::HeaderValue::from_static("true"));
        let response = timeout(within, sender.send_request(request)).await;
        let response = response
            .map_err(|_| Failure::Lost(format!("no answer within {within:?}")))?
            .map_err(|e| lost(&e))?;
        let (head, body) = response.into_parts();
        Ok(Stream { frames: Frames::new(&head.headers, body)?, _keep: keep })
    }

    fn request(&self, path: &str, body: Body, within: Option<Duration>) -> Result<Request<Body>, Failure> {
        let wrong = |e: http::Error| Failure::Connect(e.to_string());
        let authority = self.endpoint.authority().map_or("", http::uri::Authority::as_str);
        let uri = Uri::builder()
            .scheme(self.endpoint.scheme_str().unwrap_or("http"))
            .authority(authority)
            .path_and_query(path)
            .build()
            .map_err(wrong)?;
        let mut request = Request::post(uri)
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header("user-agent", concat!("portolan/", env!("CARGO_PKG_VERSION")));
        if let Some(within) = within {
            request = request.header("grpc-timeout", format!("{}m", within.as_millis()));
        }
        request.body(body).map_err(wrong)
    }

    async fn connected(&self) -> Result<SendRequest<Body>, Failure> {
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let _turn = self.connecting.lock().await;
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let within = Duration::from_millis(ETCD_CONNECT_TIMEOUT_MS);
        let connected = timeout(within, self.connect()).await;
        let mut sender = connected
            .unwrap_or_else(|_| Err(Failure::Connect(format!("no connection within {within:?}"))))?;
        sender.ready().await.map_err(|e| Failure::Connect(e.to_string()))?;
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender.clone());
        Ok(sender)
    }

    fn open_sender(&self) -> Option<SendRequest<Body>> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().filter(|sender| !sender.is_closed()).cloned()
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Failure> {
        let failed = |e: &dyn std::fmt::Display| Failure::Connect(e.to_string());
        let host = self.endpoint.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.endpoint.port_u16().unwrap_or(2379);
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| failed(&e))?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return handshake(TokioIo::new(stream)).await };
        let name = rustls::pki_types::ServerName::try_from(host).map_err(|e| failed(&e))?;
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|e| failed(&e))?;
        handshake(TokioIo::new(stream)).await
    }
}

async fn handshake<I>(io: I) -> Result<SendRequest<Body>, Failure>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let keep_alive = Duration::from_millis(ETCD_KEEP_ALIVE_MS);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive)
        // Watches that have nothing to say must notice a dead member as well.
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(io)
        .await
        .map_err(|e| Failure::Connect(e.to_string()))?;
    // Its end shows in the sender and in every open stream.
    tokio::spawn(connection);
    Ok(sender)
}

/// An open stream of answers.
#[derive(Debug)]
pub(super) struct Stream {
    frames: Frames,
    /// Dropping it tells the member that we are done.
    _keep: mpsc::Sender<Bytes>,
}

impl Stream {
    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        self.frames.next().await?.ok_or_else(|| Failure::Lost("the member ended the stream".into()))
    }
}

/// Messages out of a response body.
#[derive(Debug)]
struct Frames {
    body: Incoming,
    buffer: BytesMut,
}

impl Frames {
    fn new(head: &HeaderMap, body: Incoming) -> Result<Frames, Failure> {
        // An answer that is only an outcome has it in its head.
        outcome(head)?;
        Ok(Frames { body, buffer: BytesMut::new() })
    }

    /// The next message; `None` after the last, if all went well.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = unframe(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(Failure::Lost("cut short".into()))
                };
            };
            let frame = frame.map_err(|e| lost(&e))?;
            if let Some(trailers) = frame.trailers_ref() {
                outcome(trailers)?;
            } else if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

fn frame(message: &Bytes) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + message.len());
    out.extend_from_slice(&[0]);
    out.extend_from_slice(&(message.len() as u32).to_be_bytes());
    out.extend_from_slice(message);
    out.freeze()
}

/// Takes one message off the buffer, if all of it is there.
fn unframe(buffer: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Some(head) = buffer.first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 {
        return Err(Failure::Lost("a compressed message, which was not asked for".into()));
    }
    if length > ETCD_MESSAGE_BYTES_MAX {
        return Err(Failure::Lost(format!(
            "a message of {length} bytes: the limit is {ETCD_MESSAGE_BYTES_MAX}"
        )));
    }
    if buffer.len() < 5 + length {
        return Ok(None);
    }
    buffer.advance(5);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// What head or trailers say of the call's outcome.
fn outcome(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status") else { return Ok(()) };
    match code.parse() {
        Ok(0) => Ok(()),
        Ok(code) => {
            Err(Failure::Status { code, message: unescape(text("grpc-message").unwrap_or_default()) })
        }
        Err(_) => Err(Failure::Lost(format!("a broken grpc-status {code:?}"))),
    }
}

/// gRPC escapes its messages as URLs do.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        if let Some(escaped) = hex.filter(|_| *byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            out.push(escaped);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// hyper says only that something failed; why is in its sources.
fn lost(error: &hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    Failure::Lost(text)
}

/// Where etcd's certificates are; all PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the members' certificates.
    pub ca: Option<std::path::PathBuf>,
    /// Our own certificate and key, if the members want one.
    pub certificate: Option<std::path::PathBuf>,
    pub key: Option<std::path::PathBuf>,
}

impl TlsFiles {
    /// Reads the files.
    pub(super) fn load(&self) -> Result<Arc<rustls::ClientConfig>, String> {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let read = |path: &std::path::Path| {
            let wrong = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| wrong(&e))?;
            certificates.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))
        };
        let ca = self
            .ca
            .as_deref()
            .ok_or("https needs the authority that signed etcd's certificates: --etcd-cafile")?;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in read(ca)? {
            roots.add(certificate).map_err(|e| format!("{}: {e}", ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots);
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(path)) => {
                let key =
                    PrivateKeyDer::from_pem_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
                let chain = read(certificate)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| format!("{}: {e}", certificate.display()))?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err("--etcd-certfile and --etcd-keyfile go together".into()),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The members' channels by the URLs given.
pub(super) fn channels(
    endpoints: &[String],
    files: &TlsFiles,
) -> Result<Vec<(String, Arc<Channel>)>, String> {
    let mut tls = None;
    let mut seen = HashSet::new();
    let mut channels = Vec::new();
    for text in endpoints {
        let url = text.trim().trim_end_matches('/');
        let wrong = || format!("{text:?} is not an etcd URL such as https://10.0.0.1:2379");
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.host().is_none() {
            return Err(wrong());
        }
        let config = match uri.scheme_str() {
            Some("http") => None,
            Some("https") if tls.is_some() => tls.clone(),
            Some("https") => {
                tls = Some(files.load()?);
                tls.clone()
            }
            _ => return Err(wrong()),
        };
        if seen.insert(url.to_owned()) {
            channels.push((url.to_owned(), Arc::new(Channel::new(uri, config))));
        }
    }
    if channels.is_empty() {
        return Err("no etcd URL was given".into());
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_come_out_of_the_stream_whole_however_it_is_cut() {
        let messages = [Bytes::from_static(b""), Bytes::from_static(b"abc"), Bytes::from(vec![7; 300])];
        let wire: Vec<u8> = messages.iter().flat_map(|m| frame(m).to_vec()).collect();
        for step in [1, 2, 5, 7, 400] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for chunk in wire.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(message) = unframe(&mut buffer).unwrap() {
                    found.push(message);
                }
            }
            assert_eq!(found, messages);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_message_over_the_limit_or_compressed_is_refused_at_its_head() {
        let unframe = |head: &[u8]| super::unframe(&mut BytesMut::from(head));
        assert!(unframe(&[0, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(unframe(&[1, 0, 0, 0, 0]).is_err());
        assert_eq!(unframe(&[0, 0, 0, 0]), Ok(None));
    }

    #[test]
    fn urls_are_checked_before_anything_connects() {
        let channels = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(ToString::to_string).collect();
            channels(&urls, &TlsFiles::default()).map(|c| c.len())
        };
        assert_eq!(channels(&["http://10.0.0.1:2379", "http://10.0.0.1:2379/", "http://[::1]:2379"]), Ok(2));
        assert!(channels(&[]).unwrap_err().contains("no etcd URL"));
        assert!(channels(&["10.0.0.1:2379"]).unwrap_err().contains("https://10.0.0.1:2379"));
        assert!(channels(&["ftp://a"]).unwrap_err().contains("ftp://a"));
        assert!(channels(&["https://a:2379"]).unwrap_err().contains("--etcd-cafile"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_framed_messages_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = unframe(&mut buffer) {}
        }

        #[test]
        fn any_text_is_unescaped(text in ".*") {
            let _ = unescape(&text);
        }
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape("etcdserver: a%20b%25%zz%2"), "etcdserver: a b%%zz%2");
    }
}
