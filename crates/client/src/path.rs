//! Where the objects of a kind live in the API.

use std::fmt::Write as _;

/// One resource of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiPath {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
}

/// A resource, and the version that served it before. Objects of either have the fields that are read of them.
#[derive(Debug, Clone, Copy)]
pub struct Versions {
    pub newest: ApiPath,
    pub older: Option<ApiPath>,
}

impl From<ApiPath> for Versions {
    fn from(newest: ApiPath) -> Self {
        Versions { newest, older: None }
    }
}

impl ApiPath {
    /// The same resource in an older version, for API servers that do not know this one.
    pub const fn or_older(self, version: &'static str) -> Versions {
        Versions { newest: self, older: Some(ApiPath { version, ..self }) }
    }

    /// What objects of this kind carry as `apiVersion`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection. Without a namespace: of all namespaces.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|n| self.namespaced && !n.is_empty()) {
            path.push_str("/namespaces/");
            push_segment(&mut path, namespace);
        }
        path.push('/');
        path.push_str(self.plural);
        path
    }

    /// The path of one object.
    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        let mut path = self.collection(namespace);
        path.push('/');
        push_segment(&mut path, name);
        path
    }
}

/// Append text as one path segment or query value: everything but unreserved characters is escaped.
pub(crate) fn push_segment(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
}

/// A query string under construction.
#[derive(Debug, Default)]
pub(crate) struct Query(String);

impl Query {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '?' } else { '&' });
        self.0.push_str(name);
        self.0.push('=');
        push_segment(&mut self.0, value);
    }

    pub(crate) fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            self.add(name, value);
        }
    }

    pub(crate) fn append_to(self, path: String) -> String {
        path + &self.0
    }
}

/// The kinds that Portolan's own roles use.
pub mod paths {
    use super::{ApiPath, Versions};

    const fn namespaced(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> ApiPath {
        ApiPath { group, version, plural, kind, namespaced: true }
    }

    const fn cluster(
        group: &'static str,
        version: &'static str,
        plural: &'static str,
        kind: &'static str,
    ) -> ApiPath {
        ApiPath { group, version, plural, kind, namespaced: false }
    }

    pub const NAMESPACES: ApiPath = cluster("", "v1", "namespaces", "Namespace");
    pub const NODES: ApiPath = cluster("", "v1", "nodes", "Node");
    pub const PODS: ApiPath = namespaced("", "v1", "pods", "Pod");
    pub const SERVICES: ApiPath = namespaced("", "v1", "services", "Service");
    pub const ENDPOINTS: ApiPath = namespaced("", "v1", "endpoints", "Endpoints");
    pub const EVENTS: ApiPath = namespaced("", "v1", "events", "Event");
    pub const CONFIG_MAPS: ApiPath = namespaced("", "v1", "configmaps", "ConfigMap");
    pub const SECRETS: ApiPath = namespaced("", "v1", "secrets", "Secret");
    pub const SERVICE_ACCOUNTS: ApiPath = namespaced("", "v1", "serviceaccounts", "ServiceAccount");
    pub const ENDPOINT_SLICES: ApiPath =
        namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
    /// For readers that know of `topology`, in which the older version has the node's name. Kubernetes 1.21 was the first
    /// with the newer one, 1.24 the last with the older one.
    pub const ENDPOINT_SLICES_OF_ANY_AGE: Versions = ENDPOINT_SLICES.or_older("v1beta1");
    pub const LEASES: ApiPath = namespaced("coordination.k8s.io", "v1", "leases", "Lease");
    pub const DEPLOYMENTS: ApiPath = namespaced("apps", "v1", "deployments", "Deployment");
    pub const REPLICA_SETS: ApiPath = namespaced("apps", "v1", "replicasets", "ReplicaSet");
    pub const SERVICE_CIDRS: ApiPath = cluster("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR");
    pub const LOAD_BALANCER_POOLS: ApiPath =
        cluster("portolan.dev", "v1alpha1", "loadbalancerpools", "LoadBalancerPool");
    pub const IP_ADDRESSES: ApiPath = cluster("networking.k8s.io", "v1", "ipaddresses", "IPAddress");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_group_and_the_scope() {
        assert_eq!(paths::SERVICES.collection(None), "/api/v1/services");
        assert_eq!(paths::SERVICES.object(Some("a"), "b"), "/api/v1/namespaces/a/services/b");
        assert_eq!(
            paths::ENDPOINT_SLICES.collection(Some("a")),
            "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"
        );
        assert_eq!(paths::NODES.object(Some("ignored"), "n1"), "/api/v1/nodes/n1");
        assert_eq!(paths::NAMESPACES.object(None, "a"), "/api/v1/namespaces/a");
        assert_eq!(paths::LEASES.api_version(), "coordination.k8s.io/v1");
    }

    #[test]
    fn text_cannot_break_out_of_its_place() {
        assert_eq!(paths::SERVICES.object(Some("a"), "../b?c"), "/api/v1/namespaces/a/services/..%2Fb%3Fc");
        let mut query = Query::default();
        query.add("labelSelector", "a in (b,c)&x");
        query.add_some("continue", None);
        query.add_some("limit", Some("5"));
        assert_eq!(query.append_to("/p".into()), "/p?labelSelector=a%20in%20%28b%2Cc%29%26x&limit=5");
    }
}
