//! Transactions: sent, and settled when their answer is lost. See `writer` for how.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::channel::Failure;
use super::cluster::{Meaning, Retry, meaning, refusal};
use super::messages::{self, Condition, Range, Step, Target, TxnResponse};
use super::writer::{Fate, Slot};
use super::{Etcd, unavailable};
use crate::limits::{ETCD_CALL_TIMEOUT_MS, ETCD_RESOLVE_TIMEOUT_MS};
use crate::{Commit, Compare, Error, KeyValue, Op, Txn};

/// A transaction in etcd's terms; the marker's parts are added each time it is sent.
struct Prepared {
    conditions: Vec<Condition>,
    steps: Vec<Step>,
    /// What a conflict wants to know: the keys of all conditions.
    reads: Vec<Step>,
}

impl Etcd {
    pub(super) async fn commit_once(&self, txn: Txn) -> Result<Commit, Error> {
        crate::check(&txn)?;
        let prepared = self.prepare(&txn)?;
        if txn.ops.is_empty() {
            let request = messages::txn(&prepared.conditions, &[], &prepared.reads);
            let answer = TxnResponse::decode(self.call(messages::TXN, request).await?)?;
            return Ok(if answer.succeeded {
                Commit::Done(answer.revision)
            } else {
                self.conflict(&txn, answer)
            });
        }
        let closed = || Error::Unavailable("the store is closed".into());
        let mut slot = self.writers.slot().await.ok_or_else(closed)?;
        let deadline = Instant::now() + Duration::from_millis(ETCD_CALL_TIMEOUT_MS);
        let mut retry = Retry::new(deadline, self.cluster.len());
        loop {
            match self.attempt(&txn, &prepared, &mut slot, deadline).await? {
                Attempt::Answered(commit) => return Ok(commit),
                Attempt::Again(why) => {
                    if !retry.wait().await {
                        return Err(why);
                    }
                }
            }
        }
    }

    /// Sends the transaction once. When this returns, it has happened or never will, or it is an error.
    async fn attempt(
        &self,
        txn: &Txn,
        prepared: &Prepared,
        slot: &mut Slot,
        deadline: Instant,
    ) -> Result<Attempt, Error> {
        if slot.revision().is_none() {
            let found = self.range(&slot.range()).await?;
            slot.set_revision(Some(found.kvs.first().map_or(0, |kv| kv.mod_revision)));
        }
        let word = self.writers.word();
        let condition = slot.condition();
        // If the caller goes away now, the marker is read again before it is used again.
        slot.set_revision(None);
        let request = prepared.request(&condition, slot, &word);
        let (asked, outcome) = self.cluster.once(messages::TXN, request, deadline).await;
        let failure =
            match outcome.and_then(|a| TxnResponse::decode(a).map_err(|e| Failure::Lost(e.to_string()))) {
                Ok(answer) => return Ok(self.answered(txn, answer, &condition, slot)),
                Err(failure) => failure,
            };
        match meaning(&failure) {
            Meaning::Refused => {
                slot.set_revision(Some(condition.number));
                Err(refusal(&failure))
            }
            Meaning::NotTaken => {
                slot.set_revision(Some(condition.number));
                self.cluster.move_on(asked);
                Ok(Attempt::Again(unavailable(&failure)))
            }
            Meaning::Unknown => {
                self.cluster.move_on(asked);
                self.settle(condition, slot, &word, failure).await
            }
        }
    }

    fn answered(
        &self,
        txn: &Txn,
        mut answer: TxnResponse,
        condition: &Condition,
        slot: &mut Slot,
    ) -> Attempt {
        if answer.succeeded {
            slot.set_revision(Some(answer.revision));
            return Attempt::Answered(Commit::Done(answer.revision));
        }
        let marker = answer.ranges.pop().and_then(|range| range.kvs.into_iter().next());
        let revision = marker.map_or(0, |kv| kv.mod_revision);
        slot.set_revision(Some(revision));
        if revision != condition.number {
            // An earlier transaction, given up by its caller, has moved the marker meanwhile.
            return Attempt::Again(Error::Unavailable(
                "another server writes under the same identity".into(),
            ));
        }
        Attempt::Answered(self.conflict(txn, answer))
    }

