//! Recent history: a bounded queue of events, dropped whole revisions at a time.

use std::collections::VecDeque;

use crate::limits::{RING_BYTES_MAX, RING_EVENTS_MAX, RING_EVENTS_STEP};
use crate::{Event, Revision};

/// What history a store keeps. [`Default`] is what [`crate::limits`] argues for; tests take less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLimits {
    pub events: usize,
    pub bytes: usize,
}

impl Default for RingLimits {
    fn default() -> RingLimits {
        RingLimits { events: RING_EVENTS_MAX, bytes: RING_BYTES_MAX }
    }
}

/// What a ring holds.
pub(crate) trait Dated {
    fn revision(&self) -> Revision;

    /// How much memory it takes.
    fn size(&self) -> usize;
}

#[derive(Debug)]
pub(crate) struct Ring<E> {
    events: VecDeque<E>,
    bytes: usize,
    limits: RingLimits,
}

impl<E: Dated> Ring<E> {
    pub(crate) fn new(limits: RingLimits) -> Ring<E> {
        Ring { events: VecDeque::new(), bytes: 0, limits }
    }

    pub(crate) fn push(&mut self, event: E) {
        self.bytes += event.size();
        if self.events.len() == self.events.capacity() {
            // By itself it would double, for the one event over the limit as well.
            self.events.reserve_exact(RING_EVENTS_STEP);
        }
        self.events.push_back(event);
    }

    /// Drop the oldest revisions while the ring is over its limits. A revision leaves whole or stays whole.
    pub(crate) fn evict_excess(&mut self) -> Vec<E> {
        let (mut events, mut bytes, mut through) = (self.events.len(), self.bytes, 0);
        for event in &self.events {
            let over = events > self.limits.events || bytes > self.limits.bytes;
            if !over && event.revision() != through {
                break;
            }
            through = event.revision();
            events -= 1;
            bytes -= event.size();
        }
        self.evict_through(through)
    }

    /// Drop everything up to and including a revision.
    pub(crate) fn evict_through(&mut self, through: Revision) -> Vec<E> {
        let count = self.index_after(through);
        let evicted: Vec<E> = self.events.drain(..count).collect();
        self.bytes -= evicted.iter().map(E::size).sum::<usize>();
        evicted
    }

    /// The events newer than `after`, oldest first.
    pub(crate) fn after(&self, after: Revision) -> impl DoubleEndedIterator<Item = &E> {
        self.events.range(self.index_after(after)..)
    }

    fn index_after(&self, revision: Revision) -> usize {
        self.events.partition_point(|e| e.revision() <= revision)
    }
}

impl Dated for Event {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn size(&self) -> usize {
        // The key twice over, the links of the queue, and both values: the previous one may live on only here.
        let previous = self.previous.as_ref().map_or(0, |p| p.value.len());
        let value = self.value.as_ref().map_or(0, bytes::Bytes::len);
        size_of::<Event>() + self.key.len() + value + previous
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn event(revision: Revision, len: usize) -> Event {
        Event { revision, key: "/k".into(), value: Some(Bytes::from(vec![0; len])), previous: None }
    }

    fn revisions(events: &[Event]) -> Vec<Revision> {
        events.iter().map(|e| e.revision).collect()
    }

    #[test]
    fn over_the_event_limit_whole_revisions_leave() {
        let mut ring = Ring::new(RingLimits { events: 3, bytes: 1 << 20 });
        for revision in [2, 2, 2, 3, 4] {
            ring.push(event(revision, 1));
        }
        assert_eq!(revisions(&ring.evict_excess()), [2, 2, 2]);
        assert_eq!(ring.after(0).map(|e| e.revision).collect::<Vec<_>>(), [3, 4]);
        assert!(ring.evict_excess().is_empty());
    }

    #[test]
    fn over_the_byte_limit_the_oldest_leave() {
        let mut ring = Ring::new(RingLimits { events: 100, bytes: 3_000 });
        for revision in 2..6 {
            ring.push(event(revision, 1_000));
        }
        assert_eq!(revisions(&ring.evict_excess()), [2, 3]);
        assert_eq!(revisions(&ring.evict_through(5)), [4, 5]);
        assert_eq!(ring.bytes, 0);
    }

    #[test]
    fn after_starts_at_the_next_revision() {
        let mut ring = Ring::new(RingLimits::default());
        for revision in [2, 4, 4, 7] {
            ring.push(event(revision, 1));
        }
        let after = |r| ring.after(r).map(|e| e.revision).collect::<Vec<_>>();
        assert_eq!(after(2), [4, 4, 7]);
        assert_eq!(after(3), [4, 4, 7]);
        assert_eq!(after(4), [7]);
        assert_eq!(after(7), [0; 0]);
    }
}
