//! Neighbours: which Ethernet address an IP address of a link has.

use std::net::IpAddr;

use super::address::{address, family, octets};
use super::{Error, LinkIndex, Mac, Request, Rt, ne32_at};
use crate::codec::{Attrs, flags};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;
const CREATE_REPLACE: u16 = flags::CREATE | flags::REPLACE;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// An entry of the neighbour table (for IPv4, the ARP table).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    pub link: LinkIndex,
    pub address: IpAddr,
    /// Unknown while the kernel still asks.
    pub mac: Option<Mac>,
    /// Set by an administrator: never asked for, never forgotten.
    pub permanent: bool,
}

impl Rt {
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>, Error> {
        self.dump(RTM_GETNEIGH, &[0; 12], "neighbours", parse)
    }

    /// Adds a permanent entry; one that is there already is an error.
    pub fn add_neighbour(&mut self, link: &str, address: IpAddr, mac: Mac) -> Result<(), Error> {
        self.neighbour(RTM_NEWNEIGH, CREATE_NEW, link, address, Some(mac))
    }

    /// Adds a permanent entry, or puts it in the place of the one for the same address.
    pub fn replace_neighbour(&mut self, link: &str, address: IpAddr, mac: Mac) -> Result<(), Error> {
        self.neighbour(RTM_NEWNEIGH, CREATE_REPLACE, link, address, Some(mac))
    }

    pub fn delete_neighbour(&mut self, link: &str, address: IpAddr) -> Result<(), Error> {
        self.neighbour(RTM_DELNEIGH, 0, link, address, None)
    }

    fn neighbour(
        &mut self,
        kind: u16,
        flags: u16,
        link: &str,
        address: IpAddr,
        mac: Option<Mac>,
    ) -> Result<(), Error> {
        let index = self.link(link)?.index;
        let mut fixed = [0; 12];
        fixed[0] = family(address);
        fixed[4..8].copy_from_slice(&index.0.to_ne_bytes());
        fixed[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let object = || format!("neighbour {address} of link {link}");
        self.change(&Request { kind, flags, fixed: &fixed }, object, |w| {
            w.attr(NDA_DST, &octets(address));
            if let Some(mac) = mac {
                w.attr(NDA_LLADDR, &mac.0);
            }
        })
    }
}

fn parse(bytes: &[u8]) -> Option<Neighbour> {
    let attrs = Attrs(bytes.get(12..)?);
    Some(Neighbour {
        link: LinkIndex(ne32_at(bytes, 4)?),
        address: address(attrs.get(NDA_DST)?.payload)?,
        mac: attrs.get(NDA_LLADDR).and_then(|a| a.payload.try_into().ok()).map(Mac),
        permanent: u16::from_ne_bytes(*bytes.get(8..)?.first_chunk()?) & NUD_PERMANENT != 0,
    })
}
