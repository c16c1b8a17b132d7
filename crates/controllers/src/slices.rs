//! The slices of each Service, who manages them, and whether the cache shows what was written last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::Key;

use crate::pending::Seen;
use crate::written::{EndpointSlice, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};

/// All slices, by the Service their label names.
#[derive(Debug, Default)]
pub struct SliceIndex {
    by_service: HashMap<Key, BTreeMap<Arc<str>, Arc<EndpointSlice>>>,
    service_of: HashMap<Key, Key>,
}

impl SliceIndex {
    /// A slice appeared, changed or went. Returns the Services it belonged or belongs to, with its manager.
    pub fn update(&mut self, key: &Key, new: Option<Arc<EndpointSlice>>) -> Vec<(Key, String)> {
        let mut touched = Vec::new();
        if let Some(service) = self.service_of.remove(key) {
            let slices = self.by_service.get_mut(&service);
            if let Some(old) = slices.and_then(|slices| slices.remove(&key.name)) {
                touched.push((service.clone(), managed_by(&old).to_owned()));
            }
            if self.by_service.get(&service).is_some_and(BTreeMap::is_empty) {
                self.by_service.remove(&service);
            }
        }
        if let Some(slice) = new
            && let Some(service) = slice.metadata.labels.get(SERVICE_NAME_LABEL)
        {
            let service = Key { namespace: Arc::clone(&key.namespace), name: service.as_str().into() };
            let now = (service.clone(), managed_by(&slice).to_owned());
            if !touched.contains(&now) {
                touched.push(now);
            }
            self.service_of.insert(key.clone(), service.clone());
            self.by_service.entry(service).or_default().insert(Arc::clone(&key.name), slice);
        }
        touched
    }

    /// The slices of a Service under one manager, by name.
    pub fn of(&self, service: &Key, manager: &str) -> Vec<Arc<EndpointSlice>> {
        let slices = self.by_service.get(service).into_iter().flat_map(BTreeMap::values);
        slices.filter(|slice| managed_by(slice) == manager).cloned().collect()
    }

    fn get(&self, service: &Key, name: &str) -> Option<&Arc<EndpointSlice>> {
        self.by_service.get(service)?.get(name)
    }
}

fn managed_by(slice: &EndpointSlice) -> &str {
    slice.metadata.labels.get(MANAGED_BY_LABEL).map_or("", String::as_str)
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
        self.0.wait(now, |name, holds| {
            holds(index.get(service, name).map(|slice| Seen {
                uid: &slice.metadata.uid,
                resource_version: &slice.metadata.resource_version,
                deleting: slice.metadata.deleting(),
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(name: &str, service: &str, version: &str) -> Arc<EndpointSlice> {
        let mut slice = EndpointSlice::default();
        slice.metadata.name = name.into();
        slice.metadata.uid = format!("uid-{name}");
        slice.metadata.resource_version = version.into();
        slice.metadata.labels.insert(SERVICE_NAME_LABEL.into(), service.into());
        slice.metadata.labels.insert(MANAGED_BY_LABEL.into(), "me".into());
        Arc::new(slice)
    }

    #[test]
    fn a_slice_moves_with_its_label() {
        let mut index = SliceIndex::default();
        let (key, web, api) = (Key::new("ns", "s1"), Key::new("ns", "web"), Key::new("ns", "api"));
        assert_eq!(index.update(&key, Some(slice("s1", "web", "1"))), [(web.clone(), "me".into())]);
        assert_eq!(index.of(&web, "me").len(), 1);
        assert!(index.of(&web, "other").is_empty());
        let touched = index.update(&key, Some(slice("s1", "api", "2")));
        assert_eq!(touched, [(web.clone(), "me".into()), (api.clone(), "me".into())]);
        assert!(index.of(&web, "me").is_empty());
        assert_eq!(index.update(&key, None), [(api, "me".into())]);
        assert!(index.by_service.is_empty() && index.service_of.is_empty());
    }
}
