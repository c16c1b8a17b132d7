//! Pools with what is free in them: finding the lowest free address costs the same however many are taken.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::meta::v1::LabelSelector;
use portolan_api::range::{AddressRange, address, number};
use portolan_api::selector::LabelQuery;

use super::objects::PoolObject;
use crate::objects::Labels;

/// The free numbers of one family, as intervals from first to last. Ranges of one pool do not overlap.
#[derive(Debug, Clone, Default)]
pub(super) struct Free(BTreeMap<u128, u128>);

impl Free {
    fn containing(&self, at: u128) -> Option<(u128, u128)> {
        let (first, last) = self.0.range(..=at).next_back()?;
        (*last >= at).then_some((*first, *last))
    }

    fn take(&mut self, at: u128) {
        let Some((first, last)) = self.containing(at) else { return };
        self.0.remove(&first);
        if first < at {
            self.0.insert(first, at - 1);
        }
        if at < last {
            self.0.insert(at + 1, last);
        }
    }

    fn put(&mut self, at: u128) {
        if self.containing(at).is_some() {
            return;
        }
        let before = at.checked_sub(1).and_then(|before| self.containing(before));
        let after = at.checked_add(1).and_then(|after| self.containing(after));
        let first = before.map_or(at, |(first, _)| first);
        let last = after.map_or(at, |(_, last)| last);
        if let Some((after, _)) = after {
            self.0.remove(&after);
        }
        self.0.insert(first, last);
    }

    fn count(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, (first, last)| sum.saturating_add(last - first).saturating_add(1))
    }
}

/// One pool.
#[derive(Debug, Clone)]
pub struct Pool {
    pub name: String,
    pub ranges: Vec<AddressRange>,
    auto_assign: bool,
    avoid_buggy: bool,
    /// 0 comes last.
    priority: u32,
    namespaces: Option<LabelQuery>,
    services: Option<LabelQuery>,
    created: String,
    /// Of IPv4, then of IPv6.
    free: [Free; 2],
    taken: [u64; 2],
}

fn index(ip: IpAddr) -> usize {
    usize::from(ip.is_ipv6())
}

fn buggy(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if matches!(ip.octets()[3], 0 | 255))
}

impl Pool {
    /// Entries that cannot be read are left out: the API refuses them, but a CRD's schema says less.
    pub fn of(object: &PoolObject) -> (Self, Vec<String>) {
        let (mut ranges, mut wrong) = (Vec::<AddressRange>::new(), Vec::new());
        for entry in &object.spec.addresses {
            match AddressRange::parse(entry) {
                Err(error) => wrong.push(format!("spec.addresses: {entry:?}: {error}")),
                Ok(range) if ranges.iter().any(|known| known.overlaps(&range)) => {
                    wrong.push(format!("spec.addresses: {entry:?} overlaps another entry: take it out"));
                }
                Ok(range) => ranges.push(range),
            }
        }
        let spec = &object.spec;
        let mut query = |selector: &Option<LabelSelector>, field: &str| {
            let parsed = selector.as_ref().map(LabelQuery::of_selector).transpose();
            parsed.unwrap_or_else(|error| {
                wrong.push(format!("spec.{field}: {error}"));
                None
            })
        };
        let namespaces = query(&spec.namespace_selector, "namespaceSelector");
        let services = query(&spec.service_selector, "serviceSelector");
        let created = object.metadata.creation_timestamp.as_ref().map(ToString::to_string);
        let mut pool = Self {
            name: object.metadata.name.clone(),
            ranges,
            auto_assign: spec.auto_assign.unwrap_or(true),
            avoid_buggy: spec.avoid_buggy_ips,
            priority: u32::try_from(spec.priority).unwrap_or(0),
            namespaces,
            services,
            created: created.unwrap_or_default(),
            free: Default::default(),
            taken: [0; 2],
        };
        for range in &pool.ranges {
            pool.free[index(range.first())].0.insert(number(range.first()), number(range.last()));
        }
        (pool, wrong)
    }

