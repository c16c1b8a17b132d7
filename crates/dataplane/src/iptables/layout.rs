//! Every name we own in iptables, and where a rule stands.
//!
//! All chains begin with [`PREFIX`]. Two tables are used, in both families: `nat` translates, `filter` refuses what was
//! not translated. Chains that Services share are *trees*: see [`Tree`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_forward::{Family, Protocol};

use super::rules::{Masked, Match, Name};

pub const PREFIX: &str = "PORTOLAN-";

/// The longest name of a chain that iptables takes.
pub const CHAIN_NAME_MAX: usize = 28;

/// Where every new connection is looked up, in either table.
pub const SERVICES: &str = "PORTOLAN-SERVICES";
/// The root of the addresses on which Services listen.
pub const ADDRESSES: &str = "PORTOLAN-IP";
/// The root of the node ports.
pub const NODEPORTS: &str = "PORTOLAN-PORTS";
/// Marks for masquerading what does not come from a pod.
pub const MARK_OTHERS: &str = "PORTOLAN-MARK-OTHERS";
pub const POSTROUTING: &str = "PORTOLAN-POSTROUTING";
pub const MASQUERADE: &str = "PORTOLAN-MASQUERADE";
/// The root of the endpoints of this node, which may reach themselves.
pub const HAIRPINS: &str = "PORTOLAN-HAIRPINS";
pub const HAIRPIN_PREFIX: &str = "PORTOLAN-HP-";
/// Rejects, so that the client notices at once.
pub const REFUSE: &str = "PORTOLAN-REFUSE";

/// Rules of a pick chain; with more endpoints it leads to others.
pub const PICKS_MAX: usize = 16;
/// How often a pick chain is divided at most.
pub const PICK_LEVELS_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Nat,
    Filter,
}

impl Table {
    pub const ALL: [Self; 2] = [Self::Nat, Self::Filter];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    /// iptables' own chains that lead to ours.
    pub fn hooks(self) -> &'static [Hook] {
        match self {
            Self::Nat => &[Hook::Prerouting, Hook::Output, Hook::Postrouting],
            Self::Filter => &[Hook::Input, Hook::Forward, Hook::Output],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
        all.into_iter().find(|hook| hook.as_str() == text)
    }
}

/// A chain's name. What it is made of here is always a name.
pub fn chain(text: &str) -> Name {
    debug_assert!(text.len() <= CHAIN_NAME_MAX, "{text}");
    Name::new(text).expect("names of chains are letters, digits and hyphens")
}

/// Whether the chain holds rules of many Services, each Service's to be found by what they match.
pub fn is_shared_chain(name: &str) -> bool {
    [ADDRESSES, NODEPORTS, HAIRPINS].contains(&name)
        || ["PORTOLAN-IP-", "PORTOLAN-TCP-", "PORTOLAN-UDP-", "PORTOLAN-SCTP-", "PORTOLAN-HP-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Chains that exist whatever the Services.
pub fn is_fixed_chain(table: Table, name: &str) -> bool {
    match table {
        Table::Nat => {
            [SERVICES, ADDRESSES, NODEPORTS, MARK_OTHERS, POSTROUTING, MASQUERADE, HAIRPINS].contains(&name)
        }
        Table::Filter => [SERVICES, ADDRESSES, NODEPORTS, REFUSE].contains(&name),
    }
}

/// One step down a tree: in the chain, what matches leads to the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub chain: Name,
    pub matches: Vec<Match>,
    pub child: Name,
}

/// The way from a root to the chain where something is found. Each step decides by four or five bits, so a chain has at
/// most 32 rules until the last one, which holds what the bits of all steps leave together (of a node port, sixteen).
///
/// Addresses are told apart by their last bits, which differ most among addresses of one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    pub steps: Vec<Step>,
    pub last: Name,
}

/// How many bits each step decides by, from the last bit of an address up. More steps would find a frontend among
/// 10,000 in fewer rules, with thousands of chains that hold one Service each and cost three entries of every write.
const ADDRESS_BITS: [u32; 2] = [5, 4];
const HAIRPIN_BITS: [u32; 1] = [4];
const PORT_LEVELS: u32 = 3;

impl Way {
    pub fn to_address(address: IpAddr) -> Self {
        let by = |within| Match::Destination { within, invert: false };
        Self::by_address(ADDRESSES, "PORTOLAN-IP-", &ADDRESS_BITS, address, by)
    }

