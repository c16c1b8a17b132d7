//! Values that nobody can read without a key: a store in front of another, which encrypts what it writes under some keys
//! and decrypts what it reads.
//!
//! The form is that of kube-apiserver's provider `aesgcm`: `k8s:enc:aesgcm:v1:NAME:`, a nonce of 12 bytes, and the value
//! sealed by AES-GCM with its key in the store as associated data, so that a value moved to another key cannot be read.
//! The first of several keys seals, all open; values without the prefix are as they were written. Start at [`Sealed`].

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::limits::RESEAL_KEYS;
use crate::translated::{Translate, Translated};
use crate::{Commit, Error, Store, Txn};

/// What sealed values begin with, whatever sealed them.
const MARK: &[u8] = b"k8s:enc:";
const PREFIX: &str = "k8s:enc:aesgcm:v1:";
/// What keys begin with here.
const ROOT: &str = "/registry";

/// One key.
pub struct SealKey {
    /// `k8s:enc:aesgcm:v1:NAME:`
    prefix: Vec<u8>,
    key: LessSafeKey,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKey {
    #[error("a key has {0} bytes: AES takes 16 or 32")]
    Length(usize),
    #[error("{0:?} is no name of a key: it must not be empty or contain a colon")]
    Name(String),
}

impl SealKey {
    pub fn new(name: &str, secret: &[u8]) -> Result<SealKey, BadKey> {
        if name.is_empty() || name.contains(':') {
            return Err(BadKey::Name(name.to_owned()));
        }
        let algorithm = if secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = UnboundKey::new(algorithm, secret).map_err(|_| BadKey::Length(secret.len()))?;
        Ok(SealKey { prefix: format!("{PREFIX}{name}:").into_bytes(), key: LessSafeKey::new(key) })
    }
}

/// What is sealed, and how.
pub struct Seal {
    /// The keys of the store that begin so are sealed.
    pub prefixes: Vec<String>,
    pub keys: Vec<SealKey>,
    /// New values are left as they are: for a way back to plain values.
    pub write_plain: bool,
    /// What keys begin with in etcd instead of `/registry`, where that is so: a kube-apiserver binds values to those keys.
    pub root: Option<String>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.keys.iter().map(|key| String::from_utf8_lossy(&key.prefix));
        f.debug_list().entries(names).finish()
    }
}

impl Seal {
    fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }

    /// The key that a value is bound to.
    fn place(&self, key: &str) -> Vec<u8> {
        match (&self.root, key.strip_prefix(ROOT)) {
            (Some(root), Some(rest)) => [root.as_bytes(), rest.as_bytes()].concat(),
            _ => key.into(),
        }
    }

    fn first(&self) -> Option<&SealKey> {
        self.keys.first().filter(|_| !self.write_plain)
    }

    /// Whether the value is as it would be written now.
    fn is_current(&self, value: &[u8]) -> bool {
        match self.first() {
            Some(first) => value.starts_with(&first.prefix),
            None => !value.starts_with(MARK),
        }
    }
}

impl Translate for Seal {
    fn is_closed(&self, key: &str, value: &[u8]) -> bool {
        self.covers(key) && value.starts_with(MARK)
    }

    fn meets(&self, prefix: &str) -> bool {
        self.covers(prefix) || self.prefixes.iter().any(|own| own.starts_with(prefix))
    }

    fn is_secret(&self) -> bool {
        true
    }

    fn close(&self, key: &str, value: Bytes) -> Result<Bytes, Error> {
        let Some(first) = self.first().filter(|_| self.covers(key)) else { return Ok(value) };
        let failed = || Error::Unavailable(format!("{key} cannot be sealed: no random numbers"));
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = value.to_vec();
        let aad = Aad::from(self.place(key));
        let unique = Nonce::assume_unique_for_key(nonce);
        first.key.seal_in_place_append_tag(unique, aad, &mut sealed).map_err(|_| failed())?;
        let mut out = BytesMut::with_capacity(first.prefix.len() + NONCE_LEN + sealed.len());
        out.put_slice(&first.prefix);
        out.put_slice(&nonce);
        out.put_slice(&sealed);
        Ok(out.freeze())
    }

