//! What the model reads: Services, endpoints and the node, already parsed into trusted types.
//!
//! The proxy builds these from API objects in one place; here nothing is a string that still has to be understood.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::algorithm::Algorithm;
use crate::model::{Affinity, Family, Protocol, ServiceKey};

/// A traffic policy: `internalTrafficPolicy` or `externalTrafficPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// All usable endpoints.
    #[default]
    Cluster,
    /// Only the endpoints of this node.
    Local,
}

/// One Service, as the proxy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    pub key: ServiceKey,
    /// `type: ExternalName`: never proxied (SVC-1).
    pub external_name: bool,
    /// The label `service.kubernetes.io/service-proxy-name` is present (SVC-2).
    pub other_proxy: bool,
    /// Every ClusterIP, primary first; empty for a headless Service.
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose ipMode is not Proxy (LB-2).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; empty allows all (LB-1).
    pub source_ranges: Vec<IpNet>,
    pub ports: Vec<ServicePortView>,
    pub internal_policy: Policy,
    pub external_policy: Policy,
    pub affinity: Option<Affinity>,
    /// The annotation [`crate::ALGORITHM_ANNOTATION`].
    pub algorithm: Option<Algorithm>,
    /// Set for a LoadBalancer with externalTrafficPolicy Local (NP-3).
    pub health_check_node_port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortView {
    /// Empty for the single unnamed port.
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

/// One endpoint of one EndpointSlice. Missing conditions are already filled in as the API defines them: `ready` and
/// `serving` true, `terminating` false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    pub address: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node_name: Option<Arc<str>>,
    /// `hints.forZones`; empty when there is no hint.
    pub for_zones: Vec<Arc<str>>,
    /// `hints.forNodes`; empty when there is no hint.
    pub for_nodes: Vec<Arc<str>>,
    /// The ports of the slice, shared by its endpoints.
    pub ports: Arc<[EndpointPort]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointPort {
    pub name: Arc<str>,
    pub protocol: Protocol,
    pub port: u16,
}

/// How this node tells traffic of its own pods from the rest (kube-proxy's `detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LocalTraffic {
    /// No way to tell: nothing counts as local, and nothing is masqueraded for not being local.
    #[default]
    Unknown,
    /// By source address: the cluster's or the node's pod CIDRs.
    Cidrs(Vec<IpNet>),
    /// By the interface the packet came in on.
    Interface(String),
    /// By the start of that interface's name.
    InterfacePrefix(String),
}

/// On which of the node's addresses node ports listen (NP-2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// Exactly these (what `primary` and CIDRs resolve to).
    Addresses(Vec<IpAddr>),
    /// Every local address but loopback.
    All,
}

/// What the model must know of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    pub name: Arc<str>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// The node's primary addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    pub local_traffic: LocalTraffic,
    pub node_port_addresses: NodePortAddresses,
    pub masquerade_all: bool,
    /// The ranges ClusterIPs come from (POL-7).
    pub service_cidrs: Vec<IpNet>,
}

impl LocalTraffic {
    /// Whether local traffic can be told from the rest in this family (MASQ-1: masquerade only then).
    pub fn detects(&self, family: Family) -> bool {
        match self {
            Self::Unknown => false,
            Self::Cidrs(cidrs) => cidrs.iter().any(|cidr| Family::of(cidr.addr()) == family),
            Self::Interface(_) | Self::InterfacePrefix(_) => true,
        }
    }
}
