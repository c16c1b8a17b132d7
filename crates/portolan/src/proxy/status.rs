//! `portolan proxy status`: how the proxy on this host stands, from its own metrics and from the kernel.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, ValueEnum};
use portolan_dataplane::iptables;
use portolan_dataplane::ipvs::layout::is_ours;
use portolan_dataplane::nftables::layout;
use portolan_netlink::ipvs::{self, Ipvs as _};
use portolan_netlink::nft::{NfTables as _, Socket};
use portolan_proxy::{KUBE_PROXY_TABLE, Mode};
use serde::Serialize;

const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the proxy serves its metrics
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "IP:PORT")]
    metrics_bind_address: SocketAddr,
    #[arg(short, long, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<Proxy>,
    /// Why nothing is known of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    kernel: Kernel,
}

#[derive(Debug, Default, Serialize, PartialEq)]
struct Proxy {
    mode: String,
    services: u64,
    endpoints: u64,
    pending_changes: u64,
    /// Seconds since the epoch; 0: never.
    last_sync: f64,
    sync_failures: u64,
    /// Times others were heard changing our rules, and objects put right.
    intrusions: u64,
    mended_objects: u64,
    refused_services: u64,
    notes: u64,
}

#[derive(Debug, Serialize)]
struct Kernel {
    version: String,
    /// What this host can do in each mode, or why it cannot.
    modes: BTreeMap<&'static str, String>,
    /// Flows tracked now, and at most.
    conntrack: Option<(u64, u64)>,
    portolan_tables: Vec<String>,
    /// Of mode iptables, with the variant that holds them.
    portolan_chains: Vec<String>,
    /// Of mode ipvs, as `ipvsadm` names them.
    virtual_servers: Vec<VirtualServer>,
    kube_proxy_tables: Vec<String>,
}

#[derive(Debug, Serialize)]
struct VirtualServer {
    name: String,
    scheduler: String,
    /// Those that are on their way out have weight 0 and do not count.
    destinations: usize,
    leaving: usize,
    connections: u32,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (proxy, problem) = match ask(arguments.metrics_bind_address) {
        Ok(proxy) => (Some(proxy), None),
        Err(error) => {
            (None, Some(format!("no portolan proxy answers at {}: {error}", arguments.metrics_bind_address)))
        }
    };
    let status = Status { proxy, problem, kernel: kernel() };
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print!("{}", text(&status)),
    }
    let serves = status.proxy.is_some_and(|proxy| proxy.last_sync > 0.0);
    Ok(if serves { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(address: SocketAddr) -> anyhow::Result<Proxy> {
    let mode = get(address, "/proxyMode")?;
    let metrics = get(address, "/metrics")?;
    anyhow::ensure!(
        metrics.contains("portolan_proxy_"),
        "it is not portolan's, but perhaps kube-proxy ({mode})"
    );
    Ok(Proxy { mode: mode.trim().to_owned(), ..of_metrics(&metrics) })
}

fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => anyhow::bail!("it does not know {path}: another program's port?"),
    }
}

/// Reads the exposition text; of a metric with labels, the largest.
fn of_metrics(text: &str) -> Proxy {
    let mut values: BTreeMap<&str, f64> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or(name);
        let value = value.parse().unwrap_or(0.0);
        let held = values.entry(name).or_insert(value);
        *held = held.max(value);
    }
    let float = |name: &str| values.get(name).copied().unwrap_or(0.0);
    let count = |name: &str| float(name) as u64;
    Proxy {
        mode: String::new(),
        services: count("portolan_proxy_services"),
        endpoints: count("portolan_proxy_endpoints"),
        pending_changes: count("kubeproxy_sync_proxy_rules_service_changes_pending")
            + count("kubeproxy_sync_proxy_rules_endpoint_changes_pending"),
        last_sync: float("kubeproxy_sync_proxy_rules_last_timestamp_seconds"),
        sync_failures: count("kubeproxy_sync_proxy_rules_nftables_sync_failures_total"),
        intrusions: count("portolan_proxy_intrusions_total"),
        mended_objects: count("portolan_proxy_drift_objects_total"),
        refused_services: count("portolan_proxy_services_refused"),
        notes: count("portolan_proxy_notes_total"),
    }
}

