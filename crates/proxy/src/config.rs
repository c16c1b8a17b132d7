//! What an operator can choose, after the flags and files have been read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portolan_forward::Algorithm;
use portolan_netlink::ipvs::Timeouts;

/// Which data plane writes the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Nftables,
    Iptables,
    Ipvs,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Nftables, Self::Iptables, Self::Ipvs];

    /// kube-proxy's word for it, as `/proxyMode` says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(())
    }
}

/// How traffic of this node's own pods is told from the rest (kube-proxy's `detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DetectLocal {
    /// Sources in [`Config::cluster_cidrs`].
    #[default]
    ClusterCidr,
    /// Sources in the Node's `spec.podCIDRs`.
    NodeCidr,
    BridgeInterface(String),
    InterfaceNamePrefix(String),
    /// Not at all: nothing is masqueraded for coming from outside the cluster.
    Nothing,
}

/// On which of the node's addresses node ports listen (NP-2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// The node's primary addresses, as its Node object says.
    #[default]
    Primary,
    /// The node's addresses within these ranges. A range of prefix length 0, and a family without a range, mean all
    /// of the family.
    Cidrs(Vec<IpNet>),
}

/// What concerns mode ipvs alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipvs {
    /// For Services that ask for none.
    pub scheduler: Algorithm,
    pub strict_arp: bool,
    /// 0: as it is, or our own choice.
    pub timeouts: Timeouts,
}

impl Default for Ipvs {
    fn default() -> Self {
        Self { scheduler: Algorithm::RoundRobin, strict_arp: false, timeouts: Timeouts::default() }
    }
}

#[derive(Debug, Clone)]
pub struct Config {
    pub node_name: String,
    pub mode: Mode,
    pub ipvs: Ipvs,
    pub detect_local: DetectLocal,
    /// The ranges of all pods.
    pub cluster_cidrs: Vec<IpNet>,
    pub nodeport_addresses: NodePortAddresses,
    pub masquerade_all: bool,
    /// Which bit of the packet mark is ours, 0 to 31.
    pub masquerade_bit: u8,
    /// `/healthz` and `/livez`.
    pub healthz_address: Option<SocketAddr>,
    /// `/metrics` and `/proxyMode`.
    pub metrics_address: Option<SocketAddr>,
    /// The least time between the end of one commit and the next; a single change is never delayed by more than this.
    pub min_sync_period: Duration,
    /// How often the kernel is read back at most, to find what others changed. On large tables, and where the kernel
    /// tells of others' changes by itself, it is done less often.
    pub verify_period: Duration,
    /// How long the first sync waits for the Node object and its addresses.
    pub node_wait: Duration,
    /// Stop when an address to serve on cannot be had, instead of trying again.
    pub bind_address_hard_fail: bool,
    /// The addresses of this node, instead of those in its Node object.
    pub node_addresses: Vec<IpAddr>,
    /// The configuration as `/configz` shows it, in JSON.
    pub shown: Option<Arc<str>>,
    /// Remove everything from the kernel on shutdown. Off by default: connections outlive a restart (CT-3).
    pub cleanup_on_exit: bool,
}

impl Config {
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            mode: Mode::default(),
            ipvs: Ipvs::default(),
            detect_local: DetectLocal::default(),
            cluster_cidrs: Vec::new(),
            nodeport_addresses: NodePortAddresses::default(),
            masquerade_all: false,
            masquerade_bit: 14,
            healthz_address: Some(SocketAddr::from(([0, 0, 0, 0], 10256))),
            metrics_address: Some(SocketAddr::from(([127, 0, 0, 1], 10249))),
            min_sync_period: Duration::ZERO,
            verify_period: Duration::from_mins(1),
            node_wait: Duration::from_secs(30),
            bind_address_hard_fail: false,
            node_addresses: Vec::new(),
            shown: None,
            cleanup_on_exit: false,
        }
    }
}
