//! `portolan node`: this host as a node of a control plane elsewhere. Also what `up` runs beside its control plane.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use portolan_agent::{Names, POD_MAX_PIDS, Serving};
use portolan_api::core::v1;
use portolan_client::{Client, paths};
use portolan_proxy::Mode;
use portolan_role::Progress;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::monitor::{self, Roles};
use crate::up::{hostname, interrupted, stops};
use crate::{announcer, kernel_check, logging, memory, node_address, ready, service_route};

/// Where API servers expect node agents, by convention.
pub(crate) const KUBELET_PORT: u16 = 10250;
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Access to the API server, for example from `portolan kubeconfig --user system:node:NAME --group system:nodes`
    #[arg(long)]
    kubeconfig: PathBuf,
    /// The name of this host's Node object; otherwise its hostname
    #[arg(long)]
    node_name: Option<String>,
    /// The address that other nodes and pods reach this host at; otherwise that of the default route
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// Where the node agent serves logs and sessions to API servers
    #[arg(long, default_value_t = KUBELET_PORT)]
    kubelet_port: u16,
    /// Holds pods' namespaces and logs
    #[arg(long, default_value = "/var/lib/portolan-node")]
    data_dir: PathBuf,
    /// Where the cluster's pods get their addresses from
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// Where the cluster's ClusterIPs come from
    #[arg(long, default_value = "10.96.0.0/12", value_delimiter = ',')]
    service_cluster_ip_range: Vec<IpNet>,
    /// Where /metrics and /readyz of the load-balancer announcer are served; "none" for nowhere
    #[arg(long, default_value = monitor::ADDRESS, value_parser = monitor::address)]
    lb_metrics_bind_address: monitor::Address,
    #[command(flatten)]
    names: NameArguments,
    #[command(flatten)]
    proxy: ProxyArguments,
    #[command(flatten)]
    pods: PodArguments,
}

/// What pods may cost this host.
#[derive(Debug, Args)]
pub(crate) struct PodArguments {
    /// Most processes and threads of a pod; -1 for no limit
    #[arg(long, default_value_t = i64::from(POD_MAX_PIDS), allow_negative_numbers = true, value_parser = pod_max_pids)]
    pod_max_pids: i64,
}

fn pod_max_pids(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(number) if number == -1 || (1..=i64::from(u32::MAX)).contains(&number) => Ok(number),
        _ => Err("a number from 1 on, or -1 for no limit".into()),
    }
}

impl PodArguments {
    pub(crate) fn max_pids(&self) -> Option<u32> {
        u32::try_from(self.pod_max_pids).ok()
    }
}

/// How Services get into the kernel.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyArguments {
    /// The data plane of the node's proxy: nftables, iptables or ipvs
    #[arg(long, default_value = "nftables", value_name = "MODE", value_parser = proxy_mode)]
    pub(crate) proxy_mode: Mode,
}

fn proxy_mode(text: &str) -> Result<Mode, String> {
    text.parse().map_err(|()| format!("it must be one of {}", Mode::ALL.map(Mode::as_str).join(", ")))
}

/// Whom pods ask for names.
#[derive(Debug, Clone, Args)]
pub(crate) struct NameArguments {
    /// Whom pods ask for names; otherwise the tenth address of the ClusterIPs, where kube-dns usually is
    #[arg(long, value_delimiter = ',')]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The domain of the cluster's own names
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// The node's own resolver settings, from which pods get a part
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub(crate) resolv_conf: PathBuf,
}

impl NameArguments {
    pub(crate) fn names(self, service_cidrs: &[IpNet]) -> Names {
        let servers = if self.cluster_dns.is_empty() {
            service_cidrs.first().and_then(tenth).into_iter().collect()
        } else {
            self.cluster_dns
        };
        Names { cluster_dns: servers, cluster_domain: self.cluster_domain, resolv_conf: self.resolv_conf }
    }
}

/// The address of the cluster's DNS by convention.
fn tenth(range: &IpNet) -> Option<IpAddr> {
    let address = match range.network() {
        IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(10)?.into()),
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(10)?.into()),
    };
    range.contains(&address).then_some(address)
}

pub(crate) struct NodeSettings {
    pub(crate) agent_client: Client,
    pub(crate) proxy_client: Client,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    /// Absent: this node serves neither logs nor sessions.
    pub(crate) serving: Option<Serving>,
    pub(crate) pod_max_pids: Option<u32>,
    pub(crate) data_dir: PathBuf,
    pub(crate) cluster_cidrs: Vec<IpNet>,
    pub(crate) service_cidrs: Vec<IpNet>,
    pub(crate) names: Names,
    pub(crate) proxy_mode: Mode,
    /// Remove what the proxy made in the kernel when it stops.
    pub(crate) clean_up: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { verb: "portolan node" }.into());
    }
    kernel_check::of_mode(arguments.proxy.proxy_mode)?;
    logging::start();
    memory::keep_little();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(alone(arguments))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn alone(arguments: Arguments) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let node_ip = node_address::find(arguments.node_ip)?;
    let settings = NodeSettings {
        serving: serving(&arguments.kubeconfig, SocketAddr::new(node_ip, arguments.kubelet_port))?,
        agent_client: Client::from_kubeconfig(&arguments.kubeconfig, "portolan-agent")?,
        proxy_client: Client::from_kubeconfig(&arguments.kubeconfig, "portolan-proxy")?,
        node_name: arguments.node_name.unwrap_or_else(hostname),
        node_ip,
        pod_max_pids: arguments.pods.max_pids(),
        data_dir: arguments.data_dir,
        cluster_cidrs: arguments.cluster_cidr,
        names: arguments.names.names(&arguments.service_cluster_ip_range),
        service_cidrs: arguments.service_cluster_ip_range,
        proxy_mode: arguments.proxy.proxy_mode,
        // Connections outlive a restart of the proxy.
        clean_up: false,
    };
    let name = settings.node_name.clone();
    let interrupted = interrupted()?;
    let node = start(settings, &stopped).await?;
    let roles = Roles { announcer: Some(node.announced()), allocator: None };
    monitor::start(arguments.lb_metrics_bind_address, "--lb-metrics-bind-address", roles);
    ready::say(&format!("node {name} is ready"));
    memory::give_back();
    interrupted.await;
    let _ = stop.send(true);
    node.ended().await;
    Ok(())
}

