//! Answers of upstreams, kept for as long as they say: bounded in number and bytes.
//!
//! Answers and denials are held apart, so that a flood of names that do not exist does not push out those that do. When a
//! shard is full, the one of two entries chosen at random that expires first goes: constant time, and close to the best.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;

use super::Ask;
use super::stored::Stored;

const SHARDS: usize = 64;
/// Bytes of all entries of a kind; a hundred times what the usual answers need.
const BYTES_MAX: usize = 64 << 20;
/// Larger answers are rare and not kept.
const ENTRY_BYTES_MAX: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Cache {
    shards: Box<[Mutex<Shard>]>,
    hasher: DefaultHashBuilder,
    entries_max: usize,
    /// How long entries stay behind their time.
    stale: Duration,
}

#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Ask, usize, DefaultHashBuilder>,
    entries: Vec<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    ask: Ask,
    stored: Arc<Stored>,
    hits: u32,
    refreshing: bool,
}

/// What the cache has for a question.
#[derive(Debug)]
pub(super) enum Hit {
    Fresh(Arc<Stored>),
    /// Fresh, often asked for, and about to expire: the caller asks for it again, and nobody else is told so.
    Refresh(Arc<Stored>),
}

impl Cache {
    pub(super) fn new(entries: usize, stale: Option<Duration>) -> Cache {
        Cache {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: DefaultHashBuilder::default(),
            entries_max: entries.div_ceil(SHARDS),
            stale: stale.unwrap_or_default(),
        }
    }

    pub(super) fn get(&self, ask: &Ask, now: Instant) -> Option<Hit> {
        let mut shard = self.shard(ask).lock().unwrap_or_else(PoisonError::into_inner);
        let place = *shard.places.get(ask)?;
        let entry = &mut shard.entries[place];
        let stored = entry.stored.clone();
        if now < stored.expires() {
            entry.hits = entry.hits.saturating_add(1);
            // A tenth of its life is left, and it was worth keeping before.
            let soon = stored.expires().saturating_duration_since(now) * 10 < stored.life();
            if soon && entry.hits > 2 && !entry.refreshing {
                entry.refreshing = true;
                return Some(Hit::Refresh(stored));
            }
            return Some(Hit::Fresh(stored));
        }
        if now >= stored.expires() + self.stale {
            shard.remove(place);
        }
        None
    }

    /// A look that is no client's question. Says whether the answer is fresh.
    pub(super) fn peek(&self, ask: &Ask, now: Instant) -> Option<(Arc<Stored>, bool)> {
        let shard = self.shard(ask).lock().unwrap_or_else(PoisonError::into_inner);
        let stored = shard.entries[*shard.places.get(ask)?].stored.clone();
        let (fresh, held) = (now < stored.expires(), now < stored.expires() + self.stale);
        held.then_some((stored, fresh))
    }

    /// Keeps an answer if it may be kept. Says how many others had to go.
    pub(super) fn put(&self, ask: &Ask, stored: &Arc<Stored>) -> u64 {
        let bytes = stored.bytes();
        if self.entries_max == 0 || stored.life().is_zero() || bytes > ENTRY_BYTES_MAX {
            return 0;
        }
        let mut shard = self.shard(ask).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = shard.places.get(ask).copied() {
            shard.remove(place);
        }
        let mut evicted = 0;
        while shard.entries.len() >= self.entries_max || shard.bytes + bytes > BYTES_MAX / SHARDS {
            shard.evict();
            evicted += 1;
        }
        let place = shard.entries.len();
        shard.places.insert(ask.clone(), place);
        shard.entries.push(Entry { ask: ask.clone(), stored: stored.clone(), hits: 0, refreshing: false });
        shard.bytes += bytes;
        evicted
    }

    /// An answer asked for again did not come: the next one who asks tries.
    pub(super) fn refresh_failed(&self, ask: &Ask) {
        let mut shard = self.shard(ask).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = shard.places.get(ask).copied() {
            shard.entries[place].refreshing = false;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).entries.len()).sum()
    }

    fn shard(&self, ask: &Ask) -> &Mutex<Shard> {
        &self.shards[(self.hasher.hash_one(ask) >> 32) as usize % SHARDS]
    }
}

impl Shard {
    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.ask);
        self.bytes -= gone.stored.bytes();
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.ask.clone(), place);
        }
    }

    fn evict(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let (one, two) =
            (rand::random_range(0..self.entries.len()), rand::random_range(0..self.entries.len()));
        let sooner = self.entries[one].stored.expires() <= self.entries[two].stored.expires();
        self.remove(if sooner { one } else { two });
    }
}
