//! Why a Service treats a packet as it does: every endpoint with the reason it is in or out, the policy that applied,
//! and why the source address is kept or replaced.
//!
//! [`mod@crate::trace`] says what happens; this says why, from the views that the table was compiled from. Both must
//! agree, and the tests hold them to it. Start at [`explain`].

use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{Affinity, Endpoint, Family, FrontendKind, Origin, PoolScope, Protocol, ServicePortKey};
use crate::select::{Candidate, Exclusion, Selection, Topology, candidates};
use crate::table::Table;
use crate::trace::{Outcome, Packet, Step, Trace, origin, trace};
use crate::view::{EndpointPort, EndpointView, NodeView, Policy, ServicePortView, ServiceView};

/// One Service port and one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub port: ServicePortKey,
    pub frontend: FrontendKind,
    pub frontend_port: u16,
    pub origin: Origin,
    /// `None`: nothing limits who may use the frontend.
    pub source_ranges: Option<SourceRanges>,
    pub policy: AppliedPolicy,
    pub affinity: Option<Affinity>,
    /// Whether hints narrowed the endpoints of policy Cluster.
    pub topology: Topology,
    /// What becomes of the source address, hairpins apart.
    pub source: Source,
    /// In the order of the views.
    pub endpoints: Vec<Fate>,
    pub trace: Trace,
}

/// LB-1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRanges {
    pub allowed: Arc<[IpNet]>,
    pub admitted: bool,
}

/// Which of the two policies counts for this frontend, and for this origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedPolicy {
    /// externalTrafficPolicy, else internalTrafficPolicy.
    pub external: bool,
    pub policy: Policy,
    /// POL-4: the policy is Local, and traffic from inside is treated as with Cluster.
    pub short_circuit: bool,
}

impl AppliedPolicy {
    /// The endpoints to choose from.
    pub fn scope(self) -> PoolScope {
        match self.policy {
            Policy::Local if !self.short_circuit => PoolScope::Local,
            _ => PoolScope::Cluster,
        }
    }
}

/// Why the source address is replaced by the node's, or kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Replaced: the proxy masquerades everything.
    MasqueradeAll,
    /// Replaced: the packet does not come from a pod, so the answer might not come back this way (MASQ-1).
    NotLocalTraffic,
    /// Replaced: external frontend with policy Cluster (POL-2).
    ExternalCluster,
    /// Replaced: the node's own packet to an external frontend with policy Local (POL-4).
    NodeToExternal,
    /// Kept: it comes from a pod.
    LocalTraffic,
    /// Kept: this node has no way to tell pods from others.
    CannotTell,
    /// Kept: external frontend with policy Local (POL-3).
    ExternalLocal,
    /// Kept: a pod to an external frontend with policy Local (POL-4).
    PodToExternal,
}

impl Source {
    pub fn is_masqueraded(self) -> bool {
        matches!(
            self,
            Self::MasqueradeAll | Self::NotLocalTraffic | Self::ExternalCluster | Self::NodeToExternal
        )
    }
}

/// What becomes of one endpoint of the slices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// Its place in the views.
    pub view: usize,
    /// The port behind the Service port; `None` where it has none.
    pub endpoint: Option<Endpoint>,
    /// `None`: it is one of those to choose from.
    pub out: Option<Out>,
    /// Its own address is the source: it is masqueraded whatever the origin (MASQ-2).
    pub hairpin: bool,
}

/// Why an endpoint is not among those to choose from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Out {
    Excluded(Exclusion),
    OtherFamily,
    /// Its slice has no port of this name and protocol, but these.
    NoSuchPort {
        has: Arc<[EndpointPort]>,
    },
    /// Another entry with the same address and port counts.
    Duplicate,
}

/// Explains what `service` does to the packet; `None` when the packet is for no frontend of it. `endpoints` are those
/// that its entry in the table was compiled from.
pub fn explain(
    table: &Table,
    service: &ServiceView,
    endpoints: &[EndpointView],
    packet: &Packet,
) -> Option<Explanation> {
    let trace = trace(table, packet);
    let (port, frontend, frontend_port) = trace.steps.iter().find_map(|step| match step {
        Step::Matched { service, kind, port } => Some((service.clone(), *kind, *port)),
        _ => None,
    })?;
    if port.service != service.key {
        return None;
    }
    let view = port_view(service, &port.port_name, port.protocol)?;
    let node = table.node();
    let origin = origin(node, packet);
    let policy = applied_policy(service, frontend, origin);
    let found = candidates(view, port.family, endpoints, node, &mut Vec::new());
    let selection = Selection::of(&found, node);
    // Nothing is usable anywhere: then "it is on another node" would not be the reason.
    let refused = matches!(trace.outcome, Outcome::Reject);
    let scope = if refused { PoolScope::Cluster } else { policy.scope() };
    let fates = Fates { view, family: port.family, found: &found, selection: &selection, scope, packet };
    Some(Explanation {
        source_ranges: source_ranges(&trace),
        policy,
        affinity: service.affinity,
        topology: selection.topology,
        source: source(node, port.family, policy, origin),
        endpoints: fates.of_all(endpoints),
        port,
        frontend,
        frontend_port,
        origin,
        trace,
    })
}

