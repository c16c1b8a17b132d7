//! `portolan up`: the control plane, and this host as a node, in one process.
//!
//! Roles get clients of their own with identities of their own; they meet nowhere but in the API server.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use portolan_agent::Serving;
use portolan_apiserver::pki::{Identity, Pki};
use portolan_apiserver::{ApiServer, Protobuf, Readable, TokenKeys, User, tls};
use portolan_client::Client;
use portolan_role::Progress;
use portolan_store::Store;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::encryption::EncryptionArguments;
use crate::failure::Failure;
use crate::monitor::{self, Roles};
use crate::node::{self, NodeSettings};
use crate::store::EtcdArguments;
use crate::{announcer, in_process, kernel_check, logging, memory, node_address, ready};

pub(crate) const DATA_DIR: &str = "/var/lib/portolan";

/// The Lease in kube-system that the control plane with the controllers holds.
const CONTROLLERS_LEASE: &str = "portolan-controllers";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Holds all state: the store, certificates, the kubeconfig, pods' namespaces and logs
    #[arg(long, default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// Run the control plane only; this host is no node
    #[arg(long)]
    control_plane: bool,
    /// The name of this host's Node object; otherwise its hostname
    #[arg(long)]
    node_name: Option<String>,
    /// The address that other nodes and pods reach this host at; otherwise that of the default route
    #[arg(long)]
    node_ip: Option<IpAddr>,
    /// Where the API server listens
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    bind_address: IpAddr,
    /// The API server's port
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Where the node agent serves logs and sessions to API servers
    #[arg(long, default_value_t = node::KUBELET_PORT)]
    kubelet_port: u16,
    /// Where ClusterIPs come from
    #[arg(long, default_value = "10.96.0.0/12", value_delimiter = ',')]
    service_cluster_ip_range: Vec<IpNet>,
    /// Where node ports come from
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    service_node_port_range: (u16, u16),
    /// Where pods get their addresses from; each node gets a part of it
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// Run no cluster DNS here
    #[arg(long)]
    no_dns: bool,
    /// Where names outside the cluster are asked for: addresses, or a file like /etc/resolv.conf; "none" refuses them
    #[arg(long, default_value = "/etc/resolv.conf", value_delimiter = ',')]
    dns_upstream: Vec<String>,
    /// Where /metrics and /readyz of load balancing are served; "none" for nowhere, as without a node unless it is given
    #[arg(long, value_parser = monitor::address)]
    lb_metrics_bind_address: Option<monitor::Address>,
    /// Who has which bearer token: lines of TOKEN,USER,UID,"GROUP,GROUP"
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    #[command(flatten)]
    etcd: EtcdArguments,
    #[command(flatten)]
    encryption: EncryptionArguments,
    #[command(flatten)]
    names: crate::node::NameArguments,
    #[command(flatten)]
    proxy: crate::node::ProxyArguments,
    #[command(flatten)]
    pods: node::PodArguments,
}

pub(crate) fn pki_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("pki")
}

