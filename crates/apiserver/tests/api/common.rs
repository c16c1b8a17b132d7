//! A server on a store of its own, and requests to it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use portolan_apiserver::pki::Pki;
use portolan_apiserver::{ApiServer, Body, Config, TokenKeys, User};
use portolan_store::embedded::Embedded;
use serde_json::{Value, json};

/// Longest wait for anything that should happen. Far more than it takes, so that a slow machine does not matter.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const DUAL_STACK: [&str; 2] = ["10.96.0.0/12", "fd00:10:96::/112"];

pub(crate) struct Server {
    pub(crate) api: Arc<ApiServer>,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) struct Reply {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The object, if the request went well.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!(self.code.is_success(), "{}: {}", self.code, String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Code, reason and message of a refusal.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, String, String) {
        let status = self.json();
        assert_eq!(status["kind"], "Status", "{status}");
        assert_eq!(status["code"], self.code.as_u16(), "{status}");
        (self.code.as_u16(), text(&status["reason"]), text(&status["message"]))
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|v| v.to_str().unwrap().to_string()).collect()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

pub(crate) fn admin() -> User {
    User::new("admin", ["system:masters"])
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { api: open(dir.path()).await, dir }
    }

    /// With its store, whose past can be forgotten.
    pub(crate) async fn start_with_store() -> (Self, Arc<Embedded>) {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(dir.path().join("store")).unwrap());
        let api = ApiServer::start(config(dir.path()), store.clone()).await.unwrap();
        (Self { api, dir }, store)
    }

    /// With the authority's certificate in every namespace, which other tests would find in their lists.
    pub(crate) async fn start_with_authority() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(dir.path().join("store")).unwrap());
        let root_ca = Pki::open(&dir.path().join("pki")).unwrap().ca_pem().to_owned();
        let config = Config { root_ca, ..config(dir.path()) };
        Self { api: ApiServer::start(config, store).await.unwrap(), dir }
    }

    /// With a range of each family, IPv4 first.
    pub(crate) async fn start_dual_stack() -> Self {
        Self::start_with_ranges(&DUAL_STACK).await
    }

    /// With these Service ranges.
    pub(crate) async fn start_with_ranges(ranges: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = with_ranges(dir.path(), ranges);
        Self { api: reopen_with(dir.path(), config).await, dir }
    }

    /// Ends this server and starts another on its store, with other Service ranges.
    pub(crate) async fn restart_with_ranges(self, ranges: &[&str]) -> Self {
        let Self { api, dir } = self;
        api.stop();
        drop(api);
        let config = with_ranges(dir.path(), ranges);
        Self { api: reopen_with(dir.path(), config).await, dir }
    }

    /// Ends this server, has its store changed behind its back, and starts another on it.
    pub(crate) async fn restart_after<R: Future<Output = ()>>(
        self,
        ranges: &[&str],
        change: impl FnOnce(Arc<Embedded>) -> R,
    ) -> Self {
        let Self { api, dir } = self;
        api.stop();
        drop(api);
        change(reopen_store(dir.path()).await).await;
        let config = with_ranges(dir.path(), ranges);
        Self { api: reopen_with(dir.path(), config).await, dir }
    }

    pub(crate) async fn request(&self, request: Request<Bytes>) -> http::Response<Body> {
        self.api.handle(request).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).unwrap();
        request.extensions_mut().insert(admin());
        reply(self.request(request).await).await
    }

    /// A request of somebody else than the administrator.
    pub(crate) async fn send_as(&self, user: &User, method: Method, path: &str, object: &Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = if object.is_null() { String::new() } else { object.to_string() };
        let mut request = request.body(Bytes::from(body)).unwrap();
        request.extensions_mut().insert(user.clone());
        reply(self.request(request).await).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, object: &Value) -> Reply {
        self.send(Method::POST, path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, object: &Value) -> Reply {
        self.send(Method::PUT, path, &[("content-type", "application/json")], object.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Reply {
        let kind = match kind {
            "apply" => "application/apply-patch+yaml".to_string(),
            "strategic" => "application/strategic-merge-patch+json".to_string(),
            kind => format!("application/{kind}-patch+json"),
        };
        self.send(Method::PATCH, path, &[("content-type", &kind)], patch.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], "").await
    }

    pub(crate) async fn watch(&self, path: &str) -> Watch {
        self.watch_with(path, &[]).await
    }

    pub(crate) async fn watch_with(&self, path: &str, headers: &[(&str, &str)]) -> Watch {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Bytes::new()).unwrap();
        request.extensions_mut().insert(admin());
        let response = self.request(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Watch { body: response.into_body(), rest: Vec::new() }
    }

    /// Asks again until the answer is as wanted.
    pub(crate) async fn eventually(&self, path: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path).await;
            if wanted(&reply) {
                return reply;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path}: {}",
                String::from_utf8_lossy(&reply.body)
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) async fn open(dir: &std::path::Path) -> Arc<ApiServer> {
    let store = Arc::new(Embedded::open(dir.join("store")).unwrap());
    ApiServer::start(config(dir), store).await.unwrap()
}

fn config(dir: &std::path::Path) -> Config {
    let pki = Pki::open(&dir.join("pki")).unwrap();
    let keys = pki.token_keys().unwrap();
    let keys = TokenKeys::new(keys.iter().map(String::as_str)).unwrap();
    Config { token_keys: Some(Arc::new(keys)), ..Config::new(IpAddr::from([192, 0, 2, 1]), 6443) }
}

fn with_ranges(dir: &std::path::Path, ranges: &[&str]) -> Config {
    Config { service_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(), ..config(dir) }
}

/// Opens a store again as soon as its last holder has let go of it.
pub(crate) async fn reopen(dir: &std::path::Path) -> Arc<ApiServer> {
    reopen_with(dir, config(dir)).await
}

/// The same with ranges of both families.
pub(crate) async fn reopen_dual_stack(dir: &std::path::Path) -> Arc<ApiServer> {
    reopen_with(dir, with_ranges(dir, &DUAL_STACK)).await
}

/// The same with other settings.
async fn reopen_with(dir: &std::path::Path, config: Config) -> Arc<ApiServer> {
    ApiServer::start(config, reopen_store(dir).await).await.unwrap()
}

async fn reopen_store(dir: &std::path::Path) -> Arc<Embedded> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match Embedded::open(dir.join("store")) {
            Ok(store) => return Arc::new(store),
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn reply(response: http::Response<Body>) -> Reply {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Reply { code: parts.status, headers: parts.headers, body }
}

/// An open watch, line by line.
pub(crate) struct Watch {
    body: Body,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.next_within(PATIENCE).await
    }

    /// The same, for who pauses the clock.
    pub(crate) async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(patience, self.body.frame()).await.expect("an event in time")?;
            self.rest.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    /// Type and name of the next event.
    pub(crate) async fn word(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!("{} {}", text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name },
        "spec": { "selector": { "app": name }, "ports": [{ "port": 80 }] },
    })
}

/// A Service with some fields of its spec set, and those taken away that are null.
pub(crate) fn service_with(name: &str, spec: &Value) -> Value {
    let mut object = service(name);
    for (key, value) in spec.as_object().unwrap() {
        if value.is_null() {
            object["spec"].as_object_mut().unwrap().remove(key);
        } else {
            object["spec"][key] = value.clone();
        }
    }
    object
}

pub(crate) fn config_map(name: &str, labels: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels }, "data": { "a": "b" } })
}

pub(crate) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
