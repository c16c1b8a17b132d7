//! A store in front of another whose values are kept in another form than they are given out. Start at [`Translated`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::{Commit, Error, Event, KeyValue, Leases, Op, Page, Revision, Store, Txn, Watch};

/// How values are kept, and how they are given out.
pub trait Translate: Send + Sync + 'static {
    /// Whether a value, as it is kept, is to be opened. Asked of every value that passes.
    fn is_closed(&self, key: &str, value: &[u8]) -> bool;

    /// A value that is to be opened, as it is given out.
    fn open(&self, key: &str, value: &Bytes) -> Result<Bytes, Error>;

    /// A value as it is to be kept.
    fn close(&self, _key: &str, value: Bytes) -> Result<Bytes, Error> {
        Ok(value)
    }

    /// Whether there may be closed values under `prefix`.
    fn meets(&self, _prefix: &str) -> bool {
        true
    }

    /// Whether copies of the store must not be opened.
    fn is_secret(&self) -> bool {
        false
    }
}

/// The store in front.
pub struct Translated<T> {
    pub(crate) by: Arc<T>,
    pub(crate) inner: Arc<dyn Store>,
}

impl<T> Translated<T> {
    /// In front of `inner`.
    pub fn new(inner: Arc<dyn Store>, by: T) -> Self {
        Self { by: Arc::new(by), inner }
    }
}

fn open_kv(by: &impl Translate, kv: &mut KeyValue) -> Result<(), Error> {
    if by.is_closed(&kv.key, &kv.value) {
        kv.value = by.open(&kv.key, &kv.value)?;
    }
    Ok(())
}

/// The same events where nothing is closed: all watchers share them.
fn open_events(by: &impl Translate, events: &Arc<[Event]>) -> Result<Arc<[Event]>, Error> {
    let closed = |event: &Event| {
        let previous = event.previous.as_ref().map(|kv| &kv.value);
        event.value.iter().chain(previous).any(|value| by.is_closed(&event.key, value))
    };
    if !events.iter().any(closed) {
        return Ok(events.clone());
    }
    let opened = events.iter().cloned().map(|mut event| {
        if let Some(value) = event.value.as_mut().filter(|value| by.is_closed(&event.key, value)) {
            *value = by.open(&event.key, value)?;
        }
        event.previous.as_mut().map_or(Ok(()), |kv| open_kv(by, kv))?;
        Ok(event)
    });
    opened.collect()
}

impl<T: Translate> Store for Translated<T> {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        let found = self.inner.get(key);
        async move {
            let (mut found, revision) = found.await?;
            found.as_mut().map_or(Ok(()), |kv| open_kv(&*self.by, kv))?;
            Ok((found, revision))
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
        let page = self.inner.list(prefix, after, limit, at);
        if !self.by.meets(prefix) {
            return page;
        }
        async move {
            let mut page = page.await?;
            page.items.iter_mut().try_for_each(|kv| open_kv(&*self.by, kv))?;
            Ok(page)
        }
        .boxed()
    }

    fn commit(&self, mut txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        async move {
            for op in &mut txn.ops {
                if let Op::Put(key, value) = op {
                    *value = self.by.close(key, std::mem::take(value))?;
                }
            }
            let mut outcome = self.inner.commit(txn).await?;
            if let Commit::Conflict { current } = &mut outcome {
                for kv in current.iter_mut().filter_map(|(_, kv)| kv.as_mut()) {
                    open_kv(&*self.by, kv)?;
                }
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        let watch = self.inner.watch(prefix, after);
        if !self.by.meets(prefix) {
            return watch;
        }
        let by = self.by.clone();
        async move { Ok(watch.await?.through(Arc::new(move |events| open_events(&*by, events)))) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.revision()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(before)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        self.inner.leases()
    }

    fn at_rest(&self) -> Option<Arc<dyn Store>> {
        if self.by.is_secret() { Some(self.inner.clone()) } else { self.inner.at_rest() }
    }
}
