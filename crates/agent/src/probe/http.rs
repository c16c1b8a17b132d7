//! One GET of an HTTP probe.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::rt::{Read, Write};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use portolan_api::core::v1::HTTPGetAction;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::check::{connect, dial_error, join};
use super::state::Outcome;

/// Programs tell probes from users by this name.
pub(super) const AGENT: &str = "kube-probe/1.36";
const REDIRECTS_MAX: usize = 10;
/// How much of an answer is read.
const BODY_MAX: usize = 10 << 10;
/// The head of an answer.
const HEAD_MAX: usize = 64 << 10;

/// A GET, ready to be sent.
#[derive(Debug)]
pub(crate) struct Get {
    url: Url,
    headers: HeaderMap,
}

#[derive(Debug, Clone)]
struct Url {
    https: bool,
    host: String,
    port: u16,
    /// With the query.
    path: String,
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", join(&self.host, self.port), self.path)
    }
}

impl Get {
    pub(super) fn new(action: &HTTPGetAction, host: String, port: u16) -> Result<Self, String> {
        let path =
            if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
        if path.parse::<Uri>().is_err() {
            return Err(format!("invalid path {path:?} of an httpGet probe"));
        }
        let url = Url { https: action.scheme.eq_ignore_ascii_case("https"), host, port, path };
        let mut headers = HeaderMap::new();
        for header in &action.http_headers {
            let name: Result<HeaderName, _> = header.name.parse();
            let value = HeaderValue::from_str(&header.value);
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err(format!("invalid header {:?} of an httpGet probe", header.name));
            };
            headers.append(name, value);
        }
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        // An empty value is how a user asks for none.
        match headers.get(ACCEPT) {
            None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
            Some(value) if value.is_empty() => drop(headers.remove(ACCEPT)),
            Some(_) => {}
        }
        Ok(Self { url, headers })
    }

    pub(super) fn timed_out(&self) -> String {
        format!(
            "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            self.url
        )
    }

    /// Sends it, follows redirects within the host, and judges the answer.
    pub(super) async fn ask(&self) -> Outcome {
        let mut url = self.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let response = match self.fetch(&url).await {
                Ok(response) => response,
                Err(why) => return Outcome::Failure(format!("Get \"{url}\": {why}")),
            };
            let next = redirect(&url, &response);
            match (response.status().as_u16(), next) {
                (300..=399, Some(next)) if next.host == url.host => url = next,
                // To another host: there it ends, and the user is told.
                (300..=399, Some(_)) => return Outcome::Warned("Probe terminated redirects".into()),
                (200..=399, _) => return Outcome::Success,
                (code, _) => return Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
            }
        }
        Outcome::Failure(format!("Get \"{url}\": stopped after {REDIRECTS_MAX} redirects"))
    }

    async fn fetch(&self, url: &Url) -> Result<Response<()>, String> {
        let address = join(&url.host, url.port);
        let stream = connect(&url.host, url.port).await.map_err(|e| dial_error(&address, &e))?;
        // The other end may have reset the connection already; sending then says so.
        let _ = stream.set_nodelay(true);
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = url.path.parse().map_err(|e| format!("{e}"))?;
        request.headers_mut().clone_from(&self.headers);
        if let (false, Ok(host)) = (self.headers.contains_key(HOST), HeaderValue::from_str(&address)) {
            request.headers_mut().insert(HOST, host);
        }
        if !url.https {
            return exchange(TokioIo::new(stream), request).await;
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|e| e.to_string())?;
        let stream = TLS.connect(name, stream).await.map_err(|e| e.to_string())?;
        exchange(TokioIo::new(stream), request).await
    }
}

async fn exchange<T: Read + Write + Unpin>(
    io: T,
    request: Request<Empty<Bytes>>,
) -> Result<Response<()>, String> {
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(HEAD_MAX).handshake(io).await.map_err(|e| e.to_string())?;
    // The connection is driven beside the exchange, in this very task, and dropped with it: probes keep none alive.
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let (parts, mut body) = response.into_parts();
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, Bytes::len);
            if read > BODY_MAX {
                break;
            }
        }
        Ok(Response::from_parts(parts, ()))
    };
    let driven = async {
        drop(connection.await);
        // The answer is complete by now, or its future has an error to tell.
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        never = driven => match never {},
    }
}

/// Where an answer sends us.
fn redirect(from: &Url, response: &Response<()>) -> Option<Url> {
    if response.status() == StatusCode::NOT_MODIFIED {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let uri: Uri = location.parse().ok()?;
    let mut to = from.clone();
    if let Some(host) = uri.host() {
        to.https = uri.scheme_str() == Some("https");
        host.trim_matches(['[', ']']).clone_into(&mut to.host);
        to.port = uri.port_u16().unwrap_or(if to.https { 443 } else { 80 });
    }
    let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str);
    to.path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Some(to)
}

/// A probe asks whether the pod answers, not who it is.
static TLS: LazyLock<TlsConnector> =
    LazyLock::new(|| TlsConnector::from(Arc::new(portolan_client::unverified_tls())));

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
