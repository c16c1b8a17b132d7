//! The one thread that writes: group commit.
//!
//! All transactions that wait when the thread is free are decided in order, each against the state that the ones
//! before it leave, and share one durable write. Nobody hears of an outcome before it is on disk.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, Garbage, Record};
use super::packed::{Held, Packer, Past};
use super::state::State;
use crate::limits::{COMPACT_RECORDS_MAX, FULL_RETRY_MS, GROUP_BYTES_MAX, GROUP_TXNS_MAX};
use crate::{Commit, Compare, Error, Event, KeyValue, Op, Revision, Txn};

pub(super) enum Request {
    Commit { txn: Txn, reply: oneshot::Sender<Result<Commit, Error>> },
    Compact { before: Revision, reply: oneshot::Sender<Result<(), Error>> },
}

pub(super) struct Committer {
    pub(super) disk: Disk,
    pub(super) state: Arc<RwLock<State>>,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Records to remove, in order of the revision that made them garbage.
    pub(super) garbage: VecDeque<Garbage>,
    pub(super) packer: Packer,
    pub(super) failed: Option<Failed>,
}

/// A disk error. Nothing is written after it, unless the disk was only full: then the database is opened again now and
/// then.
pub(super) struct Failed {
    error: Error,
    next_attempt: Option<Instant>,
}

/// Transactions decided together, not yet on disk.
#[derive(Default)]
struct Group {
    overlay: HashMap<Arc<str>, Option<KeyValue>>,
    events: Vec<Event>,
    revision: Revision,
    replies: Vec<(oneshot::Sender<Result<Commit, Error>>, Commit)>,
}

