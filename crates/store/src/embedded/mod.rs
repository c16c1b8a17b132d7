//! The store in one data directory of this machine.
//!
//! Memory holds all current values and recent history, so reads never touch the disk; the disk holds the log they
//! are rebuilt from. [`committer`] writes, [`state`] answers, [`packed`] keeps what memory holds small, [`disk`] is the file format, [`lock`] keeps a second
//! process out.

mod committer;
mod disk;
mod lock;
mod medium;
mod packed;
#[cfg(test)]
mod power_loss;
mod restore;
mod state;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use tokio::sync::{mpsc, oneshot};

use self::committer::{Committer, Request};
use self::disk::Disk;
use self::lock::DirLock;
use self::packed::Packer;
use self::state::{PackedPage, State};
use crate::limits::QUEUE_TXNS_MAX;
use crate::{Commit, Error, KeyValue, Page, Revision, Store, Txn, Watch};

pub use crate::ring::RingLimits;
pub(crate) use restore::Restoring;

/// A store in a data directory of this machine. Dropping it finishes the writes under way and closes the file.
#[derive(Debug)]
pub struct Embedded {
    state: Arc<RwLock<State>>,
    /// `None` only while dropping.
    requests: Option<mpsc::Sender<Request>>,
    committer: Option<JoinHandle<()>>,
    /// Let go of last.
    _lock: Option<DirLock>,
}

impl Embedded {
    /// Open or create the store in the directory `path`. Reads all current values into memory.
    pub fn open(path: impl AsRef<Path>) -> Result<Embedded, Error> {
        Embedded::open_with(path, RingLimits::default())
    }

    /// As [`open`](Embedded::open), keeping another amount of history.
    pub fn open_with(path: impl AsRef<Path>, limits: RingLimits) -> Result<Embedded, Error> {
        let dir = path.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| {
            Error::Unavailable(format!("cannot create data directory {}: {e}", dir.display()))
        })?;
        let lock = DirLock::take(dir)?;
        Embedded::start(Disk::open(dir)?, limits, Some(lock))
    }

    fn start(disk: Disk, limits: RingLimits, lock: Option<DirLock>) -> Result<Embedded, Error> {
        let mut state = State::new(limits);
        let mut garbage = VecDeque::new();
        let mut packer = Packer::default();
        let compacted = disk.load(|record, compacted| {
            garbage.extend(state.load(record, compacted, &mut packer));
            Ok(())
        })?;
        state.loaded(compacted);
        let state = Arc::new(RwLock::new(state));
        let (requests, receiver) = mpsc::channel(QUEUE_TXNS_MAX);
        let committer =
            Committer { disk, state: state.clone(), requests: receiver, garbage, packer, failed: None };
        let committer = std::thread::Builder::new()
            .name("store-commit".into())
            .spawn(move || committer.run())
            .map_err(|e| Error::Unavailable(format!("cannot start the committer thread: {e}")))?;
        Ok(Embedded { state, requests: Some(requests), committer: Some(committer), _lock: lock })
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn request<T: Send + 'static>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request,
    ) -> BoxFuture<'_, Result<T, Error>> {
        let closed = || Error::Unavailable("the store is closed".into());
        let (reply, answer) = oneshot::channel();
        let request = make(reply);
        async move {
            let requests = self.requests.as_ref().ok_or_else(closed)?;
            requests.send(request).await.map_err(|_| closed())?;
            answer.await.map_err(|_| closed())?
        }
        .boxed()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(committer) = self.committer.take() {
            // It ends when the queue is empty. A panic there has been reported already.
            let _ = committer.join();
        }
    }
}

impl Store for Embedded {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        let state = self.read();
        ready(Ok((state.get(key), state.revision()))).boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        // In two steps: the first holds up the writer.
        let page = self.read().list(prefix, after, limit, at);
        ready(page.map(PackedPage::open)).boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        match crate::check(&txn) {
            Ok(()) => self.request(|reply| Request::Commit { txn, reply }),
            Err(error) => ready(Err(error)).boxed(),
        }
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        ready(state.watch(prefix, after)).boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        ready(Ok(self.read().revision())).boxed()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.request(|reply| Request::Compact { before, reply })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RingLimits = RingLimits { events: 10, bytes: 1 << 20 };

    fn records(dir: &Path) -> u64 {
        let _lock = DirLock::take(dir).unwrap();
        Disk::open(dir).unwrap().record_count()
    }

    async fn overwrite(store: &Embedded, times: usize) {
        for n in 0..times {
            store.commit(Txn::new().put("/a", n.to_string())).await.unwrap();
            store.commit(Txn::new().put("/b", "x")).await.unwrap();
            store.commit(Txn::new().delete("/b")).await.unwrap();
        }
    }

    /// What is on disk is what is current and what the ring holds, and for each of the ring's events at most one
    /// value from before it; the newest eviction may still wait for the next write to remove it.
    #[tokio::test]
    async fn old_records_leave_the_disk_as_new_ones_come() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open_with(dir.path(), LIMITS).unwrap();
        overwrite(&store, 200).await;
        drop(store);
        let count = records(dir.path());
        assert!(count <= 2 * LIMITS.events as u64, "{count} records of 600 are left");
        assert!(count >= LIMITS.events as u64, "the ring of {} must survive a restart", LIMITS.events);
    }

    #[tokio::test]
    async fn compacting_everything_leaves_one_record_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open_with(dir.path(), LIMITS).unwrap();
        overwrite(&store, 5).await;
        let revision = store.revision().await.unwrap();
        store.compact(revision).await.unwrap();
        drop(store);
        assert_eq!(records(dir.path()), 1);
    }

    /// A power cut while the database was made leaves a file that is none, under another name.
    #[tokio::test]
    async fn what_is_left_of_making_a_store_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("store.redb.new"), [0; 4096]).unwrap();
        let store = Embedded::open(dir.path()).unwrap();
        store.commit(Txn::new().put("/a", "x")).await.unwrap();
        drop(store);
        assert!(!dir.path().join("store.redb.new").exists());
        assert_eq!(Embedded::open(dir.path()).unwrap().revision().await, Ok(2));
    }

    #[tokio::test]
    async fn records_that_a_crash_left_behind_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open_with(dir.path(), LIMITS).unwrap();
        overwrite(&store, 3).await;
        drop(store);
        // The mark of a compaction whose removals did not come.
        Disk::open(dir.path()).unwrap().append(&[], &[], Some(10)).unwrap();
        assert_eq!(records(dir.path()), 9);
        let store = Embedded::open_with(dir.path(), LIMITS).unwrap();
        assert_eq!(store.list("/", None, 0, Some(9)).await, Err(Error::Compacted { oldest: 10 }));
        assert_eq!(store.get("/a").await.unwrap().0.unwrap().value, "2");
        store.commit(Txn::new().put("/c", "x")).await.unwrap();
        drop(store);
        assert_eq!(records(dir.path()), 2);
    }
}
