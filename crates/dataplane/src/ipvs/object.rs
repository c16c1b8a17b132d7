//! Kernel objects as keys and values: what IPVS holds, what it needs around it, and the objects of the front.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use portolan_forward::Family;
use portolan_netlink::ipvs::ServerKey;

use super::layout::Setting;

/// What identifies an object. `K` are the front's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key<K> {
    Setting(Setting),
    /// The route by which packets to virtual servers reach IPVS.
    Range(Family),
    Server(ServerKey),
    Destination(ServerKey, IpAddr, u16),
    Front(K),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<V> {
    Setting(u8),
    Range,
    Server {
        scheduler: Box<str>,
        persistence: Option<u32>,
    },
    /// `weight` is [`super::layout::WEIGHT`], but for one that somebody else made or changed. `waits`: see
    /// [`super::layout::waits_for_its_connections`].
    Destination {
        weight: u32,
        waits: bool,
    },
    Front(V),
}

/// As `ipvsadm` and `sysctl` would put it, for people who look for drift.
impl<K: fmt::Debug> fmt::Debug for Key<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting(setting) => write!(f, "setting net/ipv4/{}", setting.path()),
            Self::Range(family) => write!(f, "route local {} dev lo", super::layout::range(*family)),
            Self::Server(server) => write!(f, "virtual server {server}"),
            Self::Destination(server, address, port) => {
                write!(f, "destination {} of {server}", SocketAddr::new(*address, *port))
            }
            Self::Front(key) => key.fmt(f),
        }
    }
}
