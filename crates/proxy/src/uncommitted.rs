//! Changes that are compiled and not in the kernel yet.
//!
//! A commit can fail; what is done after a commit (stale flows, health checks, metrics) must then see the changes of all
//! rounds since the last success as one.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_forward::{Delta, ServiceChange, ServiceKey, ServiceTable};

/// A Service before and after.
type Ends = (Option<Arc<ServiceTable>>, Option<Arc<ServiceTable>>);

/// Per Service the oldest `from` and the newest `to`.
#[derive(Debug, Default)]
pub(crate) struct Uncommitted {
    services: BTreeMap<ServiceKey, Ends>,
}

impl Uncommitted {
    pub(crate) fn add(&mut self, delta: &Delta) {
        for ServiceChange { key, from, to } in &delta.services {
            let ends = self.services.entry(key.clone()).or_insert_with(|| (from.clone(), None));
            ends.1.clone_from(to);
        }
    }

    /// Everything since the last success, leaving nothing. A Service that came and went is not in it.
    pub(crate) fn take(&mut self) -> Vec<ServiceChange> {
        let all = std::mem::take(&mut self.services).into_iter();
        all.filter(|(_, (from, to))| from.is_some() || to.is_some())
            .map(|(key, (from, to))| ServiceChange { key, from, to })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use portolan_client::Key;

    use super::*;
    use crate::snapshot::Snapshot;
    use crate::testing::{node_view, service_object, slice_object};

    #[test]
    fn rounds_since_the_last_success_are_one_change() {
        let (mut snapshot, mut uncommitted) = (Snapshot::new(node_view()), Uncommitted::default());
        let key = Key::new("default", "dns");
        snapshot.service(&key, Some(Arc::new(service_object("dns", "10.96.0.1", "UDP"))));
        snapshot.slice(&key, Some(Arc::new(slice_object("dns", &["10.0.0.1"], "UDP"))));
        uncommitted.add(&snapshot.compile().delta);
        let first = uncommitted.take();
        assert!(first[0].from.is_none() && uncommitted.take().is_empty());
        for address in ["10.0.0.2", "10.0.0.3"] {
            snapshot.slice(&key, Some(Arc::new(slice_object("dns", &[address], "UDP"))));
            uncommitted.add(&snapshot.compile().delta);
        }
        let merged = uncommitted.take();
        let served = |table: &Option<Arc<ServiceTable>>| {
            table.as_ref().unwrap().ports[0].serving[0].address.to_string()
        };
        assert_eq!((served(&merged[0].from), served(&merged[0].to)), ("10.0.0.1".into(), "10.0.0.3".into()));
        assert_eq!(crate::stale::suspects(&merged).len(), 1);
    }

    #[test]
    fn what_came_and_went_is_no_change() {
        let (mut snapshot, mut uncommitted) = (Snapshot::new(node_view()), Uncommitted::default());
        let key = Key::new("default", "dns");
        snapshot.service(&key, Some(Arc::new(service_object("dns", "10.96.0.1", "UDP"))));
        uncommitted.add(&snapshot.compile().delta);
        snapshot.service(&key, None);
        uncommitted.add(&snapshot.compile().delta);
        assert!(uncommitted.take().is_empty());
    }
}
