//! Answering for addresses on an Ethernet: ARP for IPv4, Neighbour Discovery for IPv6, from user space.
//!
//! [`arp`] and [`ndp`] make and read frames, byte by byte and without I/O; [`links`] says on which links an address is
//! announced; [`socket`] is the packet socket; [`groups`] asks switches for questions about IPv6 addresses. Nothing is added to an interface.

pub mod arp;
pub mod groups;
pub mod links;
pub mod ndp;
pub mod socket;

use std::net::IpAddr;

pub type Mac = [u8; 6];
pub(crate) const BROADCAST: Mac = [0xff; 6];

/// What a frame of the neighbourhood means to an announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks who has `target`, and says where to answer, if it has an address.
    Asks { target: IpAddr, by: Option<IpAddr>, mac: Mac },
    /// Somebody says that it has `ip`.
    Says { ip: IpAddr, mac: Mac },
}

/// Reads a frame as it comes from a packet socket; `None` is none of ours.
pub fn read(frame: &[u8]) -> Option<Heard> {
    match frame.get(12..14)? {
        [0x08, 0x06] => arp::read(frame),
        [0x86, 0xdd] => ndp::read(frame),
        _ => None,
    }
}

/// The answer to a question.
pub fn answer(target: IpAddr, ours: Mac, by: Option<IpAddr>, to: Mac) -> Option<Vec<u8>> {
    match (target, by) {
        (IpAddr::V4(target), Some(IpAddr::V4(by))) => Some(arp::reply(target, ours, by, to).to_vec()),
        // A probe: the asker has no address yet, and is to learn that this one is taken.
        (IpAddr::V4(target), None) => Some(arp::reply(target, ours, [0; 4].into(), to).to_vec()),
        (IpAddr::V6(target), Some(IpAddr::V6(by))) => {
            Some(ndp::advertisement(target, ours, Some((by, to))).to_vec())
        }
        (IpAddr::V6(target), None) => Some(ndp::advertisement(target, ours, None).to_vec()),
        _ => None,
    }
}

/// Frames that tell everybody that the address is here. For ARP a request and a reply: some hosts heed only one.
pub fn announcement(ip: IpAddr, ours: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => {
            vec![arp::gratuitous_request(ip, ours).to_vec(), arp::gratuitous_reply(ip, ours).to_vec()]
        }
        IpAddr::V6(ip) => vec![ndp::advertisement(ip, ours, None).to_vec()],
    }
}

/// A frame that asks whether somebody has the address, without claiming anything.
pub fn probe(ip: IpAddr, ours: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp::probe(ip, ours).to_vec(),
        IpAddr::V6(ip) => ndp::probe(ip, ours).to_vec(),
    }
}
