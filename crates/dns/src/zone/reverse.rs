//! From addresses back to names: `in-addr.arpa` and `ip6.arpa`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::entry::{Body, Entry};
use super::map::Map;
use crate::name::{Name, QName};

/// One name of an address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pointer {
    pub(super) kind: PointerKind,
    pub(super) service: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PointerKind {
    /// The address is the Service's own.
    Cluster,
    /// The endpoint's label, in wire form.
    Endpoint(Box<[u8]>),
}

/// What a name under a reverse zone stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reversed {
    Address(IpAddr),
    /// Part of an address: a name between the zone and addresses.
    Partial,
    Nonsense,
}

/// Reads the labels of a name under `in-addr.arpa` or `ip6.arpa`.
pub(super) fn read(name: &QName) -> Reversed {
    let count = name.label_count();
    if count < 2 || name.label(count - 1) != b"arpa" {
        return Reversed::Nonsense;
    }
    let digits = count - 2;
    match name.label(count - 2) {
        b"in-addr" => read_v4(name, digits),
        b"ip6" => read_v6(name, digits),
        _ => Reversed::Nonsense,
    }
}

fn read_v4(name: &QName, digits: usize) -> Reversed {
    if digits > 4 {
        return Reversed::Nonsense;
    }
    let mut octets = [0; 4];
    for (at, octet) in octets[..digits].iter_mut().enumerate() {
        let Some(value) = decimal(name.label(digits - 1 - at)) else { return Reversed::Nonsense };
        *octet = value;
    }
    if digits == 4 { Reversed::Address(Ipv4Addr::from(octets).into()) } else { Reversed::Partial }
}

/// A number as an address has it: no sign, no zero in front.
fn decimal(label: &[u8]) -> Option<u8> {
    let plain = label.len() == 1 || (label.len() <= 3 && label[0] != b'0');
    let digits = plain && label.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(label).ok()?.parse().ok()).flatten()
}

fn read_v6(name: &QName, digits: usize) -> Reversed {
    if digits > 32 {
        return Reversed::Nonsense;
    }
    let mut address: u128 = 0;
    for at in (0..digits).rev() {
        let &[nibble] = name.label(at) else { return Reversed::Nonsense };
        let Some(value) = (nibble as char).to_digit(16) else { return Reversed::Nonsense };
        address = address << 4 | u128::from(value);
    }
    if digits == 32 { Reversed::Address(Ipv6Addr::from(address).into()) } else { Reversed::Partial }
}

/// The names that one Service gives to addresses, in order.
fn pointers_of(entry: &Entry, hostname_only: bool) -> Vec<(IpAddr, Pointer)> {
    let pointer = |kind| Pointer { kind, service: entry.name.clone() };
    let mut all = Vec::new();
    if let Body::Cluster { addresses, .. } = &entry.body {
        let v4 = addresses.v4.iter().map(|ip| IpAddr::from(*ip));
        let own = v4.chain(addresses.v6.iter().map(|ip| IpAddr::from(*ip)));
        all.extend(own.map(|ip| (ip, pointer(PointerKind::Cluster))));
    }
    let shown = entry.endpoints.iter().filter(|e| e.named || !hostname_only);
    all.extend(shown.map(|e| (e.address, pointer(PointerKind::Endpoint(e.label.clone())))));
    all.sort_unstable();
    all.dedup();
    all
}

/// Takes back what the old entry said and adds what the new one says.
pub(super) fn update(
    map: &mut Map<IpAddr, Arc<[Pointer]>>,
    old: Option<&Entry>,
    new: Option<&Entry>,
    hostname_only: bool,
) {
    let before = old.map(|e| pointers_of(e, hostname_only)).unwrap_or_default();
    let after = new.map(|e| pointers_of(e, hostname_only)).unwrap_or_default();
    if before == after {
        return;
    }
    let only_in = |these: &[(IpAddr, Pointer)], others: &[(IpAddr, Pointer)]| {
        these.iter().filter(|p| others.binary_search(p).is_err()).cloned().collect::<Vec<_>>()
    };
    for (address, pointer) in only_in(&before, &after) {
        let all = map.get(&address).into_iter().flat_map(|all| all.iter());
        let kept: Arc<[Pointer]> = all.filter(|p| **p != pointer).cloned().collect();
        if kept.is_empty() {
            map.remove(&address);
        } else {
            map.insert(address, kept);
        }
    }
    for (address, pointer) in only_in(&after, &before) {
        let mut all: Vec<Pointer> = map.get(&address).map(|all| all.to_vec()).unwrap_or_default();
        all.push(pointer);
        // A Service's own address comes before endpoints; then by name, so that answers are stable.
        all.sort();
        map.insert(address, all.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Reversed {
        read(&QName::from_name(&Name::parse(text).unwrap()))
    }

    #[test]
    fn addresses_are_read_backwards() {
        assert_eq!(read_text("1.0.3.10.in-addr.arpa"), Reversed::Address("10.3.0.1".parse().unwrap()));
        let v6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(read_text(v6), Reversed::Address("2001:db8::1".parse().unwrap()));
        assert_eq!(read_text("3.10.in-addr.arpa"), Reversed::Partial);
        assert_eq!(read_text("ip6.arpa"), Reversed::Partial);
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        for text in [
            "256.0.0.1.in-addr.arpa",
            "01.0.0.1.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "g.ip6.arpa",
            "1.example",
        ] {
            assert_eq!(read_text(text), Reversed::Nonsense, "{text}");
        }
    }
}
