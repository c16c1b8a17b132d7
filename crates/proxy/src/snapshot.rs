//! What the caches said last, and the table compiled from it.
//!
//! Each method takes the newest state of one object; [`Snapshot::compile`] recompiles the Services that were touched
//! since, and says what became different. The cost follows the change: nothing walks all Services, unless the node
//! itself changed. Pure: no clock, no I/O.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use portolan_client::Key;
use portolan_forward::{Delta, EndpointView, NodeView, Note, ServiceKey, ServiceTable, Table, compile};

use crate::views::{ServiceObject, SliceObject};

/// A Service's slices by their names, sorted. Most Services have one.
type Slices = Vec<(Arc<str>, Arc<SliceObject>)>;

#[derive(Debug)]
pub struct Snapshot {
    table: Table,
    services: HashMap<ServiceKey, Arc<ServiceObject>>,
    slices: HashMap<ServiceKey, Slices>,
    service_of: HashMap<Key, ServiceKey>,
    dirty: BTreeSet<ServiceKey>,
    node: Option<NodeView>,
    triggers: Vec<i128>,
}

/// What one round of compiling found.
#[derive(Debug, Default)]
pub struct Round {
    pub delta: Delta,
    /// Odd input in the Services that were compiled.
    pub notes: Vec<Note>,
    /// When the changes of slices in this round happened, nanoseconds since 1970.
    pub triggers: Vec<i128>,
}

impl Snapshot {
    pub fn new(node: NodeView) -> Self {
        Self {
            table: Table::new(node),
            services: HashMap::new(),
            slices: HashMap::new(),
            service_of: HashMap::new(),
            dirty: BTreeSet::new(),
            node: None,
            triggers: Vec::new(),
        }
    }

    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn service_at(&self, key: &ServiceKey) -> Option<&Arc<ServiceObject>> {
        self.services.get(key)
    }

    /// A Service appeared, changed or went.
    pub fn service(&mut self, key: &Key, new: Option<Arc<ServiceObject>>) {
        let key = ServiceKey { namespace: Arc::clone(&key.namespace), name: Arc::clone(&key.name) };
        match new {
            Some(service) => {
                let same = self.services.get(&key).is_some_and(|old| old.view == service.view);
                self.services.insert(key.clone(), service);
                if same {
                    return;
                }
            }
            None => drop(self.services.remove(&key)),
        }
        self.dirty.insert(key);
    }

    /// A slice appeared, changed or went.
    pub fn slice(&mut self, key: &Key, new: Option<Arc<SliceObject>>) {
        let mut seen = None;
        if let Some(service) = self.service_of.remove(key) {
            if let Some(slices) = self.slices.get_mut(&service) {
                if let Ok(at) = slices.binary_search_by(|(name, _)| name.cmp(&key.name)) {
                    seen = slices.remove(at).1.trigger_ns;
                }
                if slices.is_empty() {
                    self.slices.remove(&service);
                }
            }
            self.dirty.insert(service);
        }
        let Some(slice) = new else { return };
        let Some(service) = slice.service.clone() else { return };
        self.triggers.extend(slice.trigger_ns.filter(|trigger| seen != Some(*trigger)));
        self.service_of.insert(key.clone(), service.clone());
        let slices = self.slices.entry(service.clone()).or_default();
        // It was taken out above.
        let at = slices.partition_point(|(name, _)| *name < key.name);
        slices.reserve_exact(1);
        slices.insert(at, (Arc::clone(&key.name), slice));
        self.dirty.insert(service);
    }

    /// The node as it is now.
    pub fn node(&mut self, node: NodeView) {
        self.node = Some(node);
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.node.as_ref().is_some_and(|node| *node != **self.table.node())
    }

    /// Compiles what was touched, and what follows from it.
    pub fn compile(&mut self) -> Round {
        let mut round = Round { triggers: std::mem::take(&mut self.triggers), ..Round::default() };
        let mut dirty = std::mem::take(&mut self.dirty);
        round.delta.node = self.node.take().and_then(|node| self.table.set_node(node));
        if round.delta.node.is_some() {
            dirty.extend(self.services.keys().cloned());
        }
        let mut compiled: Vec<(ServiceKey, Option<ServiceTable>)> = Vec::with_capacity(dirty.len());
        for key in dirty {
            let table = self.services.get(&key).map(|service| {
                let (table, notes) =
                    compile_one(service, self.slices.get(&key), self.table.node(), &mut round);
                round.notes.extend(notes);
                table
            });
            compiled.push((key, table));
        }
        let (services, notes) = self.table.update(compiled);
        round.delta.services = services;
        round.notes.extend(notes);
        round
    }
}

