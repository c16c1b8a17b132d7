//! Every name we own in the kernel: virtual servers, the ranges their addresses come from, settings.
//!
//! A virtual server stands for a pool of endpoints, not for a frontend: rules before IPVS translate each frontend to
//! the address of its pool, and IPVS chooses among the pool's endpoints. These addresses are ours alone. They are made
//! from the pool's own name (one of its frontends, the ClusterIP as a rule), so there are no numbers to give out, and
//! people can read them: `10.96.0.10:53` becomes `246.96.0.10:53`, and `247.96.0.10:53` for policy Local.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_forward::{Family, PoolScope, Protocol};
use portolan_netlink::ipvs::ServerKey;

use crate::nftables::object::Pool;

/// Addresses of virtual servers. IPv4: a part of what is reserved since 1989 (RFC 1112), so that nobody else has them
/// as a rule. IPv6: a unique local prefix (RFC 4193) of our own.
pub const RANGE_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(246, 0, 0, 0), 7);
pub const RANGE_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0x6c61, 0, 0, 0, 0), 64);

/// What a destination that may get new connections weighs. No other weight is ours but 0.
pub const WEIGHT: u32 = 1;

/// A destination that left the pool gets no new connections, and goes when it has none any more, or after this time.
pub const TERMINATION_MAX: Duration = Duration::from_mins(15);
/// So many of them are kept; further ones go at once.
pub const TERMINATING_MAX: usize = 4096;
/// After a commit so many virtual servers are asked whether connections of such a destination are left.
pub const ASKED_PER_COMMIT: usize = 16;

/// A switch of the kernel's, below `/proc/sys/net/ipv4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Setting {
    /// IPVS tells connection tracking which endpoint it chose.
    Conntrack,
    /// A flow of an endpoint that is gone is given another one.
    ExpireNodestConn,
    /// A client that is remembered at an endpoint that leaves is given another one.
    ExpireQuiescentTemplate,
    /// Whether answers are routed anew, as if they came from this node. As with the other data planes they are not.
    SnatReroute,
    /// Strict ARP: a node answers for an address only on the link that has it ...
    ArpIgnore,
    /// ... and never asks in the name of another.
    ArpAnnounce,
}

impl Setting {
    /// Always set, whatever the configuration.
    pub const ALWAYS: [Self; 4] =
        [Self::Conntrack, Self::ExpireNodestConn, Self::ExpireQuiescentTemplate, Self::SnatReroute];
    pub const STRICT_ARP: [Self; 2] = [Self::ArpIgnore, Self::ArpAnnounce];
    pub const ALL: [Self; 6] = [
        Self::Conntrack,
        Self::ExpireNodestConn,
        Self::ExpireQuiescentTemplate,
        Self::SnatReroute,
        Self::ArpIgnore,
        Self::ArpAnnounce,
    ];

    pub fn path(self) -> &'static str {
        match self {
            Self::Conntrack => "vs/conntrack",
            Self::ExpireNodestConn => "vs/expire_nodest_conn",
            Self::ExpireQuiescentTemplate => "vs/expire_quiescent_template",
            Self::SnatReroute => "vs/snat_reroute",
            Self::ArpIgnore => "conf/all/arp_ignore",
            Self::ArpAnnounce => "conf/all/arp_announce",
        }
    }

    /// What the kernel begins with.
    pub fn initial(self) -> u8 {
        u8::from(self == Self::SnatReroute)
    }

    pub fn wanted(self) -> u8 {
        match self {
            Self::SnatReroute => 0,
            Self::Conntrack | Self::ExpireNodestConn | Self::ExpireQuiescentTemplate | Self::ArpIgnore => 1,
            Self::ArpAnnounce => 2,
        }
    }
}

pub fn range(family: Family) -> IpNet {
    match family {
        Family::V4 => RANGE_V4.into(),
        Family::V6 => RANGE_V6.into(),
    }
}

/// Whether the virtual server is one of ours; those of others are left alone.
pub fn is_ours(key: &ServerKey) -> bool {
    match key {
        ServerKey::Address { address, .. } => range(Family::of(*address)).contains(address),
        ServerKey::Mark { .. } => false,
    }
}

