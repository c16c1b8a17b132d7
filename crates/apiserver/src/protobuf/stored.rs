//! What a kube-apiserver wrote: values in protobuf, given out as JSON. What is written passes as it is; a kube-apiserver
//! reads both. Start at [`Readable`].

use bytes::Bytes;
use portolan_store::Error;
use portolan_store::translated::{Translate, Translated};

use super::{MAGIC, decode};

/// A store all of whose values are JSON, where their kinds are known.
pub type Readable = Translated<Protobuf>;

/// Opens values in protobuf. One that cannot be read stays as it is: whoever asks for that object is told so, and nobody else.
pub struct Protobuf;

impl Translate for Protobuf {
    fn is_closed(&self, _key: &str, value: &[u8]) -> bool {
        value.starts_with(MAGIC)
    }

    fn open(&self, _key: &str, value: &Bytes) -> Result<Bytes, Error> {
        Ok(decode(value).map_or_else(|_| value.clone(), |object| crate::object::to_stored(&object)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use portolan_store::embedded::Embedded;
    use portolan_store::sealed::{Seal, SealKey, Sealed};
    use portolan_store::{Commit, Event, Store, Txn};

    const KEY: &str = "/registry/secrets/default/s";
    const STRANGE: &[u8] = b"k8s\0\x0a\x0d\x0a\x02v9\x12\x07Nothing\x12\x00";

    #[tokio::test]
    async fn values_in_protobuf_come_out_as_json_whichever_way_they_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let store = Readable::new(raw.clone(), Protobuf);
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
        let store = Readable::new(Arc::new(Sealed::new(raw.clone(), seal)), Protobuf);
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
