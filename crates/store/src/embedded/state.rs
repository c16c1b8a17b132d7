//! The store's content in memory: current values, recent history, and who watches. No I/O.
//!
//! The committer is the only writer and applies only what is on disk already.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Garbage, Record};
use crate::ring::{Ring, RingLimits};
use crate::{Error, Event, KeyValue, Page, Revision, Watch, WatchSender};

/// What an empty store's revision is, as in etcd.
pub(super) const FIRST_REVISION: Revision = 1;

#[derive(Debug)]
pub(super) struct State {
    revision: Revision,
    /// History up to here is gone; the content at exactly this revision is still known.
    oldest: Revision,
    current: BTreeMap<Arc<str>, KeyValue>,
    ring: Ring,
    /// Watches by prefix, so that watches of one prefix share one filtered copy of each group's events.
    watches: HashMap<Arc<str>, Vec<WatchSender>>,
    progress: Arc<AtomicU64>,
}

impl State {
    pub(super) fn new(limits: RingLimits) -> State {
        State {
            revision: FIRST_REVISION,
            oldest: FIRST_REVISION,
            current: BTreeMap::new(),
            ring: Ring::new(limits),
            watches: HashMap::new(),
            progress: Arc::new(AtomicU64::new(FIRST_REVISION)),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &str) -> Option<&KeyValue> {
        self.current.get(key)
    }

    /// Take one record while loading, in order of revision. Returns what no reader needs any more.
    pub(super) fn load(&mut self, record: Record, compacted: Revision) -> Vec<Garbage> {
        let Record { revision, key, create_revision, value } = record;
        let previous = self.current.get(&key).cloned();
        let key = previous.as_ref().map_or(key, |p| p.key.clone());
        match value.clone() {
            // Not from the event: what it replaced may be compacted, and its create revision with it.
            Some(value) => {
                let current = KeyValue { key: key.clone(), value, create_revision, mod_revision: revision };
                self.current.insert(key.clone(), current);
            }
            None => _ = self.current.remove(&key),
        }
        self.advance(revision);
        let event = Event { revision, key, value, previous };
        if revision <= compacted {
            // Removing it was interrupted. The mark on disk must not go back.
            return garbage_of(&event).map(|g| Garbage { evicted: compacted, ..g }).collect();
        }
        self.ring.push(event);
        self.evict_excess()
    }

    /// Take the compaction mark when loading is done: it holds even when no record is left.
    pub(super) fn loaded(&mut self, compacted: Revision) {
        self.advance(compacted.max(FIRST_REVISION));
        self.oldest = self.oldest.max(compacted);
        self.progress.store(self.revision, Ordering::Release);
    }

    /// Take the events of a durable write and tell the watchers. Returns what no reader needs any more.
    pub(super) fn apply(&mut self, events: Vec<Event>) -> Vec<Garbage> {
        let Some(last) = events.last() else { return Vec::new() };
        self.advance(last.revision);
        for event in &events {
            self.put(event);
        }
        self.publish(&events);
        for event in events {
            self.ring.push(event);
        }
        self.evict_excess()
    }

    /// Forget history up to and including `through`.
    pub(super) fn compact(&mut self, through: Revision) -> Result<Vec<Garbage>, Error> {
        if through > self.revision {
            return Err(Error::TooNew { current: self.revision });
        }
        if through < self.oldest {
            return Err(Error::Compacted { oldest: self.oldest });
        }
        let evicted = self.ring.evict_through(through);
        self.oldest = through;
        Ok(evicted.iter().flat_map(garbage_of).collect())
    }

    fn evict_excess(&mut self) -> Vec<Garbage> {
        let evicted = self.ring.evict_excess();
        if let Some(last) = evicted.last() {
            self.oldest = last.revision;
        }
        evicted.iter().flat_map(garbage_of).collect()
    }

    fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    fn put(&mut self, event: &Event) {
        match event.current() {
            Some(current) => _ = self.current.insert(event.key.clone(), current),
            None => _ = self.current.remove(&event.key),
        }
    }

    fn publish(&mut self, events: &[Event]) {
        self.watches.retain(|prefix, senders| {
            let matching: Arc<[Event]> =
                events.iter().filter(|e| e.key.starts_with(&**prefix)).cloned().collect();
            senders.retain(|sender| sender.send(matching.clone()));
            !senders.is_empty()
        });
        self.progress.store(self.revision, Ordering::Release);
    }

    pub(super) fn watch(&mut self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        self.check_readable(after)?;
        let (sender, watch) = Watch::channel(self.progress.clone());
        sender.replay(self.ring.after(after).filter(|e| e.key.starts_with(prefix)).cloned().collect());
        match self.watches.get_mut(prefix) {
            Some(senders) => senders.push(sender),
            None => _ = self.watches.insert(prefix.into(), vec![sender]),
        }
        Ok(watch)
    }

    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        let revision = at.unwrap_or(self.revision);
        self.check_readable(revision)?;
        let limit = if limit == 0 { usize::MAX } else { limit };
        let undone = self.undo_to(prefix, revision);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut keys = self
            .current
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        if undone.is_empty() {
            let items = keys.by_ref().take(limit).map(|(_, kv)| kv.clone()).collect();
            return Ok(Page { items, revision, remaining: keys.count() as u64 });
        }
        let unchanged = keys.filter(|(key, _)| !undone.contains_key(&***key)).map(|(_, kv)| kv);
        let restored = undone.range::<str, _>((start, Bound::Unbounded)).filter_map(|(_, kv)| *kv);
        let mut merged = Merge { left: unchanged.peekable(), right: restored.peekable() };
        let items = merged.by_ref().take(limit).cloned().collect();
        Ok(Page { items, revision, remaining: merged.count() as u64 })
    }

    /// For each key under `prefix` that has changed since `revision`: what it held then.
    fn undo_to(&self, prefix: &str, revision: Revision) -> BTreeMap<&str, Option<&KeyValue>> {
        let newest_first = self.ring.after(revision).rev().filter(|e| e.key.starts_with(prefix));
        newest_first.map(|e| (&*e.key, e.previous.as_ref())).collect()
    }

    fn check_readable(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.oldest {
            return Err(Error::Compacted { oldest: self.oldest });
        }
        if revision > self.revision {
            return Err(Error::TooNew { current: self.revision });
        }
        Ok(())
    }
}

/// The log records that only readers of the time before `event` needed: the value it replaced, and, for a
/// deletion, itself. In this order: a deletion on disk must outlive what it deletes, or a crash between the two
/// removals would bring the value back.
fn garbage_of(event: &Event) -> impl Iterator<Item = Garbage> {
    let of = |record| Garbage { evicted: event.revision, record, key: event.key.clone() };
    let replaced = event.previous.as_ref().map(|p| of(p.mod_revision));
    let deletion = event.value.is_none().then(|| of(event.revision));
    replaced.into_iter().chain(deletion)
}

/// Two lists in key order as one; no key is in both.
struct Merge<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<'a, L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = &'a KeyValue>,
    R: Iterator<Item = &'a KeyValue>,
{
    type Item = &'a KeyValue;

    fn next(&mut self) -> Option<&'a KeyValue> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if right.key < left.key => self.right.next(),
            (None, _) => self.right.next(),
            _ => self.left.next(),
        }
    }
}
