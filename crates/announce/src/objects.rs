//! What announcing needs of Services, EndpointSlices, Nodes and pools: only the fields it uses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_api::core::v1;
use portolan_api::portolan::v1alpha1::LoadBalancerPool;
use portolan_api::range::AddressRange;
use portolan_api::selector::LabelQuery;
use portolan_client::{BoxError, Key};
use serde::{Deserialize, Deserializer};

/// Services with another class are others' to announce.
pub const CLASS: &str = "portolan.dev/l2";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service with load-balancer addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceView {
    pub uid: String,
    pub addresses: Vec<IpAddr>,
    /// externalTrafficPolicy Local: only nodes with an endpoint may announce.
    pub local: bool,
}

impl ServiceView {
    /// Reads a Service; those of others have no addresses to announce.
    pub fn project(bytes: &[u8], without_class: bool) -> Result<Self, BoxError> {
        let service: v1::Service = serde_json::from_slice(bytes)?;
        let spec = &service.spec;
        let class = spec.load_balancer_class.as_deref().unwrap_or_default();
        let ours = spec.type_ == "LoadBalancer" && (class == CLASS || (without_class && class.is_empty()));
        let vip = |mode: &Option<String>| mode.as_deref().is_none_or(|mode| mode == "VIP");
        let ingress = service.status.load_balancer.ingress.iter().filter(|entry| vip(&entry.ip_mode));
        let addresses = ingress.filter_map(|entry| entry.ip.parse().ok());
        Ok(Self {
            uid: service.metadata.uid,
            addresses: if ours { addresses.collect() } else { Vec::new() },
            local: spec.external_traffic_policy == "Local",
        })
    }
}

/// The nodes that one slice has endpoints on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SliceView {
    pub service: Option<Key>,
    pub ready: Vec<Arc<str>>,
    /// Not ready, but still serving while they end.
    pub serving: Vec<Arc<str>>,
}

#[derive(Deserialize)]
struct SliceObject {
    metadata: SliceMeta,
    #[serde(default, deserialize_with = "nullable")]
    endpoints: Vec<SliceEndpoint>,
}

#[derive(Deserialize)]
struct SliceMeta {
    namespace: Arc<str>,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    node_name: Option<Arc<str>>,
    /// Where slices of `v1beta1` have the node's name.
    #[serde(default, deserialize_with = "nullable")]
    topology: Topology,
    #[serde(default, deserialize_with = "nullable")]
    conditions: SliceConditions,
}

#[derive(Default, Deserialize)]
struct Topology {
    #[serde(rename = "kubernetes.io/hostname")]
    hostname: Option<Arc<str>>,
}

#[derive(Default, Deserialize)]
struct SliceConditions {
    ready: Option<bool>,
    serving: Option<bool>,
}

fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

impl SliceView {
    pub fn project(bytes: &[u8]) -> Result<Self, BoxError> {
        let slice: SliceObject = serde_json::from_slice(bytes)?;
        let service = slice.metadata.labels.get(SERVICE_NAME);
        let mut view = Self {
            service: service.map(|name| Key::new(Arc::clone(&slice.metadata.namespace), name.as_str())),
            ..Self::default()
        };
        for endpoint in slice.endpoints {
            let Some(node) = endpoint.node_name.or(endpoint.topology.hostname) else { continue };
            let ready = endpoint.conditions.ready.unwrap_or(true);
            let serving = endpoint.conditions.serving.unwrap_or(ready);
            let list = if ready { &mut view.ready } else { &mut view.serving };
            if (ready || serving) && !list.contains(&node) {
                list.push(node);
            }
        }
        Ok(view)
    }
}

/// A node that may announce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeView {
    pub labels: BTreeMap<String, String>,
    /// `InternalIP` addresses: where its beats come from.
    pub addresses: Vec<IpAddr>,
    /// By its label, or because its network is not there.
    pub excluded: bool,
    /// Ready and not cordoned: others are only asked where there is none of these.
    pub preferred: bool,
}

impl NodeView {
    pub fn project(bytes: &[u8]) -> Result<Self, BoxError> {
        let node: v1::Node = serde_json::from_slice(bytes)?;
        let is = |kind: &str, status: &str| {
            node.status.conditions.iter().any(|c| c.type_ == kind && c.status == status)
        };
        let ready = !is("Ready", "False") && !is("Ready", "Unknown");
        let excluded = node.metadata.labels.contains_key(EXCLUDED) || is("NetworkUnavailable", "True");
        let internal = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        Ok(Self {
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            excluded,
            preferred: ready && !node.spec.unschedulable && node.metadata.deletion_timestamp.is_none(),
            labels: node.metadata.labels,
        })
    }
}

/// Where a pool's addresses are announced.
#[derive(Debug, Clone)]
pub struct PoolView {
    pub ranges: Vec<AddressRange>,
    /// None: the links of the address's own network.
    pub interfaces: Vec<String>,
    pub nodes: Option<LabelQuery>,
}

impl PoolView {
    pub fn project(bytes: &[u8]) -> Result<Self, BoxError> {
        let pool: LoadBalancerPool = serde_json::from_slice(bytes)?;
        Ok(Self {
            ranges: pool.spec.addresses.iter().filter_map(|text| AddressRange::parse(text).ok()).collect(),
            interfaces: pool.spec.interfaces,
            nodes: pool.spec.node_selector.as_ref().map(LabelQuery::of_selector).transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_of_endpoints_are_named_by_slices_of_both_versions() {
        for node in [r#""nodeName": "n1""#, r#""topology": { "kubernetes.io/hostname": "n1" }"#] {
            let slice = format!(r#"{{ "metadata": {{ "namespace": "a" }}, "endpoints": [{{ {node} }}] }}"#);
            assert_eq!(SliceView::project(slice.as_bytes()).unwrap().ready, [Arc::from("n1")]);
        }
    }
}
