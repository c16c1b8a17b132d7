//! One watch of etcd for all watches of this process: recent history in a ring, and who wants to hear of it. No I/O.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ring::{Ring, RingLimits};
use crate::{Error, Event, Revision, Watch, WatchSender};

#[derive(Debug)]
pub(super) struct Hub {
    ring: Ring<Event>,
    /// The ring has everything after this revision.
    oldest: Revision,
    /// And up to this one.
    revision: Revision,
    watches: HashMap<Arc<str>, Vec<Listener>>,
    progress: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Listener {
    /// It knows everything up to here already: it may have started ahead of what we have heard.
    after: Revision,
    sender: WatchSender,
}

impl Hub {
    /// Knows nothing of the time before `revision`.
    pub(super) fn new(revision: Revision) -> Hub {
        Hub {
            ring: Ring::new(RingLimits::default()),
            oldest: revision,
            revision,
            watches: HashMap::new(),
            progress: Arc::new(AtomicU64::new(revision)),
        }
    }

    /// Whether the ring has what happened right after `revision`.
    pub(super) fn knows(&self, revision: Revision) -> bool {
        (self.oldest..=self.revision).contains(&revision)
    }

    pub(super) fn reaches_back_to(&self, revision: Revision) -> bool {
        revision >= self.oldest
    }

    /// Takes events in order, whole revisions, and hands them on.
    pub(super) fn publish(&mut self, events: Vec<Event>) {
        let Some(last) = events.last().map(|e| e.revision) else { return };
        self.watches.retain(|prefix, listeners| {
            let matching: Arc<[Event]> =
                events.iter().filter(|e| e.key.starts_with(&**prefix)).cloned().collect();
            listeners.retain(|listener| listener.hear(&matching));
            !listeners.is_empty()
        });
        for event in events {
            self.ring.push(event);
        }
        if let Some(evicted) = self.ring.evict_excess().last() {
            self.oldest = evicted.revision;
        }
        self.advance(last);
    }

    /// Nothing more will come of revisions up to this one.
    pub(super) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
        self.progress.store(self.revision, Ordering::Release);
    }

    /// A watch after `after`, which must be within reach.
    pub(super) fn watch(&mut self, prefix: &str, after: Revision) -> Watch {
        let (sender, watch) = Watch::channel_from(self.progress.clone(), after);
        sender.replay(self.ring.after(after).filter(|e| e.key.starts_with(prefix)).cloned().collect());
        self.watches.entry(prefix.into()).or_default().push(Listener { after, sender });
        watch
    }

    /// History was lost: everybody must begin again.
    pub(super) fn reset(&mut self, revision: Revision) {
        let error = Error::Compacted { oldest: revision };
        for listener in self.watches.drain().flat_map(|(_, listeners)| listeners) {
            listener.sender.fail(error.clone());
        }
        self.ring.evict_through(Revision::MAX);
        self.oldest = revision;
        self.revision = revision;
        self.progress.store(revision, Ordering::Release);
    }
}

impl Listener {
    /// False: it has gone.
    fn hear(&self, events: &Arc<[Event]>) -> bool {
        if events.first().is_none_or(|first| first.revision > self.after) {
            return self.sender.send(events.clone());
        }
        self.sender.send(events.iter().filter(|e| e.revision > self.after).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(key: &str, revision: Revision) -> Event {
        Event { revision, key: key.into(), value: Some(Bytes::from_static(b"x")), previous: None }
    }

    async fn next(watch: &mut Watch) -> Vec<Revision> {
        watch.next().await.unwrap().unwrap().iter().map(|e| e.revision).collect()
    }

    #[tokio::test]
    async fn watches_replay_go_live_and_skip_what_they_know() {
        let mut hub = Hub::new(10);
        hub.publish(vec![event("/a/1", 11), event("/b/1", 12), event("/a/2", 13)]);
        assert!(hub.knows(10) && hub.knows(13) && !hub.knows(9) && !hub.knows(14));
        let mut replayed = hub.watch("/a/", 11);
        assert_eq!(next(&mut replayed).await, [13]);
        // Its client wrote at 15 through another member before we heard of 14.
        let mut ahead = hub.watch("/a/", 15);
        assert_eq!(ahead.progress(), Some(15), "never behind where it started");
        hub.publish(vec![event("/a/3", 14), event("/a/4", 15), event("/a/5", 16)]);
        assert_eq!(next(&mut ahead).await, [16]);
        assert_eq!(next(&mut replayed).await, [14, 15, 16]);
        hub.advance(20);
        assert_eq!(ahead.progress(), Some(20));
    }

    #[tokio::test]
    async fn lost_history_ends_all_watches() {
        let mut hub = Hub::new(10);
        let mut watch = hub.watch("/", 10);
        hub.reset(50);
        assert_eq!(watch.next().await.unwrap(), Err(Error::Compacted { oldest: 50 }));
        assert!(!hub.reaches_back_to(49) && hub.knows(50));
    }
}
