//! From a Service's table to the objects it needs.
//!
//! The one open choice is the order of endpoints in a pool: an index must be filled from 0 without gaps, and moving an
//! endpoint costs a write. So the order is remembered: a departed endpoint's place is taken by the last one, a new one
//! goes to the end, and a restart reads the order back.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_forward::{
    Endpoint, Family, Frontend, FrontendKind, NodePortAddresses, NodeView, PoolScope, PortTable,
    ServicePortKey, ServiceTable,
};

use super::class::Class;
use super::layout::{SetId, is_fixed_chain};
use super::object::{self, Key, Layout, Object, Objects, Pool};
use super::rules::Builder;
use crate::pools::{self, uses};

/// The order of endpoints in the pools of a Service, port by port as in its table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    ports: Box<[Slots]>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Slots {
    cluster: Arc<[Endpoint]>,
    local: Arc<[Endpoint]>,
}

type Slot = (IpAddr, u16);

impl Entry {
    pub fn lower(table: &ServiceTable, previous: Option<(&ServiceTable, &Self)>) -> Self {
        let ports = table.ports.iter().map(|port| {
            let before = previous.and_then(|(table, entry)| entry.slots_of(table, &port.key));
            let place_all = |scope| {
                if !uses(port, scope) {
                    return Arc::default();
                }
                let before = before.map_or(&[][..], |slots| slots.scope(scope));
                place(before.iter().map(|endpoint| (endpoint.address, endpoint.port)), port.pool(scope))
            };
            Slots { cluster: place_all(PoolScope::Cluster), local: place_all(PoolScope::Local) }
        });
        Self { ports: ports.collect() }
    }

    /// Reads the order back from the kernel's maps.
    pub fn recall(table: &ServiceTable, observed: &Objects) -> Option<Self> {
        if observed.is_empty() {
            return None;
        }
        let ports = table.ports.iter().map(|port| {
            let Some(pool) = primary(port) else { return Slots::default() };
            let read = |scope| {
                let slots = recall_slots(observed, pool, scope, port.affinity.is_some());
                place(slots, port.pool(scope))
            };
            let read = |scope| if uses(port, scope) { read(scope) } else { Arc::default() };
            Slots { cluster: read(PoolScope::Cluster), local: read(PoolScope::Local) }
        });
        Some(Self { ports: ports.collect() })
    }

    fn slots_of(&self, table: &ServiceTable, key: &ServicePortKey) -> Option<&Slots> {
        let index = table.ports.iter().position(|port| port.key == *key)?;
        self.ports.get(index)
    }

    /// Every object the Service needs.
    pub fn objects(&self, node: &NodeView, mark: u32, table: &ServiceTable, out: &mut Objects) {
        for (port, slots) in table.ports.iter().zip(&self.ports) {
            let Some(pool) = primary(port) else { continue };
            pool_objects(port, slots, pool, out);
            for frontend in &port.frontends {
                frontend_objects(node, mark, port, pool, frontend, out);
            }
        }
    }
}

impl Slots {
    fn scope(&self, scope: PoolScope) -> &[Endpoint] {
        match scope {
            PoolScope::Cluster => &self.cluster,
            PoolScope::Local => &self.local,
        }
    }
}

/// The pool of the frontend that stands for the port's pools.
pub(crate) fn primary(port: &PortTable) -> Option<Pool> {
    pools::primary(port).map(|frontend| pool_of(port, frontend))
}

fn pool_of(port: &PortTable, frontend: &Frontend) -> Pool {
    Pool::of(port.key.family, port.key.protocol, frontend.kind, frontend.port)
}

/// Puts every endpoint that was there before in its old place if that still exists, and the others into the holes.
/// As long as that is the pool's own order, it is the pool itself.
fn place(before: impl IntoIterator<Item = Slot>, pool: &Arc<[Endpoint]>) -> Arc<[Endpoint]> {
    let find = |(address, port): Slot| {
        let index = pool.binary_search_by_key(&(address, port), |e| (e.address, e.port)).ok()?;
        Some(&pool[index])
    };
    let mut slots: Vec<Option<Endpoint>> = vec![None; pool.len()];
    let mut placed = HashSet::with_capacity(pool.len());
    let mut displaced = Vec::new();
    for (index, before) in before.into_iter().enumerate() {
        let Some(endpoint) = find(before) else { continue };
        if !placed.insert(before) {
            continue;
        }
        match slots.get_mut(index) {
            Some(slot) => *slot = Some(*endpoint),
            None => displaced.push(*endpoint),
        }
    }
    let new = pool.iter().filter(|endpoint| !placed.contains(&(endpoint.address, endpoint.port))).copied();
    let mut waiting = displaced.into_iter().chain(new);
    let placed: Vec<Endpoint> =
        slots.into_iter().filter_map(|slot| slot.or_else(|| waiting.next())).collect();
    if *placed == **pool { Arc::clone(pool) } else { placed.into() }
}

