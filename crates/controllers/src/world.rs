//! Which pods belong to which Services, kept up to date event by event.
//!
//! The cost of an event follows the event: a pod finds its Services through its own labels, a Service finds its pods
//! through the rarest label of its selector; nobody walks all pods. Each method takes the newest state of one object
//! and says which Services have to be looked at again. Pure: no clock, no I/O. [`crate::feed`] calls it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use portolan_client::Key;

use crate::endpointslice::topology::is_auto;
use crate::objects::{Labels, Node, Pod, Service};

/// The shared picture of the cluster.
#[derive(Debug, Default)]
pub struct World {
    spaces: HashMap<Arc<str>, Space>,
    nodes: HashMap<Arc<str>, Arc<Node>>,
    pods_by_node: HashMap<Arc<str>, HashSet<Key>>,
}

/// One namespace.
#[derive(Debug, Default)]
struct Space {
    pods: BTreeMap<Arc<str>, Arc<Pod>>,
    pods_by_label: LabelIndex,
    services: HashMap<Arc<str>, Member>,
    /// Services under one pair of their selector: a pod that lacks the pair cannot match.
    services_by_label: LabelIndex,
    /// Services with an empty selector, which selects every pod.
    select_all: HashSet<Arc<str>>,
}

#[derive(Debug)]
struct Member {
    service: Arc<Service>,
    pods: BTreeSet<Arc<str>>,
}

/// Names by label pair.
#[derive(Debug, Default)]
struct LabelIndex {
    names: HashMap<Box<str>, HashMap<Box<str>, Names>>,
}

/// Who has one pair. Selectors mostly name a pair that is theirs alone.
#[derive(Debug)]
enum Names {
    One(Arc<str>),
    Many(BTreeSet<Arc<str>>),
}

impl Names {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(names) => names.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        let (one, many) = match self {
            Self::One(name) => (Some(name), None),
            Self::Many(names) => (None, Some(names)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, name: &Arc<str>) {
        match self {
            Self::One(own) if own == name => {}
            Self::One(own) => *self = Self::Many([own, name].into_iter().cloned().collect()),
            Self::Many(names) => drop(names.insert(Arc::clone(name))),
        }
    }

    /// Whether nobody is left.
    fn remove(&mut self, name: &str) -> bool {
        match self {
            Self::One(own) => **own == *name,
            Self::Many(names) => {
                names.remove(name);
                names.is_empty()
            }
        }
    }
}

impl LabelIndex {
    fn get(&self, label: &str, value: &str) -> Option<&Names> {
        self.names.get(label)?.get(value)
    }

    fn insert(&mut self, label: &str, value: &str, name: &Arc<str>) {
        if let Some(names) = self.names.get_mut(label).and_then(|values| values.get_mut(value)) {
            names.insert(name);
            return;
        }
        let values = self.names.entry(label.into()).or_default();
        values.insert(value.into(), Names::One(Arc::clone(name)));
    }

    fn remove(&mut self, label: &str, value: &str, name: &str) {
        let Some(values) = self.names.get_mut(label) else { return };
        if values.get_mut(value).is_some_and(|names| names.remove(name)) {
            values.remove(value);
        }
        if values.is_empty() {
            self.names.remove(label);
        }
    }
}

fn matches(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(label, value)| labels.get(label) == Some(value))
}

impl Space {
    /// The names of the Services whose selector matches these labels.
    fn services_for(&self, labels: &Labels) -> Vec<Arc<str>> {
        let by_label = labels.iter().filter_map(|(label, value)| self.services_by_label.get(label, value));
        by_label
            .flat_map(Names::iter)
            .chain(&self.select_all)
            .filter(|name| {
                let selector = self.services.get(*name).and_then(|member| member.service.selector());
                selector.is_some_and(|selector| matches(selector, labels))
            })
            .cloned()
            .collect()
    }

    fn pods_for(&self, selector: &Labels) -> BTreeSet<Arc<str>> {
        let rarest = selector
            .iter()
            .map(|(label, value)| self.pods_by_label.get(label, value))
            .min_by_key(|names| names.map_or(0, Names::len));
        match rarest {
            None => self.pods.keys().cloned().collect(),
            Some(names) => {
                let fits = |name: &&Arc<str>| {
                    self.pods.get(*name).is_some_and(|pod| matches(selector, &pod.metadata.labels))
                };
                names.into_iter().flat_map(Names::iter).filter(fits).cloned().collect()
            }
        }
    }

    fn index_service(&mut self, name: &Arc<str>, service: &Service) {
        let Some(selector) = service.selector() else { return };
        match selector.iter().next() {
            None => {
                self.select_all.insert(Arc::clone(name));
            }
            Some((label, value)) => self.services_by_label.insert(label, value, name),
        }
    }

    fn unindex_service(&mut self, name: &str, service: &Service) {
        let Some(selector) = service.selector() else { return };
        match selector.iter().next() {
            None => {
                self.select_all.remove(name);
            }
            Some((label, value)) => self.services_by_label.remove(label, value, name),
        }
    }