    fn open(&self, key: &str, value: &Bytes) -> Result<Bytes, Error> {
        let own = self.keys.iter().find(|own| value.starts_with(&own.prefix));
        let unreadable = |why: &str| {
            let head = &value[..value.len().min(64)];
            let name = head.split(|byte| *byte == b':').nth(4).unwrap_or_default();
            let name = String::from_utf8_lossy(name);
            Error::Sealed { key: key.to_owned(), why: format!("sealed with the key {name:?}, {why}") }
        };
        let own = own.ok_or_else(|| unreadable("which is not there"))?;
        let rest = &value[own.prefix.len()..];
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or_else(|| unreadable("and cut short"))?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable("and cut short"))?;
        let length = own
            .key
            .open_in_place(nonce, Aad::from(self.place(key)), &mut plain)
            .map_err(|_| unreadable("which does not open it"))?
            .len();
        plain.truncate(length);
        Ok(plain.into())
    }
}

/// A store whose values are partly sealed.
pub type Sealed = Translated<Seal>;

impl Sealed {
    /// Writes anew what is not sealed as it would be now: plain values, and those of older keys. Says how many. Fails at
    /// a value that none of the keys opens.
    pub async fn reseal(&self) -> Result<usize, Error> {
        let mut count = 0;
        for prefix in &self.by.prefixes {
            let mut after: Option<Arc<str>> = None;
            loop {
                let page = self.inner.list(prefix, after.as_deref(), RESEAL_KEYS, None).await?;
                let mut txn = Txn::new();
                for kv in &page.items {
                    let closed = self.by.is_closed(&kv.key, &kv.value);
                    let plain = if closed { self.by.open(&kv.key, &kv.value)? } else { kv.value.clone() };
                    if !self.by.is_current(&kv.value) {
                        txn = txn.if_revision(kv.key.clone(), kv.mod_revision).put(kv.key.clone(), plain);
                    }
                }
                let stale = txn.ops.len();
                if stale > 0 && matches!(self.commit(txn).await?, Commit::Conflict { .. }) {
                    // Somebody else has just written one of them: look again.
                    continue;
                }
                count += stale;
                let Some(last) = page.items.last().filter(|_| page.remaining > 0) else { break };
                after = Some(last.key.clone());
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;
    use crate::embedded::Embedded;

    const KEY: &str = "/registry/secrets/default/a";

    fn seal(names: &[&str]) -> Seal {
        // The name is the key: what another name sealed cannot be opened.
        let key = |name: &&str| SealKey::new(name, &[name.as_bytes()[0]; 32]).unwrap();
        Seal {
            prefixes: vec!["/registry/secrets/".into()],
            keys: names.iter().map(key).collect(),
            write_plain: false,
            root: None,
        }
    }

    async fn value(store: &dyn Store, key: &str) -> Result<Bytes, Error> {
        store.get(key).await.map(|(kv, _)| kv.unwrap().value)
    }

    #[tokio::test]
    async fn what_is_covered_is_sealed_at_rest_and_plain_in_front() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let store = Sealed::new(raw.clone(), seal(&["k"]));
        let mut watch = store.watch("/registry/", 1).await.unwrap();
        store.commit(Txn::new().put(KEY, "hush").put("/registry/pods/default/a", "loud")).await.unwrap();
        store.commit(Txn::new().if_revision(KEY, 2).put(KEY, "hush2")).await.unwrap();
        assert!(value(&*raw, KEY).await.unwrap().starts_with(b"k8s:enc:aesgcm:v1:k:"));
        assert_eq!(value(&*raw, "/registry/pods/default/a").await.unwrap(), "loud");
        assert_eq!(value(&store, KEY).await.unwrap(), "hush2");
        for prefix in ["", "/registry/", "/registry/secrets/default/"] {
            let page = store.list(prefix, None, 0, None).await.unwrap();
            assert!(page.items.iter().any(|kv| kv.value == "hush2"), "{prefix}");
        }
        let events: Vec<Event> =
            [watch.next().await.unwrap().unwrap(), watch.next().await.unwrap().unwrap()].concat();
        assert_eq!(events[0].value.as_deref(), Some(&b"hush"[..]));
        let last = events.last().unwrap();
        assert_eq!(
            (last.value.clone().unwrap(), last.previous.clone().unwrap().value),
            ("hush2".into(), "hush".into())
        );
        let Commit::Conflict { current } =
            store.commit(Txn::new().if_absent(KEY).put(KEY, "x")).await.unwrap()
        else {
            panic!("it is there")
        };
        assert_eq!(current[0].1.as_ref().unwrap().value, "hush2");
    }

    #[tokio::test]
    async fn a_value_is_bound_to_its_key_as_etcd_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let under = |root: &str| Sealed::new(raw.clone(), Seal { root: Some(root.into()), ..seal(&["k"]) });
        under("/other").commit(Txn::new().put(KEY, "hush")).await.unwrap();
        assert_eq!(value(&under("/other"), KEY).await.unwrap(), "hush");
        assert!(value(&under("/another"), KEY).await.is_err());
        assert!(value(&Sealed::new(raw.clone(), seal(&["k"])), KEY).await.is_err());
        under("/registry").commit(Txn::new().put(KEY, "hush")).await.unwrap();
        assert_eq!(value(&Sealed::new(raw.clone(), seal(&["k"])), KEY).await.unwrap(), "hush");
    }

    #[tokio::test]
    async fn a_value_of_another_place_or_key_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        let store = Sealed::new(raw.clone(), seal(&["k"]));
        store.commit(Txn::new().put(KEY, "hush")).await.unwrap();
        let sealed = value(&*raw, KEY).await.unwrap();
        raw.commit(Txn::new().put("/registry/secrets/default/b", sealed.clone())).await.unwrap();
        raw.commit(Txn::new().put("/registry/secrets/default/c", sealed.slice(..30))).await.unwrap();
        for name in ["b", "c"] {
            let error = value(&store, &format!("/registry/secrets/default/{name}")).await.unwrap_err();
            assert!(matches!(error, Error::Sealed { .. }), "{error}");
        }
        let error = value(&Sealed::new(raw, seal(&["other"])), KEY).await.unwrap_err().to_string();
        assert!(error.contains(KEY) && error.contains("\"k\""), "{error}");
    }

