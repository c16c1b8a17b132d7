//! The subresource `proxy` of services, pods and nodes: a request of any method, handed through to what serves there.
//!
//! The API server dials the pod's address itself, so its host must reach pods. A Service stands for one of its ready
//! endpoints, by chance, that is a pod of the Service's own namespace: custom endpoints are none, so that nobody sends the API
//! server where they like. Bodies are streamed both ways; a websocket, or whatever two agree on, takes the connection
//! over. What the target is told and what its answer becomes is in `target`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, HOST, HeaderName, HeaderValue, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use portolan_api::core::v1::{EndpointAddress, Endpoints, Pod, Service};
use portolan_api::resource::{ENDPOINTS, PODS, Resource, SERVICES};
use portolan_api::status;
use rand::Rng as _;
use rustls::pki_types::ServerName;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::target::{self, Named, Scheme};
use super::{Wire, tunnel};
use crate::body::{Body, full};
use crate::call::Call;
use crate::errors::{ApiError, Result};
use crate::limits::{
    PROXY_CONNECT_TIMEOUT, PROXY_ENDPOINTS_TRIED_MAX, PROXY_TLS_TIMEOUT, TOO_MANY_RETRY_SECONDS,
};
use crate::nodes;
use crate::outbound::{self, Failed, Outgoing};
use crate::path::split_proxied;
use crate::tls::unverified_client_config;
use crate::write::At;

const METHODS: &[Method] =
    &[Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// How targets show themselves is their own affair, as in Kubernetes: they are dialled by address.
static TLS: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(unverified_client_config);

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Address(Scheme, SocketAddr),
    /// The agent of a node.
    Agent(String, SocketAddr),
}

/// Hands the request through.
pub(super) async fn run(call: &Call, wire: Wire) -> Result<Response<Body>> {
    if !METHODS.contains(&wire.method) {
        return Err(status::method_not_allowed(call.resource, wire.method.as_str()).into());
    }
    let target = find(call).await?;
    let path = target::path(&call.beyond)
        .ok_or_else(|| ApiError::from(status::bad_request("the path of the request has broken escapes")))?;
    let room = call.server.proxied().clone().try_acquire_owned().map_err(|_| {
        let text = "too many requests are handed through, please try again later";
        ApiError::from(status::too_many_requests(text, TOO_MANY_RETRY_SECONDS))
    })?;
    let upgrade = if target::is_upgrade(&call.headers) { wire.upgrade.clone() } else { None };
    let prefix = prefix(&wire.uri);
    if upgrade.is_none() && path.is_empty() && matches!(wire.method, Method::GET | Method::HEAD) {
        return redirect(&prefix, wire.uri.query());
    }
    let mut request = request(call, &wire, &prefix, &path)?;
    if let Some(upgrade) = upgrade {
        *request.body_mut() = outbound::empty();
        tunnel::copy(&call.headers, request.headers_mut());
        let answer = send(call, &target, request).await.map_err(Failed::of_session)?;
        return tunnel::open(call.server.stopped(), upgrade, answer, room);
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let answer = send(call, &target, request).await.map_err(Failed::of_service)?;
    Ok(handed_back(call, answer, room, &prefix, &target, &host))
}

/// Who is meant.
async fn find(call: &Call) -> Result<Target> {
    let id = call.object_name();
    let named = Named::parse(id).ok_or_else(|| {
        ApiError::from(status::bad_request(format!("invalid {} request {id:?}", call.resource.singular)))
    })?;
    if call.resource.plural == SERVICES.plural {
        service(call, named).await
    } else if call.resource.plural == PODS.plural {
        pod(call, named).await
    } else {
        node(call, named).await
    }
}

/// One of a Service's endpoints, by chance.
async fn service(call: &Call, named: Named<'_>) -> Result<Target> {
    let mut port = named.port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let service: Service = fetch(call, &SERVICES, named.name).await?;
        let known = service.spec.ports.iter().find(|port| i64::from(port.port) == number);
        port = known.map(|port| port.name.clone()).ok_or_else(|| {
            let text = format!("no service port {number} found for service {:?}", named.name);
            ApiError::from(status::unavailable(text))
        })?;
    }
    let endpoints: Endpoints = fetch(call, &ENDPOINTS, named.name).await?;
    let none =
        |name: &str| status::unavailable(format!("no endpoints available for service {name:?}")).into();
    if endpoints.subsets.is_empty() {
        return Err(none(named.name));
    }
    let (group, first) = {
        let mut rng = rand::rng();
        (rng.random_range(0..usize::MAX), rng.random_range(0..usize::MAX))
    };
    let tried = target::candidates(&endpoints, &port, group, first).take(PROXY_ENDPOINTS_TRIED_MAX);
    for (address, port) in tried {
        if let Some(ip) = own(call, address).await {
            return Ok(Target::Address(named.scheme, SocketAddr::new(proxyable(Some(ip))?, port)));
        }
    }
    Err(none(call.object_name()))
}

