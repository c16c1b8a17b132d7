//! `portolan lb`: load-balancer addresses for any Kubernetes cluster: given from pools, announced from the nodes.
//!
//! One of these processes, elected by a Lease, gives addresses; each of them announces from its node.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use portolan_api::core::v1;
use portolan_client::{Client, paths};
use portolan_controllers::{leader, loadbalancer};
use tokio::sync::watch;

use crate::monitor::{self, Roles};
use crate::up::{hostname, interrupted, stops};
use crate::{announcer, logging, ready};

/// The Lease in kube-system of the one that gives addresses.
const LEASE: &str = "portolan-loadbalancer";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Access to the API server; otherwise the service account of the pod
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The name of this host's Node object; otherwise its hostname
    #[arg(long)]
    node_name: Option<String>,
    /// Where this node's announcer is reached by the others; otherwise the Node's first InternalIP
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// The UDP port on which announcers hear each other; the same on all nodes
    #[arg(long, default_value_t = portolan_announce::PORT)]
    port: u16,
    /// Where /metrics, /livez and /readyz are served; "none" for nowhere
    #[arg(long, default_value = monitor::ADDRESS, value_parser = monitor::address)]
    metrics_bind_address: monitor::Address,
    /// Leave Services without a load-balancer class to somebody else: serve class portolan.dev/l2 only
    #[arg(long)]
    only_class: bool,
    /// Give no addresses here
    #[arg(long)]
    no_allocate: bool,
    /// Announce nothing from here
    #[arg(long)]
    no_announce: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !(arguments.no_allocate && arguments.no_announce),
        "--no-allocate and --no-announce leave nothing to do: drop one of them"
    );
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(start(arguments))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    const AGENT: &str = "portolan-lb";
    let client = match &arguments.kubeconfig {
        Some(path) => Client::from_kubeconfig(path, AGENT)?,
        None => Client::in_cluster(AGENT).context("no pod's service account here: name a --kubeconfig")?,
    };
    has_pools(&client).await?;
    let node_name = arguments.node_name.clone().unwrap_or_else(hostname);
    let (stop, stopped) = watch::channel(false);
    let mut roles = Vec::new();
    let mut monitored = Roles::default();
    if !arguments.no_allocate {
        tokio::spawn(announcer::make_key(client.clone()));
        let metrics = Arc::new(loadbalancer::Metrics::default());
        monitored.allocator = Some(Arc::clone(&metrics));
        let config = loadbalancer::Config {
            without_class: !arguments.only_class,
            metrics,
            ..loadbalancer::Config::default()
        };
        roles.push(tokio::spawn(allocate(client.clone(), node_name.clone(), config, stopped.clone())));
    }
    if !arguments.no_announce {
        let node_ip = match arguments.node_ip {
            Some(ip) => ip,
            None => internal_ip(&client, &node_name).await?,
        };
        let mut config = announcer::config(&node_name, node_ip);
        config.port = arguments.port;
        config.without_class = !arguments.only_class;
        let announcer = announcer::start(client, config, &stopped);
        monitored.announcer = Some(announcer.metrics);
        roles.push(announcer.task);
    }
    monitor::start(arguments.metrics_bind_address, "--metrics-bind-address", monitored);
    let interrupted = interrupted()?;
    ready::say(&format!("load-balancer addresses are served from {node_name}"));
    interrupted.await;
    let _ = stop.send(true);
    for role in roles {
        let _ = role.await;
    }
    Ok(())
}

async fn allocate(
    client: Client,
    node: String,
    config: loadbalancer::Config,
    stopped: watch::Receiver<bool>,
) {
    let work = || loadbalancer::run(client.clone(), config.clone(), std::future::pending());
    // Two processes of one node, an old and a new one, are two candidates.
    let identity = format!("{node}_{}", std::process::id());
    leader::lead(&client, leader::Config::new(LEASE, identity), work, stops(&stopped)).await;
}

/// Without the kind nothing would ever happen, and nothing would say why.
async fn has_pools(client: &Client) -> anyhow::Result<()> {
    let listed: Result<portolan_client::List<serde_json::Value>, _> =
        client.list(&paths::LOAD_BALANCER_POOLS, None, &portolan_client::ListOptions::default()).await;
    match listed {
        Err(error) if error.is_not_found() => {
            anyhow::bail!(
                "the cluster does not know LoadBalancerPool: kubectl apply -f deploy/loadbalancerpool-crd.yaml"
            )
        }
        other => other.map(drop).context("cannot list LoadBalancerPools"),
    }
}

async fn internal_ip(client: &Client, node: &str) -> anyhow::Result<IpAddr> {
    let object: v1::Node = client
        .get(&paths::NODES, None, node)
        .await
        .with_context(|| format!("cannot read Node {node}: name it with --node-name"))?;
    let internal = object.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
    let mut parsed = internal.filter_map(|address| address.address.parse().ok());
    parsed.next().with_context(|| format!("Node {node} has no InternalIP: name an address with --node-ip"))
}
