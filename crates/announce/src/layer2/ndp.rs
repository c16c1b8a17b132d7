//! Neighbour Discovery (RFC 4861): solicitations read, advertisements made, with probes as of RFC 4862.

use std::net::{IpAddr, Ipv6Addr};

use super::{Heard, Mac};

/// Ethernet, IPv6, `ICMPv6`, target, link-layer address option.
pub const FRAME_BYTES: usize = 14 + 40 + 24 + 8;
/// A probe has no option: its sender has no address yet.
pub const PROBE_BYTES: usize = 14 + 40 + 24;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const OPTION_SOURCE_MAC: u8 = 1;
const OPTION_TARGET_MAC: u8 = 2;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Routers drop neighbour discovery: only a neighbour's packet has all its hops left.
const HOPS: u8 = 255;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which questions about an address are asked.
pub fn solicited_group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The Ethernet address of an IPv6 group.
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// `ip` is at `ours`: told to the one who asked, or to everybody.
pub fn advertisement(ip: Ipv6Addr, ours: Mac, asker: Option<(Ipv6Addr, Mac)>) -> [u8; FRAME_BYTES] {
    let (to, mac) = asker.unwrap_or((ALL_NODES, group_mac(ALL_NODES)));
    let mut icmp = [0; 32];
    icmp[0] = ADVERTISEMENT;
    icmp[4] = if asker.is_some() { SOLICITED | OVERRIDE } else { OVERRIDE };
    icmp[8..24].copy_from_slice(&ip.octets());
    icmp[24] = OPTION_TARGET_MAC;
    icmp[25] = 1;
    icmp[26..].copy_from_slice(&ours);
    let mut out = [0; FRAME_BYTES];
    frame(&mut out, (mac, ours), (ip, to), &mut icmp);
    out
}

/// Asks for the address from the unspecified one, as a host does before it takes it.
pub fn probe(ip: Ipv6Addr, ours: Mac) -> [u8; PROBE_BYTES] {
    let group = solicited_group(ip);
    let mut icmp = [0; 24];
    icmp[0] = SOLICITATION;
    icmp[8..24].copy_from_slice(&ip.octets());
    let mut out = [0; PROBE_BYTES];
    frame(&mut out, (group_mac(group), ours), (Ipv6Addr::UNSPECIFIED, group), &mut icmp);
    out
}

fn frame(out: &mut [u8], (to, from): (Mac, Mac), (source, target): (Ipv6Addr, Ipv6Addr), icmp: &mut [u8]) {
    let sum = checksum(source, target, icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    out[..6].copy_from_slice(&to);
    out[6..12].copy_from_slice(&from);
    out[12..14].copy_from_slice(&[0x86, 0xdd]);
    out[14] = 0x60;
    out[18..20].copy_from_slice(&(icmp.len() as u16).to_be_bytes());
    out[20] = ICMPV6;
    out[21] = HOPS;
    out[22..38].copy_from_slice(&source.octets());
    out[38..54].copy_from_slice(&target.octets());
    out[54..].copy_from_slice(icmp);
}

/// RFC 4443, 2.3: over a pseudo-header; zero when the message's own sum is right.
fn checksum(source: Ipv6Addr, target: Ipv6Addr, icmp: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        let pairs = bytes.chunks(2);
        pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
    };
    let mut sum = words(&source.octets()) + words(&target.octets()) + words(icmp);
    sum += icmp.len() as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(super) fn read(frame: &[u8]) -> Option<Heard> {
    let mac: Mac = *frame.get(6..)?.first_chunk()?;
    let packet = frame.get(14..)?;
    let header: &[u8; 40] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let icmp = packet.get(40..40 + length)?;
    if header[6] != ICMPV6 || header[7] != HOPS || icmp.len() < 24 || icmp[1] != 0 {
        return None;
    }
    let address = |bytes: &[u8]| -> Option<Ipv6Addr> { Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?)) };
    let (source, to, target) = (address(&header[8..])?, address(&header[24..])?, address(&icmp[8..])?);
    if checksum(source, to, icmp) != 0 || target.is_multicast() {
        return None;
    }
    match icmp[0] {
        SOLICITATION => {
            let by = (!source.is_unspecified()).then_some(IpAddr::V6(source));
            let mac = option(&icmp[24..], OPTION_SOURCE_MAC)?.unwrap_or(mac);
            Some(Heard::Asks { target: target.into(), by, mac })
        }
        ADVERTISEMENT => {
            let mac = option(&icmp[24..], OPTION_TARGET_MAC)?.unwrap_or(mac);
            Some(Heard::Says { ip: target.into(), mac })
        }
        _ => None,
    }
}

