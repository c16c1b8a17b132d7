//! Links: veth pairs, bridges, and what can be changed about any link.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use super::wire::{Message, attributes, text, u32_at};
use super::{Error, Rt};
use crate::netns::Netns;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const CREATE_NEW: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;

/// The number of a link within its namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A link as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: LinkIndex,
    pub name: String,
    /// Set up by its administrator.
    pub up: bool,
    /// Up, and so is what it is connected to.
    pub running: bool,
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub master: Option<LinkIndex>,
    /// `veth`, `bridge`, ...; none for hardware and loopback.
    pub kind: Option<String>,
}

/// A veth pair to be made. This end comes up at once; the peer can only be set up once both ends exist, by whoever
/// has its namespace.
#[derive(Debug)]
pub struct Veth<'a> {
    pub name: &'a str,
    pub mac: Option<Mac>,
    pub mtu: Option<u32>,
    pub peer: VethPeer<'a>,
}

/// The other end of a veth pair, made in another namespace where one is given.
#[derive(Debug)]
pub struct VethPeer<'a> {
    pub name: &'a str,
    pub mac: Option<Mac>,
    pub netns: Option<&'a Netns>,
}

fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn about(name: &str) -> impl FnOnce() -> String {
    move || format!("link {name}")
}

impl Rt {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        let message = Message::dump(RTM_GETLINK, &header(0, 0, 0));
        let answers = self.fetch(message, || "links".into())?;
        Ok(answers.iter().filter_map(|bytes| Link::parse(bytes)).collect())
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let mut message = Message::new(RTM_GETLINK, 0, &header(0, 0, 0));
        message.attr_str(IFLA_IFNAME, name);
        let answers = self.fetch(message, about(name))?;
        answers
            .iter()
            .find_map(|bytes| Link::parse(bytes))
            .ok_or_else(|| Error::Malformed { object: about(name)() })
    }

    /// Makes a veth pair; the peer appears directly in its own namespace.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, CREATE_NEW, &header(0, IFF_UP, IFF_UP));
        common(&mut message, veth.name, veth.mac, veth.mtu);
        message.nest(IFLA_LINKINFO, |m| {
            m.attr_str(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    common(m.bytes(&header(0, 0, 0)), veth.peer.name, veth.peer.mac, veth.mtu);
                    if let Some(netns) = veth.peer.netns {
                        m.attr_u32(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32);
                    }
                });
            });
        });
        self.request(message, about(veth.name))
    }

    /// Makes a bridge, down.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let mut message = Message::new(RTM_NEWLINK, CREATE_NEW, &header(0, 0, 0));
        common(&mut message, name, None, None);
        message.nest(IFLA_LINKINFO, |m| {
            m.attr_str(IFLA_INFO_KIND, "bridge");
        });
        self.request(message, about(name))
    }

    /// Removes a link (of a veth pair, both ends).
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let mut message = Message::new(RTM_DELLINK, 0, &header(0, 0, 0));
        message.attr_str(IFLA_IFNAME, name);
        self.request(message, about(name))
    }

    /// Sets a link up.
    pub fn set_up(&mut self, name: &str) -> Result<(), Error> {
        self.set_flags(name, IFF_UP)
    }

    /// Sets a link down: its routes go with it.
    pub fn set_down(&mut self, name: &str) -> Result<(), Error> {
        self.set_flags(name, 0)
    }

    fn set_flags(&mut self, name: &str, flags: u32) -> Result<(), Error> {
        let mut message = Message::new(RTM_SETLINK, 0, &header(0, flags, IFF_UP));
        message.attr_str(IFLA_IFNAME, name);
        self.request(message, about(name))
    }

    /// Puts a link into a bridge, or takes it out of any.
    pub fn set_master(&mut self, name: &str, master: Option<&str>) -> Result<(), Error> {
        let master = master.map(|master| self.link(master)).transpose()?.map_or(0, |link| link.index.0);
        self.change(name, |m| {
            m.attr_u32(IFLA_MASTER, master);
        })
    }

    pub fn set_mac(&mut self, name: &str, mac: Mac) -> Result<(), Error> {
        self.change(name, |m| {
            m.attr(IFLA_ADDRESS, &mac.0);
        })
    }

    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.change(name, |m| {
            m.attr_u32(IFLA_MTU, mtu);
        })
    }

    /// Gives a link another name. Links that are up may be renamed from Linux 6.2 on; older ones want them down.
    pub fn rename(&mut self, name: &str, new_name: &str) -> Result<(), Error> {
        let index = self.link(name)?.index;
        let mut message = Message::new(RTM_SETLINK, 0, &header(index.0, 0, 0));
        message.attr_str(IFLA_IFNAME, new_name);
        self.request(message, about(name))
    }

    /// Moves a link into another namespace, where it is down and without addresses.
    pub fn move_to(&mut self, name: &str, netns: &Netns) -> Result<(), Error> {
        self.change(name, |m| {
            m.attr_u32(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32);
        })
    }

    fn change(&mut self, name: &str, fill: impl FnOnce(&mut Message)) -> Result<(), Error> {
        let index = self.link(name)?.index;
        let mut message = Message::new(RTM_SETLINK, 0, &header(index.0, 0, 0));
        fill(&mut message);
        self.request(message, about(name))
    }
}

fn common(message: &mut Message, name: &str, mac: Option<Mac>, mtu: Option<u32>) {
    message.attr_str(IFLA_IFNAME, name);
    if let Some(mac) = mac {
        message.attr(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        message.attr_u32(IFLA_MTU, mtu);
    }
}

impl Link {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = u32_at(bytes, 8)?;
        let mut link = Self {
            index: LinkIndex(u32_at(bytes, 4)?),
            name: String::new(),
            up: flags & IFF_UP != 0,
            running: flags & IFF_RUNNING != 0,
            mac: None,
            mtu: 0,
            master: None,
            kind: None,
        };
        for (kind, value) in attributes(bytes.get(16..)?) {
            match kind {
                IFLA_IFNAME => link.name = text(value),
                IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
                IFLA_MTU => link.mtu = u32_at(value, 0)?,
                IFLA_MASTER => link.master = u32_at(value, 0).map(LinkIndex),
                IFLA_LINKINFO => {
                    link.kind = attributes(value).find(|(k, _)| *k == IFLA_INFO_KIND).map(|(_, v)| text(v));
                }
                _ => {}
            }
        }
        Some(link)
    }
}