    /// Lower first, 0 last; then by name.
    fn order(&self) -> (u32, &str) {
        (self.priority.wrapping_sub(1), &self.name)
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip)) && !(self.avoid_buggy && buggy(ip))
    }

    pub(super) fn auto_assign(&self) -> bool {
        self.auto_assign
    }

    pub(super) fn selects(&self, namespace: &Labels, service: &Labels) -> bool {
        let fits = |query: &Option<LabelQuery>, labels: &Labels| {
            query.as_ref().is_none_or(|query| query.matches_by(|key| labels.get(key)))
        };
        fits(&self.namespaces, namespace) && fits(&self.services, service)
    }

    pub(super) fn selects_by_namespace(&self) -> bool {
        self.namespaces.is_some()
    }

    pub(super) fn has_family(&self, ipv4: bool) -> bool {
        self.ranges.iter().any(|range| range.is_ipv4() == ipv4)
    }

    /// The lowest free address of a family.
    pub(super) fn lowest_free(&self, ipv4: bool) -> Option<IpAddr> {
        // At most two addresses that are avoided lie side by side: .255 and .0.
        self.free[usize::from(!ipv4)].0.iter().find_map(|(first, last)| {
            let numbers = (*first..=*last).take(3).map(|at| address(at, ipv4));
            numbers.into_iter().find(|ip| !(self.avoid_buggy && buggy(*ip)))
        })
    }

    /// How many addresses of a family are held and how many are left.
    pub fn counts(&self, ipv4: bool) -> (u64, u64) {
        let i = usize::from(!ipv4);
        let mut left = self.free[i].count();
        if self.avoid_buggy && ipv4 {
            left = left.saturating_sub(
                self.free[i].0.iter().map(|(first, last)| buggy_between(*first, *last)).sum(),
            );
        }
        (self.taken[i], u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// How many numbers from first to last end in .0 or .255.
fn buggy_between(first: u128, last: u128) -> u128 {
    let up_to = |n: u128| n / 256 + 1 + (n + 1) / 256;
    let before = |n: u128| if n == 0 { 0 } else { up_to(n - 1) };
    up_to(last) - before(first)
}

/// All pools in the order in which they are asked.
#[derive(Debug, Default)]
pub(super) struct Pools(Vec<Pool>);

impl Pools {
    pub(super) fn new(mut pools: Vec<Pool>) -> Self {
        pools.sort_by(|a, b| a.order().cmp(&b.order()));
        Self(pools)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn named(&self, name: &str) -> Option<&Pool> {
        self.0.iter().find(|pool| pool.name == name)
    }

    /// The names of all, for messages.
    pub(super) fn names(&self) -> String {
        names(self.0.iter())
    }

    pub(super) fn take(&mut self, ip: IpAddr) {
        for pool in self.0.iter_mut().filter(|pool| pool.contains(ip)) {
            pool.free[index(ip)].take(number(ip));
            pool.taken[index(ip)] += 1;
        }
    }

    pub(super) fn put(&mut self, ip: IpAddr) {
        for pool in self.0.iter_mut().filter(|pool| pool.contains(ip)) {
            pool.free[index(ip)].put(number(ip));
            pool.taken[index(ip)] = pool.taken[index(ip)].saturating_sub(1);
        }
    }

    /// For each pool, an older one that offers some of its addresses too.
    pub(super) fn overlaps(&self) -> Vec<(&str, &str, AddressRange)> {
        let mut found = Vec::new();
        for pool in &self.0 {
            let older = |other: &&Pool| (&other.created, &other.name) < (&pool.created, &pool.name);
            let shared = self.0.iter().filter(older).find_map(|other| {
                let common = |range: &&AddressRange| other.ranges.iter().any(|known| known.overlaps(range));
                pool.ranges.iter().find(common).map(|range| (other.name.as_str(), *range))
            });
            if let Some((other, range)) = shared {
                found.push((pool.name.as_str(), other, range));
            }
        }
        found
    }
}

/// Names for messages.
pub(super) fn names<'a>(pools: impl Iterator<Item = &'a Pool>) -> String {
    const SHOWN_MAX: usize = 5;
    let all: Vec<&str> = pools.map(|pool| pool.name.as_str()).collect();
    let shown = all[..all.len().min(SHOWN_MAX)].join(", ");
    if all.len() > SHOWN_MAX { format!("{shown} and {} more", all.len() - SHOWN_MAX) } else { shown }
}
