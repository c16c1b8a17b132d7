//! Service address ranges: which addresses of a CIDR may be given out. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_api::service::families::Family;
use rand::Rng;

use super::band::{self, CLUSTER_IPS};

/// The usable addresses of one CIDR. IPv4 leaves out the network and the broadcast address, IPv6 only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    cidr: IpNet,
    first: u128,
    size: u128,
    lower: u128,
}

/// A range of which no addresses are given out, in Kubernetes' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("shortest allowed prefix length for service CIDR is 64, got {0}")]
pub struct TooWide(u8);

impl AddressRange {
    /// The range, if it is one to give addresses out of.
    pub fn allocatable(cidr: IpNet) -> Result<AddressRange, TooWide> {
        if cidr.addr().is_ipv6() && cidr.prefix_len() < 64 {
            return Err(TooWide(cidr.prefix_len()));
        }
        Ok(AddressRange::new(cidr))
    }

    pub fn new(cidr: IpNet) -> AddressRange {
        let cidr = cidr.trunc();
        let host_bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
        // A shorter one than /64 is not given out of; see [`AddressRange::allocatable`].
        let total = 1u128 << host_bits.min(64);
        let unusable = if cidr.addr().is_ipv4() { 2 } else { 1 };
        AddressRange {
            cidr,
            first: number(cidr.addr()) + 1,
            size: total.saturating_sub(unusable),
            lower: CLUSTER_IPS.lower(total),
        }
    }

    pub fn cidr(&self) -> IpNet {
        self.cidr
    }

    pub fn family(&self) -> Family {
        Family::of(self.cidr.addr())
    }

    /// How many addresses are usable.
    pub fn size(&self) -> u128 {
        self.size
    }

    /// The first usable address; the Service `kubernetes` gets it.
    pub fn first(&self) -> Option<IpAddr> {
        (self.size > 0).then(|| self.address(0))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family()
            && number(address).checked_sub(self.first).is_some_and(|place| place < self.size)
    }

    /// A free address, by the rule of the bands.
    pub fn pick(&self, rng: &mut impl Rng, taken: impl Fn(IpAddr) -> bool) -> Option<IpAddr> {
        band::pick(self.size, self.lower, rng, |place| taken(self.address(place)))
            .map(|place| self.address(place))
    }

    fn address(&self, place: u128) -> IpAddr {
        let number = self.first + place;
        match self.family() {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(number)),
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(cidr: &str) -> AddressRange {
        AddressRange::new(cidr.parse().unwrap())
    }

    fn contains(cidr: &str, address: &str) -> bool {
        range(cidr).contains(address.parse().unwrap())
    }

    #[test]
    fn network_and_broadcast_are_not_given_out() {
        assert!(!contains("10.96.0.0/24", "10.96.0.0") && !contains("10.96.0.0/24", "10.96.0.255"));
        assert!(contains("10.96.0.0/24", "10.96.0.1") && contains("10.96.0.0/24", "10.96.0.254"));
        assert!(!contains("10.96.0.0/24", "10.97.0.1") && !contains("10.96.0.0/24", "::a60:1"));
        assert!(!contains("fd00::/112", "fd00::") && contains("fd00::/112", "fd00::ffff"));
        assert_eq!(range("10.0.0.1/32").first(), None);
        assert_eq!(range("10.0.0.0/24").first(), Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_range_of_ipv6_is_a_64_or_smaller() {
        let refused =
            |cidr: &str| AddressRange::allocatable(cidr.parse().unwrap()).map_err(|why| why.to_string());
        let why = "shortest allowed prefix length for service CIDR is 64, got 63";
        assert_eq!(refused("fd00::/63"), Err(why.to_owned()));
        assert_eq!(refused("fd00::/64").map(|range| range.size()), Ok((1 << 64) - 1));
        assert!(refused("10.0.0.0/8").is_ok());
    }

    #[test]
    fn the_bands_of_ranges_are_those_of_kubernetes() {
        // The last of the lower band and the first of the upper; the last address there is.
        for (cidr, lower, upper, last) in [
            ("10.0.0.0/24", "10.0.0.16", "10.0.0.17", "10.0.0.254"),
            ("10.0.0.0/27", "10.0.0.16", "10.0.0.17", "10.0.0.30"),
            ("10.96.0.0/12", "10.96.1.0", "10.96.1.1", "10.111.255.254"),
            ("fd00::/112", "fd00::100", "fd00::101", "fd00::ffff"),
        ] {
            let [lower, upper, last] = [lower, upper, last].map(|text| text.parse::<IpAddr>().unwrap());
            let mut rng = rand::rng();
            let range = range(cidr);
            // With all but one taken, that one is found wherever it is; with two left it is the upper band's.
            assert_eq!(range.pick(&mut rng, |address| address != lower), Some(lower), "{cidr}");
            assert_eq!(range.pick(&mut rng, |address| address != last), Some(last), "{cidr}");
            let both = |address: IpAddr| address != lower && address != upper;
            assert!((0..5).all(|_| range.pick(&mut rng, both) == Some(upper)), "{cidr}");
        }
        // Too small to spare anything.
        let mut rng = rand::rng();
        let mut seen = std::collections::HashSet::new();
        while seen.len() < 14 {
            seen.extend(range("10.0.0.0/28").pick(&mut rng, |_| false));
        }
    }

    #[test]
    fn a_pick_lies_in_the_upper_band_while_there_is_room() {
        let mut rng = rand::rng();
        for _ in 0..200 {
            let picked = range("10.96.0.0/12").pick(&mut rng, |_| false).unwrap();
            assert!(picked >= "10.96.1.1".parse::<IpAddr>().unwrap(), "{picked}");
            assert!(picked <= "10.111.255.254".parse::<IpAddr>().unwrap(), "{picked}");
            let picked = range("10.0.0.0/24").pick(&mut rng, |_| false).unwrap();
            assert!(picked >= "10.0.0.17".parse::<IpAddr>().unwrap(), "{picked}");
        }
    }
}
