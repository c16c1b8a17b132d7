//! The one differ: keyed objects in, changes out.

use std::collections::HashMap;
use std::hash::Hash;

/// Kernel objects by their identity.
pub type Objects<K, V> = HashMap<K, V>;

/// One object that must appear (`from` is `None`), go (`to` is `None`) or become another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change<K, V> {
    pub key: K,
    pub from: Option<V>,
    pub to: Option<V>,
}

/// Compares what is wanted with what exists, piece by piece: [`Differ::want`] takes any number of objects and
/// [`Differ::finish`] finds that the rest must go. Nothing is held twice, so that a first sync stays small.
#[derive(Debug)]
pub struct Differ<K, V> {
    existing: Objects<K, V>,
    changes: Vec<Change<K, V>>,
}

impl<K: Eq + Hash + Ord, V: Eq> Differ<K, V> {
    pub fn new(existing: Objects<K, V>) -> Self {
        Self { existing, changes: Vec::new() }
    }

    /// What exists and was not wanted yet.
    pub fn existing(&self) -> &Objects<K, V> {
        &self.existing
    }

    /// Each key may be wanted once.
    pub fn want(&mut self, objects: impl IntoIterator<Item = (K, V)>) {
        for (key, to) in objects {
            match self.existing.remove(&key) {
                Some(from) if from == to => {}
                from => self.changes.push(Change { key, from, to: Some(to) }),
            }
        }
    }

    /// All changes, sorted by key.
    pub fn finish(mut self) -> Vec<Change<K, V>> {
        let gone = self.existing.into_iter().map(|(key, from)| Change { key, from: Some(from), to: None });
        self.changes.extend(gone);
        self.changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.changes
    }
}

/// What must change for `to` to be in the place of `from`, sorted by key.
#[expect(clippy::implicit_hasher, reason = "objects are always this map")]
pub fn diff<K: Eq + Hash + Ord, V: Eq>(
    from: Objects<K, V>,
    to: impl IntoIterator<Item = (K, V)>,
) -> Vec<Change<K, V>> {
    let mut differ = Differ::new(from);
    differ.want(to);
    differ.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_a_change() {
        let from = Objects::from([("same", 1), ("gone", 2), ("other", 3)]);
        let to = Objects::from([("same", 1), ("new", 4), ("other", 5)]);
        let changes = diff(from, to);
        let expected = [("gone", Some(2), None), ("new", None, Some(4)), ("other", Some(3), Some(5))];
        assert_eq!(changes.len(), 3);
        for (change, (key, from, to)) in changes.into_iter().zip(expected) {
            assert_eq!((change.key, change.from, change.to), (key, from, to));
        }
    }
}