/// The address, if a pod of the namespace has it.
async fn own(call: &Call, address: &EndpointAddress) -> Option<IpAddr> {
    let pod = address.target_ref.as_ref().filter(|target| target.namespace == call.ns())?;
    let pod: Pod = fetch(call, &PODS, &pod.name).await.ok()?;
    let has = pod.status.pod_ips.iter().any(|own| own.ip == address.ip);
    address.ip.parse().ok().filter(|_| has)
}

async fn pod(call: &Call, named: Named<'_>) -> Result<Target> {
    let pod: Pod = fetch(call, &PODS, named.name).await?;
    let ip = proxyable(pod.status.pod_ips.first().and_then(|own| own.ip.parse().ok()))?;
    let port = if named.port.is_empty() {
        let first = pod.spec.containers.iter().find_map(|container| container.ports.first());
        let first = first.and_then(|port| u16::try_from(port.container_port).ok());
        first.unwrap_or_else(|| named.scheme.port())
    } else {
        number(named.port)?
    };
    Ok(Target::Address(named.scheme, SocketAddr::new(ip, port)))
}

async fn node(call: &Call, named: Named<'_>) -> Result<Target> {
    let agent = nodes::address(&call.server, named.name).await?;
    if named.port.is_empty() || named.port == agent.port().to_string() {
        return Ok(Target::Agent(named.name.to_owned(), agent));
    }
    let ip = proxyable(Some(agent.ip()))?;
    Ok(Target::Address(named.scheme, SocketAddr::new(ip, number(named.port)?)))
}

fn proxyable(ip: Option<IpAddr>) -> Result<IpAddr> {
    let ip = ip.filter(|ip| target::is_proxyable(*ip));
    ip.ok_or_else(|| status::bad_request("address not allowed").into())
}

/// A port of a pod or node. Names are known of Services alone.
fn number(port: &str) -> Result<u16> {
    port.parse().map_err(|_| {
        let why = if port.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("dial tcp: address {port}: invalid port")
        } else {
            format!("dial tcp: lookup tcp/{port}: unknown port")
        };
        status::unavailable(format!("error trying to reach service: {why}")).into()
    })
}

async fn fetch<T: DeserializeOwned>(call: &Call, resource: &'static Resource, name: &str) -> Result<T> {
    let kv = call.server.fetch(At { resource, namespace: call.ns(), name }).await?;
    serde_json::from_slice(&kv.value).map_err(|error| status::internal_error(error).into())
}

/// The path of the proxy itself, as the client wrote it.
fn prefix(uri: &Uri) -> String {
    format!("/{}", split_proxied(uri.path()).0.trim_start_matches('/'))
}

