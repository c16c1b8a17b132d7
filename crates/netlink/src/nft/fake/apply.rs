//! One operation on the state, with the kernel's conditions for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use libc::{EBUSY, EEXIST, EINVAL, ENFILE, ENOENT, EOPNOTSUPP};

use super::state::{ChainState, ElementKey, SetState, State, TableState, Undo};
use super::{Refusal, check};
use crate::nft::object::{
    Base, Chain, ChainKind, Data, Element, Handled, Hook, Name, Rule, Set, SetData, Table,
};
use crate::nft::op::Op;
use crate::nft::value::Value;

type Result<T> = std::result::Result<T, Refusal>;

pub(super) fn apply(state: &mut State, op: &Op, undo: &mut Vec<Undo>) -> Result<()> {
    match op {
        Op::AddTable { table, comment } => add_table(state, table, comment.as_ref(), undo),
        // The fake is its only client, and lives as long as it.
        Op::AddOwnedTable(table) => add_table(state, table, None, undo),
        Op::DelTable(table) => {
            let before = state.tables.remove(table).ok_or(ENOENT)?;
            undo.push(Undo::Table(table.clone(), Some(before)));
        }
        Op::AddChain(chain) => add_chain(state, chain, undo)?,
        Op::DelChain { table, chain } => del_chain(state, table, chain, undo)?,
        Op::FlushChain { table, chain } => change_rules(state, table, chain, undo, |rules| {
            rules.clear();
            Ok(())
        })?,
        Op::AddRule(rule) => {
            let new = new_rule(state, rule)?;
            change_rules(state, &rule.table, &rule.chain, undo, |rules| {
                rules.push(new);
                Ok(())
            })?;
        }
        Op::InsertRule { rule, before } => {
            let new = new_rule(state, rule)?;
            change_rules(state, &rule.table, &rule.chain, undo, |rules| {
                let index = before.map_or(Ok(0), |handle| position(rules, handle))?;
                rules.insert(index, new);
                Ok(())
            })?;
        }
        Op::ReplaceRule { rule, handle } => {
            let new = new_rule(state, rule)?;
            change_rules(state, &rule.table, &rule.chain, undo, |rules| {
                let index = position(rules, *handle)?;
                rules[index] = new;
                Ok(())
            })?;
        }
        Op::DelRule { table, chain, handle } => change_rules(state, table, chain, undo, |rules| {
            rules.remove(position(rules, *handle)?);
            Ok(())
        })?,
        Op::AddSet(set) => add_set(state, set, undo)?,
        Op::DelSet { table, set } => del_set(state, table, set, undo)?,
        Op::FlushSet { table, set } => {
            let found = table_mut(state, table)?.sets.get_mut(set).ok_or(ENOENT)?;
            undo.push(Undo::Elements(table.clone(), set.clone(), std::mem::take(&mut found.elements)));
        }
        Op::AddElements { table, set, elements } => add_elements(state, table, set, elements, undo)?,
        Op::DelElements { table, set, elements } => del_elements(state, table, set, elements, undo)?,
    }
    Ok(())
}

fn table_mut<'a>(state: &'a mut State, table: &Table) -> Result<&'a mut TableState> {
    state.tables.get_mut(table).ok_or_else(|| ENOENT.into())
}

fn add_table(state: &mut State, table: &Table, comment: Option<&Arc<str>>, undo: &mut Vec<Undo>) {
    if state.tables.contains_key(table) {
        return;
    }
    let new = TableState {
        handle: state.next_handle(),
        comment: comment.cloned(),
        chains: std::collections::BTreeMap::new(),
        sets: std::collections::BTreeMap::new(),
    };
    state.tables.insert(table.clone(), new);
    undo.push(Undo::Table(table.clone(), None));
}

fn add_chain(state: &mut State, chain: &Chain, undo: &mut Vec<Undo>) -> Result<()> {
    chain.base.map_or(Ok(()), check_base)?;
    let table = table_mut(state, &chain.table)?;
    let before = table.chains.get(&chain.name).cloned();
    let new = match (&before, chain.base) {
        (None, _) => ChainState { chain: chain.clone(), rules: Arc::default() },
        // Adding a chain again changes its policy; where it hangs must stay.
        (Some(old), None) => old.clone(),
        (Some(old), Some(base)) => {
            let old_base = old.chain.base.ok_or(EOPNOTSUPP)?;
            if (old_base.hook, old_base.priority) != (base.hook, base.priority) {
                return Err(EOPNOTSUPP.into());
            }
            if old_base.kind != base.kind {
                return Err(EEXIST.into());
            }
            ChainState { chain: Chain { base: Some(base), ..old.chain.clone() }, rules: old.rules.clone() }
        }
    };
    table.chains.insert(chain.name.clone(), new);
    undo.push(Undo::Chain(chain.table.clone(), chain.name.clone(), before));
    Ok(())
}

