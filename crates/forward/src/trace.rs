//! What happens to a packet, and why: the reference for every data plane, and the answer to `portolan trace`.
//!
//! A packet here is the first one of a connection, as the node sees it before any translation.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{
    Affinity, Endpoint, Family, FrontendKind, Guard, Origin, PoolScope, PortTable, Protocol, Route,
    ServiceKey, ServicePortKey,
};
use crate::table::{Claim, Table};
use crate::view::{LocalTraffic, NodePortAddresses, NodeView};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
    /// The interface it came in on; `None` when a process of the node itself sends it.
    pub interface: Option<Arc<str>>,
    /// The source is one of the node's own addresses.
    pub from_node: bool,
    /// The destination is one of the node's own addresses (loopback excepted).
    pub to_node: bool,
}

/// Where a new connection may end, with whether its source is masqueraded on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    pub endpoint: Endpoint,
    pub masquerade: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// To one of these, each as likely as the other; with affinity, to the one the client was given before as long as
    /// it is among them.
    Forward { service: ServicePortKey, scope: PoolScope, backends: Vec<Backend>, affinity: Option<Affinity> },
    /// The client is told: TCP reset, or ICMP port unreachable.
    Reject,
    /// The packet vanishes.
    Drop,
    /// Not a matter of Services: the packet goes on untouched.
    Pass,
}

/// One step of the way, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The destination, protocol and port are a frontend of this Service port.
    Matched {
        service: ServicePortKey,
        kind: FrontendKind,
        port: u16,
    },
    SourceRange {
        source: IpAddr,
        allowed: Arc<[IpNet]>,
        admitted: bool,
    },
    Origin {
        source: IpAddr,
        origin: Origin,
    },
    Routed(Route),
    /// POL-6: no endpoint anywhere, or (policy Local) none on this node.
    NoEndpoint {
        scope: PoolScope,
    },
    /// The endpoint would see its own address as the source (MASQ-2).
    Hairpin {
        endpoint: Endpoint,
    },
    /// POL-7: the address is a ClusterIP, the port is none of its Service's.
    UnknownPort {
        holder: ServiceKey,
    },
    /// POL-7: in the service range, but no Service's.
    UnallocatedServiceAddress {
        cidr: IpNet,
    },
    NotAService,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub steps: Vec<Step>,
    pub outcome: Outcome,
}

/// Follows the first packet of a connection through the table.
pub fn trace(table: &Table, packet: &Packet) -> Trace {
    let mut steps = Vec::new();
    let outcome = match find(table, packet) {
        Some((port, kind, frontend_port, guard, routes)) => {
            steps.push(Step::Matched { service: port.key.clone(), kind, port: frontend_port });
            if guard.is_some_and(|guard| !admits(guard, packet.source, &mut steps)) {
                Outcome::Drop
            } else {
                let origin = origin(table.node(), packet);
                steps.push(Step::Origin { source: packet.source, origin });
                follow(port, routes.of(origin), packet, &mut steps)
            }
        }
        None => unmatched(table, packet, &mut steps),
    };
    Trace { steps, outcome }
}

/// In the order that every data plane keeps: local traffic is recognised before the node's own.
pub fn origin(node: &NodeView, packet: &Packet) -> Origin {
    let local = match &node.local_traffic {
        LocalTraffic::Unknown => false,
        LocalTraffic::Cidrs(cidrs) => cidrs.iter().any(|cidr| cidr.contains(&packet.source)),
        LocalTraffic::Interface(name) => packet.interface.as_deref() == Some(name),
        LocalTraffic::InterfacePrefix(prefix) => {
            packet.interface.as_deref().is_some_and(|name| name.starts_with(prefix.as_str()))
        }
    };
    match (local, packet.from_node) {
        (true, _) => Origin::Pod,
        (false, true) => Origin::Node,
        (false, false) => Origin::Outside,
    }
}

type Found<'a> = (&'a PortTable, FrontendKind, u16, Option<&'a Guard>, &'a crate::model::Routes);

fn find<'a>(table: &'a Table, packet: &Packet) -> Option<Found<'a>> {
    let family = Family::of(packet.destination);
    let claim =
        Claim { address: Some(packet.destination), family, protocol: packet.protocol, port: packet.port };
    let node_port = || {
        let listens = match &table.node().node_port_addresses {
            NodePortAddresses::Addresses(addresses) => addresses.contains(&packet.destination),
            NodePortAddresses::All => packet.to_node,
        };
        listens.then(|| table.find(&Claim { address: None, ..claim })).flatten()
    };
    let (port, frontend) = table.find(&claim).or_else(node_port)?;
    Some((port, frontend.kind, frontend.port, frontend.guard.as_ref(), &frontend.routes))
}

