//! Keeps a data plane in step with a table, and knows nothing of what the data plane is.
//!
//! [`Driver::sync`] reads the kernel back and makes it match: the first sync, the sync after a restart and the recovery
//! after a failure. [`Driver::apply`] makes one change, at a cost that follows the change. [`Driver::verify`] only looks.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use portolan_forward::{Delta, NodeView, Note, ServiceKey, ServiceTable, Table};
use thiserror::Error;

use crate::DataPlane;
use crate::diff::{Change, Differ, Objects, diff};

#[derive(Debug, Error)]
pub enum Error<E: std::error::Error + 'static> {
    #[error("reading the kernel's state back: {0}")]
    Observe(#[source] E),
    #[error("writing to the kernel: {0}")]
    Commit(#[source] E),
    /// [`Driver::apply`] was called before the first [`Driver::sync`], or after a failure.
    #[error("the kernel's state is not known; a sync must come first")]
    NotSynced,
}

/// A Service that could not be encoded beside the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub service: ServiceKey,
    pub why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service {} is not served: {}", self.service, self.why)
    }
}

/// What a sync or a change cost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Services looked at.
    pub services: usize,
    /// Kernel objects that appeared, went, or became others.
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// Operations sent to the kernel.
    pub operations: usize,
    pub refused: Vec<Refusal>,
    /// Services that ask for what the data plane cannot do.
    pub notes: Vec<Note>,
}

impl Report {
    fn of<K, V>(services: usize, changes: &[Change<K, V>], refused: Vec<Refusal>) -> Self {
        let mut report = Self { services, refused, ..Self::default() };
        for change in changes {
            match (&change.from, &change.to) {
                (None, _) => report.added += 1,
                (_, None) => report.removed += 1,
                _ => report.changed += 1,
            }
        }
        report
    }

    /// Nothing had to be written.
    pub fn is_noop(&self) -> bool {
        self.operations == 0
    }
}

/// Where the kernel differs from the table, one line per object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drift {
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
    pub different: Vec<String>,
}

impl Drift {
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.different.is_empty()
    }
}

struct Service<E> {
    table: Arc<ServiceTable>,
    entry: E,
}

/// A data plane and what is known of its state.
pub struct Driver<D: DataPlane> {
    plane: D,
    node: Option<Arc<NodeView>>,
    services: HashMap<ServiceKey, Service<D::Entry>>,
    shared: Shared<D::Key, D::Value>,
    synced: bool,
}

/// Changes of a data plane's objects.
pub type Changes<D> = Vec<Change<<D as DataPlane>::Key, <D as DataPlane>::Value>>;

impl<D: DataPlane> Driver<D> {
    pub fn new(plane: D) -> Self {
        Self { plane, node: None, services: HashMap::new(), shared: Shared::new(), synced: false }
    }

    pub fn plane(&self) -> &D {
        &self.plane
    }

    pub fn plane_mut(&mut self) -> &mut D {
        &mut self.plane
    }

    /// Whether [`Driver::apply`] may be called.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Makes the kernel match the table, whatever it holds now. Where it matches already nothing is written.
    pub fn sync(&mut self, table: &Table) -> Result<Report, Error<D::Error>> {
        self.synced = false;
        let Compiled { changes, services, shared, refused } = self.compare(table)?;
        let mut report = Report::of(services.len(), &changes, refused);
        report.operations = self.write(changes)?;
        report.notes = services.values().filter_map(|service| note(&self.plane, &service.table)).collect();
        self.node = Some(table.node().clone());
        self.services = services;
        self.shared = shared;
        self.synced = true;
        Ok(report)
    }

    /// Compares the kernel with the table and changes neither.
    pub fn verify(&mut self, table: &Table) -> Result<Drift, Error<D::Error>> {
        let mut drift = Drift::default();
        for change in self.differences(table)? {
            let Change { key, from, to } = change;
            match (from, to) {
                (None, _) => drift.missing.push(format!("{key:?}")),
                (_, None) => drift.unexpected.push(format!("{key:?}")),
                (Some(from), Some(to)) => drift.different.push(format!("{key:?}: {from:?}, not {to:?}")),
            }
        }
        Ok(drift)
    }

    /// As [`Driver::verify`], object by object: what a sync would change.
    pub fn differences(&mut self, table: &Table) -> Result<Changes<D>, Error<D::Error>> {
        Ok(self.compare(table)?.changes)
    }