/// The Service's port of this name and protocol.
pub fn port_view<'a>(
    service: &'a ServiceView,
    name: &str,
    protocol: Protocol,
) -> Option<&'a ServicePortView> {
    service.ports.iter().find(|port| *port.name == *name && port.protocol == protocol)
}

fn source_ranges(trace: &Trace) -> Option<SourceRanges> {
    trace.steps.iter().find_map(|step| match step {
        Step::SourceRange { allowed, admitted, .. } => {
            Some(SourceRanges { allowed: allowed.clone(), admitted: *admitted })
        }
        _ => None,
    })
}

fn applied_policy(service: &ServiceView, frontend: FrontendKind, origin: Origin) -> AppliedPolicy {
    if matches!(frontend, FrontendKind::ClusterIp(_)) {
        return AppliedPolicy { external: false, policy: service.internal_policy, short_circuit: false };
    }
    let short_circuit = service.external_policy == Policy::Local && origin != Origin::Outside;
    AppliedPolicy { external: true, policy: service.external_policy, short_circuit }
}

fn source(node: &NodeView, family: Family, policy: AppliedPolicy, origin: Origin) -> Source {
    match (policy.external, policy.policy, origin) {
        (true, Policy::Cluster, _) => Source::ExternalCluster,
        (true, Policy::Local, Origin::Outside) => Source::ExternalLocal,
        (true, Policy::Local, Origin::Node) => Source::NodeToExternal,
        (true, Policy::Local, Origin::Pod) => Source::PodToExternal,
        (false, ..) if node.masquerade_all => Source::MasqueradeAll,
        (false, _, Origin::Pod) => Source::LocalTraffic,
        (false, ..) if node.local_traffic.detects(family) => Source::NotLocalTraffic,
        (false, ..) => Source::CannotTell,
    }
}

struct Fates<'a> {
    view: &'a ServicePortView,
    family: Family,
    found: &'a [Candidate<'a>],
    selection: &'a Selection,
    scope: PoolScope,
    packet: &'a Packet,
}

impl Fates<'_> {
    fn of_all(&self, endpoints: &[EndpointView]) -> Vec<Fate> {
        let mut fates = Vec::with_capacity(endpoints.len());
        for (index, view) in endpoints.iter().enumerate() {
            let before = fates.len();
            let own = self.found.iter().enumerate().filter(|(_, found)| std::ptr::eq(found.view, view));
            fates.extend(own.map(|(candidate, _)| self.candidate(index, candidate)));
            if fates.len() == before {
                fates.push(self.other(index, view));
            }
        }
        fates
    }

    fn candidate(&self, view: usize, candidate: usize) -> Fate {
        let endpoint = self.found[candidate].endpoint;
        let why = match self.scope {
            PoolScope::Cluster => self.selection.why_not_cluster(self.found, candidate),
            PoolScope::Local => self.selection.why_not_local(self.found, candidate),
        };
        let hairpin = why.is_none() && endpoint.local && endpoint.address == self.packet.source;
        Fate { view, endpoint: Some(endpoint), out: why.map(Out::Excluded), hairpin }
    }

    /// An endpoint that is no candidate for this port.
    fn other(&self, index: usize, view: &EndpointView) -> Fate {
        let matching = view.ports.iter().find(|port| {
            port.name == self.view.name && port.protocol == self.view.protocol && port.port != 0
        });
        let (out, port) = match matching {
            _ if Family::of(view.address) != self.family => (Out::OtherFamily, matching),
            Some(port) => (Out::Duplicate, Some(port)),
            None => (Out::NoSuchPort { has: view.ports.clone() }, None),
        };
        let endpoint = port.map(|port| Endpoint { address: view.address, port: port.port, local: false });
        Fate { view: index, endpoint, out: Some(out), hairpin: false }
    }
}

impl Explanation {
    /// Whether the packet gets to an endpoint.
    pub fn is_forwarded(&self) -> bool {
        matches!(self.trace.outcome, Outcome::Forward { .. })
    }
}
