//! `portolan node`: this host as a node of a control plane elsewhere. Also what `up` runs beside its control plane.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ipnet::IpNet;
use portolan_client::Client;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::up::{hostname, interrupted, stops};
use crate::{logging, node_address, ready};

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
    /// Holds pods' namespaces and logs
    #[arg(long, default_value = "/var/lib/portolan-node")]
    data_dir: PathBuf,
    /// Where the cluster's pods get their addresses from
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// Where the cluster's ClusterIPs come from
    #[arg(long, default_value = "10.96.0.0/12", value_delimiter = ',')]
    service_cluster_ip_range: Vec<IpNet>,
}

pub(crate) struct NodeSettings {
    pub(crate) agent_client: Client,
    pub(crate) proxy_client: Client,
    pub(crate) node_name: String,
    pub(crate) node_ip: IpAddr,
    pub(crate) data_dir: PathBuf,
    pub(crate) cluster_cidrs: Vec<IpNet>,
    pub(crate) service_cidrs: Vec<IpNet>,
    /// Remove what the proxy made in the kernel when it stops.
    pub(crate) clean_up: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { verb: "portolan node" }.into());
    }
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(alone(arguments))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn alone(arguments: Arguments) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let settings = NodeSettings {
        agent_client: Client::from_kubeconfig(&arguments.kubeconfig, "portolan-agent")?,
        proxy_client: Client::from_kubeconfig(&arguments.kubeconfig, "portolan-proxy")?,
        node_name: arguments.node_name.unwrap_or_else(hostname),
        node_ip: node_address::find(arguments.node_ip)?,
        data_dir: arguments.data_dir,
        cluster_cidrs: arguments.cluster_cidr,
        service_cidrs: arguments.service_cluster_ip_range,
        // Connections outlive a restart of the proxy.
        clean_up: false,
    };
    let name = settings.node_name.clone();
    let node = start(settings, &stopped).await?;
    ready::say(&format!("node {name} is ready"));
    interrupted().await?;
    let _ = stop.send(true);
    node.ended().await;
    Ok(())
}
