//! From one Service, its endpoints and the node to its table. Pure, and it cannot fail: odd input becomes notes.
//!
//! The order follows the paragraphs: which Services (SVC), which endpoints (EPS), which frontends (SVC-5), and for
//! each frontend the route of every origin (POL, MASQ).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::{
    Endpoint, Family, Frontend, FrontendKind, Guard, HealthCheck, Note, NoteKind, PoolScope, PortTable,
    Route, Routes, ServicePortKey, ServiceTable,
};
use crate::select::{Candidate, Selection, candidates};
use crate::view::{EndpointView, NodeView, Policy, ServicePortView, ServiceView};

/// Compiles one Service for one node. `endpoints` are those of all its slices, in any order.
pub fn compile(
    service: &ServiceView,
    endpoints: &[EndpointView],
    node: &NodeView,
) -> (ServiceTable, Vec<Note>) {
    let mut compiler = Compiler { service, endpoints, node, notes: Vec::new() };
    let table = compiler.table();
    (table, compiler.notes)
}

/// SVC-1 and SVC-2: whether this proxy serves the Service at all.
pub fn is_proxied(service: &ServiceView) -> bool {
    !service.external_name && !service.other_proxy && !service.cluster_ips.is_empty()
}

struct Compiler<'a> {
    service: &'a ServiceView,
    endpoints: &'a [EndpointView],
    node: &'a NodeView,
    notes: Vec<Note>,
}

