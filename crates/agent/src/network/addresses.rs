//! Which address of the node's podCIDR a pod gets.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The addresses of one range that are in use. The first and the last are never given: many tools take them for the
/// network and the broadcast address.
#[derive(Debug)]
pub(crate) struct Addresses {
    range: Ipv4Net,
    used: BTreeSet<u32>,
    /// Where the next search starts: an address that was just freed rests as long as possible, since
    /// connections of its last owner may still be remembered.
    cursor: u32,
}

impl Addresses {
    pub(crate) fn new(range: Ipv4Net) -> Self {
        Self { range, used: BTreeSet::new(), cursor: u32::from(range.network()).saturating_add(1) }
    }

    pub(crate) fn range(&self) -> Ipv4Net {
        self.range
    }

    /// Gives from another range from now on. What is in use stays in use.
    pub(crate) fn set_range(&mut self, range: Ipv4Net) {
        self.range = range;
    }

    /// First and last address that can be given.
    fn bounds(&self) -> (u32, u32) {
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
        (first.saturating_add(1), last.saturating_sub(1))
    }

    /// Takes `preferred`, such as the address the pod had before, if it is free, and else the next free one.
    pub(crate) fn take(&mut self, preferred: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = self.bounds();
        let free = |n: &u32| (first..=last).contains(n) && !self.used.contains(n);
        let chosen = preferred.map(u32::from).filter(free).or_else(|| {
            let cursor = self.cursor.clamp(first, last.max(first));
            (cursor..=last).chain(first..=last.min(cursor)).find(free)
        })?;
        self.used.insert(chosen);
        if preferred.map(u32::from) != Some(chosen) {
            self.cursor = chosen.saturating_add(1);
        }
        Some(Ipv4Addr::from(chosen))
    }

    pub(crate) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&u32::from(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Addresses {
        Addresses::new(text.parse().unwrap())
    }

    fn ip(text: &str) -> Option<Ipv4Addr> {
        text.parse().ok()
    }

    #[test]
    fn addresses_are_unique_until_none_is_left() {
        let mut range = range("10.1.2.0/29");
        let mut taken: Vec<Ipv4Addr> = std::iter::from_fn(|| range.take(None)).collect();
        assert_eq!(taken.first().copied(), ip("10.1.2.1"));
        assert_eq!(taken.last().copied(), ip("10.1.2.6"));
        taken.dedup();
        assert_eq!(taken.len(), 6);
        range.release("10.1.2.3".parse().unwrap());
        assert_eq!(range.take(None), ip("10.1.2.3"));
    }

    #[test]
    fn a_freed_address_rests() {
        let mut range = range("10.1.2.0/24");
        let first = range.take(None).unwrap();
        range.release(first);
        assert_eq!(range.take(None), ip("10.1.2.2"));
    }

    #[test]
    fn a_preferred_address_is_given_if_free_and_inside() {
        let mut range = range("10.1.2.0/24");
        assert_eq!(range.take(ip("10.1.2.9")), ip("10.1.2.9"));
        assert_eq!(range.take(ip("10.1.2.9")), ip("10.1.2.1"));
        assert_eq!(range.take(ip("10.9.9.9")), ip("10.1.2.2"));
        assert_eq!(range.take(ip("10.1.2.255")), ip("10.1.2.3"));
    }

    #[test]
    fn another_range_knows_what_is_in_use() {
        let mut range = range("10.1.2.0/24");
        range.take(ip("10.1.3.1"));
        assert_eq!(range.take(None), ip("10.1.2.2"));
        range.set_range("10.1.2.0/30".parse().unwrap());
        assert_eq!(range.take(None), None, "1 and 2 are taken");
        range.set_range("10.0.0.0/24".parse().unwrap());
        assert_eq!(range.take(None), ip("10.0.0.254"), "the search starts at the nearest address");
    }

    #[test]
    fn tiny_ranges_have_nothing_to_give() {
        assert_eq!(range("10.1.2.3/32").take(None), None);
        assert_eq!(range("10.1.2.2/31").take(None), None);
    }
}
