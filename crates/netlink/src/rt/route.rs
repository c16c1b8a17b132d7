//! Routes of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::address::{address, family, octets};
use super::wire::{Message, attributes, u32_at};
use super::{Error, LinkIndex, Rt};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const CREATE_NEW: u16 = 0x600; // NLM_F_CREATE | NLM_F_EXCL
const CREATE_REPLACE: u16 = 0x500; // NLM_F_CREATE | NLM_F_REPLACE
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;
const RTNH_F_ONLINK: u32 = 4;
const RTM_F_CLONED: u32 = 0x200;
const TABLE_MAIN: u32 = 254;

/// The mark (`proto`) of routes that are ours: `ip route show proto 112`. Free in iproute2's `rt_protos`.
pub const PROTOCOL_PORTOLAN: u8 = 112;

/// What the kernel does with a packet that takes the route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    Unicast,
    /// The packet is dropped without a word.
    Blackhole,
    /// The sender is told that the host is unreachable.
    Unreachable,
    /// The packet is for this host: a route of the kernel's own `local` table.
    Local,
    /// Any other kind, by its number.
    Other(u8),
}

/// How far away the destination is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteScope {
    /// Beyond a gateway, or anywhere.
    Universe,
    /// Directly on the link.
    Link,
    /// This host itself.
    Host,
    Other(u8),
}

/// One route. Make it by [`Route::via`] or [`Route::on_link`] and change what differs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    pub destination: IpNet,
    pub kind: RouteKind,
    pub gateway: Option<IpAddr>,
    pub link: Option<LinkIndex>,
    /// Believe that the gateway is on the link, whatever the addresses say.
    pub onlink: bool,
    pub scope: RouteScope,
    /// The source address that this host prefers on this route.
    pub source: Option<IpAddr>,
    pub metric: Option<u32>,
    pub table: u32,
    pub protocol: u8,
}

impl Route {
    /// Through `gateway`; the kernel finds the link, unless one is set.
    pub fn via(destination: IpNet, gateway: IpAddr) -> Self {
        Self { gateway: Some(gateway), ..Self::bare(destination, RouteKind::Unicast, RouteScope::Universe) }
    }

    /// Directly on `link`.
    pub fn on_link(destination: IpNet, link: LinkIndex) -> Self {
        Self { link: Some(link), ..Self::bare(destination, RouteKind::Unicast, RouteScope::Link) }
    }

    /// To nowhere.
    pub fn blackhole(destination: IpNet) -> Self {
        Self::bare(destination, RouteKind::Blackhole, RouteScope::Universe)
    }

    fn bare(destination: IpNet, kind: RouteKind, scope: RouteScope) -> Self {
        Self {
            destination,
            kind,
            gateway: None,
            link: None,
            onlink: false,
            scope,
            source: None,
            metric: None,
            table: TABLE_MAIN,
            protocol: PROTOCOL_PORTOLAN,
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "route {}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if self.kind == RouteKind::Blackhole {
            write!(f, " blackhole")?;
        }
        Ok(())
    }
}

impl Rt {
    /// The routes of all tables and both families, without the entries of the IPv6 cache.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let fixed = [family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            match self.fetch(Message::dump(RTM_GETROUTE, &fixed), || "routes".into()) {
                Ok(answers) => routes.extend(answers.iter().filter_map(|bytes| parse(bytes))),
                // A kernel without IPv6 has no such routes.
                Err(_) if family == libc::AF_INET6 => {}
                Err(e) => return Err(e),
            }
        }
        Ok(routes)
    }

    /// Adds a route; one that is there already is an error.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        self.request(message(RTM_NEWROUTE, CREATE_NEW, route), || route.to_string())
    }

    /// Adds a route, or puts it in the place of the one with the same destination, table and metric.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.request(message(RTM_NEWROUTE, CREATE_REPLACE, route), || route.to_string())
    }

    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        self.request(message(RTM_DELROUTE, 0, route), || route.to_string())
    }
}

fn message(kind: u16, flags: u16, route: &Route) -> Message {
    let destination = route.destination.trunc();
    let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
    let mut fixed = [
        family(destination.addr()),
        destination.prefix_len(),
        0,
        0,
        u8::try_from(route.table).unwrap_or(0),
        route.protocol,
        route.scope.number(),
        route.kind.number(),
        0,
        0,
        0,
        0,
    ];
    fixed[8..12].copy_from_slice(&onlink.to_ne_bytes());
    let mut message = Message::new(kind, flags, &fixed);
    message.attr(RTA_DST, &octets(destination.addr())).attr_u32(RTA_TABLE, route.table);
    if let Some(gateway) = route.gateway {
        message.attr(RTA_GATEWAY, &octets(gateway));
    }
    if let Some(link) = route.link {
        message.attr_u32(RTA_OIF, link.0);
    }
    if let Some(source) = route.source {
        message.attr(RTA_PREFSRC, &octets(source));
    }
    if let Some(metric) = route.metric {
        message.attr_u32(RTA_PRIORITY, metric);
    }
    message
}

fn parse(bytes: &[u8]) -> Option<Route> {
    let flags = u32_at(bytes, 8)?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let any = if i32::from(bytes[0]) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let mut destination = any;
    let mut route = Route::bare(
        IpNet::new(any, 0).ok()?,
        RouteKind::from_number(bytes[7]),
        RouteScope::from_number(bytes[6]),
    );
    route.table = u32::from(bytes[4]);
    route.protocol = bytes[5];
    route.onlink = flags & RTNH_F_ONLINK != 0;
    for (kind, value) in attributes(bytes.get(12..)?) {
        match kind {
            RTA_DST => destination = address(value)?,
            RTA_GATEWAY => route.gateway = address(value),
            RTA_OIF => route.link = u32_at(value, 0).map(LinkIndex),
            RTA_PREFSRC => route.source = address(value),
            RTA_PRIORITY => route.metric = u32_at(value, 0),
            RTA_TABLE => route.table = u32_at(value, 0)?,
            _ => {}
        }
    }
    route.destination = IpNet::new(destination, bytes[1]).ok()?;
    Some(route)
}

impl RouteKind {
    fn number(self) -> u8 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Unicast,
            2 => Self::Local,
            6 => Self::Blackhole,
            7 => Self::Unreachable,
            other => Self::Other(other),
        }
    }
}

impl RouteScope {
    fn number(self) -> u8 {
        match self {
            Self::Universe => 0,
            Self::Link => 253,
            Self::Host => 254,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Universe,
            253 => Self::Link,
            254 => Self::Host,
            other => Self::Other(other),
        }
    }
}
