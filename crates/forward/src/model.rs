//! The words of the model: what a compiled Service says to a data plane.
//!
//! A table leaves a data plane no choice about *policy*: for every frontend and every origin of traffic it names the
//! pool of endpoints, whether the source is masqueraded, or how the packet is refused.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::algorithm::Algorithm;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The number of the protocol in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Protocol {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(()),
        }
    }
}

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl ServiceKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port of one Service in one family: what session affinity and pools of endpoints belong to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortKey {
    pub service: ServiceKey,
    /// Empty for the single unnamed port.
    pub port_name: Arc<str>,
    pub protocol: Protocol,
    pub family: Family,
}

impl fmt::Display for ServicePortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if !self.port_name.is_empty() {
            write!(f, ":{}", self.port_name)?;
        }
        Ok(())
    }
}

/// Where a packet comes from, as far as policy cares. Data planes and [`crate::trace`] decide in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Local traffic: a pod of this node (or of the cluster, as local detection is configured).
    Pod,
    /// One of this node's own addresses.
    Node,
    /// Anything else.
    Outside,
}

/// Which endpoints of the Service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PoolScope {
    /// What policy Cluster may use.
    Cluster,
    /// What policy Local may use on this node.
    Local,
}

/// What happens to a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// To one endpoint of the pool, uniformly at random; the pool is never empty. `masquerade` is decided by origin
    /// alone; an endpoint that reaches itself is masqueraded besides (MASQ-2).
    Forward {
        pool: PoolScope,
        masquerade: bool,
    },
    /// TCP reset or ICMP port unreachable.
    Reject,
    Drop,
}

/// The route per origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Routes {
    pub pod: Route,
    pub node: Route,
    pub outside: Route,
}

impl Routes {
    pub fn all(route: Route) -> Self {
        Self { pod: route, node: route, outside: route }
    }

    pub fn of(&self, origin: Origin) -> Route {
        match origin {
            Origin::Pod => self.pod,
            Origin::Node => self.node,
            Origin::Outside => self.outside,
        }
    }
}

/// What kind of address a frontend listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontendKind {
    ClusterIp(IpAddr),
    ExternalIp(IpAddr),
    LoadBalancerIp(IpAddr),
    /// Every node-port address of the node ([`crate::NodePortAddresses`]), in the port's family.
    NodePort,
}

impl FrontendKind {
    /// The address, unless it is every node-port address.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::ClusterIp(ip) | Self::ExternalIp(ip) | Self::LoadBalancerIp(ip) => Some(ip),
            Self::NodePort => None,
        }
    }
}

/// Only these sources may use the frontend; others are dropped before anything else looks (LB-1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    pub allowed: Arc<[IpNet]>,
}

/// An address, protocol and port on which a Service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    pub kind: FrontendKind,
    /// The Service's port, or the node port.
    pub port: u16,
    pub routes: Routes,
    pub guard: Option<Guard>,
}

/// ClientIP affinity: a client keeps its endpoint until so long after its last new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Affinity {
    pub timeout_seconds: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: IpAddr,
    pub port: u16,
    /// It runs on this node.
    pub local: bool,
}

/// One port of a Service in one family. Pools are sorted and hold no address and port twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTable {
    pub key: ServicePortKey,
    pub frontends: Vec<Frontend>,
    pub cluster: Arc<[Endpoint]>,
    pub local: Arc<[Endpoint]>,
    /// Every endpoint that still serves, eligible or not: flows to any other one are stale (CT-2).
    pub serving: Arc<[Endpoint]>,
    pub affinity: Option<Affinity>,
    /// What the Service asks for; `None`: whatever the data plane does for everybody.
    pub algorithm: Option<Algorithm>,
}

impl PortTable {
    pub fn pool(&self, scope: PoolScope) -> &Arc<[Endpoint]> {
        match scope {
            PoolScope::Cluster => &self.cluster,
            PoolScope::Local => &self.local,
        }
    }
}

/// The health-check node port of a LoadBalancer Service with policy Local (NP-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub local_endpoints: usize,
}

/// Everything a data plane must know of one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTable {
    pub key: ServiceKey,
    pub ports: Vec<PortTable>,
    pub health_check: Option<HealthCheck>,
}

/// Odd input, said once: compiling never fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub service: ServiceKey,
    pub kind: NoteKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoteKind {
    /// An address, port or range that the API should never have let through, left out.
    Invalid { field: String, value: String, why: String },
    /// Another Service holds this address, protocol and port; this one is not served there.
    FrontendTaken { frontend: String, by: ServiceKey },
    /// The same address and port in more than one place of the slices.
    DuplicateEndpoint { endpoint: String },
    /// The data plane cannot do what the Service asks for and does something else.
    NotOffered { what: String, instead: String },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            NoteKind::Invalid { field, value, why } => {
                write!(f, "Service {}: {field} {value:?} is left out: {why}", self.service)
            }
            NoteKind::FrontendTaken { frontend, by } => {
                write!(
                    f,
                    "Service {}: {frontend} is already served for Service {by}; change one of them",
                    self.service
                )
            }
            NoteKind::DuplicateEndpoint { endpoint } => {
                write!(
                    f,
                    "Service {}: endpoint {endpoint} is listed more than once; it counts once",
                    self.service
                )
            }
            NoteKind::NotOffered { what, instead } => {
                write!(f, "Service {}: {what} cannot be done here; {instead}", self.service)
            }
        }
    }
}
