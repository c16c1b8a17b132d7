//! Links: veth pairs, bridges, and what can be changed about any link.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd};

use super::{Error, Request, Rt, ne32_at};
use crate::codec::{Attrs, Writer, flags};
use crate::netns::Netns;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;
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
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        f.write_str(&octets.join(":"))
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

impl Rt {
    /// All links of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, Error> {
        self.dump(RTM_GETLINK, &header(0, 0, 0), "links", Link::parse)
    }

    /// The link called `name`.
    pub fn link(&mut self, name: &str) -> Result<Link, Error> {
        let request = Request { kind: RTM_GETLINK, flags: 0, fixed: &header(0, 0, 0) };
        let answers = self.ask(&request, || format!("link {name}"), |w| w.string(IFLA_IFNAME, name))?;
        answers
            .iter()
            .find_map(|bytes| Link::parse(bytes))
            .ok_or_else(|| Error::Malformed { object: format!("link {name}") })
    }

    /// Makes a veth pair; the peer appears directly in its own namespace.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        let mut peer = Writer::default();
        common(&mut peer, veth.peer.name, veth.peer.mac, veth.mtu);
        if let Some(netns) = veth.peer.netns {
            peer.ne32(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32);
        }
        let object = || format!("link {}", veth.name);
        let peer = peer.finish().map_err(|_| Error::Malformed { object: object() })?;
        let peer = [&header(0, 0, 0), peer.as_slice()].concat();
        let request = Request { kind: RTM_NEWLINK, flags: CREATE_NEW, fixed: &header(0, IFF_UP, IFF_UP) };
        self.change(&request, object, |w| {
            common(w, veth.name, veth.mac, veth.mtu);
            w.nested(IFLA_LINKINFO, |w| {
                w.string(IFLA_INFO_KIND, "veth");
                w.nested(IFLA_INFO_DATA, |w| w.attr(VETH_INFO_PEER, &peer));
            });
        })
    }

    /// Makes a bridge, down.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        let request = Request { kind: RTM_NEWLINK, flags: CREATE_NEW, fixed: &header(0, 0, 0) };
        self.change(
            &request,
            || format!("link {name}"),
            |w| {
                common(w, name, None, None);
                w.nested(IFLA_LINKINFO, |w| w.string(IFLA_INFO_KIND, "bridge"));
            },
        )
    }

    /// Removes a link (of a veth pair, both ends).
    pub fn delete_link(&mut self, name: &str) -> Result<(), Error> {
        let request = Request { kind: RTM_DELLINK, flags: 0, fixed: &header(0, 0, 0) };
        self.change(&request, || format!("link {name}"), |w| w.string(IFLA_IFNAME, name))
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
        let request = Request { kind: RTM_SETLINK, flags: 0, fixed: &header(0, flags, IFF_UP) };
        self.change(&request, || format!("link {name}"), |w| w.string(IFLA_IFNAME, name))
    }

    /// Puts a link into a bridge, or takes it out of any.
    pub fn set_master(&mut self, name: &str, master: Option<&str>) -> Result<(), Error> {
        let master = master.map(|master| self.link(master)).transpose()?.map_or(0, |link| link.index.0);
        self.set_link(name, |w| w.ne32(IFLA_MASTER, master))
    }

    pub fn set_mac(&mut self, name: &str, mac: Mac) -> Result<(), Error> {
        self.set_link(name, |w| w.attr(IFLA_ADDRESS, &mac.0))
    }

    pub fn set_mtu(&mut self, name: &str, mtu: u32) -> Result<(), Error> {
        self.set_link(name, |w| w.ne32(IFLA_MTU, mtu))
    }

    /// Gives a link another name. Links that are up may be renamed from Linux 6.2 on; older ones want them down.
    pub fn rename(&mut self, name: &str, new_name: &str) -> Result<(), Error> {
        self.set_link(name, |w| w.string(IFLA_IFNAME, new_name))
    }

    /// Moves a link into another namespace, where it is down and without addresses.
    pub fn move_to(&mut self, name: &str, netns: &Netns) -> Result<(), Error> {
        self.set_link(name, |w| w.ne32(IFLA_NET_NS_FD, netns.as_fd().as_raw_fd() as u32))
    }

    fn set_link(&mut self, name: &str, body: impl FnOnce(&mut Writer)) -> Result<(), Error> {
        let index = self.link(name)?.index;
        let request = Request { kind: RTM_SETLINK, flags: 0, fixed: &header(index.0, 0, 0) };
        self.change(&request, || format!("link {name}"), body)
    }
}

fn common(writer: &mut Writer, name: &str, mac: Option<Mac>, mtu: Option<u32>) {
    writer.string(IFLA_IFNAME, name);
    if let Some(mac) = mac {
        writer.attr(IFLA_ADDRESS, &mac.0);
    }
    if let Some(mtu) = mtu {
        writer.ne32(IFLA_MTU, mtu);
    }
}

impl Link {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let flags = ne32_at(bytes, 8)?;
        let attrs = Attrs(bytes.get(16..)?);
        let text = |attrs: &Attrs<'_>, kind| attrs.get(kind).and_then(|a| a.text()).map(str::to_owned);
        Some(Self {
            index: LinkIndex(ne32_at(bytes, 4)?),
            name: text(&attrs, IFLA_IFNAME)?,
            up: flags & IFF_UP != 0,
            running: flags & IFF_RUNNING != 0,
            mac: attrs.get(IFLA_ADDRESS).and_then(|a| a.payload.try_into().ok()).map(Mac),
            mtu: attrs.get(IFLA_MTU)?.ne32()?,
            master: attrs.get(IFLA_MASTER).and_then(|a| a.ne32()).map(LinkIndex),
            kind: attrs.get(IFLA_LINKINFO).and_then(|a| text(&a.nested(), IFLA_INFO_KIND)),
        })
    }
}