    /// Makes one change. After an error the state of the kernel is unknown and [`Driver::sync`] must come next.
    pub fn apply(&mut self, delta: &Delta) -> Result<Report, Error<D::Error>> {
        let Some(old_node) = self.node.clone().filter(|_| self.synced) else { return Err(Error::NotSynced) };
        let node = delta.node.as_ref().map_or(&old_node, |(_, to)| to);
        let targets = self.targets(delta);
        let mut edit = Edit::new(&self.shared);
        if delta.node.is_some() {
            self.base(&old_node).into_iter().for_each(|(key, value)| edit.owned(key).0 = Some(value));
            self.base(node).into_iter().for_each(|(key, value)| edit.owned(key).1 = Some(value));
        }
        let mut objects = Objects::new();
        for (key, _) in &targets {
            let Some(old) = self.services.get(key) else { continue };
            self.plane.objects(&old_node, &old.table, &old.entry, &mut objects);
            edit.give_up(&self.plane, objects.drain());
        }
        let mut refused = Vec::new();
        let mut entries = Vec::with_capacity(targets.len());
        for (key, to) in targets {
            let Some(table) = to else {
                entries.push((key, None));
                continue;
            };
            let previous = self.services.get(&key).map(|old| (&*old.table, &old.entry));
            let entry = self.plane.lower(&table, previous);
            self.plane.objects(node, &table, &entry, &mut objects);
            match edit.take_on(&self.plane, &mut objects) {
                Ok(()) => entries.push((key, Some(Service { table, entry }))),
                Err(why) => {
                    objects.clear();
                    refused.push(Refusal { service: key.clone(), why });
                    entries.push((key, None));
                }
            }
        }
        let (changes, counts) = edit.finish();
        let mut report = Report::of(entries.len(), &changes, refused);
        self.synced = false;
        report.operations = self.write(changes)?;
        let served = entries.iter().filter_map(|(_, service)| service.as_ref());
        report.notes = served.filter_map(|service| note(&self.plane, &service.table)).collect();
        self.synced = true;
        self.shared.update(counts);
        self.node = Some(node.clone());
        for (key, service) in entries {
            match service {
                Some(service) => drop(self.services.insert(key, service)),
                None => drop(self.services.remove(&key)),
            }
        }
        Ok(report)
    }

    /// Removes everything from the kernel. The next step is a sync, or the end.
    pub fn cleanup(&mut self) -> Vec<D::Error> {
        self.synced = false;
        self.services.clear();
        self.shared = Shared::new();
        self.plane.cleanup()
    }

    /// The Services to lower again: those of the delta, and all of them when the node changed.
    fn targets(&self, delta: &Delta) -> Vec<(ServiceKey, Option<Arc<ServiceTable>>)> {
        let changed = delta.services.iter().map(|change| (change.key.clone(), change.to.clone()));
        if delta.node.is_none() {
            return changed.collect();
        }
        let all = self.services.iter().map(|(key, service)| (key.clone(), Some(service.table.clone())));
        let mut targets: HashMap<_, _> = all.collect();
        targets.extend(changed);
        targets.into_iter().collect()
    }

    fn base(&self, node: &NodeView) -> Objects<D::Key, D::Value> {
        let mut objects = Objects::new();
        self.plane.base(node, &mut objects);
        objects
    }

    fn write(&mut self, changes: Changes<D>) -> Result<usize, Error<D::Error>> {
        if changes.is_empty() {
            return Ok(0);
        }
        let batch = self.plane.plan(changes);
        let operations = self.plane.weight(&batch);
        self.plane.commit(batch).map_err(Error::Commit)?;
        Ok(operations)
    }

    fn compare(&mut self, table: &Table) -> Result<Compiled<D>, Error<D::Error>> {
        let observed = self.plane.observe().map_err(Error::Observe)?;
        let node = table.node();
        let recalls = Self::recall_all(&self.plane, table, &observed);
        let mut differ = Differ::new(observed);
        differ.want(self.base(node));
        let mut services = HashMap::with_capacity(table.len());
        let none = Shared::new();
        let mut edit = Edit::new(&none);
        let mut refused = Vec::new();
        let mut objects = Objects::new();
        for (table, previous) in recalls {
            let previous = previous.as_ref().map(|entry| (&*table, entry));
            let entry = self.plane.lower(&table, previous);
            self.plane.objects(node, &table, &entry, &mut objects);
            match edit.take_on_shared(&self.plane, &mut objects) {
                Ok(()) => {
                    differ.want(objects.drain());
                    services.insert(table.key.clone(), Service { table, entry });
                }
                Err(why) => {
                    objects.clear();
                    refused.push(Refusal { service: table.key.clone(), why });
                }
            }
        }
        let (_, counts) = edit.finish();
        let mut shared = Shared::new();
        shared.update(counts);
        differ.want(shared.iter().map(|(key, value)| (key.clone(), value.clone())));
        Ok(Compiled { changes: differ.finish(), services, shared, refused })
    }