fn recall_slots(
    observed: &Objects,
    pool: Pool,
    scope: PoolScope,
    affine: bool,
) -> impl Iterator<Item = Slot> {
    let family = Family::of(pool.address);
    (0..).map_while(move |index| {
        let object = observed.get(&object::backend_key(pool, scope, index, affine))?;
        object::backend_of(object, family, affine)
    })
}

fn pool_objects(port: &PortTable, slots: &Slots, pool: Pool, out: &mut Objects) {
    let affine = port.affinity.is_some();
    for scope in [PoolScope::Cluster, PoolScope::Local] {
        for (index, endpoint) in (0..).zip(slots.scope(scope)) {
            out.extend([object::backend(pool, scope, index, affine, endpoint)]);
            if affine {
                out.extend([object::affinity_member(pool, scope, endpoint)]);
            }
            if endpoint.local {
                out.extend([object::hairpin(endpoint.address)]);
            }
        }
    }
}

fn frontend_objects(
    node: &NodeView,
    mark: u32,
    port: &PortTable,
    pool: Pool,
    frontend: &Frontend,
    out: &mut Objects,
) {
    let class = Class::of(port, frontend, node.local_traffic.detects(port.key.family));
    let builder = Builder { family: port.key.family, node, mark };
    chain_objects(&builder, &class, out);
    out.extend([object::class(&class)]);
    let comment = port.key.to_string();
    out.extend([object::frontend(frontend.kind, frontend.port, pool, &class, comment)]);
    if let Some(guard) = &frontend.guard {
        out.extend(object::sources(pool_of(port, frontend), &guard.allowed));
    }
    if let FrontendKind::ClusterIp(ip) = frontend.kind {
        out.extend([object::address(SetId::ClusterIps, ip)]);
    }
}

/// The chain of a class and those it leads to, each with its neighbours. A new chain that looks something up in a map
/// costs the kernel a walk through all of the map's elements, so the chains that the next change may need are made
/// beforehand, when nobody waits for them.
fn chain_objects(builder: &Builder<'_>, class: &Class, out: &mut Objects) {
    if !chain_object(builder, class, out) {
        return;
    }
    for neighbour in class.neighbours() {
        chain_object(builder, &neighbour, out);
    }
    for needed in class.needs() {
        chain_objects(builder, &needed, out);
    }
}

/// The chain of a class, if it has one of its own.
fn chain_object(builder: &Builder<'_>, class: &Class, out: &mut Objects) -> bool {
    let verdict = class.verdict();
    let Some(name) = verdict.chain().filter(|name| !is_fixed_chain(name)) else { return false };
    let key = Key::Chain(class.family, name.clone());
    out.entry(key).or_insert_with(|| Object::Chain(builder.chain(class).into()));
    true
}

/// The objects of the node, whatever its Services.
pub fn base(node: &NodeView, mark: u32, out: &mut Objects) {
    for family in Family::ALL {
        out.insert(Key::Table(family), Object::Table(Layout::Current));
        for (name, rules) in (Builder { family, node, mark }).fixed_chains() {
            out.insert(Key::Chain(family, name.into()), Object::Chain(rules.into()));
        }
    }
    out.extend(object::ranges(SetId::ServiceCidrs, &node.service_cidrs));
    if let portolan_forward::LocalTraffic::Cidrs(cidrs) = &node.local_traffic {
        out.extend(object::ranges(SetId::PodCidrs, cidrs));
    }
    if let NodePortAddresses::Addresses(addresses) = &node.node_port_addresses {
        out.extend(addresses.iter().map(|ip| object::address(SetId::NodeportIps, *ip)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(addresses: &[u8]) -> Vec<Endpoint> {
        let endpoint = |last| Endpoint { address: [10, 0, 0, last].into(), port: 80, local: false };
        addresses.iter().copied().map(endpoint).collect()
    }

    fn placed(before: &[u8], now: &[u8]) -> Vec<u8> {
        let before = pool(before).into_iter().map(|e| (e.address, e.port)).collect::<Vec<_>>();
        let last = |endpoint: &Endpoint| match endpoint.address {
            IpAddr::V4(ip) => ip.octets()[3],
            IpAddr::V6(_) => unreachable!(),
        };
        place(before, &pool(now).into()).iter().map(last).collect()
    }

    #[test]
    fn the_last_endpoint_fills_the_hole_and_new_ones_come_last() {
        assert_eq!(placed(&[], &[1, 2, 3]), [1, 2, 3]);
        assert_eq!(placed(&[1, 2, 3, 4], &[1, 3, 4]), [1, 4, 3]);
        assert_eq!(placed(&[1, 4, 3], &[1, 2, 3, 4]), [1, 4, 3, 2]);
        assert_eq!(placed(&[4, 3, 2, 1], &[1, 2]), [2, 1], "two go, two move");
        assert_eq!(placed(&[1, 1, 9], &[1, 2]), [1, 2], "nonsense from the kernel is put right");
    }
}
