//! The slices of each Service, who manages them, and whether the cache shows what was written last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::Key;

use crate::kept::{KeptSlice, Manager};
use crate::written::EndpointSlice;

/// All slices, by the Service their label names.
#[derive(Debug, Default)]
pub struct SliceIndex {
    /// In order of their names; most Services have one or two.
    by_service: HashMap<Key, Vec<Named>>,
    service_of: HashMap<Key, Arc<str>>,
}

/// A slice under its name.
type Named = (Arc<str>, Arc<KeptSlice>);

impl SliceIndex {
    /// A slice appeared, changed or went. Returns the Services it belonged or belongs to, with its manager.
    pub fn update(&mut self, key: &Key, new: Option<Arc<KeptSlice>>) -> Vec<(Key, Manager)> {
        let mut touched = Vec::new();
        let of = |name: Arc<str>| Key { namespace: Arc::clone(&key.namespace), name };
        if let Some(service) = self.service_of.remove(key) {
            let service = of(service);
            if let Some(slices) = self.by_service.get_mut(&service) {
                if let Ok(index) = find(slices, &key.name) {
                    touched.push((service.clone(), slices.remove(index).1.manager));
                }
                if slices.is_empty() {
                    self.by_service.remove(&service);
                }
            }
        }
        if let Some(slice) = new
            && let Some(name) = &slice.service
        {
            let service = of(Arc::clone(name));
            let now = (service.clone(), slice.manager);
            if !touched.contains(&now) {
                touched.push(now);
            }
            self.service_of.insert(key.clone(), Arc::clone(name));
            let slices = self.by_service.entry(service).or_default();
            let index = find(slices, &key.name).unwrap_or_else(|index| index);
            slices.reserve_exact(1);
            slices.insert(index, (Arc::clone(&key.name), slice));
        }
        touched
    }

    /// The slices of a Service under one manager, by name.
    pub fn of(&self, service: &Key, manager: Manager) -> Vec<Arc<KeptSlice>> {
        let slices = self.by_service.get(service).into_iter().flatten().map(|(_, slice)| slice);
        slices.filter(|slice| slice.manager == manager).cloned().collect()
    }

    fn get(&self, service: &Key, name: &str) -> Option<&KeptSlice> {
        let slices = self.by_service.get(service)?;
        find(slices, name).ok().map(|index| &*slices[index].1)
    }
}

fn find(slices: &[Named], name: &str) -> Result<usize, usize> {
    slices.binary_search_by(|(own, _)| (**own).cmp(name))
}

/// Slices for a plan.
pub(crate) fn open(slices: &[Arc<KeptSlice>]) -> Vec<Arc<EndpointSlice>> {
    slices.iter().filter_map(|slice| slice.open()).map(Arc::new).collect()
}

/// Writes of one Service's slices that the cache may not show yet. Planning on an older view would make slices twice.
#[derive(Debug)]
pub struct Pending(crate::pending::Pending);

impl Pending {
    pub fn new(now: Instant) -> Self {
        Self(crate::pending::Pending::new(now))
    }

    pub fn wrote(&mut self, slice: &EndpointSlice) {
        self.0.wrote(&slice.metadata.name, &slice.metadata.resource_version);
    }

    pub fn deleted(&mut self, slice: &EndpointSlice) {
        self.0.deleted(&slice.metadata.name, &slice.metadata.uid);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much longer to wait for the cache; `None`: it shows everything, or it had its time.
    pub fn wait(&self, service: &Key, index: &SliceIndex, now: Instant) -> Option<Duration> {
        self.0.wait(now, |name, holds| holds(index.get(service, name).map(KeptSlice::seen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpointslice::MANAGED_BY;
    use crate::written::{MANAGED_BY_LABEL, SERVICE_NAME_LABEL};

    fn slice(name: &str, service: &str, version: &str) -> Arc<KeptSlice> {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = name.into();
        slice.metadata.uid = format!("uid-{name}");
        slice.metadata.resource_version = version.into();
        slice.metadata.labels.insert(SERVICE_NAME_LABEL, service);
        slice.metadata.labels.insert(MANAGED_BY_LABEL, MANAGED_BY);
        Arc::new(KeptSlice::new(&slice).unwrap())
    }

    #[test]
    fn a_slice_moves_with_its_label() {
        const ME: Manager = Manager::EndpointSlices;
        let mut index = SliceIndex::default();
        let (key, web, api) = (Key::new("ns", "s1"), Key::new("ns", "web"), Key::new("ns", "api"));
        assert_eq!(index.update(&key, Some(slice("s1", "web", "1"))), [(web.clone(), ME)]);
        assert_eq!(index.of(&web, ME).len(), 1);
        assert!(index.of(&web, Manager::Mirroring).is_empty());
        let touched = index.update(&key, Some(slice("s1", "api", "2")));
        assert_eq!(touched, [(web.clone(), ME), (api.clone(), ME)]);
        assert!(index.of(&web, ME).is_empty());
        assert_eq!(index.update(&key, None), [(api, ME)]);
        assert!(index.by_service.is_empty() && index.service_of.is_empty());
    }

    #[test]
    fn the_slices_of_a_service_come_by_name() {
        let mut index = SliceIndex::default();
        for name in ["b", "c", "a"] {
            index.update(&Key::new("ns", name), Some(slice(name, "web", "1")));
        }
        let names: Vec<_> = open(&index.of(&Key::new("ns", "web"), Manager::EndpointSlices))
            .iter()
            .map(|slice| slice.metadata.name.clone())
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(index.get(&Key::new("ns", "web"), "b").is_some());
        assert!(index.get(&Key::new("ns", "web"), "d").is_none());
    }
}
