//! The verbs.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApiPath, Body, Config, Error, Transport};

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
        let _ = (config, user_agent);
        todo!()
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
        let _ = (api, namespace, name);
        todo!()
    }

    /// One page, or everything if `options.limit` is 0.
    pub async fn list<T: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List<T>, Error> {
        let _ = (api, namespace, options);
        todo!()
    }

    pub async fn create<T: Serialize + DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        object: &T,
    ) -> Result<T, Error> {
        let _ = (api, namespace, object);
        todo!()
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
        let _ = (api, namespace, name, object);
        todo!()
    }

    pub async fn update_status<T: Serialize + DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        object: &T,
    ) -> Result<T, Error> {
        let _ = (api, namespace, name, object);
        todo!()
    }

    pub async fn patch<T: DeserializeOwned>(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        subresource: Subresource,
        patch: Patch<'_>,
    ) -> Result<T, Error> {
        let _ = (api, namespace, name, subresource, patch);
        todo!()
    }

    pub async fn delete(
        &self,
        api: &ApiPath,
        namespace: Option<&str>,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let _ = (api, namespace, name, options);
        todo!()
    }

    /// GET any path (`/version`, `/readyz`) and return the body of a 2xx answer.
    pub async fn get_raw(&self, path: &str) -> Result<Bytes, Error> {
        let _ = path;
        todo!()
    }

    /// Send any request; the answer comes back as it is, whatever its status.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>, Error> {
        self.transport.call(request).await
    }
}
