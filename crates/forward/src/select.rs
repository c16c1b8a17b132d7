//! Which endpoints of a Service port may be used, and why the others may not (EPS-1 to EPS-4).
//!
//! [`candidates`] narrows the endpoints to one port and family; [`Selection::of`] sorts them into what policy Cluster
//! and what policy Local may use. `compile` takes the result; `portolan trace` shows the reasons.

use std::collections::BTreeMap;

use crate::model::{Endpoint, Family};
use crate::view::{EndpointView, NodeView, ServicePortView};

/// An endpoint that has the port in the family, with what selection looks at.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub endpoint: Endpoint,
    pub view: &'a EndpointView,
}

impl Candidate<'_> {
    /// EPS-2: takes part only when no endpoint of the set is ready.
    fn last_resort(&self) -> bool {
        self.view.serving && self.view.terminating
    }
}

/// Why an endpoint is not in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusion {
    /// Not ready, and not serving either.
    NotReady,
    /// Still serving while it terminates, but ready endpoints exist.
    TerminatingAndOthersReady,
    /// Topology hints name another zone (EPS-4).
    HintedForOtherZone,
    /// Topology hints name another node (EPS-4).
    HintedForOtherNode,
    /// It runs on another node (policy Local).
    OnOtherNode,
}

/// Whether hints narrow the Cluster pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    None,
    SameZone,
    SameNode,
}

/// The pools of one Service port, as indexes into the candidates.
#[derive(Debug, Clone)]
pub struct Selection {
    pub topology: Topology,
    pub cluster: Vec<usize>,
    pub local: Vec<usize>,
}

/// The endpoints that have `port` in `family`, sorted by address and port. Of two entries with one address and port a
/// terminating one gives way, whatever the order of the slices; `duplicates` collects the others.
pub fn candidates<'a>(
    port: &ServicePortView,
    family: Family,
    endpoints: &'a [EndpointView],
    node: &NodeView,
    duplicates: &mut Vec<Endpoint>,
) -> Vec<Candidate<'a>> {
    let mut found: BTreeMap<(std::net::IpAddr, u16), Candidate<'a>> = BTreeMap::new();
    for view in endpoints.iter().filter(|view| Family::of(view.address) == family) {
        let matching =
            view.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol && p.port != 0);
        for endpoint_port in matching {
            let local = view.node_name.as_ref() == Some(&node.name);
            let endpoint = Endpoint { address: view.address, port: endpoint_port.port, local };
            let candidate = Candidate { endpoint, view };
            match found.entry((endpoint.address, endpoint.port)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(candidate);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    duplicates.push(endpoint);
                    if preference(view) < preference(entry.get().view) {
                        entry.insert(candidate);
                    }
                }
            }
        }
    }
    found.into_values().collect()
}

/// Lower is better. The fields behind the conditions only make the choice independent of order.
fn preference(view: &EndpointView) -> impl Ord + '_ {
    (view.terminating, !view.ready, !view.serving, &view.node_name, &view.for_zones, &view.for_nodes)
}

impl Selection {
    pub fn of(candidates: &[Candidate<'_>], node: &NodeView) -> Self {
        let ready: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].view.ready).collect();
        let topology = topology(candidates, &ready, node);
        let hinted = |&i: &usize| match topology {
            Topology::None => true,
            Topology::SameNode => candidates[i].view.for_nodes.contains(&node.name),
            Topology::SameZone => {
                node.zone.as_ref().is_some_and(|zone| candidates[i].view.for_zones.contains(zone))
            }
        };
        let all: Vec<usize> = (0..candidates.len()).collect();
        let (here, _): (Vec<usize>, Vec<usize>) = all.iter().partition(|&&i| candidates[i].endpoint.local);
        let cluster = usable(candidates, &all).into_iter().filter(hinted).collect();
        let cluster = if ready.is_empty() { usable(candidates, &all) } else { cluster };
        Self { topology, cluster, local: usable(candidates, &here) }
    }

    /// Why candidate `index` is not in the Cluster pool; `None` when it is.
    pub fn why_not_cluster(&self, candidates: &[Candidate<'_>], index: usize) -> Option<Exclusion> {
        if self.cluster.contains(&index) {
            return None;
        }
        Some(match (candidates[index].view.ready, self.topology) {
            (true, Topology::SameNode) => Exclusion::HintedForOtherNode,
            (true, _) => Exclusion::HintedForOtherZone,
            (false, _) => not_usable(&candidates[index]),
        })
    }

    /// Why candidate `index` is not in the Local pool; `None` when it is.
    pub fn why_not_local(&self, candidates: &[Candidate<'_>], index: usize) -> Option<Exclusion> {
        if self.local.contains(&index) {
            None
        } else if candidates[index].endpoint.local {
            Some(not_usable(&candidates[index]))
        } else {
            Some(Exclusion::OnOtherNode)
        }
    }
}

fn not_usable(candidate: &Candidate<'_>) -> Exclusion {
    if candidate.last_resort() { Exclusion::TerminatingAndOthersReady } else { Exclusion::NotReady }
}

/// The ready ones of a set; when there is none, those that still serve while terminating (EPS-1, EPS-2).
fn usable(candidates: &[Candidate<'_>], set: &[usize]) -> Vec<usize> {
    let ready: Vec<usize> = set.iter().copied().filter(|&i| candidates[i].view.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    set.iter().copied().filter(|&i| candidates[i].last_resort()).collect()
}

/// EPS-4: hints count only when every ready endpoint has them and one names this node (or its zone).
fn topology(candidates: &[Candidate<'_>], ready: &[usize], node: &NodeView) -> Topology {
    let views = || ready.iter().map(|&i| candidates[i].view);
    if ready.is_empty() {
        return Topology::None;
    }
    if views().all(|view| !view.for_nodes.is_empty())
        && views().any(|view| view.for_nodes.contains(&node.name))
    {
        return Topology::SameNode;
    }
    let Some(zone) = &node.zone else { return Topology::None };
    if views().all(|view| !view.for_zones.is_empty()) && views().any(|view| view.for_zones.contains(zone)) {
        return Topology::SameZone;
    }
    Topology::None
}
