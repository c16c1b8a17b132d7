//! The values that cross the [`Store`](crate::Store) trait. All are cheap to clone: text and bytes are shared.

use std::sync::Arc;

use bytes::Bytes;

/// The number of a transaction: strictly increasing over the whole store. A fresh store is at 1.
pub type Revision = u64;

/// One key with its current value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Arc<str>,
    pub value: Bytes,
    /// When the key last came into being.
    pub create_revision: Revision,
    /// When the value was last written. Clients see it as the object's resource version.
    pub mod_revision: Revision,
}

/// A condition on one key, checked before a transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key does not exist.
    Absent(Arc<str>),
    /// The key exists and was last written at this revision.
    Revision(Arc<str>, Revision),
}

impl Compare {
    pub fn key(&self) -> &Arc<str> {
        match self {
            Compare::Absent(key) | Compare::Revision(key, _) => key,
        }
    }
}

/// One write. Deleting a key that does not exist does nothing and makes no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Put(Arc<str>, Bytes),
    Delete(Arc<str>),
}

impl Op {
    pub fn key(&self) -> &Arc<str> {
        match self {
            Op::Put(key, _) | Op::Delete(key) => key,
        }
    }
}

/// Writes that happen together, if all conditions hold. A key may appear in one op only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Txn {
    pub fn new() -> Txn {
        Txn::default()
    }

    #[must_use]
    pub fn if_absent(mut self, key: impl Into<Arc<str>>) -> Txn {
        self.compares.push(Compare::Absent(key.into()));
        self
    }

    #[must_use]
    pub fn if_revision(mut self, key: impl Into<Arc<str>>, revision: Revision) -> Txn {
        self.compares.push(Compare::Revision(key.into(), revision));
        self
    }

    #[must_use]
    pub fn put(mut self, key: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Txn {
        self.ops.push(Op::Put(key.into(), value.into()));
        self
    }

    #[must_use]
    pub fn delete(mut self, key: impl Into<Arc<str>>) -> Txn {
        self.ops.push(Op::Delete(key.into()));
        self
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// Applied; all its ops carry this revision. A transaction that changed nothing need not take a revision of
    /// its own and returns the current one.
    Done(Revision),
    /// A condition did not hold and nothing was written. `current` has one entry for each condition.
    Conflict { current: Vec<(Arc<str>, Option<KeyValue>)> },
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub items: Vec<KeyValue>,
    /// The revision that the items are of: `at` if it was given, else the current one.
    pub revision: Revision,
    /// How many keys follow the last item; 0 on the last page.
    pub remaining: u64,
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The transaction that made the change. Events of one transaction share it.
    pub revision: Revision,
    pub key: Arc<str>,
    /// `None`: the key was deleted.
    pub value: Option<Bytes>,
    /// What the key held before; `None`: the key was created by this event.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// The key's value after this event.
    pub fn current(&self) -> Option<KeyValue> {
        let value = self.value.clone()?;
        let create_revision = self.previous.as_ref().map_or(self.revision, |p| p.create_revision);
        Some(KeyValue { key: self.key.clone(), value, create_revision, mod_revision: self.revision })
    }
}
