//! The verbs.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::REQUEST_TIMEOUT;
use crate::path::Query;
use crate::transport::HttpTransport;
use crate::{ApiPath, Body, Config, Error, Status, Transport};

/// A handle on one API server under one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    transport: Arc<dyn Transport>,
    user_agent: Arc<str>,
}

/// A complete list or one page of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub struct List<T> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default = "Vec::new")]
    pub items: Vec<T>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListMeta {
    pub resource_version: String,
    #[serde(rename = "continue")]
    pub continue_token: String,
    pub remaining_item_count: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// 0: everything in one answer.
    pub limit: u32,
    pub continue_token: Option<String>,
    pub resource_version: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WatchOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    /// Events newer than this.
    pub resource_version: String,
    /// After which the server ends the watch; 0: as it likes.
    pub timeout_seconds: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<u64>,
    /// Delete only the object with this UID.
    pub uid: Option<String>,
    /// Delete only this version.
    pub resource_version: Option<String>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<&'static str>,
}

/// A body of a PATCH request and how to read it.
#[derive(Debug, Clone, Copy)]
pub enum Patch<'a> {
    /// JSON merge patch (RFC 7396).
    Merge(&'a Value),
    /// Kubernetes' strategic merge patch.
    Strategic(&'a Value),
    /// JSON patch (RFC 6902).
    Json(&'a Value),
    /// Server-side apply under a manager's name.
    Apply { manager: &'a str, force: bool, object: &'a Value },
}

/// The part of an object that a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subresource {
    None,
    Status,
}

impl Client {
    /// A client over any transport, such as an API server of the same process.
    pub fn from_transport(transport: Arc<dyn Transport>, user_agent: &str) -> Client {
        Client { transport, user_agent: user_agent.into() }
    }

    pub fn from_config(config: &Config, user_agent: &str) -> Result<Client, Error> {
        Ok(Client::from_transport(Arc::new(HttpTransport::new(config)?), user_agent))
    }

    /// A client for the current context of a kubeconfig file.
    pub fn from_kubeconfig(path: &Path, user_agent: &str) -> Result<Client, Error> {
        Client::from_config(&Config::from_kubeconfig(path, None)?, user_agent)
    }

    /// A client for a process in a pod: environment and service account files.
    pub fn in_cluster(user_agent: &str) -> Result<Client, Error> {
        Client::from_config(&Config::in_cluster()?, user_agent)
    }

    /// The same transport under another user agent.
    #[must_use]
    pub fn with_user_agent(&self, user_agent: &str) -> Client {
        Client { transport: self.transport.clone(), user_agent: user_agent.into() }
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<T, Error> {
        let body = self.call(Method::GET, api.object(namespace, name), None, Bytes::new()).await?;
        decode(&body)
    }

    /// One page, or everything if `options.limit` is 0.
    pub async fn list<T: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        decode(&self.list_raw(api, namespace, options).await?)
    }

    /// As [`list`](Client::list), undecoded.
    pub async fn list_raw(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Bytes, Error> {
        let path = options.query().append_to(api.collection(namespace));
        self.call(Method::GET, path, None, Bytes::new()).await
    }

    pub async fn create<T: Serialize + DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        object: &T,
    ) -> Result<T, Error> {
        let body = self.call(Method::POST, api.collection(namespace), JSON, encode(object)?).await?;
        decode(&body)
    }

    /// Replace an object. With a resource version in its metadata it fails with a conflict if somebody else
    /// has written the object since.
    pub async fn update<T: Serialize + DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        object: &T,
    ) -> Result<T, Error> {
        let path = api.object(namespace, name);
        decode(&self.call(Method::PUT, path, JSON, encode(object)?).await?)
    }

    pub async fn update_status<T: Serialize + DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        object: &T,
    ) -> Result<T, Error> {
        let path = Subresource::Status.append_to(api.object(namespace, name));
        decode(&self.call(Method::PUT, path, JSON, encode(object)?).await?)
    }

    pub async fn patch<T: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        subresource: Subresource,
        patch: Patch<'_>,
    ) -> Result<T, Error> {
        let path = patch.query().append_to(subresource.append_to(api.object(namespace, name)));
        let body = encode(patch.body())?;
        decode(&self.call(Method::PATCH, path, Some(patch.content_type()), body).await?)
    }

    pub async fn delete(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let body = if *options == DeleteOptions::default() { Bytes::new() } else { encode(&options.body())? };
        self.call(Method::DELETE, api.object(namespace, name), JSON, body).await.map(|_| ())
    }

    /// GET any path (`/version`, `/readyz`) and return the body of a 2xx answer.
    pub async fn get_raw(&self, path: &str) -> Result<Bytes, Error> {
        self.call(Method::GET, path.to_owned(), None, Bytes::new()).await
    }

    /// Start a watch: the answer's body goes on until the server or the reader ends it.
    pub async fn watch_raw(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<Body, Error> {
        let path = options.query().append_to(api.collection(namespace));
        let request = self.request(Method::GET, path, None, Bytes::new())?;
        let response = timed(self.send(request)).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        timed(async { Err(failure(response).await) }).await
    }

    /// Act on an object by creating a subresource, such as `token`; the answer is another kind of object.
    pub async fn act<T: Serialize, R: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        act: &str,
        object: &T,
    ) -> Result<R, Error> {
        let path = format!("{}/{act}", api.object(namespace, name));
        let body = self.call(Method::POST, path, JSON, encode(object)?).await?;
        decode(&body)
    }

    /// Send any request; the answer comes back as it is, whatever its status.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.transport.call(request).await
    }

    async fn call(
        &self,
        method: Method,
        path: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Bytes, Error> {
        let request = self.request(method, path, content_type, body)?;
        timed(async {
            let response = self.send(request).await?;
            if response.status().is_success() {
                read_body(response).await
            } else {
                Err(failure(response).await)
            }
        })
        .await
    }

    fn request(
        &self,
        method: Method,
        path: String,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Request<Bytes>, Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, &*self.user_agent);
        if let Some(content_type) = content_type.filter(|_| !body.is_empty()) {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        request.body(body).map_err(|e| Error::Config(format!("cannot form the request: {e}")))
    }
}

