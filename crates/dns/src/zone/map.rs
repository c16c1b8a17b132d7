//! A hash map that is cheap to copy: copies share everything, and a write copies one small part.
//!
//! Two levels of 64 slots lead to 4,096 small tables, so a change among 100,000 Services copies two arrays of pointers
//! and a table of some 25 entries. Written in place where nothing is shared, as during the first fill.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;

use crate::limits::GROUP;

const WIDTH: usize = 64;

type Table<K, V> = HashTable<(K, V)>;
type Level<T> = Arc<[Arc<T>; WIDTH]>;

#[derive(Debug, Clone)]
pub(super) struct Map<K, V> {
    root: Level<[Arc<Table<K, V>>; WIDTH]>,
    hasher: DefaultHashBuilder,
    length: usize,
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        let table = Arc::new(Table::new());
        let level = Arc::new(std::array::from_fn(|_| table.clone()));
        let root = Arc::new(std::array::from_fn(|_| level.clone()));
        Map { root, hasher: DefaultHashBuilder::default(), length: 0 }
    }
}

/// Which slots a hash leads to. The tables use the lowest and the highest bits themselves.
fn slots(hash: u64) -> (usize, usize) {
    ((hash >> 32) as usize % WIDTH, (hash >> 40) as usize % WIDTH)
}

impl<K: Hash + Eq + Clone, V: Clone> Map<K, V> {
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get_entry(key).map(|(_, value)| value)
    }

    pub(super) fn get_entry<Q>(&self, key: &Q) -> Option<&(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hasher.hash_one(key);
        let (first, second) = slots(hash);
        let table = &self.root[first][second];
        table.find(hash, |(k, _)| k.borrow() == key)
    }

    /// What these keys most likely lead to, without a look at the keys there. Reading each step for all keys before the
    /// next lets the waits for memory overlap, and the look-ups that follow find it all in the cache.
    pub(super) fn likely<'k, Q>(&self, keys: impl Iterator<Item = &'k Q>) -> SmallVec<[&(K, V); GROUP]>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized + 'k,
    {
        let hashes: SmallVec<[u64; GROUP]> = keys.map(|key| self.hasher.hash_one(key)).collect();
        let table = |hash: &u64| {
            let (first, second) = slots(*hash);
            &*self.root[first][second]
        };
        let tables: SmallVec<[&Table<K, V>; GROUP]> = hashes.iter().map(table).collect();
        black_box(tables.iter().map(|table| table.len()).sum::<usize>());
        // The first entry with the same seven bits of hash: in a table of some tens nearly always the one.
        tables.iter().zip(&hashes).filter_map(|(table, hash)| table.find(*hash, |_| true)).collect()
    }

    pub(super) fn contains<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.get(key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(&key);
        let hasher = self.hasher.clone();
        let table = Self::table(&mut self.root, hash);
        if let Some((old_key, old)) = table.find_mut(hash, |(k, _)| *k == key) {
            // Equal keys may still carry other things.
            *old_key = key;
            return Some(std::mem::replace(old, value));
        }
        table.insert_unique(hash, (key, value), |(k, _)| hasher.hash_one(k));
        self.length += 1;
        None
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        if !self.contains(key) {
            // Nothing is copied for nothing.
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let entry = Self::table(&mut self.root, hash).find_entry(hash, |(k, _)| k.borrow() == key).ok()?;
        let ((_, value), _) = entry.remove();
        self.length -= 1;
        Some(value)
    }

    fn table(root: &mut Level<[Arc<Table<K, V>>; WIDTH]>, hash: u64) -> &mut Table<K, V> {
        let (first, second) = slots(hash);
        Arc::make_mut(&mut Arc::make_mut(&mut Arc::make_mut(root)[first])[second])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn does_what_a_hash_map_does_and_copies_stay(ops in proptest::collection::vec((any::<bool>(), 0u16..300, any::<u8>()), 0..600)) {
            let (mut map, mut model) = (Map::default(), HashMap::new());
            let mut copies = Vec::new();
            for (n, (put, key, value)) in ops.into_iter().enumerate() {
                if put {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                prop_assert_eq!(map.len(), model.len());
                if n % 50 == 0 {
                    copies.push((map.clone(), model.clone()));
                }
            }
            copies.push((map, model));
            for (map, model) in copies {
                for key in 0..300 {
                    prop_assert_eq!(map.get(&key), model.get(&key));
                }
                let keys: Vec<u16> = model.keys().copied().collect();
                prop_assert_eq!(map.likely(keys.iter()).len(), keys.len());
            }
        }
    }

    #[test]
    fn a_write_copies_one_table_only() {
        let mut map = Map::default();
        for key in 0..20_000u32 {
            map.insert(key, key);
        }
        let old = map.clone();
        map.insert(7, 0);
        let same = |a: &Map<u32, u32>, b: &Map<u32, u32>| {
            let tables = |m: &Map<u32, u32>| {
                m.root.iter().flat_map(|l| l.iter().map(Arc::as_ptr).collect::<Vec<_>>()).collect::<Vec<_>>()
            };
            tables(a).iter().zip(tables(b)).filter(|(a, b)| **a == *b).count()
        };
        assert_eq!(same(&old, &map), WIDTH * WIDTH - 1);
    }
}
