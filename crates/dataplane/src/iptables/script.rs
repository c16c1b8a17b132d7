//! What is fed to `iptables-restore`: only the chains that changed, each whole.
//!
//! A shared chain holds rules of many Services, so it is written from [`Held`], which knows all its members.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use portolan_forward::Family;

use super::layout::{Hook, Table, is_fixed_chain, is_shared_chain};
use super::object::{Key, Object, Objects, Selector};
use super::plan::Edit;
use super::rules::Name;

type ChainKey = (Family, Table, Name);

/// The shared chains as the kernel has them, member by member.
#[derive(Debug, Default)]
pub(super) struct Held(HashMap<ChainKey, BTreeMap<Selector, Object>>);

impl Held {
    pub(super) fn of(objects: &Objects) -> Self {
        let mut held = Self::default();
        for (key, object) in objects {
            if let Key::Member(family, table, chain, selector) = key {
                held.members(*family, *table, chain).insert(selector.clone(), object.clone());
            }
        }
        held
    }

    fn members(&mut self, family: Family, table: Table, chain: &Name) -> &mut BTreeMap<Selector, Object> {
        self.0.entry((family, table, chain.clone())).or_default()
    }
}

/// One table's part of a script.
#[derive(Default)]
struct Part {
    declared: BTreeSet<Name>,
    rules: String,
    deleted: BTreeSet<Name>,
    shared: BTreeSet<Name>,
}

/// The script of one write in one family; `None` when it changes nothing there. Remembers what it does.
pub(super) fn script(held: &mut Held, family: Family, edits: &[Edit]) -> Option<String> {
    let mut text = String::new();
    for table in Table::ALL {
        let mut part = Part::default();
        let own = edits.iter().filter(|edit| edit.key.family() == family && edit.key.table() == table);
        let mut any = false;
        for edit in own {
            any = true;
            part.take(held, edit);
        }
        if !any {
            continue;
        }
        part.write_shared(held, family, table);
        part.write(table, &mut text);
    }
    (!text.is_empty()).then_some(text)
}

impl Part {
    fn take(&mut self, held: &mut Held, edit: &Edit) {
        match &edit.key {
            Key::Hook(_, _, hook) => self.hook(*hook, edit),
            Key::Chain(_, _, name) if is_shared_chain(name.as_str()) => {
                self.shared.insert(name.clone());
            }
            Key::Chain(_, _, name) => match &edit.to {
                Some(rules) => self.chain(name, rules.iter()),
                None => self.delete(name),
            },
            Key::Member(family, table, name, selector) => {
                let members = held.members(*family, *table, name);
                match &edit.to {
                    Some(rules) => drop(members.insert(selector.clone(), rules.clone())),
                    None => drop(members.remove(selector)),
                }
                self.shared.insert(name.clone());
            }
        }
    }

    fn hook(&mut self, hook: Hook, edit: &Edit) {
        for rule in edit.from.iter().flat_map(|rules| rules.iter()) {
            _ = writeln!(self.rules, "-D {} {rule}", hook.as_str());
        }
        for rule in edit.to.iter().flat_map(|rules| rules.iter().rev()) {
            _ = writeln!(self.rules, "-I {} 1 {rule}", hook.as_str());
        }
    }

    /// Declaring a chain makes it, or empties it.
    fn chain<'a>(&mut self, name: &Name, rules: impl Iterator<Item = &'a super::rules::Rule>) {
        self.declared.insert(name.clone());
        for rule in rules {
            // Writing to a String cannot fail.
            _ = writeln!(self.rules, "-A {name} {rule}");
        }
    }

    fn delete(&mut self, name: &Name) {
        self.declared.insert(name.clone());
        self.deleted.insert(name.clone());
    }

    /// Chains in descending order: the nft variant keeps a sorted list and looks for each one's place from its start.
    fn write(&self, table: Table, text: &mut String) {
        _ = writeln!(text, "*{}", table.as_str());
        for name in self.declared.iter().rev() {
            _ = writeln!(text, ":{name} - [0:0]");
        }
        text.push_str(&self.rules);
        for name in &self.deleted {
            _ = writeln!(text, "-X {name}");
        }
        text.push_str("COMMIT\n");
    }

    fn write_shared(&mut self, held: &mut Held, family: Family, table: Table) {
        for name in std::mem::take(&mut self.shared) {
            let key = (family, table, name);
            match held.0.get(&key) {
                Some(members) if !members.is_empty() => {
                    self.chain(&key.2, members.values().flat_map(|rules| rules.iter()));
                }
                _ if is_fixed_chain(table, key.2.as_str()) => self.chain(&key.2, std::iter::empty()),
                _ => {
                    self.delete(&key.2);
                    held.0.remove(&key);
                }
            }
        }
    }
}
