//! The store in an etcd cluster, shared with other API servers.
//!
//! Reads and transactions go to etcd, each of them linearizable. Watches share one watch of etcd (`follow`), whose
//! events are kept for a while and handed on (`hub`). A transaction whose answer was lost is settled by its marker
//! (`writer`). `cluster` is all members as one; `channel` is one member: gRPC on HTTP/2; `messages` and `codec` are
//! what travels; `layout` is where keys are; `compact` gives up old history.
//!
//! Start at [`Etcd`], then `writer`.

mod channel;
mod cluster;
mod codec;
mod commit;
mod compact;
mod follow;
mod hub;
mod layout;
mod messages;
mod writer;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::AbortHandle;

use self::channel::Failure;
use self::cluster::{Cluster, is_compacted, is_future};
use self::follow::{Follower, News};
use self::hub::Hub;
use self::layout::Layout;
use self::messages::{Range, RangeResponse};
use self::writer::Writers;
use crate::limits::{ETCD_PAGE_BYTES, ETCD_PAGE_KEYS};
use crate::{Commit, Error, KeyValue, Leases, Page, Revision, Store, Txn, Watch, WatchSender};

pub use channel::TlsFiles;

/// Which etcd, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `https://host:port` of each member.
    pub endpoints: Vec<String>,
    pub tls: TlsFiles,
    /// Where keys are in etcd, in place of [`base`](Config::base).
    pub prefix: String,
    /// What all keys of this store start with.
    pub base: String,
    /// This server's name among those on the same etcd.
    pub identity: String,
}

impl Config {
    /// Kubernetes' own layout.
    pub fn new(endpoints: Vec<String>, identity: impl Into<String>) -> Config {
        Config {
            endpoints,
            tls: TlsFiles::default(),
            prefix: "/registry".into(),
            base: "/registry".into(),
            identity: identity.into(),
        }
    }
}

