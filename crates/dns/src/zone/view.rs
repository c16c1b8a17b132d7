//! What the zone wants to know of API objects. Text is parsed by then; odd input is left out.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_client::Key;

/// The protocols that a Service port can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As a label of SRV names, without its underscore.
    pub fn label(self) -> &'static [u8] {
        match self {
            Protocol::Tcp => b"tcp",
            Protocol::Udp => b"udp",
            Protocol::Sctp => b"sctp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Empty for a port without a name.
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceKind {
    /// With addresses of its own; none while they are not allocated.
    Cluster(Vec<IpAddr>),
    Headless,
    External(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceView {
    pub kind: ServiceKind,
    pub ports: Vec<PortView>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointView {
    pub addresses: Vec<IpAddr>,
    /// The condition; missing counts as true. Serving and terminating do not matter to names.
    pub ready: bool,
    pub hostname: Option<Box<str>>,
    /// The pod behind it.
    pub target: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceView {
    /// Whose it is; `None` for one without the label, which serves nobody.
    pub service: Option<Key>,
    pub endpoints: Vec<EndpointView>,
    pub ports: Arc<[PortView]>,
    /// When what it tells of happened, as the controller says: nanoseconds since 1970.
    pub trigger_ns: Option<i128>,
}

/// A pod that runs or will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    pub addresses: Vec<IpAddr>,
}