/// The virtual server of a pool. Different pools have different ones, short of two ClusterIPs that differ in nothing but
/// the first octet (in IPv6, but the first 96 bits) on ports that differ in just those bits.
pub fn server(pool: Pool, scope: PoolScope) -> (IpAddr, u16) {
    let local = u8::from(scope == PoolScope::Local);
    match pool.address {
        IpAddr::V4(ip) => {
            let [first, rest @ ..] = ip.octets();
            let address = Ipv4Addr::new(246 + local, rest[0], rest[1], rest[2]);
            // The first octet has no room in the address, so it changes the port, but for the usual ranges in 10/8.
            let change = u16::from(first ^ 0x0a) << 8;
            let port = if pool.port == change { pool.port } else { pool.port ^ change };
            (address.into(), port)
        }
        IpAddr::V6(ip) => {
            let bits = ip.to_bits();
            let upper = fnv(&bits.to_be_bytes()[..12]) & 0x7fff_ffff;
            let host = u128::from(local) << 63 | u128::from(upper) << 32 | (bits & 0xffff_ffff);
            (Ipv6Addr::from_bits(RANGE_V6.network().to_bits() | host).into(), pool.port)
        }
    }
}

pub fn server_key(pool: Pool, scope: PoolScope) -> ServerKey {
    let (address, port) = server(pool, scope);
    ServerKey::Address { address, protocol: pool.protocol.number(), port }
}

/// Whether a destination that leaves stays, with weight 0, while it has connections. Some go at once:
/// - of UDP, whose flows are to be given another endpoint (CT-2);
/// - of servers that remember clients. IPVS gives the packets of a client's port to the destination that it had last,
///   affinity or not, while it has an entry of that; only when the destination goes do its entries go too (AFF-3);
/// - where the scheduler still looks at it, and lets the packet down whose hash it has (CT-4).
pub fn waits_for_its_connections(server: &ServerKey, scheduler: &str, persistence: Option<u32>) -> bool {
    let is_udp = matches!(server, ServerKey::Address { protocol, .. } if *protocol == Protocol::Udp.number());
    !is_udp && persistence.is_none() && !matches!(scheduler, "sh" | "dh" | "mh")
}

fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn pool(address: &str, port: u16) -> Pool {
        Pool { address: address.parse().unwrap(), protocol: Protocol::Tcp, port }
    }

    fn shown(address: &str, port: u16, scope: PoolScope) -> String {
        let (address, port) = server(pool(address, port), scope);
        std::net::SocketAddr::new(address, port).to_string()
    }

    #[test]
    fn virtual_servers_can_be_read() {
        assert_eq!(shown("10.96.0.10", 53, PoolScope::Cluster), "246.96.0.10:53");
        assert_eq!(shown("10.96.0.10", 53, PoolScope::Local), "247.96.0.10:53");
        assert!(shown("fd00:10:96::a", 53, PoolScope::Cluster).ends_with(":0:a]:53"));
        for scope in [PoolScope::Cluster, PoolScope::Local] {
            for address in ["10.96.0.10", "172.30.0.1", "fd00:30::1"] {
                assert!(is_ours(&server_key(pool(address, 80), scope)));
            }
        }
    }

    #[test]
    fn ranges_that_end_alike_do_not_meet() {
        let mut seen = HashSet::new();
        for address in ["10.30.0.1", "172.30.0.1", "192.30.0.1", "100.30.0.1", "fd00:30::1", "fd00:31::1"] {
            for port in [80, 443, 8080, 53] {
                for scope in [PoolScope::Cluster, PoolScope::Local] {
                    let server = server(pool(address, port), scope);
                    assert!(server.1 != 0 && seen.insert(server), "{address}:{port} {scope:?}");
                }
            }
        }
    }

    #[test]
    fn no_port_of_an_address_takes_another_ones_place() {
        for address in ["172.30.0.1", "10.30.0.1"] {
            let ports: HashSet<u16> =
                (1..=u16::MAX).map(|port| server(pool(address, port), PoolScope::Cluster).1).collect();
            assert!(ports.len() == 65535 && !ports.contains(&0));
        }
    }
}