const JSON: Option<&str> = Some("application/json");

impl Subresource {
    fn append_to(self, mut path: String) -> String {
        if self == Subresource::Status {
            path.push_str("/status");
        }
        path
    }
}

impl Patch<'_> {
    fn content_type(&self) -> &'static str {
        match self {
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Json(_) => "application/json-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    fn body(&self) -> &Value {
        match self {
            Patch::Merge(body) | Patch::Strategic(body) | Patch::Json(body) => body,
            Patch::Apply { object, .. } => object,
        }
    }

    fn query(&self) -> Query {
        let mut query = Query::default();
        if let Patch::Apply { manager, force, .. } = self {
            query.add("fieldManager", manager);
            if *force {
                query.add("force", "true");
            }
        }
        query
    }
}

impl ListOptions {
    fn query(&self) -> Query {
        let mut query = Query::default();
        query.add_some("labelSelector", self.label_selector.as_deref());
        query.add_some("fieldSelector", self.field_selector.as_deref());
        query.add_some("continue", self.continue_token.as_deref());
        query.add_some("resourceVersion", self.resource_version.as_deref());
        if self.limit > 0 {
            query.add("limit", &self.limit.to_string());
        }
        query
    }
}

impl WatchOptions {
    fn query(&self) -> Query {
        let mut query = Query::default();
        query.add("watch", "1");
        query.add("allowWatchBookmarks", "true");
        query.add_some("labelSelector", self.label_selector.as_deref());
        query.add_some("fieldSelector", self.field_selector.as_deref());
        query.add("resourceVersion", &self.resource_version);
        if self.timeout_seconds > 0 {
            query.add("timeoutSeconds", &self.timeout_seconds.to_string());
        }
        query
    }
}

impl DeleteOptions {
    fn body(&self) -> Value {
        let mut body = serde_json::json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
        if let Some(seconds) = self.grace_period_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(policy) = self.propagation_policy {
            body["propagationPolicy"] = policy.into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        body
    }
}

async fn timed<T>(call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(REQUEST_TIMEOUT, call).await.unwrap_or_else(|_| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        Err(Error::Transport(format!("no complete answer within {seconds} s")))
    })
}

async fn read_body(response: Response<Body>) -> Result<Bytes, Error> {
    let body = response.into_body().collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|e| Error::Transport(format!("the answer broke off: {e}")))
}

/// What an answer that is not 2xx means.
async fn failure(response: Response<Body>) -> Error {
    let code = response.status();
    let body = match read_body(response).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    match serde_json::from_slice::<Status>(&body) {
        Ok(status) if status.code != 0 => Error::Api(Box::new(status)),
        // Not from an API server: a proxy between, say. Show the start of what it had to say.
        _ => {
            let text = String::from_utf8_lossy(&body[..body.len().min(1_024)]).trim().to_owned();
            let reason = code.canonical_reason().unwrap_or_default().to_owned();
            Error::Api(Box::new(Status { code: code.as_u16(), reason, message: text, details: None }))
        }
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|e| Error::Decode(e.to_string()))
}

fn encode<T: Serialize>(object: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(|e| Error::Config(format!("cannot encode the object: {e}")))
}
