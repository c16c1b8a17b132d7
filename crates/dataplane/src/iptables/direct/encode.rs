//! A rule as the kernel's tables hold it: a header, matches, a target; each as `iptables-restore` 1.8 makes it, byte for
//! byte. Structures are those of `linux/netfilter/xt_*.h` on machines of 64 bits; what is not set is zero.

use std::net::IpAddr;

use portolan_forward::{Family, Protocol};

use crate::iptables::rules::{Masked, Match, Name, Recent, Rule, Target};

/// `struct ipt_entry` and `struct ip6t_entry`: where things are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    family: Family,
    pub(super) header: usize,
    /// Where the target is, and where the next entry, counted from this one.
    pub(super) target_offset: usize,
    pub(super) next_offset: usize,
    pub(super) counters: usize,
}

const V4: Layout =
    Layout { family: Family::V4, header: 112, target_offset: 88, next_offset: 90, counters: 96 };
const V6: Layout =
    Layout { family: Family::V6, header: 168, target_offset: 140, next_offset: 142, counters: 152 };

/// Before the data of a match or target: size, name and revision.
pub(super) const EXTENSION_HEADER: usize = 32;
const NAME_AT: usize = 2;
const NAME_MAX: usize = 29;
const REVISION_AT: usize = 31;
const ALIGNMENT: usize = 8;

/// What names the entry before a chain's rules, and the one behind all.
pub(super) const ERROR: &[u8] = b"ERROR";
const ERROR_NAME_LEN: usize = 30;

/// `-NF_ACCEPT - 1` and so on.
const ACCEPT: i32 = -2;
const DROP: i32 = -1;
const RETURN: i32 = -5;

/// Where the entry sends a packet, if that is a place in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leads {
    Nowhere,
    /// To the next rule, as a rule without target does.
    Next,
    To(Name),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) bytes: Vec<u8>,
    pub(super) leads: Leads,
}

impl Layout {
    pub(super) fn of(family: Family) -> Self {
        match family {
            Family::V4 => V4,
            Family::V6 => V6,
        }
    }