/// The Ethernet address in the option of a kind, if there is one. `None`: the options are broken.
#[allow(clippy::option_option, reason = "broken, absent and present")]
fn option(mut options: &[u8], kind: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let length = usize::from(*options.get(1)?) * 8;
        let one = options.get(..length).filter(|one| !one.is_empty())?;
        if one[0] == kind {
            found = Some(*one.get(2..)?.first_chunk()?);
        }
        options = &options[length..];
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

    fn ip() -> Ipv6Addr {
        "fd00::12:3456".parse().unwrap()
    }

    fn asker() -> Ipv6Addr {
        "fd00::100".parse().unwrap()
    }

    /// A question as Linux asks it.
    fn solicitation() -> Vec<u8> {
        let group = solicited_group(ip());
        let mut icmp = [0; 32];
        icmp[0] = SOLICITATION;
        icmp[8..24].copy_from_slice(&ip().octets());
        icmp[24..26].copy_from_slice(&[OPTION_SOURCE_MAC, 1]);
        icmp[26..].copy_from_slice(&THEIRS);
        let mut out = vec![0; FRAME_BYTES];
        frame(&mut out, (group_mac(group), THEIRS), (asker(), group), &mut icmp);
        out
    }

    #[test]
    fn groups_are_those_of_the_rfcs() {
        assert_eq!(solicited_group(ip()), "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap());
        assert_eq!(group_mac(solicited_group(ip())), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    }

    #[test]
    fn questions_and_answers_are_read() {
        assert_eq!(
            read(&solicitation()),
            Some(Heard::Asks { target: ip().into(), by: Some(asker().into()), mac: THEIRS })
        );
        assert_eq!(read(&probe(ip(), OURS)), Some(Heard::Asks { target: ip().into(), by: None, mac: OURS }));
        for to in [None, Some((asker(), THEIRS))] {
            let says = Some(Heard::Says { ip: ip().into(), mac: OURS });
            assert_eq!(read(&advertisement(ip(), OURS, to)), says);
        }
        let solicited = advertisement(ip(), OURS, Some((asker(), THEIRS)));
        assert_eq!((solicited[54], solicited[58]), (ADVERTISEMENT, SOLICITED | OVERRIDE));
        assert_eq!(&solicited[..6], &THEIRS);
        assert_eq!(&advertisement(ip(), OURS, None)[..6], &[0x33, 0x33, 0, 0, 0, 1]);
    }

    #[test]
    fn the_checksum_is_that_of_a_captured_packet() {
        // A neighbour solicitation from fe80::1 for fe80::2, as tcpdump shows it.
        let icmp = [
            135, 0, 0x52, 0xd5, 0, 0, 0, 0, 0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 1, 2, 0,
            0, 0, 0, 1,
        ];
        let source = "fe80::1".parse().unwrap();
        let mut zeroed = icmp;
        zeroed[2..4].copy_from_slice(&[0, 0]);
        let sum = checksum(source, solicited_group("fe80::2".parse().unwrap()), &zeroed);
        let mut with = zeroed;
        with[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(source, solicited_group("fe80::2".parse().unwrap()), &with), 0);
    }

    #[test]
    fn what_routers_or_liars_send_is_nothing() {
        let good = solicitation();
        for (at, value) in [(21, 254), (20, 17), (54, 133), (57, good[57] ^ 1), (79, 0)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&bad), None, "{at}");
        }
        assert_eq!(read(&good[..70]), None);
    }

    proptest! {
        #[test]
        fn no_frame_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            for kind in [[0x08, 0x06], [0x86, 0xdd]] {
                if let Some(place) = bytes.get_mut(12..14) {
                    place.copy_from_slice(&kind);
                }
                let _ = super::super::read(&bytes);
            }
        }
    }
}
