//! From a Service's table to the objects it needs: a virtual server for each pool that is used, its destinations, and
//! what the front needs to lead there.

use std::sync::Arc;

use portolan_forward::{Endpoint, NodeView, PoolScope, PortTable, ServiceTable};

use super::Config;
use super::front::Front;
use super::layout::{Setting, WEIGHT, server, server_key, waits_for_its_connections};
use super::object::{Key, Value};
use crate::Objects;
use crate::nftables::lower::primary;
use crate::pools::uses;

const SCOPES: [PoolScope; 2] = [PoolScope::Cluster, PoolScope::Local];

/// The Service as the front sees it, and what the front remembers of it.
#[derive(Debug, Clone)]
pub struct Entry<E> {
    pub table: ServiceTable,
    pub front: E,
}

/// The same Service with the virtual servers in the place of endpoints. Affinity is IPVS's affair.
pub(super) fn before_ipvs(table: &ServiceTable) -> ServiceTable {
    let ports = table.ports.iter().map(|port| {
        let pool = |scope| -> Arc<[Endpoint]> {
            let used = uses(port, scope) && !port.pool(scope).is_empty();
            let named = primary(port).filter(|_| used).map(|pool| server(pool, scope));
            named.map(|(address, port)| Endpoint { address, port, local: false }).into_iter().collect()
        };
        PortTable {
            key: port.key.clone(),
            frontends: port.frontends.clone(),
            cluster: pool(PoolScope::Cluster),
            local: pool(PoolScope::Local),
            serving: Arc::from([]),
            affinity: None,
            algorithm: None,
        }
    });
    ServiceTable { key: table.key.clone(), ports: ports.collect(), health_check: None }
}

/// Virtual servers and destinations of a Service.
pub(super) fn servers<K: std::hash::Hash + Eq, V>(
    table: &ServiceTable,
    scheduler: &str,
    out: &mut Objects<Key<K>, Value<V>>,
) {
    for port in &table.ports {
        let Some(pool) = primary(port) else { continue };
        for scope in SCOPES.into_iter().filter(|scope| uses(port, *scope)) {
            let endpoints = port.pool(scope);
            if endpoints.is_empty() {
                continue;
            }
            let key = server_key(pool, scope);
            let persistence = port.affinity.map(|affinity| affinity.timeout_seconds);
            let waits = waits_for_its_connections(&key, scheduler, persistence);
            out.insert(Key::Server(key), Value::Server { scheduler: scheduler.into(), persistence });
            out.extend(endpoints.iter().map(|endpoint| {
                let key = Key::Destination(key, endpoint.address, endpoint.port);
                (key, Value::Destination { weight: WEIGHT, waits })
            }));
        }
    }
}

/// What the front needs so that endpoints of this node can reach themselves.
pub(super) fn hairpins<F: Front>(
    front: &F,
    node: &NodeView,
    table: &ServiceTable,
    out: &mut Objects<F::Key, F::Value>,
) {
    for port in &table.ports {
        let endpoints = SCOPES.into_iter().flat_map(|scope| port.pool(scope).iter());
        for endpoint in endpoints.filter(|endpoint| endpoint.local) {
            front.hairpin(node, endpoint, out);
        }
    }
}

/// The objects of the node, whatever its Services; the front's come to these.
pub(super) fn base<K: std::hash::Hash + Eq, V>(config: &Config, out: &mut Objects<Key<K>, Value<V>>) {
    let strict = if config.strict_arp { &Setting::STRICT_ARP[..] } else { &[] };
    let settings = Setting::ALWAYS.iter().chain(strict);
    out.extend(settings.map(|setting| (Key::Setting(*setting), Value::Setting(setting.wanted()))));
    out.extend(config.families.iter().map(|family| (Key::Range(*family), Value::Range)));
}

/// Puts the front's objects among the others.
pub(super) fn wrap<K: std::hash::Hash + Eq, V>(front: Objects<K, V>, out: &mut Objects<Key<K>, Value<V>>) {
    out.extend(front.into_iter().map(|(key, value)| (Key::Front(key), Value::Front(value))));
}

/// What depends on nothing but the node is the same for every Service, so `node` is not asked for more.
pub(super) fn front_objects<F: Front>(
    front: &F,
    node: &NodeView,
    table: &ServiceTable,
    entry: &Entry<F::Entry>,
) -> Objects<F::Key, F::Value> {
    let mut objects = Objects::new();
    front.objects(node, &entry.table, &entry.front, &mut objects);
    hairpins(front, node, table, &mut objects);
    objects
}
