//! What the fake holds, and how one step of a transaction is taken back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::nft::object::{Chain, Element, Handled, Name, Rule, Set, Table};
use crate::nft::value::Value;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) tables: BTreeMap<Table, TableState>,
    last_handle: u64,
}

#[derive(Debug)]
pub(super) struct TableState {
    pub(super) handle: u64,
    pub(super) comment: Option<Arc<str>>,
    pub(super) chains: BTreeMap<Name, ChainState>,
    pub(super) sets: BTreeMap<Name, SetState>,
}

/// Cheap to clone, so that undoing a change of its rules is putting the old one back.
#[derive(Debug, Clone)]
pub(super) struct ChainState {
    pub(super) chain: Chain,
    pub(super) rules: Arc<Vec<Handled<Rule>>>,
}

#[derive(Debug)]
pub(super) struct SetState {
    pub(super) set: Set,
    pub(super) elements: HashMap<ElementKey, Element>,
}

/// What makes two elements of a set the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ElementKey {
    pub(super) key: Value,
    pub(super) key_end: Option<Value>,
    pub(super) interval_end: bool,
    pub(super) catchall: bool,
}

impl ElementKey {
    pub(super) fn of(element: &Element) -> Self {
        Self {
            key: if element.catchall { Value::new() } else { element.key.clone() },
            key_end: element.key_end.clone(),
            interval_end: element.interval_end,
            catchall: element.catchall,
        }
    }
}

/// What was there before a step.
#[derive(Debug)]
pub(super) enum Undo {
    Table(Table, Option<TableState>),
    Chain(Table, Name, Option<ChainState>),
    Set(Table, Name, Option<SetState>),
    Element(Table, Name, ElementKey, Option<Element>),
    Elements(Table, Name, HashMap<ElementKey, Element>),
}

impl State {
    pub(super) fn next_handle(&mut self) -> u64 {
        self.last_handle += 1;
        self.last_handle
    }

    pub(super) fn undo(&mut self, step: Undo) {
        match step {
            Undo::Table(table, before) => put_back(&mut self.tables, table, before),
            Undo::Chain(table, name, before) => {
                if let Some(table) = self.tables.get_mut(&table) {
                    put_back(&mut table.chains, name, before);
                }
            }
            Undo::Set(table, name, before) => {
                if let Some(table) = self.tables.get_mut(&table) {
                    put_back(&mut table.sets, name, before);
                }
            }
            Undo::Element(table, name, key, before) => {
                let Some(set) = self.set_mut(&table, &name) else { return };
                match before {
                    Some(element) => set.elements.insert(key, element),
                    None => set.elements.remove(&key),
                };
            }
            Undo::Elements(table, name, before) => {
                if let Some(set) = self.set_mut(&table, &name) {
                    set.elements = before;
                }
            }
        }
    }

    fn set_mut(&mut self, table: &Table, name: &Name) -> Option<&mut SetState> {
        self.tables.get_mut(table)?.sets.get_mut(name)
    }

    pub(super) fn advance(&mut self, by: Duration) {
        for set in self.tables.values_mut().flat_map(|table| table.sets.values_mut()) {
            set.elements.retain(|_, element| match &mut element.expires {
                Some(left) if *left <= by => false,
                Some(left) => {
                    *left -= by;
                    true
                }
                None => true,
            });
        }
    }
}

fn put_back<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
