//! Each transaction happens once, or not at all, whatever happens to its answer.
//!
//! etcd has no way to ask what became of a request. So every transaction that writes also writes a marker: a key of
//! this server's with a word of its own, on the condition that the marker is as this server last saw it. When an
//! answer is lost, a second transaction, the fence, moves the marker on the same condition. If the fence succeeds,
//! the lost one can never happen any more and may be sent again. If it does not, the marker says whether the lost
//! one happened, and when.
//!
//! A marker serves one transaction at a time; there are [`ETCD_TXNS_MAX`] of them, used again and again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::messages::{Condition, KeyValue, Range, Step, Target};
use crate::Revision;
use crate::limits::ETCD_TXNS_MAX;

#[derive(Debug)]
pub(super) struct Writers {
    /// Says which process wrote a word: two servers that are given one identity by mistake must not confuse theirs.
    process: u64,
    next_word: AtomicU64,
    free: Arc<Mutex<Vec<Marker>>>,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
struct Marker {
    key: Vec<u8>,
    /// When it was last written; 0: it is absent. `None`: to be found out.
    revision: Option<Revision>,
}

/// A marker in use. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    marker: Marker,
    free: Arc<Mutex<Vec<Marker>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.marker.clone());
    }
}

/// What the marker says about a transaction whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Happened(Revision),
    /// And never will.
    DidNotHappen,
    Unknown,
}

impl Writers {
    pub(super) fn new(key: impl Fn(usize) -> Vec<u8>) -> Writers {
        let markers = (0..ETCD_TXNS_MAX).map(|n| Marker { key: key(n), revision: None }).collect();
        Writers {
            process: rand::random(),
            next_word: AtomicU64::new(0),
            free: Arc::new(Mutex::new(markers)),
            permits: Arc::new(Semaphore::new(ETCD_TXNS_MAX)),
        }
    }

    /// A free marker; waits for one.
    pub(super) async fn slot(&self) -> Option<Slot> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let marker = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Slot { marker, free: self.free.clone(), _permit: permit })
    }

    /// A word that was never used before.
    pub(super) fn word(&self) -> Bytes {
        let number = self.next_word.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number:x}", self.process).into()
    }
}

impl Slot {
    pub(super) fn revision(&self) -> Option<Revision> {
        self.marker.revision
    }

    /// `None`: nothing is known of the marker any more.
    pub(super) fn set_revision(&mut self, revision: Option<Revision>) {
        self.marker.revision = revision;
    }

    pub(super) fn range(&self) -> Range {
        Range::key(self.marker.key.clone())
    }

    /// The marker is as we know it.
    pub(super) fn condition(&self) -> Condition {
        let number = self.marker.revision.unwrap_or(0);
        Condition { key: self.marker.key.clone(), target: Target::ModRevision, number }
    }

    pub(super) fn put(&self, word: &Bytes) -> Step {
        Step::Put { key: self.marker.key.clone(), value: word.clone() }
    }

    /// Reads the marker after a fence was refused: `word` is the lost transaction's, `fences` are those of the fences
    /// sent since.
    pub(super) fn read_fate(&mut self, found: Option<&KeyValue>, word: &Bytes, fences: &[Bytes]) -> Fate {
        let Some(found) = found else {
            self.marker.revision = Some(0);
            // It was there, or the condition would have held: somebody has removed it.
            return Fate::Unknown;
        };
        self.marker.revision = Some(found.mod_revision);
        if found.value == *word {
            Fate::Happened(found.mod_revision)
        } else if fences.contains(&found.value) {
            Fate::DidNotHappen
        } else {
            Fate::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &Bytes, revision: u64) -> KeyValue {
        KeyValue { value: value.clone(), mod_revision: revision, ..KeyValue::default() }
    }

    #[tokio::test]
    async fn the_marker_tells_what_became_of_a_transaction() {
        let writers = Writers::new(|n| format!("/m/{n}").into_bytes());
        let mut slot = writers.slot().await.unwrap();
        let (word, fence, other) = (writers.word(), writers.word(), writers.word());
        let fences = [fence.clone()];
        assert_eq!(slot.read_fate(Some(&found(&word, 7)), &word, &fences), Fate::Happened(7));
        assert_eq!(slot.revision(), Some(7));
        assert_eq!(slot.read_fate(Some(&found(&fence, 8)), &word, &fences), Fate::DidNotHappen);
        assert_eq!(slot.read_fate(Some(&found(&other, 9)), &word, &fences), Fate::Unknown);
        assert_eq!(slot.read_fate(None, &word, &fences), Fate::Unknown);
        assert_eq!(slot.revision(), Some(0));
    }

    #[tokio::test]
    async fn a_marker_is_used_by_one_at_a_time_and_remembers() {
        let writers = Writers::new(|n| format!("/m/{n}").into_bytes());
        let mut slots = Vec::new();
        for _ in 0..ETCD_TXNS_MAX {
            slots.push(writers.slot().await.unwrap());
        }
        let mut keys: Vec<_> = slots.iter().map(|s| s.marker.key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), ETCD_TXNS_MAX);
        assert_eq!(writers.permits.available_permits(), 0);
        slots[3].set_revision(Some(9));
        drop(slots.remove(3));
        assert_eq!(writers.slot().await.unwrap().revision(), Some(9));
        assert_ne!(writers.word(), writers.word());
    }
}
