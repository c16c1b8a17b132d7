//! What a lab's namespaces, files and addresses are called. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::LabError;

/// Nodes are 10.0.0.11 and up; they end below the client.
pub const NODES_MAX: u8 = 32;
const NAME_LENGTH_MAX: usize = 20;

/// One host on the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// The switch: holds the bridge that the others hang on.
    Segment,
    ControlPlane,
    /// Counted from 1.
    Node(u8),
    /// Not part of the cluster: reaches for node ports.
    Client,
    /// Not part of the cluster: where a Service without selector can point (10.0.0.206).
    Server,
}

impl Host {
    pub fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Segment => 1,
            Self::ControlPlane => 10,
            Self::Node(number) => 10 + number,
            Self::Client => 100,
            Self::Server => 206,
        };
        Ipv4Addr::new(10, 0, 0, last)
    }

    pub fn ip(self) -> IpAddr {
        self.address().into()
    }

    /// Where the segment has both families: the same number, in `fd00::/64`.
    pub fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(self.address().octets()[3]))
    }

    /// The addresses with the length of the segment.
    pub(crate) fn nets(self, ipv6: bool) -> impl Iterator<Item = IpNet> {
        let four = Ipv4Net::new_assert(self.address(), 24).into();
        let six = Ipv6Net::new_assert(self.ipv6(), 64).into();
        [Some(four), ipv6.then_some(six)].into_iter().flatten()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment => f.write_str("segment"),
            Self::ControlPlane => f.write_str("control-plane"),
            Self::Node(number) => write!(f, "node-{number}"),
            Self::Client => f.write_str("client"),
            Self::Server => f.write_str("server"),
        }
    }
}

impl FromStr for Host {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "segment" => Ok(Self::Segment),
            "control-plane" => Ok(Self::ControlPlane),
            "client" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            _ => text.strip_prefix("node-").and_then(|n| n.parse().ok()).map(Self::Node).ok_or(()),
        }
    }
}

/// The names of one lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub name: String,
    pub nodes: u8,
}

impl Layout {
    pub fn new(name: &str, nodes: u8) -> Result<Self, LabError> {
        let fits = !name.is_empty() && name.len() <= NAME_LENGTH_MAX && !name.starts_with('-');
        let letters = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits || !letters {
            return Err(LabError::BadName { name: name.into() });
        }
        if nodes == 0 || nodes > NODES_MAX {
            return Err(LabError::BadNodeCount { nodes, max: NODES_MAX });
        }
        Ok(Self { name: name.into(), nodes })
    }

    /// Everything a lab keeps: its description, kubeconfig, logs, the nodes' data.
    pub fn dir(&self) -> PathBuf {
        labs_dir().join(&self.name)
    }

    pub fn description(&self) -> PathBuf {
        self.dir().join("lab.json")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir(Host::ControlPlane).join("kubeconfig")
    }

    pub fn data_dir(&self, host: Host) -> PathBuf {
        self.dir().join(host.to_string())
    }

    pub fn log(&self, host: Host) -> PathBuf {
        self.dir().join(format!("{host}.log"))
    }

    /// What `ip netns` calls the host's namespace.
    pub fn netns_name(&self, host: Host) -> String {
        format!("{}{host}", self.netns_prefix())
    }

    pub fn netns_prefix(&self) -> String {
        format!("portolan-{}.", self.name)
    }

    pub fn netns(&self, host: Host) -> PathBuf {
        PathBuf::from(portolan_netlink::netns::IP_NETNS_DIR).join(self.netns_name(host))
    }

    pub fn node_hosts(&self) -> impl Iterator<Item = Host> + use<> {
        (1..=self.nodes).map(Host::Node)
    }

    /// Everyone on the segment, the switch first.
    pub fn hosts(&self) -> impl Iterator<Item = Host> + use<> {
        [Host::Segment, Host::ControlPlane]
            .into_iter()
            .chain(self.node_hosts())
            .chain([Host::Client, Host::Server])
    }
}

pub(crate) fn labs_dir() -> PathBuf {
    PathBuf::from("/run/portolan/labs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_that_read_back_and_addresses_of_their_own() {
        let layout = Layout::new("a-lab", NODES_MAX).unwrap();
        let mut seen = std::collections::HashSet::new();
        for host in layout.hosts() {
            assert_eq!(host.to_string().parse(), Ok(host));
            assert!(seen.insert(host.address()), "{host} shares {}", host.address());
        }
    }

    #[test]
    fn names_that_would_not_make_a_path_or_a_namespace_are_refused() {
        for name in ["", "-x", "a/b", "A", "a.b", "a-name-that-is-too-long-to-use"] {
            assert!(matches!(Layout::new(name, 1), Err(LabError::BadName { .. })), "{name}");
        }
        assert!(matches!(Layout::new("x", 0), Err(LabError::BadNodeCount { .. })));
    }
}