fn kernel() -> Kernel {
    let version = rustix::system::uname().release().to_string_lossy().into_owned();
    let (mut ours, mut kube_proxys) = (Vec::new(), Vec::new());
    let tables = Socket::open().map_err(|e| e.to_string()).and_then(|mut socket| {
        let tables = socket.tables().map_err(|e| e.to_string())?;
        for info in &tables {
            match &*info.table.name {
                layout::TABLE | layout::IPVS_TABLE => ours.push(info.table.to_string()),
                KUBE_PROXY_TABLE => kube_proxys.push(info.table.to_string()),
                _ => {}
            }
        }
        Ok(())
    });
    let support = |mode: Mode| match (mode, &tables) {
        (Mode::Nftables, Err(error)) => format!("no: {error}"),
        _ => portolan_proxy::support(mode).unwrap_or_else(|error| format!("no: {error}")),
    };
    let modes = Mode::ALL.map(|mode| (mode.as_str(), support(mode))).into();
    let number = |name: &str| {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    Kernel {
        version,
        modes,
        conntrack: number("count").zip(number("max")),
        portolan_tables: ours,
        portolan_chains: iptables::holders(),
        virtual_servers: virtual_servers(),
        kube_proxy_tables: kube_proxys,
    }
}

/// None where IPVS is not loaded: asking would load it.
fn virtual_servers() -> Vec<VirtualServer> {
    if !ipvs::is_loaded() {
        return Vec::new();
    }
    let Ok(Some(mut kernel)) = ipvs::Socket::open() else { return Vec::new() };
    let mut servers = kernel.servers().unwrap_or_default();
    servers.retain(|server| is_ours(&server.key));
    servers.sort_unstable_by_key(|server| server.key);
    let describe = |server: ipvs::Server| {
        let states = kernel.destinations(&server.key).unwrap_or_default();
        let leaving = states.iter().filter(|state| state.destination.weight == 0).count();
        VirtualServer {
            name: server.key.to_string(),
            scheduler: server.scheduler.into(),
            destinations: states.len() - leaving,
            leaving,
            connections: states.iter().map(ipvs::DestinationState::connections).sum(),
        }
    };
    servers.into_iter().map(describe).collect()
}

/// So many virtual servers are named, the others counted.
const SERVERS_SHOWN: usize = 20;

fn server_lines(servers: &[VirtualServer]) -> Vec<String> {
    let line = |server: &VirtualServer| {
        let VirtualServer { name, scheduler, destinations, leaving, connections } = server;
        format!(
            "{name} {scheduler}: {destinations} destinations, {leaving} leaving, {connections} connections"
        )
    };
    let mut lines: Vec<_> = servers.iter().take(SERVERS_SHOWN).map(line).collect();
    if servers.len() > SERVERS_SHOWN {
        lines.push(format!("and {} more; `-o json` names all", servers.len() - SERVERS_SHOWN));
    }
    lines
}

fn text(status: &Status) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| lines.push(format!("{name:<16}{value}\n"));
    if let Some(proxy) = &status.proxy {
        line("mode", proxy.mode.clone());
        line("services", format!("{} with {} endpoints", proxy.services, proxy.endpoints));
        line("last sync", since(proxy.last_sync));
        line("pending", format!("{} changes", proxy.pending_changes));
        line("sync failures", proxy.sync_failures.to_string());
        line(
            "drift",
            format!("{} objects mended; others heard {} times", proxy.mended_objects, proxy.intrusions),
        );
        line(
            "odd input",
            format!("{} notes, {} Services refused; events say which", proxy.notes, proxy.refused_services),
        );
    }
    if let Some(problem) = &status.problem {
        line("proxy", problem.clone());
    }
    let kernel = &status.kernel;
    line("kernel", kernel.version.clone());
    for (mode, support) in &kernel.modes {
        line(mode, support.clone());
    }
    line(
        "conntrack",
        match kernel.conntrack {
            Some((count, max)) => format!("{count} flows of {max}"),
            None => "no: the kernel tracks no connections here".into(),
        },
    );
    let list = |tables: &[String]| if tables.is_empty() { "none".into() } else { tables.join(", ") };
    line("our tables", list(&kernel.portolan_tables));
    line("our chains", list(&kernel.portolan_chains));
    for server in server_lines(&kernel.virtual_servers) {
        line("virtual server", server);
    }
    line("kube-proxy's", list(&kernel.kube_proxy_tables));
    lines.concat()
}

fn since(timestamp: f64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    if timestamp > 0.0 { format!("{:.1} s ago", (now - timestamp).max(0.0)) } else { "never".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read() {
        let text = "# HELP x y\nkubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 12.5\n\
                    portolan_proxy_services 7\nportolan_proxy_drift_objects_total 3\n\
                    kubeproxy_sync_proxy_rules_service_changes_pending 1\n\
                    kubeproxy_sync_proxy_rules_endpoint_changes_pending 2\n\
                    kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 4\n\
                    kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"} 4\n# EOF\n";
        let expected = Proxy {
            services: 7,
            last_sync: 12.5,
            pending_changes: 3,
            sync_failures: 4,
            mended_objects: 3,
            ..Proxy::default()
        };
        assert_eq!(of_metrics(text), expected);
    }
}
