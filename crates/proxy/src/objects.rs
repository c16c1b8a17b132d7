//! The fields of API objects that the proxy reads, as JSON has them. Only [`crate::views`] reads these: what the caches
//! keep is parsed already.
//!
//! A JSON `null` reads like a missing field, since Go clients write both.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

fn nullable<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Text of the message where it has no escapes, which is nearly always.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

impl std::ops::Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) namespace: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) uid: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) deletion_timestamp: Option<String>,
}

// --- Service ---

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Service {
    pub(crate) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: ServiceSpec,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: ServiceStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceSpec {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(rename = "clusterIP", deserialize_with = "nullable")]
    pub(crate) cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    pub(crate) cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    pub(crate) external_ips: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) load_balancer_source_ranges: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ports: Vec<ServicePort>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) internal_traffic_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) external_traffic_policy: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) session_affinity: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) session_affinity_config: AffinityConfig,
    pub(crate) health_check_node_port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicePort {
    #[serde(deserialize_with = "nullable")]
    pub(crate) name: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) protocol: String,
    pub(crate) port: i64,
    pub(crate) node_port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AffinityConfig {
    #[serde(rename = "clientIP", deserialize_with = "nullable")]
    pub(crate) client_ip: ClientIpConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClientIpConfig {
    pub(crate) timeout_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServiceStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) load_balancer: LoadBalancerStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LoadBalancerStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) ingress: Vec<Ingress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Ingress {
    #[serde(deserialize_with = "nullable")]
    pub(crate) ip: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) ip_mode: String,
}

// --- EndpointSlice ---

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct EndpointSlice<'a> {
    pub(crate) metadata: Meta,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) address_type: Text<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) endpoints: Vec<Endpoint<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) ports: Vec<EndpointPort<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Endpoint<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) addresses: Vec<Text<'a>>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) conditions: Conditions,
    #[serde(borrow)]
    node_name: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) hints: Hints<'a>,
    #[serde(borrow, deserialize_with = "nullable")]
    topology: Topology<'a>,
}

impl Endpoint<'_> {
    pub(crate) fn node_name(&self) -> Option<&str> {
        let name = self.node_name.as_deref().or(self.topology.hostname.as_deref());
        name.filter(|name| !name.is_empty())
    }
}

/// Where slices of `v1beta1` have the node's name.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Topology<'a> {
    #[serde(rename = "kubernetes.io/hostname", borrow)]
    hostname: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Conditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Hints<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) for_zones: Vec<Named<'a>>,
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) for_nodes: Vec<Named<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    pub(crate) name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointPort<'a> {
    #[serde(borrow)]
    pub(crate) name: Option<Text<'a>>,
    #[serde(borrow)]
    pub(crate) protocol: Option<Text<'a>>,
    pub(crate) port: Option<i64>,
}

// --- Node, ServiceCIDR ---

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Node {
    pub(crate) metadata: Meta,
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: NodeSpec,
    #[serde(deserialize_with = "nullable")]
    pub(crate) status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSpec {
    #[serde(rename = "podCIDR", deserialize_with = "nullable")]
    pub(crate) pod_cidr: String,
    #[serde(rename = "podCIDRs", deserialize_with = "nullable")]
    pub(crate) pod_cidrs: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(crate) taints: Vec<Taint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Taint {
    #[serde(deserialize_with = "nullable")]
    pub(crate) key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    #[serde(deserialize_with = "nullable")]
    pub(crate) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type", deserialize_with = "nullable")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "nullable")]
    pub(crate) address: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidr {
    #[serde(deserialize_with = "nullable")]
    pub(crate) spec: ServiceCidrSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceCidrSpec {
    #[serde(deserialize_with = "nullable")]
    pub(crate) cidrs: Vec<String>,
}