impl Committer {
    /// Run until every handle on the store is gone.
    pub(super) fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            if let Some(compact) = self.commit_group(first) {
                self.compact(compact.0, compact.1);
            }
        }
    }

    /// Commit `first` and what else waits. A compaction among it ends the group and is returned.
    fn commit_group(&mut self, first: Request) -> Option<(Revision, oneshot::Sender<Result<(), Error>>)> {
        let mut group = Group { revision: self.read(State::revision), ..Group::default() };
        let mut compact = None;
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(request) = next.take() {
            match request {
                Request::Commit { txn, reply } => {
                    bytes += txn_bytes(&txn);
                    self.decide(&mut group, txn, reply);
                }
                Request::Compact { before, reply } => {
                    compact = Some((before, reply));
                    break;
                }
            }
            if group.replies.len() < GROUP_TXNS_MAX && bytes < GROUP_BYTES_MAX {
                next = self.requests.try_recv().ok();
            }
        }
        self.finish(group);
        compact
    }

    fn decide(&self, group: &mut Group, txn: Txn, reply: oneshot::Sender<Result<Commit, Error>>) {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let outcome = group.decide(&state, txn);
        group.replies.push((reply, outcome));
    }

    /// Make a group durable, then visible, then answer.
    fn finish(&mut self, group: Group) {
        let Group { events, replies, .. } = group;
        let outcome = if events.is_empty() { self.check() } else { self.write(&events) };
        if outcome.is_ok() {
            self.apply(&events);
        }
        for (reply, commit) in replies {
            // A caller that has given up does not listen.
            let _ = reply.send(outcome.clone().map(|()| commit));
        }
    }

    /// Takes durable events into memory.
    fn apply(&mut self, events: &[Event]) {
        let packed = self.pack(events);
        let garbage = self.write_state(|state| state.apply(events, packed));
        self.garbage.extend(garbage);
    }

    /// Before the state is locked for writing: readers do not wait for it.
    fn pack(&mut self, events: &[Event]) -> Vec<Past> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut newest: HashMap<&str, Option<Held>> = HashMap::new();
        let mut packed = Vec::with_capacity(events.len());
        for event in events {
            let previous = newest.remove(&*event.key).unwrap_or_else(|| state.held(&event.key).cloned());
            let past = self.packer.past(event, previous);
            newest.insert(&event.key, past.current());
            packed.push(past);
        }
        packed
    }

    fn compact(&mut self, before: Revision, reply: oneshot::Sender<Result<(), Error>>) {
        let outcome = self.check().and_then(|()| {
            let garbage = self.write_state(|state| state.compact(before))?;
            self.garbage.extend(garbage);
            while !self.garbage.is_empty() {
                self.write(&[])?;
            }
            // The mark itself, also when there was nothing to remove.
            self.append(&[], &[], Some(before))
        });
        let _ = reply.send(outcome);
    }

    fn check(&mut self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(Failed { next_attempt: Some(at), .. }) if Instant::now() >= *at => self.recover(),
            Some(failed) => Err(failed.error.clone()),
        }
    }

    /// Opens the database again. What is in it and not in memory was written by the group that failed: its callers were
    /// told that it had not happened, which is then put right by doing it.
    fn recover(&mut self) -> Result<(), Error> {
        let recovered = self.disk.reopen().and_then(|()| self.disk.after(self.read(State::revision)));
        let records = recovered.inspect_err(|error| self.fail(error))?;
        let events = self.read(|state| events(state, records));
        self.apply(&events);
        self.failed = None;
        tracing::info!("the disk has room again; the store writes");
        Ok(())
    }

    fn fail(&mut self, error: &Error) {
        let again = matches!(error, Error::Full(_)) && !self.disk.is_doubtful();
        let next_attempt = again.then(|| Instant::now() + Duration::from_millis(FULL_RETRY_MS));
        if self.failed.is_none() {
            let until = if again { "there is room" } else { "it is opened again" };
            tracing::error!(%error, "the store cannot write; it refuses all writes until {until}");
        }
        // Later writes are not even tried.
        let error = match error {
            Error::Unknown(text) => Error::Unavailable(text.clone()),
            error => error.clone(),
        };
        self.failed = Some(Failed { error, next_attempt });
    }

    /// Write events and remove some garbage, durably.
    fn write(&mut self, events: &[Event]) -> Result<(), Error> {
        let count = self.garbage.len().min(COMPACT_RECORDS_MAX);
        let garbage: Vec<Garbage> = self.garbage.drain(..count).collect();
        let compacted = garbage.last().map(|g| g.evicted);
        self.append(events, &garbage, compacted).inspect_err(|_| {
            for old in garbage.into_iter().rev() {
                self.garbage.push_front(old);
            }
        })
    }

    fn append(
        &mut self,
        events: &[Event],
        garbage: &[Garbage],
        compacted: Option<Revision>,
    ) -> Result<(), Error> {
        self.check()?;
        self.disk.append(events, garbage, compacted).inspect_err(|error| self.fail(error))
    }

    fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Group {
    fn decide(&mut self, state: &State, txn: Txn) -> Commit {
        let holds = |compare: &Compare| match (compare, self.revision_of(state, compare.key())) {
            (Compare::Absent(_), current) => current.is_none(),
            (Compare::Revision(_, revision), current) => current == Some(*revision),
        };
        if !txn.compares.iter().all(holds) {
            let current = |c: &Compare| (c.key().clone(), self.current(state, c.key()));
            return Commit::Conflict { current: txn.compares.iter().map(current).collect() };
        }
        let revision = self.revision + 1;
        let before = self.events.len();
        for op in txn.ops {
            self.put(state, op, revision);
        }
        if self.events.len() > before {
            self.revision = revision;
        }
        Commit::Done(self.revision)
    }

    fn put(&mut self, state: &State, op: Op, revision: Revision) {
        let previous = self.current(state, op.key());
        let (key, value) = match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(_) if previous.is_none() => return,
            Op::Delete(key) => (key, None),
        };
        // All of a key's history shares one copy of its text.
        let key = previous.as_ref().map_or(key, |p| p.key.clone());
        let event = Event { revision, key, value, previous };
        self.overlay.insert(event.key.clone(), event.current());
        self.events.push(event);
    }

    fn current(&self, state: &State, key: &str) -> Option<KeyValue> {
        match self.overlay.get(key) {
            Some(changed) => changed.clone(),
            None => state.get(key),
        }
    }

    fn revision_of(&self, state: &State, key: &str) -> Option<Revision> {
        match self.overlay.get(key) {
            Some(changed) => changed.as_ref().map(|kv| kv.mod_revision),
            None => state.held(key).map(|held| held.mod_revision),
        }
    }
}

/// Records of revisions that `state` has not reached, as events.
fn events(state: &State, records: Vec<Record>) -> Vec<Event> {
    let mut overlay: HashMap<Arc<str>, Option<KeyValue>> = HashMap::new();
    let mut events = Vec::with_capacity(records.len());
    for Record { revision, key, value, .. } in records {
        let previous = overlay.get(&key).cloned().unwrap_or_else(|| state.get(&key));
        let event = Event { revision, key, value, previous };
        overlay.insert(event.key.clone(), event.current());
        events.push(event);
    }
    events
}

fn txn_bytes(txn: &Txn) -> usize {
    let bytes = |op: &Op| match op {
        Op::Put(key, value) => key.len() + value.len(),
        Op::Delete(key) => key.len(),
    };
    txn.ops.iter().map(bytes).sum()
}
