//! A store in memory that takes a random number of turns for everything, so that clients interleave differently with
//! every seed.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use portolan_store::{
    Commit, Compare, Error, Event, KeyValue, Op, Page, Revision, Store, Txn, Watch, WatchSender,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(super) struct Memory {
    inner: Mutex<Inner>,
}

struct Inner {
    keys: BTreeMap<Arc<str>, KeyValue>,
    revision: Revision,
    watches: Vec<(String, WatchSender)>,
    rng: StdRng,
}

impl Memory {
    pub(super) fn new(seed: u64) -> Arc<Memory> {
        let inner = Inner {
            keys: BTreeMap::new(),
            revision: 1,
            watches: Vec::new(),
            rng: StdRng::seed_from_u64(seed),
        };
        Arc::new(Memory { inner: Mutex::new(inner) })
    }

    pub(super) fn all(&self, prefix: &str) -> Vec<KeyValue> {
        let inner = self.inner.lock().unwrap();
        inner.keys.values().filter(|kv| kv.key.starts_with(prefix)).cloned().collect()
    }

    async fn turns(&self) {
        let turns = self.inner.lock().unwrap().rng.random_range(0..4);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
}

impl Inner {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.keys.contains_key(key),
            Compare::Revision(key, revision) => {
                self.keys.get(key).is_some_and(|kv| kv.mod_revision == *revision)
            }
        }
    }

    fn commit(&mut self, txn: Txn) -> Commit {
        if !txn.compares.iter().all(|compare| self.holds(compare)) {
            let current = txn.compares.iter().map(|compare| {
                let key = compare.key().clone();
                (key.clone(), self.keys.get(&key).cloned())
            });
            return Commit::Conflict { current: current.collect() };
        }
        self.revision += 1;
        let revision = self.revision;
        for op in txn.ops {
            let previous = self.keys.get(op.key()).cloned();
            let (key, value) = match op {
                Op::Put(key, value) => (key, Some(value)),
                Op::Delete(key) => (key, None),
            };
            let event = Event { revision, key: key.clone(), value, previous };
            match event.current() {
                Some(kv) => _ = self.keys.insert(key.clone(), kv),
                None => _ = self.keys.remove(&key),
            }
            let events: Arc<[Event]> = Arc::from([event]);
            self.watches.retain(|(prefix, sender)| !key.starts_with(prefix) || sender.send(events.clone()));
        }
        Commit::Done(revision)
    }
}

impl Store for Memory {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        let key = key.to_owned();
        async move {
            self.turns().await;
            let inner = self.inner.lock().unwrap();
            Ok((inner.keys.get(key.as_str()).cloned(), inner.revision))
        }
        .boxed()
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        _at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        let (prefix, after) = (prefix.to_owned(), after.unwrap_or_default().to_owned());
        async move {
            let mut items = self.all(&prefix);
            items.retain(|kv| *kv.key > *after);
            let rest = if limit == 0 { Vec::new() } else { items.split_off(limit.min(items.len())) };
            let revision = self.inner.lock().unwrap().revision;
            Ok(Page { items, revision, remaining: rest.len() as u64 })
        }
        .boxed()
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        async move {
            self.turns().await;
            let commit = self.inner.lock().unwrap().commit(txn);
            self.turns().await;
            Ok(commit)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, _after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        let (sender, watch) = Watch::channel(Arc::new(AtomicU64::new(0)));
        self.inner.lock().unwrap().watches.push((prefix.to_owned(), sender));
        async move { Ok(watch) }.boxed()
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        let revision = self.inner.lock().unwrap().revision;
        async move { Ok(revision) }.boxed()
    }

    fn compact(&self, _before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        async move { Ok(()) }.boxed()
    }
}