/// A store in an etcd cluster. Must be made and used in a tokio runtime.
#[derive(Debug)]
pub struct Etcd {
    cluster: Arc<Cluster>,
    layout: Layout,
    writers: Writers,
    hub: Arc<Mutex<Hub>>,
    follower: AbortHandle,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Etcd {
    /// Connects. Fails when no member answers in time.
    pub async fn connect(config: Config) -> Result<Arc<Etcd>, Error> {
        let members = channel::channels(&config.endpoints, &config.tls).map_err(Error::Invalid)?;
        let cluster = Arc::new(Cluster::new(members));
        let layout = Layout::new(&config.base, &config.prefix);
        let unreachable = |failure: Failure| {
            Error::Unavailable(format!(
                "no etcd member answers ({failure}); is etcd running, and are --etcd-servers and its certificates right?"
            ))
        };
        let revision = revision(&cluster, &layout).await.map_err(unreachable)?;
        let follower = Follower::new(cluster.clone(), layout.clone(), "", revision)?;
        let hub = Arc::new(Mutex::new(Hub::new(revision)));
        let follower = tokio::spawn(follow(hub.clone(), follower)).abort_handle();
        let writers = Writers::new(|n| layout.private(&format!("writers/{}/{n}", config.identity)));
        Ok(Arc::new(Etcd { cluster, layout, writers, hub, follower }))
    }

    /// Compacts etcd's history now and then, unless another server does, until the store is gone.
    pub fn compact_regularly(self: &Arc<Self>) {
        tokio::spawn(compact::run(Arc::downgrade(self)));
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that may be made twice.
    async fn call(&self, path: &str, message: Bytes) -> Result<Bytes, Error> {
        self.cluster.read(path, message).await.map_err(|failure| unavailable(&failure))
    }

    async fn range(&self, range: &Range) -> Result<RangeResponse, Error> {
        match self.cluster.read(messages::RANGE, range.encode()).await {
            Ok(answer) => Ok(RangeResponse::decode(answer)?),
            Err(failure) => Err(self.unreadable(&failure).await),
        }
    }

    /// Why a revision could not be read, in numbers.
    async fn unreadable(&self, failure: &Failure) -> Error {
        if is_compacted(failure) {
            return self.oldest().await.map_or_else(|e| e, |oldest| Error::Compacted { oldest });
        }
        if is_future(failure) {
            return self.revision().await.map_or_else(|e| e, |current| Error::TooNew { current });
        }
        unavailable(failure)
    }

    /// The oldest revision that can be read. Only a watch that starts before it is told.
    async fn oldest(&self) -> Result<Revision, Error> {
        let mut probe = Follower::new(self.cluster.clone(), self.layout.clone(), "", 0)?;
        match tokio::time::timeout(Duration::from_secs(2), probe.next()).await {
            Ok(Err(Error::Compacted { oldest })) => Ok(oldest),
            _ => Ok(self.revision().await?),
        }
    }

    async fn list_all(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> Result<Page, Error> {
        let (mut start, end) = self.layout.prefix(prefix)?;
        if let Some(after) = after.filter(|after| *after >= prefix) {
            start = self.layout.key(after)?;
            start.push(0);
        }
        let mut page = Page { items: Vec::new(), revision: at.unwrap_or(0), remaining: 0 };
        let mut step = ETCD_PAGE_KEYS;
        loop {
            let wanted = if limit == 0 { step } else { step.min(limit - page.items.len()) };
            let range = Range {
                key: start,
                end: end.clone(),
                limit: wanted,
                revision: page.revision,
                count_only: false,
            };
            let answer = self.range(&range).await?;
            if page.revision == 0 {
                page.revision = answer.revision;
            }
            let (got, bytes) = (answer.kvs.len(), answer.kvs.iter().map(|kv| kv.value.len()).sum::<usize>());
            page.remaining = answer.count.saturating_sub(got as u64);
            start = answer.kvs.last().map(|kv| [&kv.key[..], b"\0"].concat()).unwrap_or_default();
            page.items.extend(answer.kvs.into_iter().filter_map(|kv| self.layout.key_value(kv)));
            if page.remaining == 0 || got == 0 || (limit != 0 && page.items.len() >= limit) {
                return Ok(page);
            }
            step = (ETCD_PAGE_BYTES / (bytes / got).max(1)).clamp(1, 20 * ETCD_PAGE_KEYS);
        }
    }

    async fn open_watch(&self, prefix: &str, after: Revision) -> Result<Watch, Error> {
        {
            let mut hub = self.hub();
            if hub.knows(after) {
                return Ok(hub.watch(prefix, after));
            }
        }
        // Whether etcd has it: neither compacted nor in the future.
        let probe = Range { revision: after, ..Range::key(self.layout.private("probe")) };
        let current = self.range(&probe).await?.revision;
        {
            let mut hub = self.hub();
            if hub.reaches_back_to(after) {
                return Ok(hub.watch(prefix, after));
            }
        }
        // Older than what this process has heard: a watch of its own at etcd, for as long as it lasts.
        let follower = Follower::new(self.cluster.clone(), self.layout.clone(), prefix, after)?;
        let progress = Arc::new(std::sync::atomic::AtomicU64::new(after));
        let (sender, watch) = Watch::channel_from(progress.clone(), after);
        tokio::spawn(relay(follower, sender, progress, current));
        Ok(watch)
    }
}

fn unavailable(failure: &Failure) -> Error {
    match cluster::meaning(failure) {
        cluster::Meaning::Refused => cluster::refusal(failure),
        _ => Error::Unavailable(format!("etcd does not answer: {failure}")),
    }
}

async fn revision(cluster: &Cluster, layout: &Layout) -> Result<Revision, Failure> {
    let range = Range { count_only: true, ..Range::key(layout.private("probe")) };
    let answer = cluster.read(messages::RANGE, range.encode()).await?;
    RangeResponse::decode(answer).map(|r| r.revision).map_err(|e| Failure::Lost(e.to_string()))
}

/// Feeds the hub for ever.
async fn follow(hub: Arc<Mutex<Hub>>, mut follower: Follower) {
    loop {
        let news = follower.next().await;
        let locked = || hub.lock().unwrap_or_else(PoisonError::into_inner);
        match news {
            Ok(News::Events(events)) => locked().publish(events),
            Ok(News::Progress(revision)) => locked().advance(revision),
            Err(error) => {
                // We were away for longer than etcd keeps history: whoever watches must list again.
                tracing::warn!(%error, "the watch of etcd lost its place; all watches begin again");
                let revision = follower.begin_again().await;
                locked().reset(revision);
            }
        }
    }
}

/// Feeds one watch until it is dropped.
async fn relay(
    mut follower: Follower,
    sender: WatchSender,
    progress: Arc<std::sync::atomic::AtomicU64>,
    history_until: Revision,
) {
    loop {
        let news = tokio::select! {
            news = follower.next() => news,
            () = sender.closed() => return,
        };
        let revision = match news {
            Ok(News::Events(events)) => {
                let last = events.last().map_or(0, |e| e.revision);
                // History that the watch asked for does not make it slow.
                if last <= history_until {
                    sender.replay(events.into());
                } else if !sender.send(events.into()) {
                    return;
                }
                last
            }
            Ok(News::Progress(revision)) => revision,
            Err(error) => return sender.fail(error),
        };
        progress.store(revision, std::sync::atomic::Ordering::Release);
    }
}

impl Store for Etcd {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        let key = self.layout.key(key);
        async move {
            let mut answer = self.range(&Range::key(key?)).await?;
            Ok((answer.kvs.pop().and_then(|kv| self.layout.key_value(kv)), answer.revision))
        }
        .boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let (prefix, after) = (prefix.to_owned(), after.map(ToOwned::to_owned));
        async move { self.list_all(&prefix, after.as_deref(), limit, at).await }.boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        self.commit_once(txn).boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        let prefix = prefix.to_owned();
        async move { self.open_watch(&prefix, after).await }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        revision(&self.cluster, &self.layout).map(|r| r.map_err(|failure| unavailable(&failure))).boxed()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            match self.cluster.read(messages::COMPACT, messages::compact(before)).await {
                Ok(_) => Ok(()),
                Err(failure) => match self.unreadable(&failure).await {
                    // Compacted up to there already, perhaps by an attempt whose answer was lost.
                    Error::Compacted { oldest } if oldest == before => Ok(()),
                    error => Err(error),
                },
            }
        }
        .boxed()
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }
}

impl Leases for Etcd {
    fn put_for(&self, key: &str, value: Bytes, seconds: u64) -> BoxFuture<'_, Result<Revision, Error>> {
        let key = self.layout.key(key);
        async move {
            let key = key?;
            // A lease that is granted twice goes by itself as well.
            let lease = self.call(messages::LEASE_GRANT, messages::lease_grant(seconds)).await?;
            let lease = messages::decode_lease(lease)?;
            let answer = self.call(messages::PUT, messages::put(&key, &value, lease)).await?;
            Ok(messages::decode_revision(answer)?)
        }
        .boxed()
    }

    fn remove(&self, key: &str) -> BoxFuture<'_, Result<(), Error>> {
        let key = self.layout.key(key);
        async move { self.call(messages::DELETE, messages::delete(&key?)).await.map(drop) }.boxed()
    }
}
