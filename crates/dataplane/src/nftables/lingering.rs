//! Objects that are in the kernel though nothing needs them any more.
//!
//! Some objects must not go in the transaction that makes them superfluous. A packet looks up several maps one after
//! the other, and may look up one before a transaction and the next after it: with a class from before, it must still
//! find the class's chain; with an endpoint from before, it must still find out that this is a hairpin, as a connection
//! once tracked without masquerade stays so. Besides, a chain is slow to make when maps are large, and may soon be
//! wanted again; and kernels before 6.2 do not delete a chain together with the last element that leads to it.
//!
//! So these objects stay for a while: at least until [`LINGERING_MAX`] others have become superfluous after them.

use portolan_forward::Family;

use super::layout::SetId;
use super::object::{Key, Object, Objects};
use crate::Change;

/// Objects of the younger generation; the older one holds as many, or a few more.
pub const LINGERING_MAX: usize = 64;

#[derive(Debug, Default)]
pub struct Lingering {
    young: Objects,
    old: Objects,
}

/// Changes as far as the kernel must be told.
#[derive(Debug, Default)]
pub struct Settled {
    pub changes: Vec<Change<Key, Object>>,
    /// Lingering objects that are wanted again.
    pub revived: Vec<Key>,
    /// Objects that stay though they are superfluous.
    pub retired: Vec<(Key, Object)>,
}

impl Lingering {
    fn get(&self, key: &Key) -> Option<&Object> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub fn settle(&self, changes: Vec<Change<Key, Object>>) -> Settled {
        let mut settled = Settled::default();
        for mut change in changes {
            match (&change.from, &change.to) {
                (Some(_), None) if may_linger(&change.key) => {
                    settled.retired.extend(change.from.map(|object| (change.key, object)));
                }
                (None, Some(to)) => match self.get(&change.key) {
                    Some(lingering) => {
                        settled.revived.push(change.key.clone());
                        if lingering != to {
                            change.from = Some(lingering.clone());
                            settled.changes.push(change);
                        }
                    }
                    None => settled.changes.push(change),
                },
                _ => settled.changes.push(change),
            }
        }
        settled
    }

    /// After a commit. What is returned has lingered long enough.
    pub fn update(&mut self, revived: &[Key], retired: Vec<(Key, Object)>) -> Objects {
        for key in revived {
            self.young.remove(key);
            self.old.remove(key);
        }
        self.young.extend(retired);
        if self.young.len() <= LINGERING_MAX {
            return Objects::new();
        }
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }

    /// What could not be deleted after all.
    pub fn put_back(&mut self, dead: Objects) {
        self.old.extend(dead);
    }

    /// Takes what lingers out of what was observed, and forgets what does not exist as it was.
    pub fn hide_from(&mut self, observed: &mut Objects) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|key, object| {
                observed.get(key).is_some_and(|found| found == object) && observed.remove(key).is_some()
            });
        }
    }

    pub fn forget(&mut self, family: Family) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|key, _| key.family() != family);
        }
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

fn may_linger(key: &Key) -> bool {
    match key {
        Key::Table(_) => false,
        Key::Chain(..) => true,
        Key::Element(_, set, _) => matches!(set, SetId::Classes | SetId::Hairpins),
    }
}
