//! Finding out that an upstream asks us: a name nobody else would ask for, sent to it, comes back as a question.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::upstream::Upstream;
use crate::name::Name;

/// How often an upstream that does not answer is probed, and how long to wait between: half a minute in all.
pub(super) const TRIES: u32 = 10;
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// The probes under way.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<HashMap<Name, Arc<Upstream>>>);

impl Probes {
    /// A new name for one upstream.
    pub(super) fn start(&self, zone: &Name, upstream: &Arc<Upstream>) -> Option<Name> {
        let labels = [rand::random::<u64>(), rand::random()].map(|n| n.to_string().into_bytes());
        let name = Name::under(labels.iter().map(Vec::as_slice), zone).ok()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), upstream.clone());
        Some(name)
    }

    pub(super) fn end(&self, name: &Name) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A client asks for this name. `true`: it is a probe of ours, and its upstream is left out from now on.
    pub(super) fn came_back(&self, name: &Name) -> bool {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(upstream) = probes.get(name) else { return false };
        if upstream.set_looped() {
            tracing::error!(
                upstream = %upstream.address,
                "this upstream asks us what we ask it: it is left out; name an upstream that is no client of this server"
            );
        }
        true
    }
}