    fn is_empty(&self) -> bool {
        self.pods.is_empty() && self.services.is_empty()
    }
}

/// Whether anything differs that an endpoint is made of.
fn endpoint_differs(old: &Pod, new: &Pod) -> bool {
    old.metadata.uid != new.metadata.uid
        || old.metadata.deleting() != new.metadata.deleting()
        || old.ready() != new.ready()
        || old.finished() != new.finished()
        || old.spec.node_name != new.spec.node_name
        || old.spec.hostname != new.spec.hostname
        || old.spec.subdomain != new.spec.subdomain
        || !old.addresses().eq(new.addresses())
}

/// What a change of a node touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NodeTouched {
    /// Services with endpoints on it, if their zone differs now.
    pub services: Vec<Key>,
    /// Whether pods may be placed differently now.
    pub placement: bool,
}

fn placement_differs(old: &Node, new: &Node) -> bool {
    old.ready() != new.ready()
        || old.metadata.labels != new.metadata.labels
        || old.spec.unschedulable != new.spec.unschedulable
        || old.spec.taints != new.spec.taints
        || old.metadata.deleting() != new.metadata.deleting()
}

/// Whether a node counts differently among the processors of its zone.
fn share_differs(old: Option<&Node>, new: Option<&Node>) -> bool {
    let part = |node: &Node| {
        let cpu = node.status.allocatable.get("cpu").cloned();
        node.ready().then(|| (node.zone().map(str::to_owned), cpu))
    };
    old.and_then(part) != new.and_then(part)
}

impl World {
    /// A pod appeared, changed or went. Returns the Services whose endpoints may differ now.
    pub fn pod(&mut self, key: &Key, new: Option<&Arc<Pod>>) -> Vec<Key> {
        let space = self.spaces.entry(Arc::clone(&key.namespace)).or_default();
        let old = space.pods.get(&key.name).cloned();
        let node = |pod: &Arc<Pod>| Some(Arc::clone(&pod.spec.node_name)).filter(|node| !node.is_empty());
        let (old_node, new_node) = (old.as_ref().and_then(node), new.and_then(node));
        if old_node != new_node {
            if let Some(node) = old_node {
                self.leave_node(&node, key);
            }
            if let Some(node) = new_node {
                self.pods_by_node.entry(node).or_default().insert(key.clone());
            }
        }
        let touched = self.move_pod(key, old.as_deref(), new);
        touched.into_iter().map(|name| Key { namespace: Arc::clone(&key.namespace), name }).collect()
    }

    fn leave_node(&mut self, node: &Arc<str>, key: &Key) {
        if let Some(pods) = self.pods_by_node.get_mut(node) {
            pods.remove(key);
            if pods.is_empty() {
                self.pods_by_node.remove(node);
            }
        }
    }

    /// Updates indexes and memberships; the names of the Services touched.
    fn move_pod(&mut self, key: &Key, old: Option<&Pod>, new: Option<&Arc<Pod>>) -> BTreeSet<Arc<str>> {
        let space = self.spaces.entry(Arc::clone(&key.namespace)).or_default();
        let relabelled = match (old, new) {
            (Some(old), Some(new)) => old.metadata.labels != new.metadata.labels,
            _ => true,
        };
        let shows = match (old, new) {
            (Some(old), Some(new)) => endpoint_differs(old, new),
            _ => true,
        };
        let mut touched = BTreeSet::new();
        if let Some(old) = old.filter(|_| relabelled || shows) {
            touched.extend(space.services_for(&old.metadata.labels));
        }
        if relabelled {
            for name in &touched {
                if let Some(member) = space.services.get_mut(name) {
                    member.pods.remove(&key.name);
                }
            }
            for (label, value) in old.map(|old| &old.metadata.labels).into_iter().flatten() {
                space.pods_by_label.remove(label, value, &key.name);
            }
        }
        match new {
            Some(new) => {
                space.pods.insert(Arc::clone(&key.name), Arc::clone(new));
                if relabelled {
                    for (label, value) in &new.metadata.labels {
                        space.pods_by_label.insert(label, value, &key.name);
                    }
                    for name in space.services_for(&new.metadata.labels) {
                        if let Some(member) = space.services.get_mut(&name) {
                            member.pods.insert(Arc::clone(&key.name));
                        }
                        // Where it was before and is still, it looks the same unless it shows.
                        if shows || !touched.remove(&name) {
                            touched.insert(name);
                        }
                    }
                }
            }
            None => {
                space.pods.remove(&key.name);
            }
        }
        self.forget_if_empty(&key.namespace);
        touched
    }

    fn forget_if_empty(&mut self, namespace: &Arc<str>) {
        if self.spaces.get(namespace).is_some_and(Space::is_empty) {
            self.spaces.remove(namespace);
        }
    }

