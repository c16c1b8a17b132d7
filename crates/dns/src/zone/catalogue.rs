//! Collects the objects that a zone is made of, and makes the next zone from the last.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_client::Key;

use super::entry::{self, ByName, wire_label};
use super::view::{PodView, ServiceView, SliceView};
use super::{Options, Zone, reverse};
use crate::name::NameError;

/// The newest views of everything, and the zone that was made of them last.
#[derive(Debug)]
pub struct Catalogue {
    zone: Zone,
    services: HashMap<Key, Arc<ServiceView>>,
    slices: HashMap<Key, Arc<SliceView>>,
    /// Which slices a Service has, in order, so that equal input gives equal entries.
    slices_of: HashMap<Key, BTreeSet<Key>>,
    pods: HashMap<Key, Arc<PodView>>,
    dirty: HashSet<Key>,
    /// Something other than a Service changed in `zone`.
    changed: bool,
    /// Services whose names cannot be domain names.
    refused: usize,
}

impl Catalogue {
    pub fn new(options: Options) -> Result<Catalogue, NameError> {
        Ok(Catalogue {
            zone: Zone::empty(options)?,
            services: HashMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            pods: HashMap::new(),
            dirty: HashSet::new(),
            changed: false,
            refused: 0,
        })
    }

    /// How many Services could not be compiled so far.
    pub fn refused(&self) -> usize {
        self.refused
    }

    pub fn set_service(&mut self, key: &Key, view: Option<&Arc<ServiceView>>) {
        match view {
            Some(view) => _ = self.services.insert(key.clone(), view.clone()),
            None => _ = self.services.remove(key),
        }
        self.dirty.insert(key.clone());
    }

    pub fn set_slice(&mut self, key: &Key, view: Option<&Arc<SliceView>>) {
        let old = match view {
            Some(view) => self.slices.insert(key.clone(), view.clone()),
            None => self.slices.remove(key),
        };
        let before = old.as_ref().and_then(|v| v.service.clone());
        let after = view.and_then(|v| v.service.clone());
        if before != after
            && let Some(service) = &before
            && let Some(slices) = self.slices_of.get_mut(service)
        {
            slices.remove(key);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(service) = &after {
            self.slices_of.entry(service.clone()).or_default().insert(key.clone());
        }
        self.dirty.extend(before.into_iter().chain(after));
    }

    pub fn set_namespace(&mut self, name: &str, exists: bool) {
        let options = self.zone.options();
        let shown = options.namespaces.is_empty() || options.namespaces.contains(name);
        let Ok(label) = wire_label(name) else { return };
        self.changed |= if exists && shown {
            self.zone.namespaces.insert(label, ()).is_none()
        } else {
            self.zone.namespaces.remove(&*label).is_some()
        };
    }

    pub fn set_pod(&mut self, key: &Key, view: Option<&Arc<PodView>>) {
        let old = match view {
            Some(view) => self.pods.insert(key.clone(), view.clone()),
            None => self.pods.remove(key),
        };
        if old.as_ref() == view {
            return;
        }
        let Ok(namespace) = wire_label(&key.namespace) else { return };
        for address in old.iter().flat_map(|v| &v.addresses) {
            self.count_pod(&namespace, *address, false);
        }
        for address in view.into_iter().flat_map(|v| &v.addresses) {
            self.count_pod(&namespace, *address, true);
        }
        self.changed = true;
    }

    /// Two pods may share an address for a moment: the old one goes later than the new one comes.
    fn count_pod(&mut self, namespace: &Arc<[u8]>, address: IpAddr, up: bool) {
        let key = (namespace.clone(), address);
        let count = self.zone.pods.get(&key).copied().unwrap_or(0);
        match if up { count.saturating_add(1) } else { count.saturating_sub(1) } {
            0 => _ = self.zone.pods.remove(&key),
            count => _ = self.zone.pods.insert(key, count),
        }
    }

    /// Compiles what changed. `None`: the zone would be the same. `serial` is the least serial of the new zone, as
    /// seconds since 1970; it goes up in any case.
    pub fn commit(&mut self, serial: u32) -> Option<Zone> {
        for key in std::mem::take(&mut self.dirty) {
            self.changed |= self.compile(&key);
        }
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        // Serial numbers wrap (RFC 1982); Kubernetes' zones have no secondaries that would mind.
        self.zone.serial = serial.max(self.zone.serial.wrapping_add(1));
        Some(self.zone.clone())
    }

    /// Brings one Service up to date. Says whether anything changed.
    fn compile(&mut self, key: &Key) -> bool {
        let Ok(wire) = entry::service_key(&key.namespace, &key.name) else {
            self.refused += 1;
            return false;
        };
        let options = self.zone.options();
        let slices: Vec<_> = self
            .slices_of
            .get(key)
            .into_iter()
            .flatten()
            .filter_map(|slice| self.slices.get(slice).cloned())
            .collect();
        let compiled = self.services.get(key).map(|view| entry::compile(options, key, view, &slices));
        let compiled = compiled.transpose();
        self.refused += usize::from(compiled.is_err());
        let new = compiled.ok().flatten().map(Arc::new);
        let old = self.zone.find(&wire).cloned();
        if old == new {
            return false;
        }
        let hostname_only = options.ptr_hostname_only;
        reverse::update(&mut self.zone.pointers, old.as_deref(), new.as_deref(), hostname_only);
        match new {
            Some(new) => _ = self.zone.services.insert(ByName(new), ()),
            None => _ = self.zone.services.remove(&*wire),
        }
        true
    }
}
