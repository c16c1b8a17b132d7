//! What the controller reads of Services and Namespaces.

use std::net::IpAddr;

use portolan_api::portolan::v1alpha1::LoadBalancerPool;
use serde::Deserialize;
use serde_json::Value;

use super::CLASS;
use crate::objects::{Labels, Meta, nullable, or_tcp};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    pub metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub spec: Spec,
    #[serde(deserialize_with = "nullable")]
    pub status: Status,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub kind: String,
    #[serde(deserialize_with = "nullable")]
    pub load_balancer_class: String,
    #[serde(rename = "loadBalancerIP", deserialize_with = "nullable")]
    pub load_balancer_ip: String,
    #[serde(deserialize_with = "nullable")]
    pub ip_families: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub ip_family_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub external_traffic_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub selector: Labels,
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Port {
    #[serde(deserialize_with = "nullable")]
    pub protocol: String,
    pub port: i32,
}

impl Port {
    pub fn protocol(&self) -> &str {
        or_tcp(&self.protocol)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    #[serde(deserialize_with = "nullable")]
    pub load_balancer: LoadBalancer,
    /// As they are: others' are written back unchanged.
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<Value>,
}

impl Service {
    /// Whether it is for this controller to give it addresses.
    pub fn is_ours(&self, without_class: bool) -> bool {
        let class = &self.spec.load_balancer_class;
        self.spec.kind == "LoadBalancer" && (class == CLASS || (without_class && class.is_empty()))
    }

    /// The addresses that its status says it has.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ingress = self.status.load_balancer.ingress.iter();
        ingress.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect()
    }

    pub fn condition(&self, kind: &str) -> Option<&Value> {
        self.status.conditions.iter().find(|condition| condition["type"] == kind)
    }

    /// Older ones come first.
    pub(crate) fn age_order(&self) -> (&str, &str, &str) {
        let created = self.metadata.creation_timestamp.as_deref().unwrap_or_default();
        (created, &self.metadata.namespace, &self.metadata.name)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Namespace {
    pub metadata: Meta,
}

/// A pool as the API gives it.
pub type PoolObject = LoadBalancerPool;