    /// A Service appeared, changed or went.
    pub fn service(&mut self, key: &Key, new: Option<Arc<Service>>) {
        let space = self.spaces.entry(Arc::clone(&key.namespace)).or_default();
        let old = space.services.remove(&key.name);
        if let Some(old) = &old {
            space.unindex_service(&key.name, &old.service);
        }
        if let Some(service) = new {
            let pods = match old {
                Some(old) if old.service.selector() == service.selector() => old.pods,
                _ => service.selector().map(|selector| space.pods_for(selector)).unwrap_or_default(),
            };
            space.index_service(&key.name, &service);
            space.services.insert(Arc::clone(&key.name), Member { service, pods });
        }
        self.forget_if_empty(&key.namespace);
    }

    /// A node appeared, changed or went.
    pub fn node(&mut self, name: &Arc<str>, new: Option<&Arc<Node>>) -> NodeTouched {
        let old = match new {
            Some(node) => self.nodes.insert(Arc::clone(name), Arc::clone(node)),
            None => self.nodes.remove(name),
        };
        let (same_zone, same_place) = match (&old, new) {
            (Some(old), Some(new)) => (old.zone() == new.zone(), !placement_differs(old, new)),
            (None, None) => (true, true),
            _ => (false, false),
        };
        let mut services = if same_zone { Vec::new() } else { self.services_on(name) };
        if share_differs(old.as_deref(), new.map(AsRef::as_ref)) {
            services.extend(self.services_by_share());
        }
        NodeTouched { services, placement: !same_place }
    }

    /// The Services whose hints go by the processors of all nodes.
    fn services_by_share(&self) -> Vec<Key> {
        let in_space = |(namespace, space): (&Arc<str>, &Space)| {
            let auto = space.services.iter().filter(|(_, member)| is_auto(&member.service));
            let key = |name: &Arc<str>| Key { namespace: Arc::clone(namespace), name: Arc::clone(name) };
            auto.map(|(name, _)| key(name)).collect::<Vec<_>>()
        };
        self.spaces.iter().flat_map(in_space).collect()
    }

    /// The Services with endpoints on a node.
    fn services_on(&self, name: &str) -> Vec<Key> {
        let pods = self.pods_by_node.get(name).into_iter().flatten();
        let services: BTreeSet<(Arc<str>, Arc<str>)> = pods
            .flat_map(|key| {
                let names = self.pod_at(key).and_then(|pod| {
                    Some(self.spaces.get(&key.namespace)?.services_for(&pod.metadata.labels))
                });
                let namespace = Arc::clone(&key.namespace);
                names.unwrap_or_default().into_iter().map(move |name| (Arc::clone(&namespace), name))
            })
            .collect();
        services.into_iter().map(|(namespace, name)| Key { namespace, name }).collect()
    }

    pub fn pod_at(&self, key: &Key) -> Option<&Arc<Pod>> {
        self.spaces.get(&key.namespace)?.pods.get(&key.name)
    }

    pub fn node_at(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub fn service_at(&self, key: &Key) -> Option<&Arc<Service>> {
        Some(&self.spaces.get(&key.namespace)?.services.get(&key.name)?.service)
    }

    /// The pods a Service selects, by name. Empty for a Service without selector.
    pub fn pods_of(&self, key: &Key) -> Vec<Arc<Pod>> {
        let Some(space) = self.spaces.get(&key.namespace) else { return Vec::new() };
        let Some(member) = space.services.get(&key.name) else { return Vec::new() };
        member.pods.iter().filter_map(|name| space.pods.get(name)).cloned().collect()
    }

    /// The pods of a namespace that have all these labels.
    pub fn pods_matching(&self, namespace: &str, labels: &Labels) -> impl Iterator<Item = &Arc<Pod>> {
        let space = self.spaces.get(namespace);
        let names = space.map(|space| space.pods_for(labels)).unwrap_or_default();
        names.into_iter().filter_map(move |name| space?.pods.get(&name))
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods_by_node.get(node).into_iter().flatten().filter_map(|key| self.pod_at(key))
    }

    /// How many pods are bound to a node.
    pub fn pod_count(&self, node: &str) -> usize {
        self.pods_by_node.get(node).map_or(0, HashSet::len)
    }

    /// Pods bound to some node that may do the same work as this one: those that share its labels, and those whose
    /// names begin alike. A superset; the caller looks closer.
    pub fn perhaps_alike(&self, pod: &Pod) -> Vec<&Arc<Pod>> {
        let Some(space) = self.spaces.get(&pod.metadata.namespace) else { return Vec::new() };
        let labelled = if pod.metadata.labels.is_empty() {
            BTreeSet::new()
        } else {
            space.pods_for(&pod.metadata.labels)
        };
        let named = pod.metadata.name.rsplit_once('-').map(|(family, _)| {
            let start: Arc<str> = format!("{family}-").into();
            let within = Arc::clone(&start);
            space.pods.range(start..).map(|(name, _)| name).take_while(move |name| name.starts_with(&*within))
        });
        let names: BTreeSet<&Arc<str>> = labelled.iter().chain(named.into_iter().flatten()).collect();
        let pods = names.into_iter().filter_map(|name| space.pods.get(name));
        pods.filter(|pod| !pod.spec.node_name.is_empty()).collect()
    }
}

#[cfg(test)]
#[path = "world_tests.rs"]
mod tests;
