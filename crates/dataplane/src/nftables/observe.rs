//! Reads back every object we own. Tables that are not laid out as ours should be count as one object, to be replaced.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_forward::Family;
use portolan_netlink::nft::{Data, DumpError, Element, NfTables, Table, Value};

use super::class::pool_sizes;
use super::layout::{LOCAL_INDEX, Place, SetId, base_chains, is_as_laid_out};
use super::object::{ElementKey, Key, Layout, Object, Objects};
use super::rules::Rule;

/// From so many endpoints on they are asked for one by one. A dump of more takes longer, as the kernel begins its walk
/// anew for every piece that it sends.
pub const ASKED_FOR_FROM: u32 = 100_000;

pub fn observe(nft: &mut impl NfTables, place: Place) -> Result<Objects, DumpError> {
    observe_asking_from(ASKED_FOR_FROM, nft, place)
}

/// As [`observe`], with another limit.
pub fn observe_asking_from(limit: u32, nft: &mut impl NfTables, place: Place) -> Result<Objects, DumpError> {
    let tables = nft.tables()?;
    let mut objects = Objects::new();
    for family in Family::ALL {
        if tables.iter().any(|info| info.table == place.table(family)) {
            observe_family(nft, place, family, limit, &mut objects)?;
        }
    }
    Ok(objects)
}

fn observe_family(
    nft: &mut impl NfTables,
    place: Place,
    family: Family,
    limit: u32,
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
    let generation = nft.generation()?;
    let mut pools = Pools::default();
    let mut take = |set: SetId, elements: Vec<Element>, pools: &mut Pools| {
        out.reserve(elements.len());
        for element in elements {
            pools.hear_of(set, &element);
            let key = Key::Element(family, set, ElementKey::of(&element));
            out.insert(key, Object::of(element));
        }
    };
    for set in SetId::ALL.into_iter().filter(|set| !set.is_dynamic() && *set != SetId::Backends) {
        take(set, nft.elements(&table, set.name())?, &mut pools);
    }
    let set = SetId::Backends;
    let count = nft.count(&table, set.name())?.filter(|count| *count >= limit);
    let asked = match count {
        Some(count) => pools.ask(nft, &table, count)?,
        None => None,
    };
    // What was read piece by piece is one state only if nobody wrote meanwhile.
    let asked = match asked {
        Some(asked) if nft.generation()? == generation => asked,
        _ => nft.elements(&table, set.name())?,
    };
    take(set, asked, &mut pools);
    Ok(())
}

/// Which pools there are and how large they are, by what the other maps say.
#[derive(Debug, Default)]
struct Pools {
    /// Pool, as bytes, with the number of its class: one for each frontend.
    frontends: Vec<(Box<[u8]>, u32)>,
    /// Sizes by the number of the class.
    sizes: HashMap<u32, [u32; 2]>,
}

impl Pools {
    fn hear_of(&mut self, set: SetId, element: &Element) {
        match (set, &element.data) {
            (SetId::Frontends | SetId::Nodeports, Data::Value(data)) => {
                if let Some((class, pool)) = data.as_slice().split_first_chunk() {
                    self.frontends.push((pool.into(), u32::from_ne_bytes(*class)));
                }
            }
            (SetId::Classes, Data::Verdict(verdict)) => {
                let class = element.key.as_slice().first_chunk().map(|class| u32::from_ne_bytes(*class));
                let sizes = verdict.chain().map_or([0; 2], |chain| pool_sizes(chain));
                self.sizes.extend(class.map(|class| (class, sizes)));
            }
            _ => {}
        }
    }

    /// Every endpoint, if they are as many as there should be and all where they should be.
    fn ask(
        &mut self,
        nft: &mut impl NfTables,
        table: &Table,
        count: u32,
    ) -> Result<Option<Vec<Element>>, DumpError> {
        let mut largest: HashMap<Box<[u8]>, [u32; 2]> = HashMap::with_capacity(self.frontends.len());
        for (pool, class) in std::mem::take(&mut self.frontends) {
            let sizes = self.sizes.get(&class).copied().unwrap_or_default();
            let known = largest.entry(pool).or_default();
            *known = [known[0].max(sizes[0]), known[1].max(sizes[1])];
        }
        let places: u64 = largest.values().flatten().map(|size| u64::from(*size)).sum();
        if places != u64::from(count) {
            return Ok(None);
        }
        let mut keys = Vec::with_capacity(count as usize);
        for (pool, [cluster, local]) in largest {
            let indexes = (0..cluster).chain((0..local).map(|index| LOCAL_INDEX | index));
            keys.extend(indexes.map(|index| Value::from_slice(&pool).mark(index)));
        }
        nft.elements_at(table, SetId::Backends.name(), &keys)
    }
}