    pub fn to_hairpin(address: IpAddr) -> Self {
        let by = |within| Match::Source { within, invert: false };
        Self::by_address(HAIRPINS, HAIRPIN_PREFIX, &HAIRPIN_BITS, address, by)
    }

    fn by_address(
        root: &str,
        prefix: &str,
        bits: &[u32],
        address: IpAddr,
        by: impl Fn(Masked) -> Match,
    ) -> Self {
        let mut way = Self { steps: Vec::new(), last: chain(root) };
        let mut name = prefix.to_owned();
        let mut shift = 0;
        for width in bits {
            let (within, digit) = part(address, shift, *width);
            way.step(&mut name, digit, vec![by(within)]);
            shift += width;
        }
        way
    }

    pub fn to_port(protocol: Protocol, port: u16) -> Self {
        let mut way = Self { steps: Vec::new(), last: chain(NODEPORTS) };
        let mut name = format!("{PREFIX}{protocol}-");
        for level in 1..=PORT_LEVELS {
            let size = 16 - 4 * level;
            let first = port >> size << size;
            let last = first | ((1_u32 << size) - 1) as u16;
            let matches = vec![Match::Protocol(protocol), Match::DestinationPort(first, last)];
            way.step(&mut name, u32::from(port >> size & 15), matches);
        }
        way
    }

    fn step(&mut self, name: &mut String, digit: u32, matches: Vec<Match>) {
        name.push(char::from_digit(digit, 32).unwrap_or('0'));
        let child = chain(name);
        let parent = std::mem::replace(&mut self.last, child.clone());
        self.steps.push(Step { chain: parent, matches, child });
    }
}

/// So many bits of an address, from `shift` up.
fn part(address: IpAddr, shift: u32, width: u32) -> (Masked, u32) {
    match address {
        IpAddr::V4(ip) => {
            let mask = ((1_u32 << width) - 1) << shift;
            let bits = ip.to_bits() & mask;
            let masked =
                Masked { address: Ipv4Addr::from_bits(bits).into(), mask: Ipv4Addr::from_bits(mask).into() };
            (masked, bits >> shift)
        }
        IpAddr::V6(ip) => {
            let mask = ((1_u128 << width) - 1) << shift;
            let bits = ip.to_bits() & mask;
            let masked =
                Masked { address: Ipv6Addr::from_bits(bits).into(), mask: Ipv6Addr::from_bits(mask).into() };
            (masked, (bits >> shift) as u32)
        }
    }
}

/// Twelve letters and digits that stand for a text: 60 bits of FNV-1a.
pub fn digest(text: &str) -> String {
    let hash = hash(text);
    (0..12)
        .map(|n| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(hash >> (5 * n)) as usize & 31]))
        .collect()
}

/// FNV-1a with its bits mixed once more, since the last ones of like texts are alike.
pub fn hash(text: &str) -> u64 {
    let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ fnv >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

pub fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(way: &Way) -> Vec<&str> {
        way.steps.iter().map(|step| step.child.as_str()).collect()
    }

    #[test]
    fn ways_are_named_by_what_they_decide_on() {
        let way = Way::to_address("10.96.4.210".parse().unwrap());
        assert_eq!(names(&way), ["PORTOLAN-IP-i", "PORTOLAN-IP-i6"]);
        assert_eq!(way.last.as_str(), "PORTOLAN-IP-i6");
        let within = Masked { address: "0.0.0.192".parse().unwrap(), mask: "0.0.1.224".parse().unwrap() };
        assert_eq!(way.steps[1].matches, [Match::Destination { within, invert: false }]);
        let way = Way::to_port(Protocol::Tcp, 30080);
        assert_eq!(names(&way), ["PORTOLAN-TCP-7", "PORTOLAN-TCP-75", "PORTOLAN-TCP-758"]);
        assert_eq!(way.steps[2].matches[1], Match::DestinationPort(30080, 30095));
        assert_eq!(way.steps[0].matches[1], Match::DestinationPort(28672, 32767));
        assert_eq!(names(&Way::to_hairpin("fd00::1f".parse().unwrap())), ["PORTOLAN-HP-f"]);
    }

    #[test]
    fn names_fit() {
        let longest = format!("{PREFIX}C-{}-0123", digest("x"));
        assert_eq!(longest.len(), CHAIN_NAME_MAX);
        assert!(is_shared_chain("PORTOLAN-SCTP-7ff") && !is_shared_chain(&longest));
    }
}