/// A page's relative links need the slash.
fn redirect(prefix: &str, query: Option<&str>) -> Result<Response<Body>> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{prefix}/{query}")).map_err(status::internal_error)?;
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// The request as the target gets it: the client's own, with its host, but for what is the API server's.
fn request(call: &Call, wire: &Wire, prefix: &str, path: &str) -> Result<Request<Outgoing>> {
    let mut headers = call.headers.clone();
    target::strip_request(&mut headers);
    if !headers.contains_key(HOST)
        && let Some(host) = wire.uri.authority()
    {
        headers.insert(HOST, HeaderValue::from_str(host.as_str()).map_err(status::internal_error)?);
    }
    let forwarded = HeaderValue::from_str(&format!("{prefix}{path}")).map_err(status::internal_error)?;
    headers.insert(FORWARDED_URI, forwarded);
    if let Some(from) = wire.from {
        add_forwarder(&mut headers, from);
    }
    let body = match wire.unread.as_ref().and_then(crate::body::Unread::take) {
        Some(body) => body.map_err(Into::into).boxed_unsync(),
        None => Full::new(call.body.clone()).map_err(|never| match never {}).boxed_unsync(),
    };
    let path = if path.is_empty() { "/" } else { path };
    let query = wire.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path: PathAndQuery = format!("{path}{query}").parse().map_err(status::internal_error)?;
    let mut request = Request::new(body);
    *request.method_mut() = wire.method.clone();
    *request.uri_mut() = path.into();
    *request.headers_mut() = headers;
    Ok(request)
}

fn add_forwarder(headers: &mut HeaderMap, from: IpAddr) {
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let from = from.to_canonical().to_string();
    let all: Vec<&str> = before.chain([from.as_str()]).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
}

async fn send(
    call: &Call,
    target: &Target,
    request: Request<Outgoing>,
) -> std::result::Result<Response<Incoming>, Failed> {
    let (scheme, address) = match target {
        Target::Agent(node, address) => return nodes::request(&call.server, node, *address, request).await,
        Target::Address(scheme, address) => (*scheme, *address),
    };
    let stream = outbound::dial(address, PROXY_CONNECT_TIMEOUT).await?;
    if scheme == Scheme::Http {
        return outbound::send(stream, request).await;
    }
    let connecting = TlsConnector::from(TLS.clone()).connect(ServerName::from(address.ip()), stream);
    let stream = match timeout(PROXY_TLS_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|error| Failed::Dial(tls_failed(&error)))?,
        Err(_) => return Err(Failed::Dial("net/http: TLS handshake timeout".into())),
    };
    outbound::send(stream, request).await
}

fn tls_failed(error: &io::Error) -> String {
    use rustls::{Error, InvalidMessage};
    let rustls = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    match rustls {
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "http: server gave HTTP response to HTTPS client".to_owned()
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        _ => format!("tls: {error}"),
    }
}

/// The target's answer as the client gets it.
fn handed_back(
    call: &Call,
    answer: Response<Incoming>,
    room: OwnedSemaphorePermit,
    prefix: &str,
    target: &Target,
    host: &str,
) -> Response<Body> {
    let (mut parts, inner) = answer.into_parts();
    target::strip_answer(&mut parts.headers);
    if let Some(text) = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        let own = match target {
            Target::Address(_, address) | Target::Agent(_, address) => address.to_string(),
        };
        if let Ok(value) = HeaderValue::from_str(&target::location(text, prefix, &own, host)) {
            parts.headers.insert(LOCATION, value);
        }
    }
    let private = HeaderValue::from_static("no-cache, private");
    parts.headers.entry(CACHE_CONTROL).or_insert(private);
    let mut stopped = call.server.stopped();
    let stop = Box::pin(async move { drop(stopped.wait_for(|stop| *stop).await) });
    let body = HandedBack { inner, stop, _room: room };
    Response::from_parts(parts, body.boxed_unsync())
}

/// The target's body, until it or the server ends.
struct HandedBack {
    inner: Incoming,
    stop: BoxFuture<'static, ()>,
    _room: OwnedSemaphorePermit,
}

impl HttpBody for HandedBack {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, io::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(io::Error::other)));
        }
        self.stop.as_mut().poll(cx).map(|()| Some(Err(io::Error::other("the server is going"))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
