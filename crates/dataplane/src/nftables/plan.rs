//! An order of operations that the kernel accepts at every step, and that stays sound if a batch is cut in two: what
//! is referred to appears before what refers to it, and goes after it.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_forward::Family;
use portolan_netlink::nft::{self, Chain, Element, Op};

use super::layout::{SetId, base_chains, is_base_chain, table};
use super::object::{Key, Layout, Object};
use super::rules::Rule;
use crate::Change;

/// Operations of one transaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    pub main: nft::Batch,
    /// Deletes chains that `main` has made superfluous. In the same transaction if the kernel allows it: before 6.2 it
    /// does not when an element that led to the chain goes in that transaction too.
    pub superfluous: Vec<(Family, Arc<str>)>,
}

#[derive(Default)]
struct Elements {
    /// Must go before others come: replaced ones, and all that go from a set of ranges, where others may overlap them.
    replaced: Vec<Element>,
    added: Vec<Element>,
    removed: Vec<Element>,
}

#[derive(Default)]
struct Sorted {
    tables: Vec<(Family, bool)>,
    chains: Vec<(Family, Arc<str>, Arc<[Rule]>)>,
    superfluous: Vec<(Family, Arc<str>)>,
    elements: BTreeMap<(SetId, Family), Elements>,
}

pub fn plan(changes: Vec<Change<Key, Object>>) -> Batch {
    let mut sorted = Sorted::default();
    for change in changes {
        sorted.take(change);
    }
    sorted.into_batch()
}

impl Sorted {
    fn take(&mut self, change: Change<Key, Object>) {
        match (change.key, change.from, change.to) {
            (Key::Table(family), from, Some(_)) => {
                self.tables.push((family, matches!(from, Some(Object::Table(Layout::Other)))));
            }
            // Base objects are always wanted; a table goes by cleanup only.
            (Key::Table(_), _, None) => {}
            (Key::Chain(family, name), _, Some(Object::Chain(rules))) => {
                self.chains.push((family, name, rules));
            }
            (Key::Chain(family, name), ..) => self.superfluous.push((family, name)),
            (Key::Element(family, set, key), from, to) => {
                let elements = self.elements.entry((set, family)).or_default();
                match (from, to) {
                    (None, to) => elements.added.push(key.into_element(to)),
                    (Some(_), None)
                        if matches!(set, SetId::PodCidrs | SetId::ServiceCidrs | SetId::Sources) =>
                    {
                        elements.replaced.push(key.into_element(None));
                    }
                    (Some(_), None) => elements.removed.push(key.into_element(None)),
                    (Some(_), to) => {
                        elements.replaced.push(key.clone().into_element(None));
                        elements.added.push(key.into_element(to));
                    }
                }
            }
        }
    }

    fn into_batch(mut self) -> Batch {
        let mut main = nft::Batch::new();
        for (family, exists) in std::mem::take(&mut self.tables) {
            main.extend(make_table(family, exists));
        }
        let mut removals = Vec::new();
        let (mut early, mut late) = (Vec::new(), Vec::new());
        for ((set, family), elements) in std::mem::take(&mut self.elements) {
            // Elements of `classes` lead to chains; those of the sets behind it to classes.
            let ops = if set < SetId::Classes { &mut early } else { &mut late };
            ops.extend(delete(family, set, elements.replaced));
            ops.extend(add(family, set, elements.added));
            removals.extend(delete(family, set, elements.removed));
        }
        main.extend(early);
        main.extend(self.chain_ops());
        main.extend(late);
        main.extend(removals.into_iter().rev());
        Batch { main, superfluous: self.superfluous }
    }

    /// Chains lead to chains, so all of them appear before any gets rules. New ones are flushed too: one that could not
    /// be deleted yet may still be there.
    fn chain_ops(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for (family, name, _) in &self.chains {
            let table = table(*family);
            if !is_base_chain(name) {
                ops.push(Op::AddChain(Chain::regular(&table, name.clone())));
            }
            ops.push(Op::FlushChain { table, chain: name.clone() });
        }
        for (family, name, rules) in std::mem::take(&mut self.chains) {
            let table = table(family);
            ops.extend(rules.iter().map(|rule| {
                let comment = rule.comment.clone();
                let rule = nft::Rule::new(&table, name.clone(), rule.exprs.clone());
                Op::AddRule(nft::Rule { comment, ..rule })
            }));
        }
        ops
    }
}

/// A table with its sets and base chains.
fn make_table(family: Family, exists: bool) -> Vec<Op> {
    let table = table(family);
    let comment = Some("rules of Portolan, which removes or replaces anything else in here".into());
    let mut ops = Vec::new();
    if exists {
        ops.push(Op::DelTable(table.clone()));
    }
    ops.push(Op::AddTable { table, comment });
    ops.extend(SetId::ALL.map(|set| Op::AddSet(set.spec(family))));
    ops.extend(base_chains(family).map(Op::AddChain));
    ops
}

fn add(family: Family, set: SetId, elements: Vec<Element>) -> Option<Op> {
    let (table, set) = (table(family), set.name().into());
    (!elements.is_empty()).then_some(Op::AddElements { table, set, elements })
}

fn delete(family: Family, set: SetId, elements: Vec<Element>) -> Option<Op> {
    let (table, set) = (table(family), set.name().into());
    (!elements.is_empty()).then_some(Op::DelElements { table, set, elements })
}
