//! All Services of a node, entry by entry, and the delta between two states.
//!
//! A change recompiles the Services it touches and nothing else; an entry that did not change keeps its pointer. Two
//! Services that want one address, protocol and port are decided here, the same way whatever the order of arrival:
//! ClusterIPs first, then load-balancer addresses, node ports and external IPs, and among equals the Service whose
//! namespace and name sort first.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{
    Family, Frontend, FrontendKind, Note, NoteKind, PortTable, Protocol, ServiceKey, ServiceTable,
};
use crate::view::NodeView;

/// What one frontend occupies. `address` is `None` for a node port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    pub address: Option<IpAddr>,
    pub family: Family,
    pub protocol: Protocol,
    pub port: u16,
}

impl Claim {
    pub fn of(port: &PortTable, frontend: &Frontend) -> Self {
        Self {
            address: frontend.kind.address(),
            family: port.key.family,
            protocol: port.key.protocol,
            port: frontend.port,
        }
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(ip) => write!(f, "{}/{}", std::net::SocketAddr::new(ip, self.port), self.protocol),
            None => write!(f, "node port {}/{}", self.port, self.protocol),
        }
    }
}

/// Who wants a claim, the winner first.
type Contenders = Vec<(u8, ServiceKey)>;

#[derive(Debug, Clone)]
struct Entry {
    /// As compiled.
    wanted: Arc<ServiceTable>,
    /// Without the frontends that another Service holds; the same pointer when there are none.
    effective: Arc<ServiceTable>,
}

/// The compiled state of one node.
#[derive(Debug, Clone)]
pub struct Table {
    node: Arc<NodeView>,
    entries: HashMap<ServiceKey, Entry>,
    claims: HashMap<Claim, Contenders>,
}

/// One Service that differs between two states of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceChange {
    pub key: ServiceKey,
    pub from: Option<Arc<ServiceTable>>,
    pub to: Option<Arc<ServiceTable>>,
}

/// What a data plane must do to get from one state of the table to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    pub node: Option<(Arc<NodeView>, Arc<NodeView>)>,
    /// Sorted by key.
    pub services: Vec<ServiceChange>,
}

impl Delta {
    pub fn is_empty(&self) -> bool {
        self.node.is_none() && self.services.is_empty()
    }
}

impl Table {
    pub fn new(node: NodeView) -> Self {
        Self { node: Arc::new(node), entries: HashMap::new(), claims: HashMap::new() }
    }

    pub fn node(&self) -> &Arc<NodeView> {
        &self.node
    }

    pub fn get(&self, key: &ServiceKey) -> Option<&Arc<ServiceTable>> {
        self.entries.get(key).map(|entry| &entry.effective)
    }

    /// Every Service's entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ServiceTable>> {
        self.entries.values().map(|entry| &entry.effective)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The port and frontend that hold a claim.
    pub fn find(&self, claim: &Claim) -> Option<(&PortTable, &Frontend)> {
        let (_, holder) = self.claims.get(claim)?.first()?;
        let table = &self.entries.get(holder)?.effective;
        table.ports.iter().find_map(|port| {
            let frontend = port.frontends.iter().find(|frontend| Claim::of(port, frontend) == *claim)?;
            Some((port, frontend))
        })
    }

    /// The Services that hold `ip` as a ClusterIP, if any does.
    pub fn cluster_ip_holder(&self, ip: IpAddr) -> Option<&ServiceKey> {
        let holds = |table: &ServiceTable| {
            table.ports.iter().flat_map(|port| &port.frontends).any(|f| f.kind == FrontendKind::ClusterIp(ip))
        };
        self.iter().find(|table| holds(table)).map(|table| &table.key)
    }

    /// Replaces the node; the caller recompiles the Services and passes them to [`Table::update`] in the same breath.
    pub fn set_node(&mut self, node: NodeView) -> Option<(Arc<NodeView>, Arc<NodeView>)> {
        if *self.node == node {
            return None;
        }
        let from = std::mem::replace(&mut self.node, Arc::new(node));
        Some((from, self.node.clone()))
    }

