//! A cache's content and who wants to know of changes. No I/O.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use tokio::sync::{Notify, watch};

use super::Key;

/// One object as kept.
#[derive(Debug)]
pub(super) struct Entry<T> {
    /// Of the resource version, for equality only.
    pub(super) version: u64,
    pub(super) value: Arc<T>,
}

/// One change to a single key. `None`: the object is gone, or cannot be decoded.
pub(super) type Change<T> = (Key, Option<Entry<T>>);

#[derive(Debug)]
pub(super) struct Store<T> {
    content: RwLock<HashMap<Key, Entry<T>>>,
    subscribers: Mutex<Vec<Weak<Subscriber>>>,
    synced: watch::Sender<bool>,
    failures: AtomicU64,
}

impl<T> Default for Store<T> {
    fn default() -> Store<T> {
        Store {
            content: RwLock::default(),
            subscribers: Mutex::default(),
            synced: watch::Sender::new(false),
            failures: AtomicU64::new(0),
        }
    }
}

impl<T> Store<T> {
    pub(super) fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.read(|content| content.get(key).map(|e| e.value.clone()))
    }

    pub(super) fn all(&self) -> Vec<(Key, Arc<T>)> {
        self.read(|content| content.iter().map(|(k, e)| (k.clone(), e.value.clone())).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.read(HashMap::len)
    }

    /// The value held for a key if it is of this version.
    pub(super) fn same(&self, key: &Key, version: u64) -> Option<Arc<T>> {
        self.read(|content| content.get(key).filter(|e| e.version == version).map(|e| e.value.clone()))
    }

    pub(super) fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    pub(super) async fn synced(&self) {
        // It fails when the sender is gone, and we hold the sender.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) fn count_failure(&self) -> u64 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn subscribe(&self) -> Dirty {
        // The content stays locked meanwhile: a change is either in the first set or comes after it.
        self.read(|content| {
            let subscriber = Arc::new(Subscriber::default());
            subscriber.mark(content.keys());
            let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.push(Arc::downgrade(&subscriber));
            Dirty { subscriber }
        })
    }

    /// Take the events of a watch, in order.
    pub(super) fn apply(&self, changes: Vec<Change<T>>) {
        let mut dirty = Vec::with_capacity(changes.len());
        {
            let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
            for (key, entry) in changes {
                let changed = match entry {
                    None => content.remove(&key).is_some(),
                    Some(entry) => {
                        let version = entry.version;
                        let old = content.insert(key.clone(), entry);
                        old.is_none_or(|old| old.version != version)
                    }
                };
                if changed {
                    dirty.push(key);
                }
            }
        }
        self.mark(&dirty);
    }

    /// Take a complete list: everything else is gone.
    pub(super) fn replace(&self, new: HashMap<Key, Entry<T>>) {
        let old = {
            let mut content = self.content.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *content, new)
        };
        let dirty = self.read(|new| {
            let same = |key: &Key, entry: &Entry<T>| old.get(key).is_some_and(|o| o.version == entry.version);
            let changed = new.iter().filter(|(key, entry)| !same(key, entry)).map(|(key, _)| key);
            let gone = old.keys().filter(|key| !new.contains_key(key));
            changed.chain(gone).cloned().collect::<Vec<_>>()
        });
        self.mark(&dirty);
        self.synced.send_replace(true);
    }

    fn mark(&self, keys: &[Key]) {
        if keys.is_empty() {
            return;
        }
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| match subscriber.upgrade() {
            Some(subscriber) => {
                subscriber.mark(keys.iter());
                true
            }
            None => false,
        });
    }

    fn read<R>(&self, f: impl FnOnce(&HashMap<Key, Entry<T>>) -> R) -> R {
        f(&self.content.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Debug, Default)]
struct Subscriber {
    keys: Mutex<HashSet<Key>>,
    wake: Notify,
}

impl Subscriber {
    fn mark<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut dirty = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        dirty.extend(keys.cloned());
        let any = !dirty.is_empty();
        drop(dirty);
        if any {
            self.wake.notify_one();
        }
    }
}

/// One subscriber's own set of changed keys.
#[derive(Debug)]
pub struct Dirty {
    subscriber: Arc<Subscriber>,
}

impl Dirty {
    /// Wait until at least one key is dirty. Pending for ever once the cache is gone. Cancel-safe.
    pub async fn wait(&mut self) {
        while self.is_empty() {
            self.subscriber.wake.notified().await;
        }
    }

    /// Take all dirty keys, leaving none.
    pub fn take(&mut self) -> HashSet<Key> {
        std::mem::take(&mut *self.subscriber.keys.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn is_empty(&self) -> bool {
        self.subscriber.keys.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn entry(version: u64) -> Entry<u64> {
        Entry { version, value: Arc::new(version) }
    }

    fn list(items: &[(&str, u64)]) -> HashMap<Key, Entry<u64>> {
        items.iter().map(|(name, version)| (key(name), entry(*version))).collect()
    }

    fn names(dirty: &mut Dirty) -> Vec<String> {
        let mut names: Vec<_> = dirty.take().iter().map(|k| k.name.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_list_makes_only_differences_dirty() {
        let store = Store::default();
        store.replace(list(&[("same", 1), ("changed", 2), ("gone", 3)]));
        let mut dirty = store.subscribe();
        assert_eq!(names(&mut dirty), ["changed", "gone", "same"], "what is there starts dirty");
        store.replace(list(&[("same", 1), ("changed", 4), ("new", 5)]));
        assert_eq!(names(&mut dirty), ["changed", "gone", "new"]);
        assert_eq!(store.get(&key("changed")).as_deref(), Some(&4));
        assert_eq!(store.get(&key("gone")), None);
    }

    #[test]
    fn an_event_seen_before_is_no_change() {
        let store = Store::default();
        store.replace(list(&[("a", 1)]));
        let mut dirty = store.subscribe();
        dirty.take();
        store.apply(vec![(key("a"), Some(entry(1))), (key("never-there"), None)]);
        assert!(dirty.is_empty());
        store.apply(vec![(key("a"), Some(entry(2))), (key("a"), None)]);
        assert_eq!(names(&mut dirty), ["a"]);
        assert_eq!(store.len(), 0);
    }

    #[tokio::test]
    async fn each_subscriber_has_its_own_set() {
        let store = Store::default();
        let (mut one, mut two) = (store.subscribe(), store.subscribe());
        store.apply(vec![(key("a"), Some(entry(1)))]);
        one.wait().await;
        assert_eq!(names(&mut one), ["a"]);
        store.apply(vec![(key("b"), Some(entry(2)))]);
        two.wait().await;
        assert_eq!(names(&mut two), ["a", "b"]);
        assert_eq!(names(&mut one), ["b"]);
    }

    #[test]
    fn a_dropped_subscriber_is_forgotten() {
        let store = Store::default();
        drop(store.subscribe());
        store.apply(vec![(key("a"), Some(entry(1)))]);
        assert!(store.subscribers.lock().unwrap().is_empty());
    }
}
