//! The server itself: what it holds, and the way of a request through it. Start at [`ApiServer::handle`].

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use portolan_api::status;
use portolan_store::Store;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::alloc::{self, Allocator};
use crate::authn::User;
use crate::authz::{self, Attributes};
use crate::body::{self, Body, full};
use crate::call::{Call, Verb};
use crate::config::{Config, StartError};
use crate::discovery::Discovery;
use crate::errors::{ApiError, Result};
use crate::flow::Flows;
use crate::limits::PROXIED_AT_ONCE_MAX;
use crate::lines::Lines;
use crate::metrics::{Labels, Metrics};
use crate::openapi::OpenApi;
use crate::path::{self, ResourcePath, Target};
use crate::propagation::{self, Owner};
use crate::query::Query;
use crate::verbs::connect::Wire;
use crate::{
    accounts, bootstrap, default_range, health, masters, namespaces, object, repairs, respond, sweep, tokens,
    verbs,
};

/// Whose connection a request came over, as an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// An API server: one per process, shared by all connections.
pub struct ApiServer {
    config: Config,
    store: Arc<dyn Store>,
    allocator: Allocator,
    discovery: Discovery,
    /// Made at the first request for it: most servers start far more often than they are asked.
    openapi: OnceLock<OpenApi>,
    metrics: Metrics,
    lines: Lines,
    flows: Arc<Flows>,
    proxied: Arc<Semaphore>,
    ready: AtomicBool,
    stop: watch::Sender<bool>,
    propagation: mpsc::UnboundedSender<Owner>,
    policy: authz::Shared,
}