    /// Takes newly compiled entries (`None`: the Service is gone) and says what became different. Services that were
    /// not named can be among it: those that win or lose a frontend.
    pub fn update(
        &mut self,
        changes: impl IntoIterator<Item = (ServiceKey, Option<ServiceTable>)>,
    ) -> (Vec<ServiceChange>, Vec<Note>) {
        let mut before: HashMap<ServiceKey, Option<Arc<ServiceTable>>> = HashMap::new();
        let mut touched = BTreeSet::new();
        for (key, compiled) in changes {
            let old = self.entries.get(&key);
            if let (Some(old), Some(new)) = (old, &compiled)
                && *old.wanted == *new
            {
                continue;
            }
            before.entry(key.clone()).or_insert_with(|| old.map(|entry| entry.effective.clone()));
            self.replace(&key, compiled, &mut touched);
            touched.insert(key);
        }
        let mut notes = Vec::new();
        let mut services = Vec::new();
        for key in touched {
            let from = before.remove(&key).unwrap_or_else(|| self.get(&key).cloned());
            let to = self.settle(&key, &mut notes);
            if from != to {
                services.push(ServiceChange { key, from, to });
            }
        }
        (services, notes)
    }

    /// Puts the entry in place and moves its claims; contenders for any of them are touched.
    fn replace(
        &mut self,
        key: &ServiceKey,
        compiled: Option<ServiceTable>,
        touched: &mut BTreeSet<ServiceKey>,
    ) {
        if let Some(old) = self.entries.remove(key) {
            for claim in claims(&old.wanted) {
                if let Some(contenders) = self.claims.get_mut(&claim.1) {
                    contenders.retain(|(_, contender)| contender != key);
                    touched.extend(contenders.iter().map(|(_, contender)| contender.clone()));
                    if contenders.is_empty() {
                        self.claims.remove(&claim.1);
                    }
                }
            }
        }
        let Some(compiled) = compiled else { return };
        for (rank, claim) in claims(&compiled) {
            let contenders = self.claims.entry(claim).or_default();
            touched.extend(contenders.iter().map(|(_, contender)| contender.clone()));
            // Nearly always the only one.
            contenders.reserve_exact(1);
            contenders.push((rank, key.clone()));
            contenders.sort_unstable();
        }
        let wanted = Arc::new(compiled);
        self.entries.insert(key.clone(), Entry { effective: wanted.clone(), wanted });
    }

    /// Works out the effective entry from the claims the Service holds.
    fn settle(&mut self, key: &ServiceKey, notes: &mut Vec<Note>) -> Option<Arc<ServiceTable>> {
        let entry = self.entries.get(key)?;
        let holder = |claim: &Claim| self.claims.get(claim).and_then(|c| c.first()).map(|(_, holder)| holder);
        let lost: Vec<(Claim, ServiceKey)> = claims(&entry.wanted)
            .filter_map(|(_, claim)| Some((claim, holder(&claim).filter(|holder| *holder != key)?.clone())))
            .collect();
        let effective = if lost.is_empty() {
            entry.wanted.clone()
        } else {
            let mut table = (*entry.wanted).clone();
            for port in &mut table.ports {
                let frontends = std::mem::take(&mut port.frontends);
                let holds = |f: &Frontend| !lost.iter().any(|(claim, _)| *claim == Claim::of(port, f));
                port.frontends = frontends.into_iter().filter(holds).collect();
            }
            Arc::new(table)
        };
        for (claim, by) in lost {
            let kind = NoteKind::FrontendTaken { frontend: claim.to_string(), by };
            notes.push(Note { service: key.clone(), kind });
        }
        let entry = self.entries.get_mut(key)?;
        if entry.effective != effective {
            entry.effective = effective;
        }
        Some(entry.effective.clone())
    }
}

fn claims(table: &ServiceTable) -> impl Iterator<Item = (u8, Claim)> + '_ {
    table.ports.iter().flat_map(|port| port.frontends.iter().map(move |f| (rank(f.kind), Claim::of(port, f))))
}

fn rank(kind: FrontendKind) -> u8 {
    match kind {
        FrontendKind::ClusterIp(_) => 0,
        FrontendKind::LoadBalancerIp(_) => 1,
        FrontendKind::NodePort => 2,
        FrontendKind::ExternalIp(_) => 3,
    }
}