/// Which chain types exist at which hooks; NAT must come behind connection tracking.
fn check_base(base: Base) -> Result<()> {
    const CONNTRACK_PRIORITY: i32 = -200;
    let fits = match base.kind {
        ChainKind::Filter => true,
        ChainKind::Nat => base.hook != Hook::Forward && base.priority > CONNTRACK_PRIORITY,
        ChainKind::Route => base.hook == Hook::Output,
    };
    if fits { Ok(()) } else { Err(EOPNOTSUPP.into()) }
}

fn del_chain(state: &mut State, table: &Table, name: &Name, undo: &mut Vec<Undo>) -> Result<()> {
    let found = table_mut(state, table)?;
    if !found.chains.contains_key(name) {
        return Err(ENOENT.into());
    }
    if chain_is_used(found, name) {
        return Err(EBUSY.into());
    }
    let before = found.chains.remove(name);
    undo.push(Undo::Chain(table.clone(), name.clone(), before));
    Ok(())
}

/// A chain's own rules go with it, so a jump from itself would not hold it; there can be none, being a loop.
fn chain_is_used(table: &TableState, name: &Name) -> bool {
    let others = table.chains.iter().filter(|(other, _)| *other != name);
    let by_rule =
        others.flat_map(|(_, chain)| chain.rules.iter()).any(|rule| check::jumps_to(&rule.item, name));
    let maps = table.sets.values().filter(|set| set.set.data == SetData::Verdict);
    let is_target = |element: &Element| match &element.data {
        Data::Verdict(verdict) => verdict.chain() == Some(name),
        _ => false,
    };
    by_rule || maps.flat_map(|map| map.elements.values()).any(is_target)
}

fn new_rule(state: &mut State, rule: &Rule) -> Result<Handled<Rule>> {
    let table = table_mut(state, &rule.table)?;
    if !table.chains.contains_key(&rule.chain) {
        return Err(ENOENT.into());
    }
    check::rule(table, rule)?;
    Ok(Handled { handle: state.next_handle(), item: rule.clone() })
}

fn position(rules: &[Handled<Rule>], handle: u64) -> Result<usize> {
    rules.iter().position(|rule| rule.handle == handle).ok_or_else(|| ENOENT.into())
}

fn change_rules(
    state: &mut State,
    table: &Table,
    chain: &Name,
    undo: &mut Vec<Undo>,
    change: impl FnOnce(&mut Vec<Handled<Rule>>) -> Result<()>,
) -> Result<()> {
    let found = table_mut(state, table)?.chains.get_mut(chain).ok_or(ENOENT)?;
    let before = found.clone();
    change(Arc::make_mut(&mut found.rules))?;
    undo.push(Undo::Chain(table.clone(), chain.clone(), Some(before)));
    Ok(())
}

fn add_set(state: &mut State, set: &Set, undo: &mut Vec<Undo>) -> Result<()> {
    let table = table_mut(state, &set.table)?;
    if let Some(old) = table.sets.get(&set.name) {
        let same = (&old.set.key, &old.set.data, old.set.flags) == (&set.key, &set.data, set.flags);
        return if same { Ok(()) } else { Err(EEXIST.into()) };
    }
    check_set(set)?;
    let mut set = set.clone();
    // As the kernel does it: zero and absent are the same.
    set.timeout = set.timeout.filter(|timeout| !timeout.is_zero());
    set.size = set.size.filter(|size| *size != 0);
    let name = set.name.clone();
    undo.push(Undo::Set(set.table.clone(), name.clone(), None));
    table.sets.insert(name, SetState { set, elements: HashMap::new() });
    Ok(())
}

fn check_set(set: &Set) -> Result<()> {
    let data_len = match &set.data {
        SetData::Value(data) => data.len(),
        SetData::None | SetData::Verdict => 1,
    };
    let fits = |len: usize| (1..=crate::nft::value::LEN_MAX).contains(&len);
    if !fits(set.key.len()) || !fits(data_len) || (set.timeout.is_some() && !set.flags.timeout) {
        return Err(EINVAL.into());
    }
    // Packets cannot add elements to a verdict map or to ranges of a single field.
    if set.flags.dynamic && (set.data == SetData::Verdict || set.flags.interval) {
        return Err(EOPNOTSUPP.into());
    }
    Ok(())
}

fn del_set(state: &mut State, table: &Table, name: &Name, undo: &mut Vec<Undo>) -> Result<()> {
    let found = table_mut(state, table)?;
    if !found.sets.contains_key(name) {
        return Err(ENOENT.into());
    }
    let mut rules = found.chains.values().flat_map(|chain| chain.rules.iter());
    if rules.any(|rule| check::uses_set(&rule.item, name)) {
        return Err(EBUSY.into());
    }
    let before = found.sets.remove(name);
    undo.push(Undo::Set(table.clone(), name.clone(), before));
    Ok(())
}