impl ApiServer {
    /// Starts a server on `store`: loads the allocators and makes the objects that every cluster has.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> std::result::Result<Arc<Self>, StartError> {
        let ranges = alloc::Config {
            service_cidrs: config.service_cidrs.clone(),
            node_ports: config.node_ports.clone(),
        };
        let (propagation, owners) = mpsc::unbounded_channel();
        let metrics = Metrics::new();
        let server = Arc::new(Self {
            allocator: Allocator::counted_by(metrics.allocators.clone(), ranges, store.clone()).await?,
            config,
            store,
            discovery: Discovery::new(),
            openapi: OnceLock::new(),
            lines: Lines::default(),
            flows: Arc::new(Flows::counted_by(metrics.flows.clone())),
            proxied: Arc::new(Semaphore::new(PROXIED_AT_ONCE_MAX)),
            metrics,
            ready: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            propagation,
            policy: authz::Shared::default(),
        });
        let mut told = default_range::Told::default();
        bootstrap::run(&server, &mut told).await?;
        tokio::spawn(namespaces::run(Arc::downgrade(&server)));
        let revisions =
            authz::follow::load(&server).await.map_err(|error| bootstrap::failed("roles", &error))?;
        tokio::spawn(authz::follow::run(Arc::downgrade(&server), revisions));
        tokio::spawn(accounts::run(Arc::downgrade(&server)));
        tokio::spawn(propagation::run(Arc::downgrade(&server), owners));
        tokio::spawn(sweep::run(Arc::downgrade(&server)));
        tokio::spawn(repairs::run(Arc::downgrade(&server)));
        tokio::spawn(bootstrap::keep(Arc::downgrade(&server), told));
        server.ready.store(true, Ordering::Release);
        Ok(server)
    }

    /// Answers one request. The caller's [`User`] is an extension of the request; without one it is anonymous.
    pub fn handle(self: &Arc<Self>, request: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        let server = self.clone();
        Box::pin(async move { server.answer(request).await })
    }

    async fn answer(self: Arc<Self>, request: Request<Bytes>) -> Response<Body> {
        let started = Instant::now();
        let (mut parts, body) = request.into_parts();
        let user = parts.extensions.remove::<User>().unwrap_or_else(User::anonymous);
        let user = match authz::impersonate::apply(&self, user, &mut parts.headers).await {
            Ok(user) => user,
            Err(error) => return error.response(),
        };
        let query = Query::parse(parts.uri.query());
        let mut labels = Labels::default();
        let path = parts.uri.path();
        let response = match path::parse(path) {
            Some(Target::Resource(target)) => {
                let wire = Wire {
                    from: parts.extensions.remove::<Peer>().map(|peer| peer.0),
                    upgrade: parts.extensions.remove(),
                    unread: parts.extensions.remove(),
                    method: parts.method,
                    uri: parts.uri,
                };
                self.resource((target, query, user, parts.headers, body, wire), &mut labels).await
            }
            Some(Target::Other) => self.other(&parts.method, path, &query, &user, &parts.headers).await,
            None => Err(status::bad_request("the path of the request has broken escapes").into()),
        };
        let response = response.unwrap_or_else(|error| error.response());
        self.metrics.observe(&labels, response.status().as_u16(), started.elapsed());
        response
    }

    async fn resource(
        self: &Arc<Self>,
        request: (ResourcePath, Query, User, HeaderMap, Bytes, Wire),
        labels: &mut Labels,
    ) -> Result<Response<Body>> {
        let (target, query, user, headers, body, wire) = request;
        let definitions = wire.method == Method::GET && is_definitions(&target);
        let call = match Call::new(self.clone(), &wire.method, target, query, user, headers, body).await {
            Err(error) if error.is("NotFound") && definitions => return Ok(no_definitions()),
            call => call?,
        };
        *labels = call.labels();
        if call.subresource.as_deref().is_some_and(verbs::connect::is_connect) {
            return verbs::connect::run(&call, wire).await;
        }
        let grants = call.resource.group == portolan_api::kinds::rbac::GROUP && call.verb.writes();
        let deprecation = call.resource.strategy.deprecation();
        let mut response = self.act(call).await;
        if let Some(text) = deprecation {
            // Whatever is asked of a kind that is on its way out, and whatever comes of it.
            let mut answer = response.unwrap_or_else(|error| error.response());
            respond::add_warning_first(answer.headers_mut(), text);
            response = Ok(answer);
        }
        if grants {
            // An acknowledged grant holds, and so does an acknowledged revocation.
            self.policy.progress().caught_up().await;
        }
        response
    }

    async fn act(self: &Arc<Self>, call: Call) -> Result<Response<Body>> {
        if !call.resource.stored {
            return verbs::review::run(&call).await;
        }
        if call.subresource.as_deref() == Some("scale") {
            return verbs::scale::run(&call).await;
        }
        match call.verb {
            Verb::Get => verbs::get::run(&call).await,
            Verb::List => verbs::list::run(&call).await,
            Verb::Watch => verbs::watch::run(call).await,
            Verb::Create => verbs::create::run(&call).await,
            Verb::Update => verbs::update::run(&call).await,
            Verb::Patch => verbs::patch::run(&call).await,
            Verb::Delete => verbs::delete::run(&call).await,
            Verb::DeleteCollection => verbs::delete::run_collection(&call).await,
            Verb::Connect => Err(status::method_not_allowed(call.resource, Verb::Connect.name()).into()),
        }
    }

    /// Discovery, health and everything else that is not about objects.
    async fn other(
        &self,
        method: &Method,
        path: &str,
        query: &Query,
        user: &User,
        headers: &HeaderMap,
    ) -> Result<Response<Body>> {
        let verb = if method == Method::HEAD { "get".into() } else { method.as_str().to_ascii_lowercase() };
        if let Err(why) = authz::authorize(self, user, Attributes::Path { verb: &verb, path }).await {
            let mut error = ApiError::from(status::forbidden_path(&user.name, &verb, path));
            error.0.message = why;
            return Err(error);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n"));
        }
        let clean = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        if let Some(response) = health::answer(self, clean, query).await {
            return Ok(response);
        }
        let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        match clean {
            SNAPSHOT_PATH => Ok(snapshot(self.store.at_rest().unwrap_or_else(|| self.shared_store()))),
            "/version" => Ok(json(headers, health::version())),
            "/openid/v1/jwks" | "/.well-known/openid-configuration" => Ok(self.token_documents(clean)),
            "/metrics" => {
                self.flows.show();
                let (addresses, ports) = self.allocator.fullness().await;
                self.metrics.allocators.show(&addresses, ports);
                let mut response = text(StatusCode::OK, &self.metrics.render());
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                Ok(response)
            }
            _ => Ok(self
                .documents(clean, accept, headers)
                .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "404 page not found\n"))),
        }
    }

    /// What whoever checks service account tokens wants to know.
    fn token_documents(&self, path: &str) -> Response<Body> {
        let Some(keys) = &self.config.token_keys else {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let (document, kind) = if path == "/openid/v1/jwks" {
            (keys.published(), "application/jwk-set+json")
        } else {
            let address = SocketAddr::new(self.config.advertise_address, self.config.secure_port);
            (tokens::discovery(&self.config.issuer, &format!("https://{address}")), "application/json")
        };
        let mut response = json(&HeaderMap::new(), object::encode(&document));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn documents(&self, path: &str, accept: &str, headers: &HeaderMap) -> Option<Response<Body>> {
        if path == "/" {
            let groups: Vec<String> =
                portolan_api::resource::RESOURCES.iter().map(|r| r.root_path()).collect();
            let mut paths: Vec<&str> = vec!["/api", "/apis", "/openapi/v2", "/openapi/v3"];
            paths.extend(["/healthz", "/livez", "/metrics", "/readyz", "/version"]);
            paths.extend(groups.iter().map(String::as_str));
            paths.sort_unstable();
            paths.dedup();
            let body = serde_json::json!({ "paths": paths });
            return Some(json(headers, object::encode(&body)));
        }
        let document = self.discovery.get(path, accept).or_else(|| self.openapi(path)?.get(path, accept))?;
        let tag = HeaderValue::from_str(&document.etag).ok();
        if tag.is_some() && headers.get(IF_NONE_MATCH) == tag.as_ref() {
            let mut response = text(StatusCode::NOT_MODIFIED, "");
            // A cache takes these headers over into what it kept: kubectl's would read plain text.
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(document.content_type));
            response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
            return Some(response);
        }
        let mut response = json(headers, document.body.clone());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(document.content_type));
        response.headers_mut().extend(tag.map(|tag| (ETAG, tag)));
        Some(response)
    }

    fn openapi(&self, path: &str) -> Option<&OpenApi> {
        path.starts_with("/openapi").then(|| self.openapi.get_or_init(OpenApi::new))
    }

    /// Ends every watch, now and for ever: the server is going.
    pub fn stop(&self) {
        self.ready.store(false, Ordering::Release);
        self.stop.send_replace(true);
    }

    /// Takes this server out of the endpoints of the Service `kubernetes`, if others are left. For after
    /// [`stop`](Self::stop).
    pub async fn leave(&self) {
        masters::leave(self).await;
    }

    /// Becomes true when the server is going.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Has the dependents of a deleted owner seen to, if there is one.
    pub(crate) fn propagate(&self, owner: Option<Owner>) {
        if let Some(owner) = owner {
            // Nobody listens only when the server is going; the next one looks for what is left.
            let _ = self.propagation.send(owner);
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(crate) fn shared_store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    pub(crate) fn policy(&self) -> &authz::Shared {
        &self.policy
    }

    pub(crate) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// Room for requests that are handed through.
    pub(crate) fn proxied(&self) -> &Arc<Semaphore> {
        &self.proxied
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }
}

/// Where the whole store can be read, as a file of `portolan snapshot`. No rule allows this path: only
/// `system:masters` get it.
pub const SNAPSHOT_PATH: &str = "/portolan/snapshot";

/// When the store fails on the way, the answer ends early, which the reader notices.
fn snapshot(store: Arc<dyn Store>) -> Response<Body> {
    let saver = portolan_store::snapshot::Saver::new(store);
    let pieces = futures_util::stream::unfold(saver, |mut saver| async move {
        let piece =
            saver.next().await.inspect_err(|error| tracing::warn!(%error, "a snapshot was broken off"));
        Some((piece.ok()??, saver))
    });
    let mut response = Response::new(body::stream(pieces));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// The list of custom resource definitions. There are none, and they are not in discovery; but kubectl looks there
/// before it says that a kind is unknown, and would tell of a missing list instead.
fn is_definitions(path: &ResourcePath) -> bool {
    path.group == "apiextensions.k8s.io"
        && path.version == "v1"
        && path.resource == "customresourcedefinitions"
        && path.name.is_none()
}

fn no_definitions() -> Response<Body> {
    let list = serde_json::json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinitionList",
        "metadata": {},
        "items": [],
    });
    json(&HeaderMap::new(), object::encode(&list))
}

/// Plain text.
pub(crate) fn text(code: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(full(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn json(headers: &HeaderMap, body: Bytes) -> Response<Body> {
    let (body, zipped) = respond::zip(headers, body);
    let mut response = Response::new(full(body));
    let out = response.headers_mut();
    out.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if zipped {
        out.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}
