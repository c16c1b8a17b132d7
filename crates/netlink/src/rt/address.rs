//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Error, LinkIndex, Request, Rt, ne32_at};
use crate::codec::{Attrs, flags};

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;
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
        self.dump(RTM_GETADDR, &header(0, 0, 0), "addresses", parse)
    }

    /// Gives `link` an address. The prefix is a route as well, unless it is as long as the address.
    /// IPv6 addresses are usable at once: nobody is asked whether they are taken.
    pub fn add_address(&mut self, link: &str, net: IpNet) -> Result<(), Error> {
        self.change_address(RTM_NEWADDR, CREATE_NEW, link, net)
    }

    pub fn delete_address(&mut self, link: &str, net: IpNet) -> Result<(), Error> {
        self.change_address(RTM_DELADDR, 0, link, net)
    }

    fn change_address(&mut self, kind: u16, flags: u16, link: &str, net: IpNet) -> Result<(), Error> {
        let index = self.link(link)?.index;
        let fixed = header(family(net.addr()), net.prefix_len(), index.0);
        let octets = octets(net.addr());
        let object = || format!("address {net} of link {link}");
        self.change(&Request { kind, flags, fixed: &fixed }, object, |w| {
            w.attr(IFA_LOCAL, &octets);
            w.attr(IFA_ADDRESS, &octets);
            if kind == RTM_NEWADDR && net.addr().is_ipv6() {
                w.ne32(IFA_FLAGS, IFA_F_NODAD);
            }
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Address> {
    let attrs = Attrs(bytes.get(8..)?);
    // Of an IPv4 point-to-point address, IFA_ADDRESS is the other end's.
    let own = attrs.get(IFA_LOCAL).or(attrs.get(IFA_ADDRESS))?;
    let net = IpNet::new(address(own.payload)?, *bytes.get(1)?).ok()?;
    Some(Address { link: LinkIndex(ne32_at(bytes, 4)?), net })
}