    #[tokio::test]
    async fn plain_values_and_those_of_old_keys_are_sealed_anew() {
        let dir = tempfile::tempdir().unwrap();
        let raw: Arc<dyn Store> = Arc::new(Embedded::open(dir.path()).unwrap());
        for n in 0..=2 * RESEAL_KEYS {
            raw.commit(Txn::new().put(format!("/registry/secrets/default/{n}"), n.to_string()))
                .await
                .unwrap();
        }
        let first = Sealed::new(raw.clone(), seal(&["a"]));
        assert_eq!(first.reseal().await.unwrap(), 2 * RESEAL_KEYS + 1);
        assert_eq!(first.reseal().await.unwrap(), 0);
        let rotated = Sealed::new(raw.clone(), seal(&["b", "a"]));
        assert_eq!(value(&rotated, "/registry/secrets/default/7").await.unwrap(), "7");
        assert_eq!(rotated.reseal().await.unwrap(), 2 * RESEAL_KEYS + 1);
        let page = raw.list("/registry/secrets/", None, 0, None).await.unwrap();
        assert!(page.items.iter().all(|kv| kv.value.starts_with(b"k8s:enc:aesgcm:v1:b:")));
        let last = Sealed::new(raw.clone(), seal(&["b"]));
        assert_eq!(value(&last, "/registry/secrets/default/7").await.unwrap(), "7");
        let back = Sealed::new(raw.clone(), Seal { write_plain: true, ..seal(&["b"]) });
        assert_eq!(back.reseal().await.unwrap(), 2 * RESEAL_KEYS + 1);
        assert_eq!(value(&*raw, "/registry/secrets/default/7").await.unwrap(), "7");
    }

    #[test]
    fn keys_have_a_name_and_a_length() {
        assert!(SealKey::new("k", &[0; 16]).is_ok() && SealKey::new("k", &[0; 32]).is_ok());
        assert_eq!(SealKey::new("k", &[0; 24]).err(), Some(BadKey::Length(24)));
        assert_eq!(SealKey::new("a:b", &[0; 32]).err(), Some(BadKey::Name("a:b".into())));
    }
}
