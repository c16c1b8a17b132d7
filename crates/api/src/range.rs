//! Ranges of addresses as pools are written: CIDRs and `from-to`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Addresses of one family from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no range, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error("must be a CIDR (e.g. 192.0.2.0/28) or a range (e.g. 192.0.2.10-192.0.2.20)")]
    Malformed,
    #[error("must be a CIDR or a range: for this one address write {0}")]
    Lone(IpNet),
    #[error(
        "must not have bits set beyond the prefix length: write {network} for the network or {single} for the address"
    )]
    HostBits { network: IpNet, single: IpNet },
    #[error("must not begin after it ends: write {last}-{first}")]
    Reversed { first: IpAddr, last: IpAddr },
    #[error("must begin and end in the same family: write one entry for IPv4 and one for IPv6")]
    Mixed,
    #[error("must not hold {0} addresses, which no network forwards to a Service")]
    Special(&'static str),
}

impl AddressRange {
    pub fn parse(text: &str) -> Result<Self, RangeError> {
        let range = if text.contains('/') { Self::cidr(text)? } else { Self::from_to(text)? };
        match range.special() {
            Some(what) => Err(RangeError::Special(what)),
            None => Ok(range),
        }
    }

    fn cidr(text: &str) -> Result<Self, RangeError> {
        let net: IpNet = text.trim().parse().map_err(|_| RangeError::Malformed)?;
        if net.addr() != net.network() {
            return Err(RangeError::HostBits { network: net.trunc(), single: IpNet::from(net.addr()) });
        }
        Ok(Self { first: net.network(), last: net.broadcast() })
    }

    fn from_to(text: &str) -> Result<Self, RangeError> {
        let Some((first, last)) = text.split_once('-') else {
            let lone = text.trim().parse::<IpAddr>().ok();
            return Err(lone.map_or(RangeError::Malformed, |ip| RangeError::Lone(IpNet::from(ip))));
        };
        let parse = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| RangeError::Malformed);
        let (first, last) = (parse(first)?, parse(last)?);
        if first.is_ipv4() != last.is_ipv4() {
            return Err(RangeError::Mixed);
        }
        if first > last {
            return Err(RangeError::Reversed { first, last });
        }
        Ok(Self { first, last })
    }

    fn special(&self) -> Option<&'static str> {
        let kinds: [(&str, &str); 7] = [
            ("0.0.0.0/8", "unspecified"),
            ("127.0.0.0/8", "loopback"),
            ("224.0.0.0/3", "multicast or reserved"),
            ("::/128", "unspecified"),
            ("::1/128", "loopback"),
            ("fe80::/10", "link-local"),
            ("ff00::/8", "multicast"),
        ];
        let meets = |cidr: &str| Self::cidr(cidr).is_ok_and(|special| special.overlaps(self));
        kinds.into_iter().find(|(cidr, _)| meets(cidr)).map(|(_, what)| what)
    }

    pub fn first(&self) -> IpAddr {
        self.first
    }

    pub fn last(&self) -> IpAddr {
        self.last
    }

    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.first <= ip && ip <= self.last
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.is_ipv4() == other.is_ipv4() && self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// The number that an address is, within its family.
pub fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The address of a number.
pub fn address(number: u128, ipv4: bool) -> IpAddr {
    if ipv4 { Ipv4Addr::from(number as u32).into() } else { Ipv6Addr::from(number).into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_and_ranges_are_read() {
        for (text, first, last) in [
            ("192.0.2.0/28", "192.0.2.0", "192.0.2.15"),
            ("192.0.2.10-192.0.2.20", "192.0.2.10", "192.0.2.20"),
            (" 192.0.2.10 - 192.0.2.20", "192.0.2.10", "192.0.2.20"),
            ("192.0.2.7/32", "192.0.2.7", "192.0.2.7"),
            ("fd00::10-fd00::1f", "fd00::10", "fd00::1f"),
            ("fd00:1::/64", "fd00:1::", "fd00:1::ffff:ffff:ffff:ffff"),
        ] {
            let range = AddressRange::parse(text).unwrap();
            assert_eq!((range.first().to_string(), range.last().to_string()), (first.into(), last.into()));
            assert_eq!(address(number(range.first()), range.is_ipv4()), range.first());
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_out() {
        for (text, said) in [
            ("", "must be a CIDR (e.g."),
            ("192.0.2.0/33", "must be a CIDR (e.g."),
            ("192.0.2.300-192.0.2.301", "must be a CIDR (e.g."),
            ("192.0.2.7", "write 192.0.2.7/32"),
            ("192.0.2.7/24", "write 192.0.2.0/24 for the network or 192.0.2.7/32"),
            ("192.0.2.20-192.0.2.10", "write 192.0.2.10-192.0.2.20"),
            ("192.0.2.20-fd00::1", "same family"),
            ("0.0.0.0/0", "unspecified"),
            ("127.0.0.1/32", "loopback"),
            ("239.0.0.0/24", "multicast"),
            ("fe80::/64", "link-local"),
        ] {
            let error = AddressRange::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
