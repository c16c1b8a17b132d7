//! Routes of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::address::{address, family, octets};
use super::{Error, LinkIndex, Request, Rt, ne32_at};
use crate::codec::{Attrs, flags};

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const CREATE_NEW: u16 = flags::CREATE | flags::EXCL;
const CREATE_REPLACE: u16 = flags::CREATE | flags::REPLACE;
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

    /// To nowhere, without a word.
    pub fn blackhole(destination: IpNet) -> Self {
        Self::bare(destination, RouteKind::Blackhole, RouteScope::Universe)
    }

    /// To nowhere, and the sender is told.
    pub fn unreachable(destination: IpNet) -> Self {
        Self::bare(destination, RouteKind::Unreachable, RouteScope::Universe)
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
        match self.kind {
            RouteKind::Blackhole => write!(f, " blackhole"),
            RouteKind::Unreachable => write!(f, " unreachable"),
            _ => Ok(()),
        }
    }
}

impl Rt {
    /// The routes of all tables and both families, without the entries of the IPv6 cache.
    pub fn routes(&mut self) -> Result<Vec<Route>, Error> {
        let mut routes = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let fixed = [family as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            match self.dump(RTM_GETROUTE, &fixed, "routes", parse) {
                Ok(found) => routes.extend(found),
                // A kernel without IPv6 has no such routes.
                Err(_) if family == libc::AF_INET6 => {}
                Err(e) => return Err(e),
            }
        }
        Ok(routes)
    }

    /// Adds a route; one that is there already is an error.
    pub fn add_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route(RTM_NEWROUTE, CREATE_NEW, route)
    }

    /// Adds a route, or puts it in the place of the one with the same destination, table and metric.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route(RTM_NEWROUTE, CREATE_REPLACE, route)
    }

    pub fn delete_route(&mut self, route: &Route) -> Result<(), Error> {
        self.change_route(RTM_DELROUTE, 0, route)
    }

    fn change_route(&mut self, kind: u16, flags: u16, route: &Route) -> Result<(), Error> {
        let destination = route.destination.trunc();
        let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
        let mut fixed = [0; 12];
        fixed[0] = family(destination.addr());
        fixed[1] = destination.prefix_len();
        fixed[4] = u8::try_from(route.table).unwrap_or(0);
        fixed[5] = route.protocol;
        fixed[6] = route.scope.number();
        fixed[7] = route.kind.number();
        fixed[8..12].copy_from_slice(&onlink.to_ne_bytes());
        self.change(
            &Request { kind, flags, fixed: &fixed },
            || route.to_string(),
            |w| {
                w.attr(RTA_DST, &octets(destination.addr()));
                w.ne32(RTA_TABLE, route.table);
                if let Some(gateway) = route.gateway {
                    w.attr(RTA_GATEWAY, &octets(gateway));
                }
                if let Some(link) = route.link {
                    w.ne32(RTA_OIF, link.0);
                }
                if let Some(source) = route.source {
                    w.attr(RTA_PREFSRC, &octets(source));
                }
                if let Some(metric) = route.metric {
                    w.ne32(RTA_PRIORITY, metric);
                }
            },
        )
    }
}

fn parse(bytes: &[u8]) -> Option<Route> {
    let flags = ne32_at(bytes, 8)?;
    if flags & RTM_F_CLONED != 0 {
        return None;
    }
    let attrs = Attrs(bytes.get(12..)?);
    let at = |kind| attrs.get(kind).and_then(|a| address(a.payload));
    let number = |kind| attrs.get(kind).and_then(|a| a.ne32());
    // The default route has no destination attribute.
    let any = if i32::from(bytes[0]) == libc::AF_INET {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    Some(Route {
        destination: IpNet::new(at(RTA_DST).unwrap_or(any), bytes[1]).ok()?,
        kind: RouteKind::from_number(bytes[7]),
        gateway: at(RTA_GATEWAY),
        link: number(RTA_OIF).map(LinkIndex),
        onlink: flags & RTNH_F_ONLINK != 0,
        scope: RouteScope::from_number(bytes[6]),
        source: at(RTA_PREFSRC),
        metric: number(RTA_PRIORITY),
        table: number(RTA_TABLE).unwrap_or(u32::from(bytes[4])),
        protocol: bytes[5],
    })
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
