//! The store's content in memory: current values, recent history, and who watches. No I/O.
//!
//! The committer is the only writer and applies only what is on disk already.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::{Garbage, Record};
use super::packed::{Held, Packer, Past};
use crate::limits::REPLAY_EVENTS;
use crate::ring::{Ring, RingLimits};
use crate::watch::Replay;
use crate::{Error, Event, KeyValue, Page, Revision, Watch, WatchSender};

/// What an empty store's revision is, as in etcd.
pub(super) const FIRST_REVISION: Revision = 1;

#[derive(Debug)]
pub(super) struct State {
    revision: Revision,
    /// History up to here is gone; the content at exactly this revision is still known.
    oldest: Revision,
    current: BTreeMap<Arc<str>, Held>,
    ring: Ring<Past>,
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

    pub(super) fn get(&self, key: &str) -> Option<KeyValue> {
        self.current.get_key_value(key).map(|(key, held)| held.open(key))
    }

    pub(super) fn held(&self, key: &str) -> Option<&Held> {
        self.current.get(key)
    }

    /// Take one record while loading, in order of revision. Returns what no reader needs any more.
    pub(super) fn load(&mut self, record: Record, compacted: Revision, packer: &mut Packer) -> Vec<Garbage> {
        let Record { revision, key, create_revision, value } = record;
        let (key, previous) = match self.current.get_key_value(&key) {
            Some((key, held)) => (key.clone(), Some(held.clone())),
            None => (key, None),
        };
        let value = value.map(|value| packer.pack(&key, &value));
        // The create revision is not the event's: what it replaced may be compacted.
        let past = Past::new(revision, key, create_revision, value, previous);
        self.put(&past);
        self.advance(revision);
        if revision <= compacted {
            // Removing it was interrupted. The mark on disk must not go back.
            return garbage_of(&past).map(|g| Garbage { evicted: compacted, ..g }).collect();
        }
        self.ring.push(past);
        self.evict_excess()
    }

    /// Take the compaction mark when loading is done: it holds even when no record is left.
    pub(super) fn loaded(&mut self, compacted: Revision) {
        self.advance(compacted.max(FIRST_REVISION));
        self.oldest = self.oldest.max(compacted);
        self.progress.store(self.revision, Ordering::Release);
    }

    /// Take the events of a durable write, packed, and tell the watchers. Returns what no reader needs any more.
    pub(super) fn apply(&mut self, events: &[Event], packed: Vec<Past>) -> Vec<Garbage> {
        let Some(last) = events.last() else { return Vec::new() };
        self.advance(last.revision);
        for past in &packed {
            self.put(past);
        }
        self.publish(events);
        for past in packed {
            self.ring.push(past);
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

    fn put(&mut self, past: &Past) {
        match past.current() {
            Some(held) => _ = self.current.insert(past.key.clone(), held),
            None => _ = self.current.remove(&past.key),
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
        let past: Vec<Past> = self.ring.after(after).filter(|e| e.key.starts_with(prefix)).cloned().collect();
        if !past.is_empty() {
            sender.replay_with(replay(past));
        }
        match self.watches.get_mut(prefix) {
            Some(senders) => senders.push(sender),
            None => _ = self.watches.insert(prefix.into(), vec![sender]),
        }
        Ok(watch)
    }

    /// The page is still packed, so that it can be opened by who asked and not while all wait.
    pub(super) fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<PackedPage, Error> {
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
        let owned = |(key, held): (&Arc<str>, &Held)| (key.clone(), held.clone());
        if undone.is_empty() {
            let items = keys.by_ref().take(limit).map(owned).collect();
            return Ok(PackedPage { items, revision, remaining: keys.count() as u64 });
        }
        let unchanged = keys.filter(|(key, _)| !undone.contains_key(&***key));
        let restored = undone
            .range::<str, _>((start, Bound::Unbounded))
            .filter_map(|(_, past)| Some((&past.key, past.previous.as_ref()?)));
        let mut merged = Merge { left: unchanged.peekable(), right: restored.peekable() };
        let items = merged.by_ref().take(limit).map(owned).collect();
        Ok(PackedPage { items, revision, remaining: merged.count() as u64 })
    }

    /// For each key under `prefix` that has changed since `revision`: the first of its changes.
    fn undo_to(&self, prefix: &str, revision: Revision) -> BTreeMap<&str, &Past> {
        let newest_first = self.ring.after(revision).rev().filter(|e| e.key.starts_with(prefix));
        newest_first.map(|e| (&*e.key, e)).collect()
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
fn garbage_of(event: &Past) -> impl Iterator<Item = Garbage> {
    let of = |record| Garbage { evicted: event.revision, record, key: event.key.clone() };
    let replaced = event.previous.as_ref().map(|p| of(p.mod_revision));
    let deletion = event.is_deletion().then(|| of(event.revision));
    replaced.into_iter().chain(deletion)
}

/// A [`Page`] of packed values.
pub(super) struct PackedPage {
    items: Vec<(Arc<str>, Held)>,
    revision: Revision,
    remaining: u64,
}

impl PackedPage {
    pub(super) fn open(self) -> Page {
        let items = self.items.iter().map(|(key, held)| held.open(key)).collect();
        Page { items, revision: self.revision, remaining: self.remaining }
    }
}

/// Opens past events some at a time: what a watcher has not come to takes no room.
fn replay(past: Vec<Past>) -> Replay {
    let mut past = past.into_iter();
    Box::new(std::iter::from_fn(move || {
        let events: Arc<[Event]> = past.by_ref().take(REPLAY_EVENTS).map(|past| past.open()).collect();
        (!events.is_empty()).then_some(events)
    }))
}

/// Two lists in key order as one; no key is in both.
struct Merge<L: Iterator, R: Iterator> {
    left: std::iter::Peekable<L>,
    right: std::iter::Peekable<R>,
}

impl<'a, L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = (&'a Arc<str>, &'a Held)>,
    R: Iterator<Item = (&'a Arc<str>, &'a Held)>,
{
    type Item = (&'a Arc<str>, &'a Held);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.left.peek(), self.right.peek()) {
            (Some(left), Some(right)) if right.0 < left.0 => self.right.next(),
            (None, _) => self.right.next(),
            _ => self.left.next(),
        }
    }
}
