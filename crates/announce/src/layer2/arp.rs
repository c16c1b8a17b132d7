//! ARP over Ethernet (RFC 826), with probes and announcements (RFC 5227).

use std::net::{IpAddr, Ipv4Addr};

use super::{BROADCAST, Heard, Mac};

/// Ethernet header and an ARP message for IPv4.
pub const FRAME_BYTES: usize = 42;
const HEADER: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;

struct Message {
    operation: u16,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
}

fn frame(to: Mac, from: Mac, message: &Message) -> [u8; FRAME_BYTES] {
    let mut out = [0; FRAME_BYTES];
    out[..6].copy_from_slice(&to);
    out[6..12].copy_from_slice(&from);
    out[12..20].copy_from_slice(&HEADER);
    out[20..22].copy_from_slice(&message.operation.to_be_bytes());
    out[22..28].copy_from_slice(&message.sender.0);
    out[28..32].copy_from_slice(&message.sender.1.octets());
    out[32..38].copy_from_slice(&message.target.0);
    out[38..42].copy_from_slice(&message.target.1.octets());
    out
}

/// `ip` is at `ours`, told to the one who asked.
pub fn reply(ip: Ipv4Addr, ours: Mac, asker: Ipv4Addr, to: Mac) -> [u8; FRAME_BYTES] {
    frame(to, ours, &Message { operation: REPLY, sender: (ours, ip), target: (to, asker) })
}

pub fn gratuitous_request(ip: Ipv4Addr, ours: Mac) -> [u8; FRAME_BYTES] {
    frame(BROADCAST, ours, &Message { operation: REQUEST, sender: (ours, ip), target: ([0; 6], ip) })
}

pub fn gratuitous_reply(ip: Ipv4Addr, ours: Mac) -> [u8; FRAME_BYTES] {
    frame(BROADCAST, ours, &Message { operation: REPLY, sender: (ours, ip), target: (BROADCAST, ip) })
}

/// RFC 5227, 2.1.1: a sender address of zero pollutes nobody's cache.
pub fn probe(ip: Ipv4Addr, ours: Mac) -> [u8; FRAME_BYTES] {
    let message = Message { operation: REQUEST, sender: (ours, Ipv4Addr::UNSPECIFIED), target: ([0; 6], ip) };
    frame(BROADCAST, ours, &message)
}

pub(super) fn read(frame: &[u8]) -> Option<Heard> {
    let frame: &[u8; FRAME_BYTES] = frame.first_chunk()?;
    if frame[12..20] != HEADER {
        return None;
    }
    let operation = u16::from_be_bytes([frame[20], frame[21]]);
    let mac: Mac = frame[22..28].try_into().ok()?;
    let ip = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let (sender, target) = (ip(28), ip(38));
    match operation {
        // An announcement asks for the sender's own address.
        REQUEST if sender != target => {
            let by = (!sender.is_unspecified()).then_some(IpAddr::V4(sender));
            Some(Heard::Asks { target: target.into(), by, mac })
        }
        REQUEST | REPLY if !sender.is_unspecified() => Some(Heard::Says { ip: sender.into(), mac }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];
    const IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
    const ASKER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);

    #[test]
    fn a_reply_is_as_the_rfc_draws_it() {
        #[rustfmt::skip]
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 2, // ARP for IPv4, reply
            2, 0, 0, 0, 0, 1, 192, 0, 2, 7, // sender
            2, 0, 0, 0, 0, 2, 192, 0, 2, 100, // target
        ];
        assert_eq!(reply(IP, OURS, ASKER, THEIRS), expected);
    }

    #[test]
    fn what_is_made_is_read() {
        let says = Some(Heard::Says { ip: IP.into(), mac: OURS });
        assert_eq!(read(&gratuitous_request(IP, OURS)), says);
        assert_eq!(read(&gratuitous_reply(IP, OURS)), says);
        assert_eq!(read(&reply(IP, OURS, ASKER, THEIRS)), says);
        assert_eq!(read(&probe(IP, OURS)), Some(Heard::Asks { target: IP.into(), by: None, mac: OURS }));
        let message = Message { operation: REQUEST, sender: (THEIRS, ASKER), target: ([0; 6], IP) };
        assert_eq!(
            read(&frame(BROADCAST, THEIRS, &message)),
            Some(Heard::Asks { target: IP.into(), by: Some(ASKER.into()), mac: THEIRS })
        );
    }

    #[test]
    fn padding_is_ignored_and_short_or_foreign_frames_are_nothing() {
        let mut padded = gratuitous_reply(IP, OURS).to_vec();
        padded.resize(60, 0);
        assert!(read(&padded).is_some());
        assert_eq!(read(&padded[..41]), None);
        padded[20..22].copy_from_slice(&[0, 8]);
        assert_eq!(read(&padded), None, "InARP");
        padded[16] = 0x86;
        assert_eq!(read(&padded), None);
    }
}