fn admits(guard: &Guard, source: IpAddr, steps: &mut Vec<Step>) -> bool {
    let admitted = guard.allowed.iter().any(|range| range.contains(&source));
    steps.push(Step::SourceRange { source, allowed: guard.allowed.clone(), admitted });
    admitted
}

fn follow(port: &PortTable, route: Route, packet: &Packet, steps: &mut Vec<Step>) -> Outcome {
    let (scope, masquerade) = match route {
        Route::Reject => {
            steps.push(Step::NoEndpoint { scope: PoolScope::Cluster });
            return Outcome::Reject;
        }
        Route::Drop => {
            steps.push(Step::NoEndpoint { scope: PoolScope::Local });
            return Outcome::Drop;
        }
        Route::Forward { pool, masquerade } => (pool, masquerade),
    };
    steps.push(Step::Routed(route));
    let mut backends = Vec::with_capacity(port.pool(scope).len());
    for &endpoint in port.pool(scope).iter() {
        let hairpin = endpoint.local && endpoint.address == packet.source;
        if hairpin {
            steps.push(Step::Hairpin { endpoint });
        }
        backends.push(Backend { endpoint, masquerade: masquerade || hairpin });
    }
    Outcome::Forward { service: port.key.clone(), scope, backends, affinity: port.affinity }
}

fn unmatched(table: &Table, packet: &Packet, steps: &mut Vec<Step>) -> Outcome {
    if let Some(holder) = table.cluster_ip_holder(packet.destination) {
        steps.push(Step::UnknownPort { holder: holder.clone() });
        return Outcome::Reject;
    }
    if let Some(cidr) = table.node().service_cidrs.iter().find(|cidr| cidr.contains(&packet.destination)) {
        steps.push(Step::UnallocatedServiceAddress { cidr: *cidr });
        return Outcome::Drop;
    }
    steps.push(Step::NotAService);
    Outcome::Pass
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matched { service, kind, port } => {
                let what = match kind {
                    FrontendKind::ClusterIp(ip) => format!("ClusterIP {}", SocketAddr::new(*ip, *port)),
                    FrontendKind::ExternalIp(ip) => format!("external IP {}", SocketAddr::new(*ip, *port)),
                    FrontendKind::LoadBalancerIp(ip) => {
                        format!("load-balancer IP {}", SocketAddr::new(*ip, *port))
                    }
                    FrontendKind::NodePort => format!("node port {port}"),
                };
                write!(f, "{what}/{} belongs to Service {service}", service.protocol)
            }
            Self::SourceRange { source, admitted: true, .. } => {
                write!(f, "{source} is within loadBalancerSourceRanges")
            }
            Self::SourceRange { source, allowed, .. } => {
                let ranges: Vec<String> = allowed.iter().map(ToString::to_string).collect();
                write!(f, "{source} is outside loadBalancerSourceRanges ({}): dropped", ranges.join(", "))
            }
            Self::Origin { source, origin } => match origin {
                Origin::Pod => write!(f, "{source} is a pod"),
                Origin::Node => write!(f, "{source} is this node itself"),
                Origin::Outside => write!(f, "{source} is outside the cluster"),
            },
            Self::Routed(Route::Forward { pool, masquerade }) => {
                let pool = match pool {
                    PoolScope::Cluster => "any usable endpoint",
                    PoolScope::Local => "an endpoint on this node",
                };
                let source =
                    if *masquerade { "the source is masqueraded" } else { "the source address is kept" };
                write!(f, "goes to {pool}; {source}")
            }
            Self::Routed(Route::Reject) => f.write_str("rejected"),
            Self::Routed(Route::Drop) => f.write_str("dropped"),
            Self::NoEndpoint { scope: PoolScope::Cluster } => {
                f.write_str("the Service has no usable endpoint: rejected")
            }
            Self::NoEndpoint { scope: PoolScope::Local } => {
                f.write_str("the policy is Local and no usable endpoint runs on this node: dropped")
            }
            Self::Hairpin { endpoint } => {
                write!(f, "{} would meet itself: its source is masqueraded", endpoint.address)
            }
            Self::UnknownPort { holder } => {
                write!(
                    f,
                    "the address is the ClusterIP of Service {holder}, which has no such port: rejected"
                )
            }
            Self::UnallocatedServiceAddress { cidr } => {
                write!(f, "the address is in the service range {cidr} but no Service holds it: dropped")
            }
            Self::NotAService => f.write_str("no Service listens there: the packet goes on untouched"),
        }
    }
}
