//! IPVS, the kernel's own load balancer, by generic netlink: virtual servers, their destinations, timeouts.
//!
//! [`Ipvs`] is what one can ask of it; [`Socket`] is the kernel, [`Fake`] keeps the kernel's rules for tests. Changes
//! come as a list of [`Op`]s, which the kernel takes one by one: there are no transactions, and the first that fails is
//! told. Not here: which virtual servers there should be; that is the data plane's.

mod fake;
mod kernel;
mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

pub use fake::Fake;
pub use kernel::{Socket, flush, is_loaded};

/// The schedulers of Linux 6.1, by the names the kernel knows them by.
pub const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf", "twos"];

/// What a virtual server listens on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerKey {
    /// An address, a protocol by its number in the IP header, a port.
    Address { address: IpAddr, protocol: u8, port: u16 },
    /// Whatever bears this firewall mark, in one address family.
    Mark { ipv6: bool, mark: u32 },
}

impl ServerKey {
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }
}

/// As `ipvsadm` prints it.
impl fmt::Display for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, protocol, port } => {
                let protocol = match protocol {
                    6 => "TCP",
                    17 => "UDP",
                    132 => "SCTP",
                    _ => "protocol",
                };
                write!(f, "{protocol} {}", SocketAddr::new(*address, *port))
            }
            Self::Mark { mark, ipv6 } => write!(f, "FWM {mark}{}", if *ipv6 { " IPv6" } else { "" }),
        }
    }
}

impl fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How a virtual server chooses, and for how long it remembers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Server {
    pub key: ServerKey,
    pub scheduler: Box<str>,
    /// Clients keep their destination until so many seconds after their last new connection.
    pub persistence: Option<u32>,
}

/// One destination of a virtual server, reached by rewriting addresses (`Masq`, as `ipvsadm` says).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    pub address: IpAddr,
    pub port: u16,
    /// With weight 0 it gets no new connections and keeps those it has.
    pub weight: u32,
}

/// A destination as it is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationState {
    pub destination: Destination,
    /// It is reached in another way than by rewriting addresses, so it is not one of ours.
    pub foreign: bool,
    pub active: u32,
    pub inactive: u32,
    /// Clients that are remembered.
    pub persistent: u32,
}

impl DestinationState {
    pub fn connections(&self) -> u32 {
        self.active.saturating_add(self.inactive)
    }
}

/// For how many seconds an idle connection is remembered, after which only its entry in the connection table is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Timeouts {
    pub tcp: u32,
    /// From the moment a TCP connection's end is seen.
    pub tcp_fin: u32,
    pub udp: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Major, minor, patch.
    pub version: [u8; 3],
    /// How many buckets the table of connections has.
    pub table_size: u32,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    NewServer(Server),
    SetServer(Server),
    DelServer(ServerKey),
    NewDestination(ServerKey, Destination),
    SetDestination(ServerKey, Destination),
    DelDestination(ServerKey, IpAddr, u16),
    /// A value of 0 leaves what is.
    SetTimeouts(Timeouts),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewServer(server) => write!(f, "add server {} {}", server.key, server.scheduler),
            Self::SetServer(server) => write!(f, "change server {} {}", server.key, server.scheduler),
            Self::DelServer(key) => write!(f, "delete server {key}"),
            Self::NewDestination(key, to) => {
                write!(f, "add destination {} to {key}", SocketAddr::new(to.address, to.port))
            }
            Self::SetDestination(key, to) => {
                let address = SocketAddr::new(to.address, to.port);
                write!(f, "change destination {address} of {key} to weight {}", to.weight)
            }
            Self::DelDestination(key, address, port) => {
                write!(f, "delete destination {} of {key}", SocketAddr::new(*address, *port))
            }
            Self::SetTimeouts(_) => f.write_str("set timeouts"),
        }
    }
}

/// The kernel refused a change; those before it are done, those after it may be.
#[derive(Debug, thiserror::Error)]
#[error("IPVS: {op}: {}{source}", hint(op, source))]
pub struct OpError {
    pub index: usize,
    pub op: Op,
    pub source: io::Error,
}

/// What the bare error number does not say.
fn hint(op: &Op, error: &io::Error) -> &'static str {
    match op {
        Op::NewServer(_) | Op::SetServer(_) if error.kind() == io::ErrorKind::NotFound => {
            "the kernel has no such scheduler (its module is called ip_vs_ and the name): "
        }
        _ => "",
    }
}

/// What can be asked of IPVS in one network namespace.
pub trait Ipvs {
    fn info(&mut self) -> io::Result<Info>;

    fn servers(&mut self) -> io::Result<Vec<Server>>;

    fn destinations(&mut self, server: &ServerKey) -> io::Result<Vec<DestinationState>>;

    fn timeouts(&mut self) -> io::Result<Timeouts>;

    /// Makes the changes in their order, and tells the first that fails.
    fn apply(&mut self, ops: &[Op]) -> Result<(), OpError>;
}