    /// The entry before a chain's rules.
    pub(super) fn chain_head(self, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; self.header];
        let mut data = vec![0; ERROR_NAME_LEN];
        data[..name.len()].copy_from_slice(name.as_bytes());
        self.end(&mut bytes, "ERROR", 0, &data);
        bytes
    }

    /// The entry behind a chain's rules.
    pub(super) fn chain_tail(self) -> Vec<u8> {
        let mut bytes = vec![0; self.header];
        self.end(&mut bytes, "", 0, &RETURN.to_ne_bytes());
        bytes
    }

    /// `None`: a rule that is not ours, or not for this family.
    pub(super) fn entry(self, rule: &Rule) -> Option<Entry> {
        let Rule::Own { matches, comment, target } = rule else { return None };
        let mut bytes = vec![0; self.header];
        let protocol = matches.iter().find_map(|found| match found {
            Match::Protocol(protocol) => Some(*protocol),
            _ => None,
        });
        for found in matches {
            match found {
                Match::Source { within, invert } => self.put_address(&mut bytes, 0, *within, *invert)?,
                Match::Destination { within, invert } => self.put_address(&mut bytes, 1, *within, *invert)?,
                Match::Interface(name) => self.put_interface(&mut bytes, name)?,
                Match::Protocol(protocol) => self.put_protocol(&mut bytes, *protocol),
                other => {
                    let (name, revision, data) = extension(other, protocol)?;
                    put_extension(&mut bytes, name, revision, &data);
                }
            }
        }
        if let Some(comment) = comment {
            let mut data = vec![0; 256];
            // The last byte stays zero.
            let text = comment.as_str().as_bytes();
            data.get_mut(..text.len()).filter(|_| text.len() < 256)?.copy_from_slice(text);
            put_extension(&mut bytes, "comment", 0, &data);
        }
        let leads = self.put_target(&mut bytes, target)?;
        Some(Entry { bytes, leads })
    }

    fn put_target(self, bytes: &mut Vec<u8>, target: &Target) -> Option<Leads> {
        let mut end = |name: &str, revision: u8, data: &[u8]| self.end(bytes, name, revision, data);
        let mut leads = Leads::Nowhere;
        match target {
            Target::Accept => end("", 0, &ACCEPT.to_ne_bytes()),
            Target::Drop => end("", 0, &DROP.to_ne_bytes()),
            Target::Return => end("", 0, &RETURN.to_ne_bytes()),
            Target::Nothing => {
                leads = Leads::Next;
                end("", 0, &[0; 4]);
            }
            Target::Jump(chain) | Target::Goto(chain) => {
                leads = Leads::To(chain.clone());
                end("", 0, &[0; 4]);
            }
            Target::SetBit(bit) => end("MARK", 2, &words(&[*bit, *bit])),
            Target::FlipBit(bit) => end("MARK", 2, &words(&[*bit, 0])),
            Target::Dnat(address, port) => end("DNAT", 2, &self.nat_range(*address, *port)?),
            // `struct nf_nat_ipv4_multi_range_compat` and `struct nf_nat_range`.
            Target::MasqueradeFullyRandom => match self.family {
                Family::V4 => end("MASQUERADE", 0, &words(&[1, RANDOM_FULLY, 0, 0, 0])),
                Family::V6 => end("MASQUERADE", 0, &words(&[RANDOM_FULLY, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
            },
            Target::RejectWithReset => match self.family {
                Family::V4 => end("REJECT", 0, &words(&[7])),
                Family::V6 => end("REJECT", 0, &words(&[6])),
            },
            Target::RejectWithUnreachable(family) if *family == self.family => match family {
                Family::V4 => end("REJECT", 0, &words(&[3])),
                Family::V6 => end("REJECT", 0, &words(&[4])),
            },
            Target::RejectWithUnreachable(_) => return None,
        }
        if matches!(target, Target::Goto(_)) {
            let (flags, goto) = match self.family {
                Family::V4 => (82, 2),
                Family::V6 => (131, 4),
            };
            bytes[flags] |= goto;
        }
        Some(leads)
    }

    /// `struct nf_nat_range2`.
    fn nat_range(self, address: IpAddr, port: u16) -> Option<Vec<u8>> {
        let mut address = self.octets(address)?;
        address.resize(16, 0);
        let mut data = words(&[MAP_IPS | PROTO_SPECIFIED]);
        data.extend_from_slice(&address);
        data.extend_from_slice(&address);
        data.extend_from_slice(&port.to_be_bytes());
        data.extend_from_slice(&port.to_be_bytes());
        // No base port.
        data.extend_from_slice(&[0; 2]);
        Some(data)
    }

    /// Which of source and destination, then their masks.
    fn put_address(self, bytes: &mut [u8], which: usize, within: Masked, invert: bool) -> Option<()> {
        let (address, mask) = (self.octets(within.address)?, self.octets(within.mask)?);
        let len = address.len();
        for (at, (octet, mask)) in address.iter().zip(&mask).enumerate() {
            bytes[which * len + at] = octet & mask;
            bytes[(which + 2) * len + at] = *mask;
        }
        if invert {
            // `IPT_INV_SRCIP`, `IPT_INV_DSTIP`.
            bytes[self.inversions()] |= 8 << which;
        }
        Some(())
    }

    fn octets(self, address: IpAddr) -> Option<Vec<u8>> {
        match (self.family, address) {
            (Family::V4, IpAddr::V4(address)) => Some(address.octets().to_vec()),
            (Family::V6, IpAddr::V6(address)) => Some(address.octets().to_vec()),
            _ => None,
        }
    }

    /// Names that end in `+` are compared without it, others with the zero behind them.
    fn put_interface(self, bytes: &mut [u8], name: &Name) -> Option<()> {
        let (names, masks) = match self.family {
            Family::V4 => (16, 48),
            Family::V6 => (64, 96),
        };
        let text = name.as_str().as_bytes();
        if text.len() > 15 {
            return None;
        }
        bytes[names..names + text.len()].copy_from_slice(text);
        let compared = if text.ends_with(b"+") { text.len() - 1 } else { text.len() + 1 };
        bytes[masks..masks + compared].fill(0xff);
        Some(())
    }

    fn put_protocol(self, bytes: &mut [u8], protocol: Protocol) {
        let at = match self.family {
            Family::V4 => 80,
            Family::V6 => 128,
        };
        bytes[at..at + 2].copy_from_slice(&u16::from(number(protocol)).to_ne_bytes());
        if self.family == Family::V6 {
            // `IP6T_F_PROTO`.
            bytes[131] |= 1;
        }
    }

    fn inversions(self) -> usize {
        match self.family {
            Family::V4 => 83,
            Family::V6 => 132,
        }
    }

    fn end(self, bytes: &mut Vec<u8>, name: &str, revision: u8, data: &[u8]) {
        let target = bytes.len() as u16;
        bytes[self.target_offset..self.target_offset + 2].copy_from_slice(&target.to_ne_bytes());
        put_extension(bytes, name, revision, data);
        let next = bytes.len() as u16;
        bytes[self.next_offset..self.next_offset + 2].copy_from_slice(&next.to_ne_bytes());
    }
}

/// `NF_NAT_RANGE_...`.
const MAP_IPS: u32 = 1;
const PROTO_SPECIFIED: u32 = 2;
const RANDOM_FULLY: u32 = 16;

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn put_extension(bytes: &mut Vec<u8>, name: &str, revision: u8, data: &[u8]) {
    let begin = bytes.len();
    let size = (EXTENSION_HEADER + data.len()).next_multiple_of(ALIGNMENT);
    bytes.resize(begin + size, 0);
    bytes[begin..begin + 2].copy_from_slice(&(size as u16).to_ne_bytes());
    debug_assert!(name.len() < NAME_MAX, "{name}");
    bytes[begin + NAME_AT..begin + NAME_AT + name.len()].copy_from_slice(name.as_bytes());
    bytes[begin + REVISION_AT] = revision;
    bytes[begin + EXTENSION_HEADER..begin + EXTENSION_HEADER + data.len()].copy_from_slice(data);
}

/// A match that is no part of the header: name, revision, data.
fn extension(found: &Match, protocol: Option<Protocol>) -> Option<(&'static str, u8, Vec<u8>)> {
    /// `RTN_LOCAL` as a bit.
    const LOCAL: u16 = 1 << 2;
    /// `XT_CONNTRACK_STATE_BIT(IP_CT_NEW)` and `XT_CONNTRACK_STATE_DNAT`.
    const NEW: u16 = 1 << 3;
    const DNAT: u16 = 1 << 7;
    Some(match found {
        Match::DestinationPort(first, last) => ports(protocol?, *first, *last),
        Match::SourceIsLocal => ("addrtype", 1, addrtype(LOCAL, 0)),
        Match::DestinationIsLocal => ("addrtype", 1, addrtype(0, LOCAL)),
        Match::New => ("conntrack", 3, conntrack_state(NEW)),
        Match::Translated => ("conntrack", 3, conntrack_state(DNAT)),
        Match::Marked(bit) => ("mark", 1, words(&[*bit, *bit, 0])),
        // The program fills in what stands there for the other mode, too.
        Match::Random(part) => ("statistic", 0, statistic(0, *part)),
        Match::FirstOf(every) => ("statistic", 0, statistic(1, every.checked_sub(1)?)),
        Match::Recent(what, name) => ("recent", 1, recent(*what, name)?),
        Match::Source { .. } | Match::Destination { .. } | Match::Interface(_) | Match::Protocol(_) => {
            return None;
        }
    })
}

/// `struct xt_tcp`, `struct xt_udp` and `struct xt_sctp_info`.
fn ports(protocol: Protocol, first: u16, last: u16) -> (&'static str, u8, Vec<u8>) {
    const ALL: [u16; 2] = [0, u16::MAX];
    let both = |one: [u16; 2], other: [u16; 2]| {
        [one, other].as_flattened().iter().flat_map(|port| port.to_ne_bytes()).collect::<Vec<u8>>()
    };
    match protocol {
        Protocol::Tcp => {
            let mut data = both(ALL, [first, last]);
            data.extend_from_slice(&[0; 4]);
            ("tcp", 0, data)
        }
        Protocol::Udp => {
            let mut data = both(ALL, [first, last]);
            data.extend_from_slice(&[0; 2]);
            ("udp", 0, data)
        }
        Protocol::Sctp => {
            let mut data = both([first, last], [0; 2]);
            // No chunks are asked for; each of four flags names the chunk type 255.
            data.extend_from_slice(&[0; 260]);
            data.extend_from_slice(&[255, 0, 0].repeat(4));
            // No flags; `XT_SCTP_DEST_PORTS`; nothing inverted.
            data.extend_from_slice(&words(&[0, 2, 0]));
            ("sctp", 0, data)
        }
    }
}

/// `struct xt_statistic_info`: the mode, no flags, how many, which packet, how many are left, the kernel's own pointer.
fn statistic(mode: u16, number: u32) -> Vec<u8> {
    [&mode.to_ne_bytes()[..], &[0; 2], &words(&[number, 0, number, 0, 0])].concat()
}

/// `struct xt_addrtype_info_v1`.
fn addrtype(source: u16, destination: u16) -> Vec<u8> {
    [source.to_ne_bytes(), destination.to_ne_bytes(), [0; 2], [0; 2]].concat()
}

/// `struct xt_conntrack_mtinfo3`: eight addresses, two times, five ports, then what is asked.
fn conntrack_state(state: u16) -> Vec<u8> {
    /// `XT_CONNTRACK_STATE`.
    const STATE: u16 = 1;
    let mut data = vec![0; 164];
    data[146..148].copy_from_slice(&STATE.to_ne_bytes());
    data[150..152].copy_from_slice(&state.to_ne_bytes());
    data
}

/// `struct xt_recent_mtinfo_v1`, by source and under the whole mask.
fn recent(what: Recent, name: &Name) -> Option<Vec<u8>> {
    const REAP: u8 = 32;
    let (seconds, check) = match what {
        Recent::Update { seconds } => (seconds, 4 | REAP),
        Recent::Set => (0, 2),
        Recent::Remove => (0, 8),
    };
    let mut data = words(&[seconds, 0]);
    data.push(check);
    data.push(0);
    let mut list = name.as_str().as_bytes().to_vec();
    if list.len() >= 200 {
        return None;
    }
    list.resize(200, 0);
    data.extend_from_slice(&list);
    // By source, and up to where the mask begins.
    data.extend_from_slice(&[0; 2]);
    data.extend_from_slice(&[0xff; 16]);
    Some(data)
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}
