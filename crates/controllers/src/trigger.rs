//! What set off a change of a Service's endpoints: the moment that the annotation
//! `endpoints.kubernetes.io/last-change-trigger-time` carries, so that proxies can measure the way from there.
//!
//! Times are the API's own text (`2026-01-02T03:04:05Z`), which sorts as time does.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_client::Key;

use crate::objects::{Pod, Service};

/// What was seen at the last look, per Service.
#[derive(Debug, Default)]
pub struct Tracker {
    services: HashMap<Key, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    service: Arc<str>,
    /// By name.
    pods: Vec<(Arc<str>, String)>,
}

impl Seen {
    /// When a pod's Ready condition moved last, as far as is known; forgets it.
    fn take(&mut self, pod: &str) -> Option<String> {
        let index = self.pods.binary_search_by(|(name, _)| (**name).cmp(pod)).ok()?;
        Some(std::mem::take(&mut self.pods[index].1))
    }
}

impl Tracker {
    /// The earliest of the changes since the last look, if any: a pod's Ready condition moved, or the Service is new.
    /// The first look at a Service says when it was created.
    pub fn look(&mut self, key: &Key, service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
        let created = service.metadata.creation_timestamp.clone().unwrap_or_default();
        let first = !self.services.contains_key(key);
        let seen = self.services.entry(key.clone()).or_default();
        let mut trigger: Option<&str> = None;
        let mut earlier = |time| trigger = Some(trigger.map_or(time, |known: &str| known.min(time)));
        if *created > *seen.service {
            seen.service = Arc::clone(&created);
            earlier(&created);
        }
        let mut now = Vec::with_capacity(pods.len());
        for pod in pods {
            let known = seen.take(&pod.metadata.name);
            let ready = pod.condition("Ready").and_then(|ready| ready.last_transition_time.as_deref());
            let moved = ready.filter(|time| known.as_deref().is_none_or(|known| known < *time));
            if let Some(time) = moved.filter(|_| !first) {
                earlier(time);
            }
            let time = moved.map(str::to_owned).or(known);
            now.extend(time.map(|time| (Arc::clone(&pod.metadata.name), time)));
        }
        now.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        now.shrink_to_fit();
        seen.pods = now;
        trigger.map(str::to_owned)
    }

    pub fn forget(&mut self, key: &Key) {
        self.services.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, service};

    #[test]
    fn first_the_creation_then_the_earliest_move() {
        let key = Key::new("default", "web");
        let mut web = service("web");
        web.metadata.creation_timestamp = Some("2026-01-01T00:00:00Z".into());
        let at = |name: &str, time: &str| {
            let mut pod = pod(name, "10.0.0.1");
            pod.status.conditions[0].last_transition_time = Some(time.into());
            Arc::new(pod)
        };
        let mut tracker = Tracker::default();
        let first = [at("a", "2026-01-01T00:00:05Z")];
        assert_eq!(tracker.look(&key, &web, &first).as_deref(), Some("2026-01-01T00:00:00Z"));
        assert_eq!(tracker.look(&key, &web, &first), None, "nothing moved");
        let moved = [
            at("a", "2026-01-01T00:00:09Z"),
            at("b", "2026-01-01T00:00:07Z"),
            at("c", "2026-01-01T00:00:08Z"),
        ];
        assert_eq!(tracker.look(&key, &web, &moved).as_deref(), Some("2026-01-01T00:00:07Z"));
        // A pod that went back in time, or away, set off nothing.
        let fewer = [at("a", "2026-01-01T00:00:01Z")];
        assert_eq!(tracker.look(&key, &web, &fewer), None);
        // A Service made anew under its name did, before its pods moved.
        web.metadata.creation_timestamp = Some("2026-01-01T00:01:00Z".into());
        let later = [at("a", "2026-01-01T00:02:00Z")];
        assert_eq!(tracker.look(&key, &web, &later).as_deref(), Some("2026-01-01T00:01:00Z"));
        tracker.forget(&key);
        assert_eq!(tracker.look(&key, &web, &moved).as_deref(), Some("2026-01-01T00:01:00Z"));
    }
}
