//! The slices of each Service, who manages them, and whether the cache shows what was written last.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::Key;

use crate::written::{EndpointSlice, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};

/// After this long without sight of one's own write, the cache is believed.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// What one write should make visible.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    /// This version or a later one. Versions are numbers that grow, since Kubernetes 1.35 officially so.
    Version(u64),
    Gone {
        uid: String,
    },
}

/// Writes of one Service's slices that the cache may not show yet. Planning on an older view would make slices twice.
#[derive(Debug)]
pub struct Pending {
    slices: Vec<(String, Expected)>,
    until: Instant,
}

impl Pending {
    pub fn new(now: Instant) -> Self {
        Self { slices: Vec::new(), until: now + PATIENCE }
    }

    pub fn wrote(&mut self, slice: &EndpointSlice) {
        if let Ok(version) = slice.metadata.resource_version.parse() {
            self.slices.push((slice.metadata.name.clone(), Expected::Version(version)));
        }
    }

    pub fn deleted(&mut self, slice: &EndpointSlice) {
        let gone = Expected::Gone { uid: slice.metadata.uid.clone() };
        self.slices.push((slice.metadata.name.clone(), gone));
    }

    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// How much longer to wait for the cache; `None`: it shows everything, or it had its time.
    pub fn wait(&self, service: &Key, index: &SliceIndex, now: Instant) -> Option<Duration> {
        let shown = self.slices.iter().all(|(name, expected)| {
            let held = index.get(service, name);
            match expected {
                Expected::Version(version) => held
                    .and_then(|slice| slice.metadata.resource_version.parse::<u64>().ok())
                    .is_some_and(|held| held >= *version),
                Expected::Gone { uid } => held.is_none_or(|slice| slice.metadata.uid != *uid),
            }
        });
        let left = self.until.saturating_duration_since(now);
        (!shown && !left.is_zero()).then_some(left)
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

    #[test]
    fn pending_waits_until_the_cache_shows_it_or_patience_ends() {
        let (now, web) = (Instant::now(), Key::new("ns", "web"));
        let mut index = SliceIndex::default();
        let mut pending = Pending::new(now);
        pending.wrote(&slice("s1", "web", "10"));
        assert!(pending.wait(&web, &index, now).is_some(), "a create is not there yet");
        index.update(&Key::new("ns", "s1"), Some(slice("s1", "web", "9")));
        assert!(pending.wait(&web, &index, now).is_some(), "an older version");
        index.update(&Key::new("ns", "s1"), Some(slice("s1", "web", "11")));
        assert_eq!(pending.wait(&web, &index, now), None);
        let mut pending = Pending::new(now);
        pending.deleted(&slice("s1", "web", "11"));
        assert!(pending.wait(&web, &index, now).is_some());
        assert_eq!(pending.wait(&web, &index, now + PATIENCE), None);
        index.update(&Key::new("ns", "s1"), None);
        assert_eq!(pending.wait(&web, &index, now), None);
    }
}