fn compile_one(
    service: &ServiceObject,
    slices: Option<&Slices>,
    node: &NodeView,
    round: &mut Round,
) -> (ServiceTable, Vec<Note>) {
    round.notes.extend(service.notes.iter().cloned());
    let slices: Vec<&Arc<SliceObject>> = slices.into_iter().flatten().map(|(_, slice)| slice).collect();
    round.notes.extend(slices.iter().flat_map(|slice| slice.notes.iter().cloned()));
    let endpoints: Vec<EndpointView> = slices.iter().flat_map(|slice| slice.endpoints.iter()).collect();
    compile(&service.view, &endpoints, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_view, service_object, slice_object};

    fn key(name: &str) -> Key {
        Key::new("default", name)
    }

    fn changed(round: &Round) -> Vec<&str> {
        round.delta.services.iter().map(|change| &*change.key.name).collect()
    }

    fn cluster(table: &Table, name: &str) -> Vec<String> {
        let table = table.get(&ServiceKey::new("default", name)).unwrap();
        table.ports[0].cluster.iter().map(|endpoint| endpoint.address.to_string()).collect()
    }

    #[test]
    fn only_what_was_touched_is_compiled() {
        let mut snapshot = Snapshot::new(node_view());
        for name in ["api", "web"] {
            let ip = if name == "api" { "10.96.0.1" } else { "10.96.0.2" };
            snapshot.service(&key(name), Some(Arc::new(service_object(name, ip, "TCP"))));
            snapshot
                .slice(&key(&format!("{name}-1")), Some(Arc::new(slice_object(name, &["10.0.0.1"], "TCP"))));
        }
        assert!(snapshot.is_dirty());
        assert_eq!(changed(&snapshot.compile()), ["api", "web"]);
        assert!(!snapshot.is_dirty());
        let api = Arc::clone(snapshot.table().get(&ServiceKey::new("default", "api")).unwrap());
        snapshot.slice(&key("web-1"), Some(Arc::new(slice_object("web", &["10.0.0.1", "10.0.0.2"], "TCP"))));
        assert_eq!(changed(&snapshot.compile()), ["web"]);
        assert_eq!(cluster(snapshot.table(), "web"), ["10.0.0.1", "10.0.0.2"]);
        let after = snapshot.table().get(&ServiceKey::new("default", "api")).unwrap();
        assert!(Arc::ptr_eq(&api, after), "untouched Services are shared");
        assert!(snapshot.compile().delta.is_empty());
    }

    #[test]
    fn slices_come_before_after_and_beside_their_service() {
        let mut snapshot = Snapshot::new(node_view());
        snapshot.slice(&key("web-1"), Some(Arc::new(slice_object("web", &["10.0.0.1"], "TCP"))));
        assert!(snapshot.compile().delta.is_empty(), "no Service yet");
        snapshot.service(&key("web"), Some(Arc::new(service_object("web", "10.96.0.1", "TCP"))));
        snapshot.slice(&key("web-2"), Some(Arc::new(slice_object("web", &["10.0.0.2"], "TCP"))));
        snapshot.compile();
        assert_eq!(cluster(snapshot.table(), "web"), ["10.0.0.1", "10.0.0.2"]);
        snapshot.slice(&key("web-1"), None);
        snapshot.compile();
        assert_eq!(cluster(snapshot.table(), "web"), ["10.0.0.2"]);
        snapshot.service(&key("web"), None);
        let round = snapshot.compile();
        assert!(round.delta.services[0].to.is_none());
        assert!(snapshot.table().is_empty());
    }

    #[test]
    fn a_slice_that_changes_hands_touches_both() {
        let mut snapshot = Snapshot::new(node_view());
        for (name, ip) in [("api", "10.96.0.1"), ("web", "10.96.0.2")] {
            snapshot.service(&key(name), Some(Arc::new(service_object(name, ip, "TCP"))));
        }
        snapshot.slice(&key("s"), Some(Arc::new(slice_object("api", &["10.0.0.1"], "TCP"))));
        snapshot.compile();
        snapshot.slice(&key("s"), Some(Arc::new(slice_object("web", &["10.0.0.1"], "TCP"))));
        assert_eq!(changed(&snapshot.compile()), ["api", "web"]);
    }

    #[test]
    fn a_changed_node_recompiles_all() {
        let mut snapshot = Snapshot::new(node_view());
        snapshot.service(&key("web"), Some(Arc::new(service_object("web", "10.96.0.1", "TCP"))));
        snapshot.slice(&key("web-1"), Some(Arc::new(slice_object("web", &["10.0.0.1"], "TCP"))));
        snapshot.compile();
        snapshot.node(node_view());
        assert!(!snapshot.is_dirty() && snapshot.compile().delta.is_empty(), "the same node");
        snapshot.node(NodeView { masquerade_all: true, ..node_view() });
        let round = snapshot.compile();
        assert!(round.delta.node.is_some());
        assert_eq!(changed(&round), ["web"]);
    }

    #[test]
    fn a_trigger_is_told_once() {
        let mut snapshot = Snapshot::new(node_view());
        let slice = SliceObject { trigger_ns: Some(7), ..slice_object("web", &["10.0.0.1"], "TCP") };
        snapshot.slice(&key("web-1"), Some(Arc::new(slice.clone())));
        assert_eq!(snapshot.compile().triggers, [7]);
        snapshot.slice(&key("web-1"), Some(Arc::new(slice)));
        assert!(snapshot.compile().triggers.is_empty());
    }
}
