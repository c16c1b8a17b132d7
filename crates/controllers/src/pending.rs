//! Whether the caches show what was written last. Planning on an older view would do things twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// After this long without sight of one's own write, the cache is believed.
const PATIENCE: Duration = Duration::from_secs(3);

/// What one write should make visible.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expected {
    /// This version or a later one. Versions are numbers that grow, since Kubernetes 1.35 officially so.
    Version(u64),
    /// The object with this UID is gone, or on its way out.
    Ending { uid: Arc<str> },
}

/// What a cache shows of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<'a> {
    pub uid: &'a str,
    /// As [`version`] reads it.
    pub version: u64,
    pub deleting: bool,
}

/// A resource version; 0, which is before all of them, where it is no number.
pub fn version(text: &str) -> u64 {
    text.parse().unwrap_or_default()
}

/// Writes on behalf of one key that the cache may not show yet, by the names of the objects written.
#[derive(Debug)]
pub struct Pending {
    objects: Vec<(Arc<str>, Expected)>,
    until: Instant,
}

impl Pending {
    pub fn new(now: Instant) -> Self {
        Self { objects: Vec::new(), until: now + PATIENCE }
    }

    /// An object was created or updated, and this is its version now.
    pub fn wrote(&mut self, name: &str, resource_version: &str) {
        if let Ok(version) = resource_version.parse() {
            self.objects.push((name.into(), Expected::Version(version)));
        }
    }

    pub fn deleted(&mut self, name: &str, uid: &str) {
        self.objects.push((name.into(), Expected::Ending { uid: uid.into() }));
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// How much longer to wait for the cache; `None`: it shows everything, or it had its time. `shown` says whether
    /// what the cache has under a name satisfies the test it is given.
    pub fn wait(
        &self,
        now: Instant,
        shown: impl Fn(&str, &dyn Fn(Option<Seen<'_>>) -> bool) -> bool,
    ) -> Option<Duration> {
        let all = self.objects.iter().all(|(name, expected)| shown(name, &|seen| expected.holds(seen)));
        let left = self.until.saturating_duration_since(now);
        (!all && !left.is_zero()).then_some(left)
    }
}

impl Expected {
    fn holds(&self, seen: Option<Seen<'_>>) -> bool {
        match (self, seen) {
            (Self::Version(_), None) => false,
            (Self::Version(version), Some(seen)) => seen.version >= *version,
            (Self::Ending { .. }, None) => true,
            (Self::Ending { uid }, Some(seen)) => seen.deleting || *seen.uid != **uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(pending: &Pending, now: Instant, seen: Option<(&str, &str, bool)>) -> bool {
        let seen = seen.map(|(uid, text, deleting)| Seen { uid, version: version(text), deleting });
        pending.wait(now, |_, holds| holds(seen.clone())).is_some()
    }

    #[test]
    fn it_waits_until_the_cache_shows_it_or_patience_ends() {
        let now = Instant::now();
        let mut pending = Pending::new(now);
        pending.wrote("a", "10");
        assert!(waits(&pending, now, None), "a create is not there yet");
        assert!(waits(&pending, now, Some(("u", "9", false))), "an older version");
        assert!(!waits(&pending, now, Some(("u", "11", false))));
        let mut pending = Pending::new(now);
        pending.deleted("a", "u");
        assert!(waits(&pending, now, Some(("u", "11", false))));
        assert!(!waits(&pending, now, Some(("u", "12", true))), "ending gracefully");
        assert!(!waits(&pending, now, Some(("v", "13", false))), "another of that name");
        assert!(!waits(&pending, now, None));
        assert!(!waits(&pending, now + PATIENCE, Some(("u", "11", false))));
    }
}