    /// In the order of the Services' keys, so that refusals do not depend on chance.
    fn recall_all(
        plane: &D,
        table: &Table,
        observed: &Objects<D::Key, D::Value>,
    ) -> Vec<(Arc<ServiceTable>, Option<D::Entry>)> {
        let mut services: Vec<_> = table.iter().cloned().collect();
        services.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let recall = |table: Arc<ServiceTable>| {
            let entry = plane.recall(&table, observed);
            (table, entry)
        };
        services.into_iter().map(recall).collect()
    }
}

fn note<D: DataPlane>(plane: &D, table: &ServiceTable) -> Option<Note> {
    plane.shortfall(table).map(|kind| Note { service: table.key.clone(), kind })
}

struct Compiled<D: DataPlane> {
    changes: Changes<D>,
    services: HashMap<ServiceKey, Service<D::Entry>>,
    shared: Shared<D::Key, D::Value>,
    refused: Vec<Refusal>,
}

/// Objects that several Services need, with how many of them do.
struct Shared<K, V>(HashMap<K, (V, usize)>);

impl<K: Eq + Hash, V> Shared<K, V> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, (value, _))| (key, value))
    }

    fn update(&mut self, counts: Vec<(K, Option<V>, usize)>) {
        for (key, value, count) in counts {
            match value {
                Some(value) => drop(self.0.insert(key, (value, count))),
                None => drop(self.0.remove(&key)),
            }
        }
    }
}

/// A change to many Services while it is being worked out: first they give up what they had, then they take on what
/// they need, so that an object may pass from one to another.
struct Edit<'a, K, V> {
    before: &'a Shared<K, V>,
    owned: HashMap<K, (Option<V>, Option<V>)>,
    shared: HashMap<K, (Option<V>, usize)>,
}

impl<'a, K: Clone + Eq + Hash + Ord + fmt::Debug, V: Clone + Eq> Edit<'a, K, V> {
    fn new(before: &'a Shared<K, V>) -> Self {
        Self { before, owned: HashMap::new(), shared: HashMap::new() }
    }

    /// What the object was and what it becomes.
    fn owned(&mut self, key: K) -> &mut (Option<V>, Option<V>) {
        self.owned.entry(key).or_default()
    }

    /// The object's value and count so far.
    fn shared(&mut self, key: K) -> &mut (Option<V>, usize) {
        let before = self.before;
        self.shared.entry(key).or_insert_with_key(|key| match before.0.get(key) {
            Some((value, count)) => (Some(value.clone()), *count),
            None => (None, 0),
        })
    }

    fn give_up<D: DataPlane<Key = K, Value = V>>(
        &mut self,
        plane: &D,
        objects: impl Iterator<Item = (K, V)>,
    ) {
        for (key, value) in objects {
            if plane.is_shared(&key) {
                let (value, count) = self.shared(key);
                *count = count.saturating_sub(1);
                if *count == 0 {
                    *value = None;
                }
            } else {
                self.owned(key).0 = Some(value);
            }
        }
    }

    fn take_on<D: DataPlane<Key = K, Value = V>>(
        &mut self,
        plane: &D,
        objects: &mut Objects<K, V>,
    ) -> Result<(), String> {
        self.take_on_shared(plane, objects)?;
        for (key, value) in objects.drain() {
            self.owned(key).1 = Some(value);
        }
        Ok(())
    }

    /// Takes the shared ones out of `objects`, all of them or, when one cannot be shared, none.
    fn take_on_shared<D: DataPlane<Key = K, Value = V>>(
        &mut self,
        plane: &D,
        objects: &mut Objects<K, V>,
    ) -> Result<(), String> {
        for (key, value) in objects.iter().filter(|(key, _)| plane.is_shared(key)) {
            if self.shared(key.clone()).0.as_ref().is_some_and(|held| held != value) {
                return Err(format!("{key:?} already stands for something else"));
            }
        }
        let taken: Vec<_> = objects.extract_if(|key, _| plane.is_shared(key)).collect();
        for (key, value) in taken {
            let held = self.shared(key);
            *held = (Some(value), held.1 + 1);
        }
        Ok(())
    }

    /// The changes, and the new counts of the shared objects.
    #[expect(clippy::type_complexity, reason = "both are taken apart at once by the only two callers")]
    fn finish(self) -> (Vec<Change<K, V>>, Vec<(K, Option<V>, usize)>) {
        let (mut from, mut to) = (Objects::new(), Objects::new());
        for (key, (old, new)) in self.owned {
            if let Some(old) = old {
                from.insert(key.clone(), old);
            }
            if let Some(new) = new {
                to.insert(key, new);
            }
        }
        let mut counts = Vec::with_capacity(self.shared.len());
        for (key, (value, count)) in self.shared {
            if let Some((old, _)) = self.before.0.get(&key) {
                from.insert(key.clone(), old.clone());
            }
            if let Some(new) = &value {
                to.insert(key.clone(), new.clone());
            }
            counts.push((key, value, count));
        }
        (diff(from, to), counts)
    }
}
