//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;

use super::wire::{Message, attributes, u32_at};
use super::{Error, LinkIndex, Rt};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const CREATE_NEW: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NODAD: u32 = 2;

/// An address as the kernel reports it, with the prefix it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub link: LinkIndex,
    pub net: IpNet,
}

pub(super) fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

pub(super) fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => None,
    }
}

fn header(family: u8, prefix_len: u8, index: u32) -> [u8; 8] {
    let mut bytes = [family, prefix_len, 0, 0, 0, 0, 0, 0];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes
}

impl Rt {
    /// All addresses of the namespace, of both families.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        let answers = self.fetch(Message::dump(RTM_GETADDR, &header(0, 0, 0)), || "addresses".into())?;
        Ok(answers.iter().filter_map(|bytes| parse(bytes)).collect())
    }

    /// Gives `link` an address. The prefix is a route as well, unless it is as long as the address.
    /// IPv6 addresses are usable at once: nobody is asked whether they are taken.
    pub fn add_address(&mut self, link: &str, net: IpNet) -> Result<(), Error> {
        let mut message = self.address_message(RTM_NEWADDR, CREATE_NEW, link, net)?;
        if net.addr().is_ipv6() {
            message.attr_u32(IFA_FLAGS, IFA_F_NODAD);
        }
        self.request(message, || format!("address {net} of link {link}"))
    }

    pub fn delete_address(&mut self, link: &str, net: IpNet) -> Result<(), Error> {
        let message = self.address_message(RTM_DELADDR, 0, link, net)?;
        self.request(message, || format!("address {net} of link {link}"))
    }

    fn address_message(&mut self, kind: u16, flags: u16, link: &str, net: IpNet) -> Result<Message, Error> {
        let index = self.link(link)?.index;
        let fixed = header(family(net.addr()), net.prefix_len(), index.0);
        let mut message = Message::new(kind, flags, &fixed);
        let octets = octets(net.addr());
        message.attr(IFA_LOCAL, &octets).attr(IFA_ADDRESS, &octets);
        Ok(message)
    }
}

fn parse(bytes: &[u8]) -> Option<Address> {
    let (mut local, mut peer) = (None, None);
    for (kind, value) in attributes(bytes.get(8..)?) {
        match kind {
            IFA_LOCAL => local = address(value),
            IFA_ADDRESS => peer = address(value),
            _ => {}
        }
    }
    let net = IpNet::new(local.or(peer)?, *bytes.get(1)?).ok()?;
    Some(Address { link: LinkIndex(u32_at(bytes, 4)?), net })
}