/// The agent serves as who it is to the API server, to whom its API server's authority vouches for.
fn serving(kubeconfig: &Path, address: SocketAddr) -> anyhow::Result<Option<Serving>> {
    let access = portolan_client::Config::from_kubeconfig(kubeconfig, None)?;
    let (Some(certificate), Some(key), Some(authority)) =
        (access.client_certificate, access.client_key, access.certificate_authority)
    else {
        tracing::warn!(
            "the kubeconfig holds no certificate: kubectl logs and exec will not work on this node"
        );
        return Ok(None);
    };
    Ok(Some(Serving::new(address, &certificate, &key, &authority)?))
}

/// The roles of a node, running.
pub(crate) struct Node {
    announcer: JoinHandle<()>,
    announced: Arc<portolan_announce::Metrics>,
    agent: JoinHandle<()>,
    proxy: JoinHandle<()>,
}

impl Node {
    /// What the announcer counts.
    pub(crate) fn announced(&self) -> Arc<portolan_announce::Metrics> {
        Arc::clone(&self.announced)
    }

    /// Waits until both have ended, as they do when the program stops.
    pub(crate) async fn ended(self) {
        let _ = self.announcer.await;
        let _ = self.agent.await;
        let _ = self.proxy.await;
    }
}

/// Starts agent and proxy; gives them back when the node is ready for pods and its kernel holds every Service.
pub(crate) async fn start(settings: NodeSettings, stopped: &watch::Receiver<bool>) -> anyhow::Result<Node> {
    check_name(&settings.node_name)?;
    service_route::ensure(&settings.service_cidrs, settings.node_ip)?;
    let client = settings.agent_client.clone();
    let announcing = announcer::config(&settings.node_name, settings.node_ip);
    let announcer = announcer::start(client.clone(), announcing, stopped);
    // Addresses are handed over before pods and rules go.
    let stopped = &announcer.handed_over;
    let mut config = portolan_agent::Config::new(
        settings.node_name.clone(),
        settings.node_ip,
        settings.data_dir,
        std::env::current_exe()?,
    );
    config.network.cluster_cidrs.clone_from(&settings.cluster_cidrs);
    config.names = settings.names;
    config.serving = settings.serving;
    config.pod_max_pids = settings.pod_max_pids;
    let agent = portolan_agent::run(settings.agent_client, config, stops(stopped));
    let agent = tokio::spawn(said("the agent stopped", agent));
    let mut config = portolan_proxy::Config::new(settings.node_name.clone());
    config.mode = settings.proxy_mode;
    config.cluster_cidrs = settings.cluster_cidrs;
    config.cleanup_on_exit = settings.clean_up;
    let progress = Progress::default();
    let proxy = portolan_proxy::run(settings.proxy_client, config, progress.clone(), stops(stopped));
    let proxy = tokio::spawn(said("the proxy stopped", proxy));
    node_ready(&client, &settings.node_name).await?;
    tokio::time::timeout(READY_TIMEOUT, progress.ready())
        .await
        .context("the proxy has not written its first rules; its log says why")?;
    Ok(Node { announcer: announcer.task, announced: announcer.metrics, agent, proxy })
}

/// A hostname need not be one: a machine without a name is called "(none)".
fn check_name(name: &str) -> Result<(), Failure> {
    let label = |label: &str| {
        let inside = label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    Err(Failure::NodeName { name: name.to_owned() })
}

async fn said<E: std::fmt::Display>(what: &'static str, role: impl Future<Output = Result<(), E>>) {
    if let Err(error) = role.await {
        tracing::error!(%error, "{what}");
    }
}

/// Waits until the Node object says that the node is ready.
async fn node_ready(client: &Client, name: &str) -> anyhow::Result<()> {
    let begin = tokio::time::Instant::now();
    loop {
        let problem = match client.get::<v1::Node>(&paths::NODES, None, name).await {
            Ok(node) if is_ready(&node) => return Ok(()),
            Ok(_) => "the Node object does not say Ready".to_owned(),
            Err(error) => error.to_string(),
        };
        anyhow::ensure!(begin.elapsed() < READY_TIMEOUT, "node {name} is not ready: {problem}");
        tokio::time::sleep(READY_POLL).await;
    }
}

fn is_ready(node: &v1::Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::check_name;

    #[test]
    fn a_host_without_a_name_cannot_be_a_node_of_that_name() {
        assert!(check_name("node-1.example").is_ok());
        for name in ["(none)", "", "a..b", "-a", "Node", &"a".repeat(254)] {
            assert!(check_name(name).unwrap_err().to_string().contains("--node-name"), "{name}");
        }
    }
}
