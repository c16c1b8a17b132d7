//! In which order the tables are written. Each write of a table is atomic, two tables are two writes, so a packet may
//! meet the one as it was and the other as it will be. What keeps it safe:
//!
//! - `filter` looks only at what `nat` did not translate. So what must be refused from now on is put there *before*
//!   `nat` stops translating it, and taken out *after* `nat` has begun to.
//! - A packet that was translated under the old rules meets `POSTROUTING` under the new ones a few microseconds later:
//!   the rules for endpoints that reach themselves go last, in a write of their own.
//! - The rules that lead from iptables' own chains to ours come to `filter` last: where another proxy still does the
//!   work, nothing is refused before `nat` can translate it.

use std::collections::HashSet;

use portolan_forward::Family;

use super::layout::{HAIRPINS, Table};
use super::object::{Key, Object, Selector};
use crate::Change;

pub type Edit = Change<Key, Object>;

/// The writes, in order; many are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub before: Vec<Edit>,
    pub nat: Vec<Edit>,
    pub after: Vec<Edit>,
    pub late: Vec<Edit>,
}

impl Batch {
    pub fn weight(&self) -> usize {
        self.before.len() + self.nat.len() + self.after.len() + self.late.len()
    }

    pub fn writes(self) -> [Vec<Edit>; 4] {
        [self.before, self.nat, self.after, self.late]
    }
}

pub fn plan(changes: Vec<Edit>) -> Batch {
    let translated: HashSet<(Family, Selector)> = changes
        .iter()
        .filter_map(|change| match &change.key {
            Key::Member(family, Table::Nat, _, selector) if change.to.is_some() => {
                Some((*family, selector.clone()))
            }
            _ => None,
        })
        .collect();
    let mut batch = Batch::default();
    for change in changes {
        let place = match (&change.key, &change.from, &change.to) {
            (Key::Member(_, Table::Nat, chain, _), _, None) if is_of_hairpins(chain.as_str()) => {
                &mut batch.late
            }
            (key, ..) if key.table() == Table::Nat => &mut batch.nat,
            (Key::Hook(..), _, Some(_)) | (Key::Member(..) | Key::Chain(..), _, None) => &mut batch.after,
            (Key::Member(family, _, _, selector), Some(_), _)
                if translated.contains(&(*family, selector.clone())) =>
            {
                &mut batch.after
            }
            _ => &mut batch.before,
        };
        place.push(change);
    }
    batch
}

fn is_of_hairpins(chain: &str) -> bool {
    chain == HAIRPINS || chain.starts_with("PORTOLAN-HP-")
}