/// The URL in the kubeconfig that `up` wrote.
pub(crate) fn server_url(data_dir: &Path) -> anyhow::Result<String> {
    let config = portolan_client::Config::from_kubeconfig(&data_dir.join("kubeconfig"), None)?;
    Ok(config.server)
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.control_plane {
        if !rustix::process::geteuid().is_root() {
            return Err(Failure::NotRoot { verb: "portolan up" }.into());
        }
        kernel_check::of_mode(arguments.proxy.proxy_mode)?;
    }
    logging::start();
    memory::keep_little();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.spawn(memory::give_back_after_growth());
    runtime.block_on(start(arguments))?;
    // A task that does not end by itself has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

/// The store as the API server needs it: opened, unsealed, and in JSON.
async fn open_store(
    arguments: &Arguments,
    data_dir: &Path,
    node_ip: IpAddr,
) -> anyhow::Result<Arc<dyn Store>> {
    let store = arguments.etcd.open(data_dir, &node_ip.to_string()).await?;
    let store = arguments.encryption.open(store, data_dir, arguments.etcd.root().as_deref()).await?;
    // A kube-apiserver on the same etcd writes protobuf unless told otherwise, and a snapshot of such a store holds it.
    Ok(Arc::new(Readable::new(store, Protobuf)))
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let begin = Instant::now();
    let interrupted = interrupted()?;
    let data_dir = &arguments.data_dir;
    std::fs::create_dir_all(data_dir).with_context(|| data_dir.display().to_string())?;
    let data_dir = &data_dir.canonicalize()?;
    let node_ip = node_address::find(arguments.node_ip)?;
    let listener = listen(arguments.bind_address, arguments.secure_port).await?;
    let pki = Pki::open(&pki_dir(data_dir))?;
    let store = open_store(&arguments, data_dir, node_ip).await?;

    let mut config = portolan_apiserver::Config::new(node_ip, arguments.secure_port);
    config.service_cidrs.clone_from(&arguments.service_cluster_ip_range);
    config.node_tls = Some(tls::node_client_config(&pki.client(&Identity::kubelet_client())?, pki.ca_pem())?);
    config.node_ports = arguments.service_node_port_range.0..=arguments.service_node_port_range.1;
    config.tokens = tokens(arguments.token_auth_file.as_deref())?;
    let token_keys = pki.token_keys()?;
    config.token_keys = Some(Arc::new(TokenKeys::new(token_keys.iter().map(String::as_str))?));
    config.root_ca = pki.ca_pem().to_owned();
    let mut addresses = vec![node_ip];
    addresses.extend(config.first_service_address());
    let server = ApiServer::start(config, store).await?;

    let tls = tls::server_config(&pki.server(&[hostname()], &addresses)?, pki.ca_pem())?;
    let kubeconfig = data_dir.join("kubeconfig");
    let url = format!("https://{}", SocketAddr::new(node_ip, arguments.secure_port));
    pki.write_kubeconfig(&kubeconfig, &url, &Identity::admin())?;

    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(portolan_apiserver::serve(server.clone(), listener, tls, stops(&stopped)));
    let controllers = in_process::client(&server, user(&Identity::controllers()), "portolan-controllers");
    let config = portolan_controllers::Config {
        cluster_cidrs: arguments.cluster_cidr.clone(),
        ..portolan_controllers::Config::default()
    };
    let mut monitored = Roles { announcer: None, allocator: Some(Arc::clone(&config.load_balancer_metrics)) };
    tokio::spawn(announcer::make_key(controllers.clone()));
    let controlling = tokio::spawn(control(controllers, config, arguments.etcd.given(), stops(&stopped)));

    let naming = start_dns(&arguments, &server, node_ip, &stopped);
    let node = if arguments.control_plane {
        None
    } else {
        let settings = node_settings(&arguments, &server, &pki, data_dir, node_ip)?;
        let node = node::start(settings, &stopped).await?;
        monitored.announcer = Some(node.announced());
        Some(node)
    };
    let address = arguments.lb_metrics_bind_address.unwrap_or_else(|| monitor::usual(node.is_some()));
    monitor::start(address, "--lb-metrics-bind-address", monitored);
    ready::say(&format!(
        "portolan is ready after {:.0} ms; next: export KUBECONFIG={}\nall state is in {}; Ctrl-C stops it",
        begin.elapsed().as_secs_f64() * 1e3,
        kubeconfig.display(),
        data_dir.display(),
    ));
    interrupted.await;
    tracing::info!("stopping");
    let _ = stop.send(true);
    if let Some(node) = node {
        node.ended().await;
    }
    // In this order: the controllers give up their lead, the server ends, then others need not send anybody here.
    let _ = controlling.await;
    if let Some(naming) = naming {
        let _ = naming.await;
    }
    let _ = serving.await;
    server.leave().await;
    Ok(())
}

/// The node of this host.
fn node_settings(
    arguments: &Arguments,
    server: &Arc<ApiServer>,
    pki: &Pki,
    data_dir: &Path,
    node_ip: IpAddr,
) -> anyhow::Result<NodeSettings> {
    let name = arguments.node_name.clone().unwrap_or_else(hostname);
    Ok(NodeSettings {
        agent_client: in_process::client(server, user(&Identity::node(&name)), "portolan-agent"),
        proxy_client: in_process::client(server, user(&Identity::proxy()), "portolan-proxy"),
        serving: Some(agent_serving(pki, &name, SocketAddr::new(node_ip, arguments.kubelet_port))?),
        node_name: name,
        node_ip,
        pod_max_pids: arguments.pods.max_pids(),
        data_dir: data_dir.join("node"),
        cluster_cidrs: arguments.cluster_cidr.clone(),
        names: arguments.names.clone().names(&arguments.service_cluster_ip_range),
        service_cidrs: arguments.service_cluster_ip_range.clone(),
        proxy_mode: arguments.proxy.proxy_mode,
        // Its pods end with this process: rules that lead to them must not stay.
        clean_up: true,
    })
}

/// The agent of this host's node, as the API server reaches it.
fn agent_serving(pki: &Pki, name: &str, address: SocketAddr) -> anyhow::Result<Serving> {
    let own = pki.client(&Identity::node(name))?;
    Ok(Serving::new(address, own.cert_pem.as_bytes(), own.key_pem.as_bytes(), pki.ca_pem().as_bytes())?)
}

/// Cluster DNS on this host's address, behind the Service `kube-dns`. The cluster works without it: what goes wrong is
/// logged.
fn start_dns(
    arguments: &Arguments,
    server: &Arc<ApiServer>,
    node_ip: IpAddr,
    stopped: &watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    let names = arguments.names.clone().names(&arguments.service_cluster_ip_range);
    let service_ip = *names.cluster_dns.first().filter(|_| !arguments.no_dns)?;
    let node_name = arguments.node_name.clone().unwrap_or_else(hostname);
    let mut cluster = portolan_dns::InCluster::new(service_ip, node_name, node_ip);
    cluster.cluster_domain = names.cluster_domain;
    cluster.upstreams =
        arguments.dns_upstream.iter().filter(|upstream| *upstream != "none").cloned().collect();
    let client = in_process::client(server, User::account("kube-system", "kube-dns"), "portolan-dns");
    let stop = stops(stopped);
    Some(tokio::spawn(async move {
        let running = portolan_dns::run_in_cluster(client, cluster, Progress::default(), stop);
        if let Err(error) = running.await {
            tracing::error!(%error, "cluster DNS stopped");
        }
    }))
}

/// The controllers: at once where there is no other control plane, else if this one is elected.
async fn control(
    client: Client,
    config: portolan_controllers::Config,
    shared: bool,
    shutdown: impl Future<Output = ()> + Send,
) {
    if !shared {
        return portolan_controllers::run(client, config, shutdown).await;
    }
    // Another process of this host, before or beside this one, must not be taken for it.
    let unique = RandomState::new().hash_one(std::process::id());
    let identity = format!("{}_{unique:016x}", hostname());
    let election = portolan_controllers::leader::Config::new(CONTROLLERS_LEASE, identity);
    portolan_controllers::run_elected(client, config, election, shutdown).await;
}

async fn listen(ip: IpAddr, port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::new(ip, port);
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Failure::PortBusy { address, flag: "secure-port" },
        _ => Failure::Listen { address, source },
    })
}

