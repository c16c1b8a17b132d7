//! Reads back every object we own. Tables that are not laid out as ours should be count as one object, to be replaced.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_forward::Family;
use portolan_netlink::nft::{DumpError, NfTables};

use super::layout::{Place, SetId, base_chains, is_as_laid_out};
use super::object::{ElementKey, Key, Layout, Object, Objects};
use super::rules::Rule;

pub fn observe(nft: &mut impl NfTables, place: Place) -> Result<Objects, DumpError> {
    let tables = nft.tables()?;
    let mut objects = Objects::new();
    for family in Family::ALL {
        if tables.iter().any(|info| info.table == place.table(family)) {
            observe_family(nft, place, family, &mut objects)?;
        }
    }
    Ok(objects)
}

fn observe_family(
    nft: &mut impl NfTables,
    place: Place,
    family: Family,
    out: &mut Objects,
) -> Result<(), DumpError> {
    let table = place.table(family);
    let sets = nft.sets(&table)?;
    let chains = nft.chains(&table)?;
    let sets_fit = SetId::ALL.iter().all(|id| {
        sets.iter().find(|set| *set.name == *id.name()).is_some_and(|set| is_as_laid_out(set, *id, family))
    });
    let chains_fit = base_chains(family).iter().all(|base| {
        chains.iter().find(|chain| chain.name == base.name).is_some_and(|chain| chain.base == base.base)
    });
    if !sets_fit || !chains_fit {
        out.insert(Key::Table(family), Object::Table(Layout::Other));
        return Ok(());
    }
    out.insert(Key::Table(family), Object::Table(Layout::Current));
    let mut rules: HashMap<Arc<str>, Vec<Rule>> =
        chains.into_iter().map(|chain| (chain.name, Vec::new())).collect();
    for rule in nft.rules(&table, None)? {
        let rule = rule.item;
        let of_chain = rules.entry(rule.chain).or_default();
        of_chain.push(Rule { exprs: rule.exprs, comment: rule.comment });
    }
    out.extend(
        rules.into_iter().map(|(name, rules)| (Key::Chain(family, name), Object::Chain(rules.into()))),
    );
    for set in SetId::ALL.into_iter().filter(|set| !set.is_dynamic()) {
        let elements = nft.elements(&table, set.name())?;
        out.reserve(elements.len());
        out.extend(elements.into_iter().map(|element| {
            let key = Key::Element(family, set, ElementKey::of(&element));
            (key, Object::of(element))
        }));
    }
    Ok(())
}
