//! The revisioned key-value log under the API server, behind one trait.
//!
//! Here: the [`Store`] trait, the values that cross it, [`embedded::Embedded`], which keeps the log in one file on
//! this machine, and [`etcd::Etcd`], which several servers share. Not here: what the keys and values mean; the API server owns that (keys are
//! Kubernetes' etcd keys, values are JSON objects without a resource version).
//!
//! Start at [`Store`], then [`Watch`], then [`embedded`] or [`etcd`].

#![forbid(unsafe_code)]

pub mod embedded;
mod error;
pub mod etcd;
pub mod limits;
pub mod migrate;
mod ring;
pub mod sealed;
pub mod snapshot;
pub mod translated;
mod types;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use error::Error;
pub use types::{Commit, Compare, Event, KeyValue, Op, Page, Revision, Txn};
pub use watch::{Through, Watch, WatchSender};

/// A log of transactions over string keys, and the current value of each key.
///
/// Every transaction that writes takes the next [`Revision`]. A fresh store is at revision 1 and empty.
/// All calls are cheap to make from many tasks; none blocks the executor.
pub trait Store: Send + Sync + 'static {
    /// The value of one key, and the store's revision at that moment.
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>>;

    /// The keys that start with `prefix` in byte order, from the first one greater than `after` on.
    ///
    /// `limit` 0 means all. `at` asks for the content as it was at that revision; it fails with
    /// [`Error::Compacted`] when that is too long ago and [`Error::TooNew`] when it is in the future.
    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>>;

    /// Apply all of `txn` or nothing. Returns when the outcome is on disk.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>>;

    /// Every event with a key under `prefix` and a revision greater than `after`, without gap or duplicate.
    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>>;

    /// The revision of the newest durable transaction.
    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>>;

    /// Forget the history up to and including `before`. The content at `before` itself stays readable.
    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), Error>>;

    /// The store as it is kept, where values are sealed on the way there: for copies, which must hold no more.
    fn at_rest(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// Keys that go by themselves, where several servers share the store and need to know of each other.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }
}

/// Keys that live as long as their writer renews them.
pub trait Leases: Send + Sync {
    /// Write a key that is gone after `seconds`, unless it is written again. Unconditional, and may happen twice.
    fn put_for(&self, key: &str, value: Bytes, seconds: u64) -> BoxFuture<'_, Result<Revision, Error>>;

    /// Take such a key away at once.
    fn remove(&self, key: &str) -> BoxFuture<'_, Result<(), Error>>;
}

/// The limits, before a transaction is sent anywhere.
fn check(txn: &Txn) -> Result<(), Error> {
    use limits::{KEY_SIZE_MAX, TXN_OPS_MAX, VALUE_SIZE_MAX};
    let invalid = |text| Err(Error::Invalid(text));
    if txn.ops.len() > TXN_OPS_MAX || txn.compares.len() > TXN_OPS_MAX {
        let len = txn.ops.len().max(txn.compares.len());
        return invalid(format!("transaction of {len} operations: the limit is {TXN_OPS_MAX}"));
    }
    for (index, op) in txn.ops.iter().enumerate() {
        let key = op.key();
        if key.is_empty() || key.len() > KEY_SIZE_MAX {
            return invalid(format!("key of {} bytes: must have 1 to {KEY_SIZE_MAX}", key.len()));
        }
        if let Op::Put(_, value) = op
            && value.len() > VALUE_SIZE_MAX
        {
            return invalid(format!(
                "value of {key} has {} bytes: the limit is {VALUE_SIZE_MAX}",
                value.len()
            ));
        }
        if txn.ops[..index].iter().any(|earlier| earlier.key() == key) {
            return invalid(format!("key {key} is written twice in one transaction"));
        }
    }
    Ok(())
}
