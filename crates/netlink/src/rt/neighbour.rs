//! Neighbours: which Ethernet address an IP address of a link has.

use std::net::IpAddr;

use super::address::{address, family, octets};
use super::wire::{Message, attributes, u16_at, u32_at};
use super::{Error, LinkIndex, Mac, Rt};

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const CREATE_NEW: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL
const CREATE_REPLACE: u16 = 0x500; // NLM_F_CREATE | NLM_F_REPLACE
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
        let answers = self.fetch(Message::dump(RTM_GETNEIGH, &[0; 12]), || "neighbours".into())?;
        Ok(answers.iter().filter_map(|bytes| parse(bytes)).collect())
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
        let mut message = Message::new(kind, flags, &fixed);
        message.attr(NDA_DST, &octets(address));
        if let Some(mac) = mac {
            message.attr(NDA_LLADDR, &mac.0);
        }
        self.request(message, || format!("neighbour {address} of link {link}"))
    }
}

fn parse(bytes: &[u8]) -> Option<Neighbour> {
    let mut neighbour = Neighbour {
        link: LinkIndex(u32_at(bytes, 4)?),
        address: IpAddr::from([0; 4]),
        mac: None,
        permanent: u16_at(bytes, 8)? & NUD_PERMANENT != 0,
    };
    let mut known = false;
    for (kind, value) in attributes(bytes.get(12..)?) {
        match kind {
            NDA_DST => {
                neighbour.address = address(value)?;
                known = true;
            }
            NDA_LLADDR => neighbour.mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    known.then_some(neighbour)
}
