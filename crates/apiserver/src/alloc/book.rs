//! The address book: which ClusterIPs are taken, as far as this process knows, and the ranges to take more from. A
//! mirror of the store, kept by a watch; a mistake in it costs a retry, since the store is asked again by the write.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portolan_api::service::families::Family;
use portolan_store::{KeyValue, Revision};
use rand::seq::SliceRandom;
use serde_json::Value;

use super::objects;
use super::range::AddressRange;
use crate::alloc_metrics::Fullness;

#[derive(Debug, Default)]
pub(super) struct AddressBook {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By the key of their ServiceCIDR.
    ranges: BTreeMap<String, Ranges>,
    /// Addresses with a stored IPAddress.
    taken: HashSet<IpAddr>,
    /// Addresses picked for writes under way.
    picked: HashSet<IpAddr>,
}

/// Those of one ServiceCIDR.
#[derive(Debug)]
struct Ranges {
    revision: Revision,
    /// Whether addresses of it may be given out now.
    usable: bool,
    each: Vec<AddressRange>,
}

/// What came of looking for a free address.
#[derive(Debug, Default)]
pub(super) struct Pick {
    /// With its range.
    pub(super) address: Option<(IpAddr, IpNet)>,
    /// The ranges in which there was none.
    pub(super) full: Vec<IpNet>,
}

impl AddressBook {
    /// Replaces what is known by a complete listing. Picks stay.
    pub(super) fn reset(
        &self,
        addresses: impl Iterator<Item = IpAddr>,
        cidrs: &[KeyValue],
        revision: Revision,
    ) {
        self.lock().taken = addresses.collect();
        self.reset_ranges(cidrs, revision);
    }

    /// Replaces the ranges by a listing. What is known of later stays.
    pub(super) fn reset_ranges(&self, cidrs: &[KeyValue], revision: Revision) {
        let ranges = |cidr: &KeyValue| (cidr.key.to_string(), Ranges::read(&cidr.value, cidr.mod_revision));
        let listed: BTreeMap<String, Ranges> = cidrs.iter().map(ranges).collect();
        let mut inner = self.lock();
        inner.ranges.retain(|_, known| known.revision > revision);
        for (key, ranges) in listed {
            inner.ranges.entry(key).or_insert(ranges);
        }
    }

    /// A key has a new value, or none any more.
    pub(super) fn seen(&self, key: &str, value: Option<&[u8]>, revision: Revision) {
        let mut inner = self.lock();
        if let Some(address) = objects::address_of_key(key) {
            match value {
                Some(_) => inner.taken.insert(address),
                None => inner.taken.remove(&address),
            };
        } else if key.starts_with(objects::CIDRS) {
            // What this process wrote it knows before the watch tells, which must not take it back.
            if inner.ranges.get(key).is_some_and(|known| known.revision > revision) {
                return;
            }
            match value {
                Some(value) => inner.ranges.insert(key.to_owned(), Ranges::read(value, revision)),
                None => inner.ranges.remove(key),
            };
        }
    }

    /// A free address of the family, ours until it is dropped or taken. Of several ranges any may serve.
    pub(super) fn pick(&self, family: Family) -> Pick {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut rng = rand::rng();
        let mut ranges: Vec<AddressRange> = Vec::new();
        for range in inner.usable(family) {
            if !ranges.contains(&range) {
                ranges.push(range);
            }
        }
        ranges.shuffle(&mut rng);
        let taken = |address: IpAddr| inner.taken.contains(&address) || inner.picked.contains(&address);
        let mut pick = Pick::default();
        for range in ranges {
            match range.pick(&mut rng, taken) {
                None => pick.full.push(range.cidr()),
                Some(address) => {
                    inner.picked.insert(address);
                    pick.address = Some((address, range.cidr()));
                    break;
                }
            }
        }
        pick
    }

    /// The pick was not used.
    pub(super) fn unpick(&self, address: IpAddr) {
        self.lock().picked.remove(&address);
    }

    /// The address has its IPAddress now.
    pub(super) fn take(&self, address: IpAddr) {
        let mut inner = self.lock();
        inner.picked.remove(&address);
        inner.taken.insert(address);
    }

    /// The IPAddress is gone.
    pub(super) fn release(&self, address: IpAddr) {
        self.lock().taken.remove(&address);
    }

    pub(super) fn is_taken(&self, address: IpAddr) -> bool {
        self.lock().taken.contains(&address)
    }

    /// A usable range that has this address.
    pub(super) fn range_of(&self, address: IpAddr) -> Option<IpNet> {
        let inner = self.lock();
        let mut ranges = inner.usable(Family::of(address)).filter(|range| range.contains(address));
        ranges.next().map(|range| range.cidr())
    }

    /// A usable range of the family.
    pub(super) fn any_range(&self, family: Family) -> Option<IpNet> {
        self.lock().usable(family).next().map(|range| range.cidr())
    }

    /// How full each range is. It looks at every address: for whom has time.
    pub(super) fn fullness(&self) -> Vec<(IpNet, Fullness)> {
        let inner = self.lock();
        let of = |range: AddressRange| {
            let allocated = inner.taken.iter().filter(|address| range.contains(**address)).count() as u128;
            (range.cidr(), Fullness { allocated, available: range.size().saturating_sub(allocated) })
        };
        inner.ranges.values().flat_map(|cidr| &cidr.each).copied().map(of).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single insert or remove: a panic elsewhere cannot leave the book half-written.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn usable(&self, family: Family) -> impl Iterator<Item = AddressRange> + '_ {
        let all = self.ranges.values().filter(|cidr| cidr.usable).flat_map(|cidr| &cidr.each).copied();
        all.filter(move |range| range.family() == family && range.first().is_some())
    }
}

impl Ranges {
    fn read(service_cidr: &[u8], revision: Revision) -> Self {
        let object: Value = serde_json::from_slice(service_cidr).unwrap_or_default();
        let allocatable = |cidr: IpNet| {
            let range = AddressRange::allocatable(cidr);
            range
                .inspect_err(|why| tracing::warn!(%cidr, %why, "no addresses of this range are given out"))
                .ok()
        };
        let each = objects::cidrs(&object).filter_map(allocatable).collect();
        Self { revision, usable: objects::is_usable(&object), each }
    }
}
