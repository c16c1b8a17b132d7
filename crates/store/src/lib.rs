//! The revisioned key-value log under the API server, behind one trait.
//!
//! Here: the [`Store`] trait, the values that cross it, and [`embedded::Embedded`], which keeps the log in one
//! file on this machine. Not here: what the keys and values mean; the API server owns that (keys are
//! Kubernetes' etcd keys, values are JSON objects without a resource version).
//!
//! Start at [`Store`], then [`Watch`], then [`embedded`].

#![forbid(unsafe_code)]

pub mod embedded;
mod error;
pub mod limits;
mod types;
mod watch;

use futures_util::future::BoxFuture;

pub use error::Error;
pub use types::{Commit, Compare, Event, KeyValue, Op, Page, Revision, Txn};
pub use watch::{Watch, WatchSender};

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
}
