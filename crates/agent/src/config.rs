//! What an agent must be told.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::Serving;

/// One node's agent.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The node's own addresses, the first one primary.
    pub node_ips: Vec<IpAddr>,
    /// Everything the agent keeps: `pods/<namespace>_<name>/` with the pod's `netns`, logs and pid files.
    pub data_dir: PathBuf,
    /// The program that runs the built-in image, as `SELF_EXE echo ARGS`.
    pub self_exe: PathBuf,
    /// Labels for the Node object, over the agent's own.
    pub labels: BTreeMap<String, String>,
    pub network: NetworkConfig,
    pub names: Names,
    pub restart_backoff: BackoffLimits,
    /// Most processes and threads of a pod, as kubelet's `podPidsLimit`; absent: no limit.
    pub pod_max_pids: Option<u32>,
    /// Serve logs and sessions to API servers; absent: not at all.
    pub serving: Option<Serving>,
}

/// A thousand times what most pods have, and a small part of what a kernel has.
pub const POD_MAX_PIDS: u32 = 4096;

impl Config {
    /// An agent with the usual settings.
    pub fn new(
        node_name: impl Into<String>,
        node_ip: IpAddr,
        data_dir: impl Into<PathBuf>,
        self_exe: impl Into<PathBuf>,
    ) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips: vec![node_ip],
            data_dir: data_dir.into(),
            self_exe: self_exe.into(),
            labels: BTreeMap::new(),
            network: NetworkConfig::default(),
            names: Names::default(),
            restart_backoff: BackoffLimits::default(),
            pod_max_pids: Some(POD_MAX_PIDS),
            serving: None,
        }
    }

    pub(crate) fn node_ip(&self) -> IpAddr {
        self.node_ips.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// How pods are wired.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Largest packet of the pods' links; absent is the kernel's 1500.
    pub mtu: Option<u32>,
    /// Keep routes to the pods of other nodes through those nodes' addresses. Off where something else routes.
    pub peer_routes: bool,
    /// The ranges of all pods. What pods send elsewhere gets the node's address; with none given, nothing does.
    pub cluster_cidrs: Vec<IpNet>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self { mtu: None, peer_routes: true, cluster_cidrs: Vec::new() }
    }
}

/// Whom pods ask for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The servers of the cluster's own names, usually the `ClusterIP` of `kube-system/kube-dns`. With none, pods ask
    /// whom the node asks.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's own settings, of which pods get a part.
    pub resolv_conf: PathBuf,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            resolv_conf: "/etc/resolv.conf".into(),
        }
    }
}

/// How long a container that keeps ending waits for its next start: nothing, then `initial`, doubling to `max`.
#[derive(Debug, Clone, Copy)]
pub struct BackoffLimits {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for BackoffLimits {
    /// Kubernetes' own.
    fn default() -> Self {
        Self { initial: Duration::from_secs(10), max: Duration::from_mins(5) }
    }
}