/// Ends when the program is to stop.
pub(crate) fn stops(stopped: &watch::Receiver<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stopped = stopped.clone();
    async move {
        // An error says that the sender is gone: that is an end as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    }
}

/// What ends on an interrupt or a request to terminate. From this call on, not from the first poll, signals are kept:
/// whoever says that it is ready has called it before, so that a signal right after the line is not the process' death.
pub(crate) fn interrupted() -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// The bearer tokens of a file.
fn tokens(path: Option<&Path>) -> anyhow::Result<HashMap<String, User>> {
    let Some(path) = path else { return Ok(HashMap::new()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    portolan_apiserver::authn::token_file(&text).with_context(|| path.display().to_string())
}

fn user(identity: &Identity) -> User {
    User::new(identity.user.clone(), identity.groups.clone())
}

pub(crate) fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    if name.is_empty() { "localhost".into() } else { name }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("{text:?} is not a range of ports such as 30000-32767");
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (from.trim().parse().map_err(|_| wrong())?, to.trim().parse().map_err(|_| wrong())?);
    if from == 0 || from > to {
        return Err(wrong());
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests {
    use super::port_range;

    #[test]
    fn port_ranges_are_read_or_refused_with_an_example() {
        assert_eq!(port_range("30000-32767"), Ok((30000, 32767)));
        for text in ["30000", "5-1", "0-10", "a-b", "1-70000"] {
            assert!(port_range(text).unwrap_err().contains("30000-32767"), "{text}");
        }
    }
}