    /// Finds out what became of a transaction whose answer was lost, and makes sure that it stays so.
    async fn settle(
        &self,
        condition: Condition,
        slot: &mut Slot,
        word: &Bytes,
        lost: Failure,
    ) -> Result<Attempt, Error> {
        let deadline = Instant::now() + Duration::from_millis(ETCD_RESOLVE_TIMEOUT_MS);
        let mut retry = Retry::new(deadline, self.cluster.len());
        let mut fences = Vec::new();
        tracing::debug!(%lost, "the answer to a write was lost; finding out what became of it");
        loop {
            let fence = self.writers.word();
            let read = [Step::Range(slot.range())];
            let request = messages::txn(std::slice::from_ref(&condition), &[slot.put(&fence)], &read);
            fences.push(fence);
            let (asked, outcome) = self.cluster.once(messages::TXN, request, deadline).await;
            match outcome.and_then(|a| TxnResponse::decode(a).map_err(|e| Failure::Lost(e.to_string()))) {
                Ok(answer) if answer.succeeded => {
                    slot.set_revision(Some(answer.revision));
                    return Ok(Attempt::Again(unavailable(&lost)));
                }
                Ok(answer) => {
                    let found = answer.ranges.first().and_then(|range| range.kvs.first());
                    return match slot.read_fate(found, word, &fences) {
                        Fate::Happened(revision) => Ok(Attempt::Answered(Commit::Done(revision))),
                        Fate::DidNotHappen => Ok(Attempt::Again(unavailable(&lost))),
                        Fate::Unknown => Err(Error::Unknown(lost.to_string())),
                    };
                }
                Err(failure) => {
                    self.cluster.move_on(asked);
                    if meaning(&failure) == Meaning::Refused || !retry.wait().await {
                        return Err(Error::Unknown(failure.to_string()));
                    }
                }
            }
        }
    }

    fn prepare(&self, txn: &Txn) -> Result<Prepared, Error> {
        let mut prepared = Prepared { conditions: Vec::new(), steps: Vec::new(), reads: Vec::new() };
        for compare in &txn.compares {
            let key = self.layout.key(compare.key())?;
            let number = if let Compare::Revision(_, revision) = compare { *revision } else { 0 };
            prepared.reads.push(Step::Range(Range::key(key.clone())));
            // A condition that cannot hold: no key was ever written at revision 0, though etcd calls absence so.
            let impossible = matches!(compare, Compare::Revision(_, 0));
            let number = if impossible { i64::MAX as u64 } else { number };
            prepared.conditions.push(Condition { key, target: Target::ModRevision, number });
        }
        for op in &txn.ops {
            prepared.steps.push(match op {
                Op::Put(key, value) => Step::Put { key: self.layout.key(key)?, value: value.clone() },
                Op::Delete(key) => Step::Delete { key: self.layout.key(key)? },
            });
        }
        Ok(prepared)
    }

    fn conflict(&self, txn: &Txn, answer: TxnResponse) -> Commit {
        let found = answer
            .ranges
            .into_iter()
            .map(|range| range.kvs.into_iter().next().and_then(|kv| self.layout.key_value(kv)));
        let keys = txn.compares.iter().map(|compare| compare.key().clone());
        let current: Vec<(Arc<str>, Option<KeyValue>)> = keys.zip(found).collect();
        Commit::Conflict { current }
    }
}

impl Prepared {
    fn request(&self, marker: &Condition, slot: &Slot, word: &Bytes) -> Bytes {
        let with = |parts: &[Step], more: Step| parts.iter().cloned().chain([more]).collect::<Vec<Step>>();
        let conditions: Vec<Condition> = self.conditions.iter().chain([marker]).cloned().collect();
        messages::txn(
            &conditions,
            &with(&self.steps, slot.put(word)),
            &with(&self.reads, Step::Range(slot.range())),
        )
    }
}

enum Attempt {
    Answered(Commit),
    /// It has not happened and will not; if there is no time for another attempt, this is why.
    Again(Error),
}
