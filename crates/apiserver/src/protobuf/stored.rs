//! What a kube-apiserver wrote: a store in front of another, which gives out values in protobuf as JSON. What is written
//! passes as it is; a kube-apiserver reads both. Start at [`Readable`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use portolan_store::{Commit, Error, Event, KeyValue, Leases, Page, Revision, Store, Txn, Watch};

use super::{MAGIC, decode};

/// A store all of whose values are JSON, where their kinds are known.
pub struct Readable {
    inner: Arc<dyn Store>,
}

impl Readable {
    /// In front of `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner }
    }
}

/// A value that cannot be read stays as it is: whoever asks for that object is told so, and nobody else.
fn open(value: Bytes) -> Bytes {
    if !value.starts_with(MAGIC) {
        return value;
    }
    decode(&value).map_or(value, |object| crate::object::to_stored(&object))
}

fn open_kv(kv: KeyValue) -> KeyValue {
    KeyValue { value: open(kv.value), ..kv }
}

fn open_events(events: &Arc<[Event]>) -> Arc<[Event]> {
    let strange = |event: &Event| {
        let values = [event.value.as_ref(), event.previous.as_ref().map(|kv| &kv.value)];
        values.into_iter().flatten().any(|value| value.starts_with(MAGIC))
    };
    if !events.iter().any(strange) {
        return events.clone();
    }
    let opened = events.iter().cloned().map(|event| Event {
        value: event.value.map(open),
        previous: event.previous.map(open_kv),
        ..event
    });
    opened.collect()
}

impl Store for Readable {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        let found = self.inner.get(key);
        async move { found.await.map(|(found, revision)| (found.map(open_kv), revision)) }.boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let page = self.inner.list(prefix, after, limit, at);
        async move {
            let mut page = page.await?;
            for kv in page.items.iter_mut().filter(|kv| kv.value.starts_with(MAGIC)) {
                kv.value = open(std::mem::take(&mut kv.value));
            }
            Ok(page)
        }
        .boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        let outcome = self.inner.commit(txn);
        async move {
            let mut outcome = outcome.await?;
            if let Commit::Conflict { current } = &mut outcome {
                for (_, kv) in current {
                    *kv = kv.take().map(open_kv);
                }
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        let watch = self.inner.watch(prefix, after);
        async move { Ok(watch.await?.through(Arc::new(|events| Ok(open_events(events))))) }.boxed()
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
        self.inner.at_rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_store::embedded::Embedded;
    use portolan_store::sealed::{Seal, SealKey, Sealed};

    const KEY: &str = "/registry/secrets/default/s";
    const STRANGE: &[u8] = b"k8s\0\x0a\x0d\x0a\x02v9\x12\x07Nothing\x12\x00";

    #[tokio::test]
    async fn values_in_protobuf_come_out_as_json_whichever_way_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let store = Readable::new(raw.clone());
        let mut watch = store.watch("/registry/", 1).await.unwrap();
        let secret = super::super::tests::SECRET;
        raw.commit(Txn::new().put(KEY, secret)).await.unwrap();
        raw.commit(Txn::new().put("/registry/x", STRANGE)).await.unwrap();
        raw.commit(Txn::new().delete(KEY)).await.unwrap();
        raw.commit(Txn::new().put(KEY, secret)).await.unwrap();
        let is_secret = |value: &Bytes| {
            let object: serde_json::Value = serde_json::from_slice(value).unwrap();
            object["kind"] == "Secret" && object["data"]["a"] == "Yg=="
        };
        assert!(is_secret(&store.get(KEY).await.unwrap().0.unwrap().value));
        let page = store.list("/registry/", None, 0, None).await.unwrap();
        assert!(is_secret(&page.items[0].value));
        assert_eq!(page.items[1].value, STRANGE, "left as it is");
        let Commit::Conflict { current } = store.commit(Txn::new().if_absent(KEY)).await.unwrap() else {
            panic!("it is there")
        };
        assert!(is_secret(&current[0].1.as_ref().unwrap().value));
        let mut events: Vec<Event> = Vec::new();
        while events.len() < 4 {
            events.extend(watch.next().await.unwrap().unwrap().iter().cloned());
        }
        assert!(is_secret(events[0].value.as_ref().unwrap()));
        assert_eq!(events[1].value.as_deref(), Some(STRANGE));
        assert!(is_secret(&events[2].previous.as_ref().unwrap().value));
    }

    #[tokio::test]
    async fn what_is_sealed_is_opened_first() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let seal = Seal {
            prefixes: vec!["/registry/secrets/".into()],
            keys: vec![SealKey::new("k", &[1; 32]).unwrap()],
            write_plain: false,
            root: None,
        };
        let store = Readable::new(Arc::new(Sealed::new(raw.clone(), seal)));
        let mut watch = store.watch("/registry/", 1).await.unwrap();
        let secret = super::super::tests::SECRET;
        store.commit(Txn::new().put(KEY, secret)).await.unwrap();
        store.commit(Txn::new().put(KEY, "{}")).await.unwrap();
        assert!(raw.get(KEY).await.unwrap().0.unwrap().value.starts_with(b"k8s:enc:"));
        assert_eq!(store.get(KEY).await.unwrap().0.unwrap().value, "{}");
        let mut events: Vec<Event> = Vec::new();
        while events.len() < 2 {
            events.extend(watch.next().await.unwrap().unwrap().iter().cloned());
        }
        assert!(events[0].value.as_ref().unwrap().starts_with(b"{"));
        assert!(events[1].previous.as_ref().unwrap().value.starts_with(b"{"));
        assert_eq!(events[1].value.as_deref(), Some(&b"{}"[..]));
    }
}
