//! An order of operations that the kernel accepts at every step, and that stays sound if a batch is cut in two: what
//! is referred to appears before what refers to it, and goes after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use portolan_forward::Family;
use portolan_netlink::nft::{self, Chain, Data, Element, Expr, Op};

use super::layout::{SetId, base_chains, is_base_chain, table};
use super::object::{Key, Layout, Object};
use super::rules::Rule;
use crate::Change;

/// What to do, and what can wait until that is done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Tables made anew.
    pub tables: Vec<(Family, Layout)>,
    /// Chains that are in use or will be at once. They come before the elements: a map is walked through when a chain
    /// first refers to it.
    pub chains: Vec<ChainRules>,
    pub elements: Vec<Op>,
    /// Chains that nothing leads to yet. Making one is slow when maps are large.
    pub spare: Vec<ChainRules>,
    /// Chains that must go, with nothing left that leads to them.
    pub deleted: Vec<(Family, Arc<str>)>,
    /// What [`super::lingering`] must be told when all is done.
    pub revived: Vec<Key>,
    pub retired: Vec<(Key, Object)>,
}

impl Batch {
    /// The operations of the transaction that somebody waits for.
    pub fn into_ops(self) -> Vec<Op> {
        let tables = self.tables.into_iter().flat_map(|(family, before)| make_table(family, before));
        let mut ops: Vec<_> = tables.chain(chain_ops(&self.chains)).chain(self.elements).collect();
        ops.extend(delete_chains(&self.deleted));
        ops
    }

    pub fn weight(&self) -> usize {
        let tables: usize =
            self.tables.iter().map(|(family, before)| make_table(*family, *before).len()).sum();
        let chains = chain_ops(&self.chains).len() + chain_ops(&self.spare).len() + 2 * self.deleted.len();
        tables + chains + self.elements.iter().map(Op::weight).sum::<usize>()
    }
}

/// A chain with all its rules.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainRules {
    pub family: Family,
    pub name: Arc<str>,
    pub rules: Arc<[Rule]>,
    /// It exists, with other rules.
    pub changed: bool,
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
    tables: Vec<(Family, Layout)>,
    chains: Vec<ChainRules>,
    deleted: Vec<(Family, Arc<str>)>,
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
                let other = matches!(from, Some(Object::Table(Layout::Other)));
                self.tables.push((family, if other { Layout::Other } else { Layout::Missing }));
            }
            // Base objects are always wanted; a table goes by cleanup only.
            (Key::Table(_), _, None) => {}
            (Key::Chain(family, name), from, Some(Object::Chain(rules))) => {
                self.chains.push(ChainRules { family, name, rules, changed: from.is_some() });
            }
            (Key::Chain(family, name), ..) => self.deleted.push((family, name)),
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
        let (chains, spare) = self.take_chains();
        let (mut elements, mut removals) = (Vec::new(), Vec::new());
        for ((set, family), of_set) in self.elements {
            elements.extend(delete(family, set, of_set.replaced));
            elements.extend(add(family, set, of_set.added));
            removals.extend(delete(family, set, of_set.removed));
        }
        elements.extend(removals.into_iter().rev());
        Batch { tables: self.tables, chains, elements, spare, deleted: self.deleted, ..Batch::default() }
    }

    /// The chains that are in use or will be at once, and those that can wait. In a new table none has to wait, as its
    /// maps are still empty.
    fn take_chains(&mut self) -> (Vec<ChainRules>, Vec<ChainRules>) {
        let is_new = |family| self.tables.iter().any(|(table, _)| *table == family);
        let classes = self.elements.iter().filter(|((set, _), _)| *set == SetId::Classes);
        let verdicts = classes.flat_map(|((_, family), elements)| {
            let verdicts = elements.added.iter().filter_map(|element| match &element.data {
                Data::Verdict(verdict) => verdict.chain(),
                _ => None,
            });
            verdicts.map(|chain| (*family, chain.clone()))
        });
        let mut reached: HashSet<_> = verdicts.collect();
        let index: HashMap<_, _> = self.chains.iter().map(|c| ((c.family, &*c.name), &c.rules)).collect();
        let mut queue: Vec<_> = reached.iter().cloned().collect();
        queue.extend(self.chains.iter().filter(|c| c.changed).map(|c| (c.family, c.name.clone())));
        while let Some((family, name)) = queue.pop() {
            let rules = index.get(&(family, &*name)).map_or(&[][..], |rules| rules);
            for chain in rules.iter().flat_map(|rule| &rule.exprs).filter_map(leads_to) {
                if reached.insert((family, chain.clone())) {
                    queue.push((family, chain.clone()));
                }
            }
        }
        let urgent = |chain: &ChainRules| {
            chain.changed || is_new(chain.family) || reached.contains(&(chain.family, chain.name.clone()))
        };
        std::mem::take(&mut self.chains).into_iter().partition(urgent)
    }
}

fn leads_to(expr: &Expr) -> Option<&Arc<str>> {
    match expr {
        Expr::Verdict(verdict) => verdict.chain(),
        _ => None,
    }
}

/// Chains lead to chains, so all of them appear before any gets rules.
pub fn chain_ops(chains: &[ChainRules]) -> Vec<Op> {
    let mut ops = Vec::new();
    for ChainRules { family, name, changed, .. } in chains {
        let table = table(*family);
        if *changed {
            ops.push(Op::FlushChain { table, chain: name.clone() });
        } else if !is_base_chain(name) {
            ops.push(Op::AddChain(Chain::regular(&table, name.clone())));
        }
    }
    for ChainRules { family, name, rules, .. } in chains {
        let table = table(*family);
        ops.extend(rules.iter().map(|rule| {
            let comment = rule.comment.clone();
            let rule = nft::Rule::new(&table, name.clone(), rule.exprs.clone());
            Op::AddRule(nft::Rule { comment, ..rule })
        }));
    }
    ops
}

/// They may lead to one another, so all their rules go first.
fn delete_chains(chains: &[(Family, Arc<str>)]) -> Vec<Op> {
    let flush =
        |(family, chain): &(Family, Arc<str>)| Op::FlushChain { table: table(*family), chain: chain.clone() };
    let delete =
        |(family, chain): &(Family, Arc<str>)| Op::DelChain { table: table(*family), chain: chain.clone() };
    chains.iter().map(flush).chain(chains.iter().map(delete)).collect()
}

/// A table with its sets and base chains.
fn make_table(family: Family, before: Layout) -> Vec<Op> {
    let table = table(family);
    let comment = Some("rules of Portolan, which removes or replaces anything else in here".into());
    let mut ops = Vec::new();
    if before == Layout::Other {
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
