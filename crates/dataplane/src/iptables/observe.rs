//! Reads back every object we own, from what `iptables-save` prints.

use std::collections::HashMap;

use portolan_forward::Family;

use super::kernel::{Error, Kernel};
use super::layout::{Hook, PREFIX, Table, is_fixed_chain, is_shared_chain};
use super::object::{Key, Objects, Selector};
use super::rules::{Name, Rule};

pub fn observe(kernel: &mut impl Kernel) -> Result<Objects, Error> {
    let mut objects = Objects::new();
    for family in kernel.families() {
        for table in Table::ALL {
            let saved = kernel.save(family, table)?;
            read(family, table, &saved, &mut objects);
        }
    }
    Ok(objects)
}

/// Takes our objects out of a listing of one table.
fn read(family: Family, table: Table, saved: &str, out: &mut Objects) {
    let mut chains: HashMap<&str, Vec<Rule>> = HashMap::new();
    let mut hooks: HashMap<Hook, Vec<Rule>> = HashMap::new();
    for line in saved.lines() {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split(' ').next().unwrap_or_default();
            if name.starts_with(PREFIX) {
                chains.entry(name).or_default();
            }
            continue;
        }
        let Some((name, rule)) =
            line.strip_prefix("-A ").map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            continue;
        };
        if name.starts_with(PREFIX) {
            chains.entry(name).or_default().push(Rule::parse(rule));
        } else if let Some(hook) = Hook::parse(name).filter(|_| leads_to_ours(rule)) {
            hooks.entry(hook).or_default().push(Rule::parse(rule));
        }
    }
    out.extend(hooks.into_iter().map(|(hook, rules)| (Key::Hook(family, table, hook), rules.into())));
    for (name, rules) in chains {
        let Some(chain) = Name::new(name) else { continue };
        if !is_shared_chain(name) {
            out.insert(Key::Chain(family, table, chain), rules.into());
            continue;
        }
        if is_fixed_chain(table, name) || rules.is_empty() {
            out.insert(Key::Chain(family, table, chain.clone()), [].into());
        }
        let mut members: HashMap<Selector, Vec<Rule>> = HashMap::new();
        for rule in rules {
            members.entry(Selector::of(&rule)).or_default().push(rule);
        }
        let key = |selector| Key::Member(family, table, chain.clone(), selector);
        out.extend(members.into_iter().map(|(selector, rules)| (key(selector), rules.into())));
    }
}

/// Whether a rule jumps or goes to a chain of ours.
pub fn leads_to_ours(rule: &str) -> bool {
    let mut words = rule.split(' ').skip_while(|word| !matches!(*word, "-j" | "-g"));
    words.nth(1).is_some_and(|target| target.starts_with(PREFIX))
}