fn add_elements(
    state: &mut State,
    table: &Table,
    name: &Name,
    elements: &[Element],
    undo: &mut Vec<Undo>,
) -> Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
    let TableState { chains, sets, .. } = table_mut(state, table)?;
    let found = sets.get_mut(name).ok_or(ENOENT)?;
    for (index, element) in elements.iter().enumerate() {
        let refuse = |errno| Refusal { errno, element: Some(index) };
        check_element(&found.set, element).map_err(refuse)?;
        if let Data::Verdict(verdict) = &element.data {
            check::target(chains, verdict).map_err(refuse)?;
        }
        if overlaps(found, element) {
            return Err(refuse(EEXIST));
        }
        let full = found.set.size.is_some_and(|size| found.elements.len() >= size as usize);
        let key = ElementKey::of(element);
        match found.elements.entry(key.clone()) {
            Entry::Occupied(old) if old.get().data == element.data => {}
            Entry::Occupied(_) => return Err(refuse(EEXIST)),
            Entry::Vacant(_) if full => return Err(refuse(ENFILE)),
            Entry::Vacant(free) => {
                free.insert(as_held(&found.set, element));
                undo.push(Undo::Element(table.clone(), name.clone(), key, None));
            }
        }
    }
    Ok(())
}

/// The kernel keeps a timeout of an element only when it differs from the set's, and counts every lifetime down.
fn as_held(set: &Set, element: &Element) -> Element {
    let mut held = element.clone();
    if set.flags.timeout {
        let lifetime = element.timeout.or(set.timeout).filter(|timeout| !timeout.is_zero());
        held.timeout = lifetime.filter(|_| lifetime != set.timeout);
        held.expires = element.expires.or(lifetime);
    }
    held
}

fn check_element(set: &Set, element: &Element) -> std::result::Result<(), i32> {
    let ranges = set.is_concat_interval();
    let key_fits = element.catchall || element.key.len() == set.key.len();
    let end_fits = match &element.key_end {
        Some(end) => ranges && !element.catchall && end.len() == set.key.len(),
        None => true,
    };
    let marker_fits = !element.interval_end || (set.flags.interval && !ranges);
    let data_fits = match (&set.data, &element.data) {
        (SetData::None, Data::None) => true,
        // The end of an interval carries no data.
        (_, Data::None) => element.interval_end,
        (SetData::Verdict, Data::Verdict(_)) => !element.interval_end,
        (SetData::Value(data), Data::Value(value)) => !element.interval_end && value.len() == data.len(),
        _ => false,
    };
    let time_fits = set.flags.timeout || (element.timeout.is_none() && element.expires.is_none());
    if key_fits && end_fits && marker_fits && data_fits && time_fits { Ok(()) } else { Err(EINVAL) }
}

/// Ranges of a concatenation may not overlap another range, unless they are the same.
fn overlaps(set: &SetState, new: &Element) -> bool {
    if !set.set.is_concat_interval() || new.catchall || set.elements.contains_key(&ElementKey::of(new)) {
        return false;
    }
    let last = new.key_end.as_ref().unwrap_or(&new.key);
    range_with(set, &new.key).is_some() || range_with(set, last).is_some()
}

/// The element of a concatenated interval set whose range holds this key.
fn range_with(set: &SetState, key: &Value) -> Option<ElementKey> {
    let fields = set.set.key.fields();
    let inside = |element: &Element| {
        let (first, last) = (&element.key, element.key_end.as_ref().unwrap_or(&element.key));
        let mut start = 0;
        fields.iter().all(|field| {
            let field = start..start + field.padded_len();
            start = field.end;
            let part = |value: &Value| value.as_slice().get(field.clone()).map(<[u8]>::to_vec);
            part(first) <= part(key) && part(key) <= part(last)
        })
    };
    let mut ranges = set.elements.iter().filter(|(_, element)| !element.catchall);
    ranges.find(|(_, element)| inside(element)).map(|(key, _)| key.clone())
}

fn del_elements(
    state: &mut State,
    table: &Table,
    name: &Name,
    elements: &[Element],
    undo: &mut Vec<Undo>,
) -> Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
    let found = table_mut(state, table)?.sets.get_mut(name).ok_or(ENOENT)?;
    for (index, element) in elements.iter().enumerate() {
        let refuse = |errno| Refusal { errno, element: Some(index) };
        if !element.catchall && element.key.len() != found.set.key.len() {
            return Err(refuse(EINVAL));
        }
        let mut key = ElementKey::of(element);
        // The kernel deletes the range that holds the first key, wherever either of them ends.
        if found.set.is_concat_interval() && !element.catchall {
            key = range_with(found, &element.key).ok_or_else(|| refuse(ENOENT))?;
        }
        let before = found.elements.remove(&key).ok_or_else(|| refuse(ENOENT))?;
        undo.push(Undo::Element(table.clone(), name.clone(), key, Some(before)));
    }
    Ok(())
}