impl Compiler<'_> {
    fn table(&mut self) -> ServiceTable {
        let mut table = ServiceTable { key: self.service.key.clone(), ports: Vec::new(), health_check: None };
        if !is_proxied(self.service) {
            return table;
        }
        for family in Family::ALL {
            if !self.service.cluster_ips.iter().any(|ip| Family::of(*ip) == family) {
                continue;
            }
            let mut seen = HashSet::new();
            let mut seen_node_ports = HashSet::new();
            for port in &self.service.ports {
                let mut port = port.clone();
                if !seen.insert((port.protocol, port.port)) {
                    let value = format!("{}/{}", port.port, port.protocol);
                    self.invalid("spec.ports[].port", &value, "another port of the Service has it already");
                    continue;
                }
                if port.node_port.is_some_and(|number| !seen_node_ports.insert((port.protocol, number))) {
                    let value = port.node_port.take().unwrap_or_default().to_string();
                    self.invalid(
                        "spec.ports[].nodePort",
                        &value,
                        "another port of the Service has it already",
                    );
                }
                table.ports.extend(self.port(&port, family));
            }
        }
        table.ports.shrink_to_fit();
        table.health_check = self.health_check();
        table
    }

    fn port(&mut self, port: &ServicePortView, family: Family) -> Option<PortTable> {
        if port.port == 0 {
            self.invalid("spec.ports[].port", "0", "a port is between 1 and 65535");
            return None;
        }
        let mut duplicates = Vec::new();
        let found = candidates(port, family, self.endpoints, self.node, &mut duplicates);
        for endpoint in duplicates {
            let endpoint = std::net::SocketAddr::new(endpoint.address, endpoint.port).to_string();
            self.note(NoteKind::DuplicateEndpoint { endpoint });
        }
        let selection = Selection::of(&found, self.node);
        let frontends = self.frontends(port, family, &selection);
        let used = |scope| frontends.iter().any(|frontend| uses(frontend.routes, scope));
        let pool =
            |scope, indexes: &[usize]| if used(scope) { pick(&found, indexes) } else { Arc::default() };
        let cluster = pool(PoolScope::Cluster, &selection.cluster);
        Some(PortTable {
            key: ServicePortKey {
                service: self.service.key.clone(),
                port_name: port.name.clone(),
                protocol: port.protocol,
                family,
            },
            serving: serving(&found, &cluster),
            cluster,
            local: pool(PoolScope::Local, &selection.local),
            affinity: self.service.affinity,
            algorithm: self.service.algorithm,
            frontends,
        })
    }

    /// SVC-5, in the order in which one address claimed twice by the Service itself is decided.
    fn frontends(&mut self, port: &ServicePortView, family: Family, selection: &Selection) -> Vec<Frontend> {
        let internal = self.internal_routes(family, selection);
        let external = self.external_routes(selection);
        let service = self.service;
        let guard = self.guard(family);
        let mut frontends = Vec::new();
        let mut seen = HashSet::new();
        let addresses = (service.cluster_ips.iter().map(|ip| FrontendKind::ClusterIp(*ip)))
            .chain(service.load_balancer_ips.iter().map(|ip| FrontendKind::LoadBalancerIp(*ip)))
            .chain(service.external_ips.iter().map(|ip| FrontendKind::ExternalIp(*ip)));
        for kind in addresses {
            let Some(ip) = kind.address().filter(|ip| Family::of(*ip) == family) else { continue };
            if let Some(why) = unusable_address(ip) {
                self.invalid("address", &ip.to_string(), why);
            } else if seen.insert(ip) {
                let (routes, guard) = match kind {
                    FrontendKind::ClusterIp(_) => (internal, None),
                    FrontendKind::LoadBalancerIp(_) => (external, guard.clone()),
                    _ => (external, None),
                };
                frontends.push(Frontend { kind, port: port.port, routes, guard });
            }
        }
        if let Some(node_port) = port.node_port.filter(|port| *port != 0) {
            frontends.push(Frontend {
                kind: FrontendKind::NodePort,
                port: node_port,
                routes: external,
                guard: None,
            });
        }
        frontends.shrink_to_fit();
        frontends
    }

    /// POL-1, POL-6, MASQ-1. Traffic of the node itself is not local traffic: it is masqueraded like traffic from
    /// outside.
    fn internal_routes(&self, family: Family, selection: &Selection) -> Routes {
        let masquerade_rest = self.node.masquerade_all || self.node.local_traffic.detects(family);
        let pool = match self.service.internal_policy {
            Policy::Cluster => PoolScope::Cluster,
            Policy::Local => PoolScope::Local,
        };
        match refusal(pool, selection) {
            Some(route) => Routes::all(route),
            None => Routes {
                pod: Route::Forward { pool, masquerade: self.node.masquerade_all },
                node: Route::Forward { pool, masquerade: masquerade_rest },
                outside: Route::Forward { pool, masquerade: masquerade_rest },
            },
        }
    }

    /// POL-2 to POL-6.
    fn external_routes(&self, selection: &Selection) -> Routes {
        if let Some(route) = refusal(PoolScope::Cluster, selection) {
            return Routes::all(route);
        }
        match self.service.external_policy {
            Policy::Cluster => Routes::all(Route::Forward { pool: PoolScope::Cluster, masquerade: true }),
            Policy::Local => Routes {
                pod: Route::Forward { pool: PoolScope::Cluster, masquerade: false },
                node: Route::Forward { pool: PoolScope::Cluster, masquerade: true },
                outside: refusal(PoolScope::Local, selection)
                    .unwrap_or(Route::Forward { pool: PoolScope::Local, masquerade: false }),
            },
        }
    }

    /// LB-1. Where the node's own address is allowed, so are the balancer addresses: traffic of the host to such an
    /// address can come back with it as its source.
    fn guard(&self, family: Family) -> Option<Guard> {
        let of_family = |range: &&IpNet| Family::of(range.addr()) == family;
        let mut allowed: Vec<IpNet> = self.service.source_ranges.iter().filter(of_family).copied().collect();
        if allowed.is_empty() || allowed.iter().any(|range| range.prefix_len() == 0) {
            return None;
        }
        if self.node.addresses.iter().any(|ip| allowed.iter().any(|range| range.contains(ip))) {
            let own = self.service.load_balancer_ips.iter().filter(|ip| Family::of(**ip) == family);
            allowed.extend(own.map(|ip| IpNet::from(*ip)));
        }
        allowed.sort_unstable();
        allowed.dedup();
        Some(Guard { allowed: allowed.into() })
    }

    /// NP-3: counts addresses, each once, that are local and ready.
    fn health_check(&self) -> Option<HealthCheck> {
        let port = self.service.health_check_node_port?;
        let local =
            self.endpoints.iter().filter(|e| e.ready && e.node_name.as_ref() == Some(&self.node.name));
        let addresses: HashSet<IpAddr> = local.map(|endpoint| endpoint.address).collect();
        Some(HealthCheck { port, local_endpoints: addresses.len() })
    }

    fn invalid(&mut self, field: &str, value: &str, why: &str) {
        self.note(NoteKind::Invalid { field: field.into(), value: value.into(), why: why.into() });
    }

    fn note(&mut self, kind: NoteKind) {
        let note = Note { service: self.service.key.clone(), kind };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// POL-1, POL-3, POL-6: why a pool cannot be forwarded to, if so. Without any endpoint the client is told at once;
/// with endpoints elsewhere the packet is dropped, as if it had not been meant for this node.
fn refusal(pool: PoolScope, selection: &Selection) -> Option<Route> {
    if selection.cluster.is_empty() && selection.local.is_empty() {
        return Some(Route::Reject);
    }
    match pool {
        PoolScope::Cluster => None,
        PoolScope::Local => selection.local.is_empty().then_some(Route::Drop),
    }
}

fn uses(routes: Routes, scope: PoolScope) -> bool {
    [routes.pod, routes.node, routes.outside]
        .iter()
        .any(|route| matches!(route, Route::Forward { pool, .. } if *pool == scope))
}

/// As a rule these are the endpoints of the pool, which is then shared: there are many of them.
fn serving(candidates: &[Candidate<'_>], pool: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
    let serving = candidates.iter().filter(|c| c.view.serving || c.view.ready).map(|c| c.endpoint);
    if serving.clone().eq(pool.iter().copied()) { pool.clone() } else { serving.collect() }
}

fn pick(candidates: &[Candidate<'_>], indexes: &[usize]) -> Arc<[Endpoint]> {
    indexes.iter().map(|&index| candidates[index].endpoint).collect()
}

fn unusable_address(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("it is the unspecified address")
    } else if ip.is_loopback() {
        Some("it is in the loopback range")
    } else if ip.is_multicast() {
        Some("it is a multicast address")
    } else {
        None
    }
}
