//! The address book: which ClusterIPs are taken, as far as this process knows, and the ranges to take more from. A
//! mirror of the store, kept by a watch; a mistake in it costs a retry, since the store is asked again by the write.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portolan_api::service::families::Family;
use portolan_store::KeyValue;
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
    /// Usable ranges by the key of their ServiceCIDR.
    ranges: BTreeMap<String, Vec<AddressRange>>,
    /// Addresses with a stored IPAddress.
    taken: HashSet<IpAddr>,
    /// Addresses picked for writes under way.
    picked: HashSet<IpAddr>,
}

impl AddressBook {
    /// Replaces what is known by a complete listing. Picks stay.
    pub(super) fn reset(&self, addresses: impl Iterator<Item = IpAddr>, cidrs: &[KeyValue]) {
        let mut inner = self.lock();
        inner.taken = addresses.collect();
        inner.ranges = cidrs.iter().map(|cidr| (cidr.key.to_string(), ranges(&cidr.value))).collect();
    }

    /// A key has a new value, or none any more.
    pub(super) fn seen(&self, key: &str, value: Option<&[u8]>) {
        let mut inner = self.lock();
        if let Some(address) = objects::address_of_key(key) {
            match value {
                Some(_) => inner.taken.insert(address),
                None => inner.taken.remove(&address),
            };
        } else if key.starts_with(objects::CIDRS) {
            match value {
                Some(value) => inner.ranges.insert(key.to_owned(), ranges(value)),
                None => inner.ranges.remove(key),
            };
        }
    }

    /// A free address of the family, ours until it is dropped or taken. Of several ranges any may serve.
    pub(super) fn pick(&self, family: Family) -> Option<IpAddr> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut rng = rand::rng();
        let mut ranges: Vec<AddressRange> = inner.of_family(family).collect();
        ranges.shuffle(&mut rng);
        let taken = |address: IpAddr| inner.taken.contains(&address) || inner.picked.contains(&address);
        let address = ranges.iter().find_map(|range| range.pick(&mut rng, taken))?;
        inner.picked.insert(address);
        Some(address)
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

    /// Whether a usable range has this address.
    pub(super) fn covers(&self, address: IpAddr) -> bool {
        self.lock().of_family(Family::of(address)).any(|range| range.contains(address))
    }

    /// How full each range is. It looks at every address: for whom has time.
    pub(super) fn fullness(&self) -> Vec<(IpNet, Fullness)> {
        let inner = self.lock();
        let of = |range: AddressRange| {
            let allocated = inner.taken.iter().filter(|address| range.contains(**address)).count() as u128;
            (range.cidr(), Fullness { allocated, available: range.size().saturating_sub(allocated) })
        };
        inner.ranges.values().flatten().copied().map(of).collect()
    }

    /// What a dry run shows in place of an address: the first of a range, which is never given out.
    pub(super) fn placeholder(&self, family: Family) -> Option<IpAddr> {
        self.lock().of_family(family).next().map(|range| range.cidr().network())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a single insert or remove: a panic elsewhere cannot leave the book half-written.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn of_family(&self, family: Family) -> impl Iterator<Item = AddressRange> + '_ {
        let all = self.ranges.values().flatten().copied();
        all.filter(move |range| range.family() == family && range.first().is_some())
    }
}

fn ranges(service_cidr: &[u8]) -> Vec<AddressRange> {
    let object: Value = serde_json::from_slice(service_cidr).unwrap_or_default();
    objects::usable_cidrs(&object).into_iter().map(AddressRange::new).collect()
}
