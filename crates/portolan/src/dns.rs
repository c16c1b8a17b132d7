//! `portolan dns`: cluster DNS alone, in place of CoreDNS, against any Kubernetes API server.
//!
//! Every option of CoreDNS' kubernetes, forward and cache plugins that clusters use has a flag here; a Corefile is not
//! read.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use portolan_client::{Client, Key};
use portolan_dns::Config;
use portolan_dns::forward::{self, CacheConfig, Policy, Stub};
use portolan_dns::name::Name;
use portolan_dns::server::tcp;
use portolan_dns::zone::{Options, PodRecords};
use portolan_netlink::rt::Rt;
use portolan_role::Progress;

use crate::up::interrupted;
use crate::{logging, ready};

const USER_AGENT: &str = "portolan-dns";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Access to the API server; otherwise that of the pod this runs in
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where to answer, by UDP and TCP
    #[arg(long, default_value = "0.0.0.0:53,[::]:53", value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// UDP threads for each address; otherwise one for each core
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// The longest answer over UDP in bytes
    #[arg(long, default_value_t = 1232, value_parser = clap::value_parser!(u16).range(512..=4096))]
    udp_size: u16,
    #[command(flatten)]
    cluster: ClusterArguments,
    #[command(flatten)]
    forward: ForwardArguments,
    #[command(flatten)]
    cache: CacheArguments,
    #[command(flatten)]
    guard: GuardArguments,
    #[command(flatten)]
    serve: ServeArguments,
}

/// The kubernetes plugin's options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names of the cluster")]
struct ClusterArguments {
    /// The cluster's domain
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// How long clients may keep names and denials, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    ttl: u32,
    /// Names of pods such as 10-1-2-3.default.pod.cluster.local; "verified" watches all pods
    #[arg(long, value_enum, default_value_t = Pods::Disabled)]
    pods: Pods,
    /// Reverse zones answered here
    #[arg(long, default_value = "in-addr.arpa,ip6.arpa", value_delimiter = ',')]
    reverse_zone: Vec<String>,
    /// Zones whose missing names are asked upstream instead of denied; "none": no zone
    #[arg(long, default_value = "in-addr.arpa,ip6.arpa", value_delimiter = ',')]
    fallthrough: Vec<String>,
    /// The only namespaces to show
    #[arg(long, value_delimiter = ',', conflicts_with = "namespace_labels")]
    namespaces: Vec<String>,
    /// Only namespaces with these labels
    #[arg(long)]
    namespace_labels: Option<String>,
    /// Only Services and slices with these labels
    #[arg(long)]
    labels: Option<String>,
    /// Name endpoints without a hostname after their pods instead of their addresses
    #[arg(long)]
    endpoint_pod_names: bool,
    /// Do not watch endpoints: there are no headless Services then
    #[arg(long)]
    no_endpoints: bool,
    /// Deny Services that have a ClusterIP and no ready endpoint
    #[arg(long)]
    ignore_empty_service: bool,
    /// Give reverse names to endpoints with a hostname only
    #[arg(long)]
    ptr_hostname_only: bool,
    /// The Service that leads to this server: its addresses are those of the zone's name server
    #[arg(long, default_value = "kube-system/kube-dns", value_parser = service_key)]
    dns_service: Key,
    /// How long to wait for the API server before answering without it, in seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    startup_timeout: Duration,
}

/// The forward plugin's options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Names outside the cluster")]
struct ForwardArguments {
    /// Who is asked: addresses, or a file like /etc/resolv.conf; "none" refuses such names
    #[arg(long, default_value = "/etc/resolv.conf", value_delimiter = ',')]
    forward: Vec<String>,
    /// Upstreams for one zone, as ZONE=ADDRESS,ADDRESS; may be repeated
    #[arg(long)]
    stub_domain: Vec<String>,
    /// Zones that are not forwarded
    #[arg(long, value_delimiter = ',')]
    except: Vec<String>,
    /// Which upstream is asked first
    #[arg(long, value_enum, default_value_t = PolicyName::Random)]
    policy: PolicyName,
    /// How long one upstream may take, in seconds
    #[arg(long, default_value = "2", value_parser = seconds)]
    forward_timeout: Duration,
    /// After so long the next upstream is asked as well, in seconds
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    forward_hedge: Duration,
    /// Questions to upstreams at once; more are refused
    #[arg(long, default_value_t = 1000)]
    max_concurrent: usize,
    /// An upstream is down after more failures in a row than this; 0: never
    #[arg(long, default_value_t = 2)]
    max_fails: u32,
    /// Between two looks at an upstream that failed, in seconds
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    health_check: Duration,
    /// Fail at once while every upstream is down, instead of trying one
    #[arg(long)]
    failfast_all_unhealthy_upstreams: bool,
    /// Ask upstreams by TCP only
    #[arg(long)]
    force_tcp: bool,
    /// Codes upon which the next upstream is asked
    #[arg(long, value_enum, value_delimiter = ',')]
    next: Vec<Code>,
}

/// The cache plugin's options.
#[derive(Debug, Args)]
#[command(next_help_heading = "Cache of names outside the cluster")]
struct CacheArguments {
    /// Answers kept at most, and as many denials; 0: none
    #[arg(long, default_value_t = 9984)]
    cache_entries: usize,
    /// The longest that answers are kept, in seconds
    #[arg(long, default_value = "3600", value_parser = seconds)]
    cache_ttl: Duration,
    /// The shortest, in seconds
    #[arg(long, default_value = "0", value_parser = seconds)]
    cache_min_ttl: Duration,
    /// The longest that denials are kept, in seconds
    #[arg(long, default_value = "1800", value_parser = seconds)]
    cache_denial_ttl: Duration,
    /// How long an expired answer may stand in while upstreams fail, in seconds; otherwise it may not
    #[arg(long, value_parser = seconds)]
    serve_stale: Option<Duration>,
    /// Ask again for what is asked often before it expires
    #[arg(long)]
    prefetch: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Protection")]
struct GuardArguments {
    /// UDP answers per second to each network of untrusted sources; 0: no limit
    #[arg(long, default_value_t = 100)]
    rate_limit: u32,
    /// Sources that are never limited; otherwise loopback, private and link-local ranges
    #[arg(long, value_delimiter = ',')]
    trusted: Vec<IpNet>,
    /// TCP connections at once
    #[arg(long, default_value_t = 1024)]
    tcp_connections: usize,
    /// TCP connections from one address
    #[arg(long, default_value_t = 64)]
    tcp_connections_per_source: usize,
    /// A TCP connection without a question for so long is closed, in seconds
    #[arg(long, default_value = "10", value_parser = seconds)]
    tcp_idle: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Health and metrics")]
struct ServeArguments {
    /// Where /health is served; "none": nowhere
    #[arg(long, default_value = "0.0.0.0:8080")]
    health: OrNone<SocketAddr>,
    /// Where /ready is served; "none": nowhere
    #[arg(long, default_value = "0.0.0.0:8181")]
    ready: OrNone<SocketAddr>,
    /// Where /metrics is served; "none": nowhere
    #[arg(long, default_value = "0.0.0.0:9153")]
    metrics: OrNone<SocketAddr>,
    /// How long to go on answering after the request to stop, in seconds
    #[arg(long, default_value = "5", value_parser = seconds)]
    lameduck: Duration,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Pods {
    Disabled,
    Insecure,
    Verified,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PolicyName {
    Random,
    RoundRobin,
    Sequential,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "lower")]
enum Code {
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
}

/// A value, or the word "none".
#[derive(Debug, Clone, Copy)]
struct OrNone<T>(Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "none" { Ok(OrNone(None)) } else { text.parse().map(|value| OrNone(Some(value))) }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no number of seconds such as 2 or 0.5");
    let number = text.trim_end_matches('s').parse::<f64>().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number).map_err(|_| wrong())
}

fn service_key(text: &str) -> Result<Key, String> {
    let (namespace, name) = text.split_once('/').ok_or_else(|| format!("{text:?} is not NAMESPACE/NAME"))?;
    Ok(Key::new(namespace, name))
}

fn name(text: &str) -> anyhow::Result<Name> {
    Name::parse(text).with_context(|| format!("{text:?} is no domain name"))
}

fn names(texts: &[String]) -> anyhow::Result<Vec<Name>> {
    texts.iter().filter(|text| *text != "none").map(|text| name(text)).collect()
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    logging::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(start(arguments))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(ExitCode::SUCCESS)
}

async fn start(arguments: Arguments) -> anyhow::Result<()> {
    let client = match &arguments.kubeconfig {
        Some(path) => Client::from_kubeconfig(path, USER_AGENT)?,
        None => Client::in_cluster(USER_AGENT)
            .context("--kubeconfig names no API server, and this is not a pod with access to one")?,
    };
    let config = config(&arguments)?;
    let progress = Progress::default();
    let say = async {
        progress.ready().await;
        ready::say("portolan dns answers every name of the cluster");
        std::future::pending::<()>().await;
    };
    let stops = interrupted()?;
    tokio::select! {
        result = portolan_dns::run(client, config, progress.clone(), stops) => result?,
        () = say => {}
    }
    Ok(())
}

fn config(arguments: &Arguments) -> anyhow::Result<Config> {
    let mut config = Config::new(options(&arguments.cluster)?);
    config.zone.own_addresses = own_addresses();
    config.listen.clone_from(&arguments.listen);
    config.workers = arguments.workers;
    config.payload = arguments.udp_size;
    config.tcp = tcp::Limits {
        connections: arguments.guard.tcp_connections,
        per_source: arguments.guard.tcp_connections_per_source,
        idle: arguments.guard.tcp_idle,
    };
    config.forward = Some(forwarding(&arguments.forward, &arguments.cache)?);
    if !arguments.guard.trusted.is_empty() {
        config.trusted.clone_from(&arguments.guard.trusted);
    }
    config.rate = arguments.guard.rate_limit;
    config.labels.clone_from(&arguments.cluster.labels);
    config.namespace_labels.clone_from(&arguments.cluster.namespace_labels);
    config.endpoints = !arguments.cluster.no_endpoints;
    config.startup_timeout = arguments.cluster.startup_timeout;
    config.lameduck = arguments.serve.lameduck;
    config.health = arguments.serve.health.0;
    config.ready = arguments.serve.ready.0;
    config.metrics = arguments.serve.metrics.0;
    Ok(config)
}

fn options(arguments: &ClusterArguments) -> anyhow::Result<Options> {
    let mut options = Options::new(&arguments.cluster_domain)
        .with_context(|| format!("{:?} is no domain name", arguments.cluster_domain))?;
    options.ttl = arguments.ttl;
    options.pods = match arguments.pods {
        Pods::Disabled => PodRecords::Disabled,
        Pods::Insecure => PodRecords::Insecure,
        Pods::Verified => PodRecords::Verified,
    };
    options.reverse = names(&arguments.reverse_zone)?;
    options.fallthrough = names(&arguments.fallthrough)?;
    options.namespaces = arguments.namespaces.iter().cloned().collect();
    options.endpoint_pod_names = arguments.endpoint_pod_names;
    options.ignore_empty_service = arguments.ignore_empty_service;
    options.ptr_hostname_only = arguments.ptr_hostname_only;
    options.dns_service = arguments.dns_service.clone();
    Ok(options)
}

fn forwarding(arguments: &ForwardArguments, cache: &CacheArguments) -> anyhow::Result<forward::Config> {
    let upstreams: Vec<String> = arguments.forward.iter().filter(|text| *text != "none").cloned().collect();
    let mut stubs = Vec::new();
    for text in &arguments.stub_domain {
        let (zone, servers) =
            text.split_once('=').with_context(|| format!("{text:?} is not ZONE=ADDRESS,ADDRESS"))?;
        let servers: Vec<String> = servers.split(',').map(Into::into).collect();
        stubs.push(Stub { zone: name(zone)?, upstreams: forward::upstreams(&servers)? });
    }
    for zone in &arguments.except {
        stubs.push(Stub { zone: name(zone)?, upstreams: Vec::new() });
    }
    Ok(forward::Config {
        upstreams: forward::upstreams(&upstreams)?,
        stubs,
        policy: match arguments.policy {
            PolicyName::Random => Policy::Random,
            PolicyName::RoundRobin => Policy::RoundRobin,
            PolicyName::Sequential => Policy::Sequential,
        },
        timeout: arguments.forward_timeout,
        hedge: arguments.forward_hedge,
        max_concurrent: arguments.max_concurrent,
        max_fails: arguments.max_fails,
        health_interval: arguments.health_check,
        fail_fast: arguments.failfast_all_unhealthy_upstreams,
        force_tcp: arguments.force_tcp,
        next_on: arguments.next.iter().map(|code| *code as u8).collect(),
        cache: CacheConfig {
            entries: cache.cache_entries,
            ttl_max: cache.cache_ttl,
            ttl_min: cache.cache_min_ttl,
            denial_ttl_max: cache.cache_denial_ttl,
            stale: cache.serve_stale,
            prefetch: cache.prefetch,
        },
        ..forward::Config::default()
    })
}

/// This host's addresses, to tell upstreams that are this server itself, and for the zone's name server.
fn own_addresses() -> Vec<IpAddr> {
    let addresses = Rt::open().and_then(|mut rt| rt.addresses()).unwrap_or_default();
    let all = addresses.iter().map(|address| address.net.addr());
    all.filter(|ip| !ip.is_loopback() && !is_link_local(*ip)).collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(flags: &[&str]) -> Result<Config, String> {
        let all = ["portolan", "--forward", "192.0.2.53"].iter().chain(flags);
        let command = Command::try_parse_from(all).map_err(|error| error.to_string())?;
        config(&command.arguments).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn defaults_are_those_of_coredns_under_kubeadm() {
        let config = parse(&[]).unwrap();
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["0.0.0.0:53", "[::]:53"]);
        assert_eq!(config.zone.zone.to_string(), "cluster.local.");
        assert_eq!((config.zone.ttl, config.zone.reverse.len(), config.zone.fallthrough.len()), (5, 2, 2));
        assert_eq!((config.metrics.unwrap().port(), config.ready.unwrap().port()), (9153, 8181));
        let forward = config.forward.unwrap();
        assert_eq!((forward.max_fails, forward.max_concurrent, forward.cache.entries), (2, 1000, 9984));
        assert_eq!(forward.timeout, Duration::from_secs(2));
    }

    #[test]
    fn every_flag_reaches_the_configuration() {
        let config = parse(&[
            "--cluster-domain=k8s.example",
            "--pods=verified",
            "--fallthrough=none",
            "--namespaces=a,b",
            "--dns-service=x/y",
            "--stub-domain=corp.example=192.0.2.1,192.0.2.2:54",
            "--except=secret.example",
            "--policy=round_robin",
            "--next=servfail,nxdomain",
            "--serve-stale=3600",
            "--metrics=none",
            "--trusted=192.0.2.0/24",
        ])
        .unwrap();
        assert_eq!(config.zone.pods, PodRecords::Verified);
        assert!(config.zone.fallthrough.is_empty() && config.metrics.is_none());
        assert_eq!(config.zone.dns_service, Key::new("x", "y"));
        assert_eq!((config.zone.namespaces.len(), config.trusted.len()), (2, 1));
        let forward = config.forward.unwrap();
        assert_eq!((forward.stubs[0].upstreams.len(), forward.stubs[1].upstreams.len()), (2, 0));
        assert_eq!((forward.policy, forward.next_on), (Policy::RoundRobin, vec![2, 3]));
        assert_eq!(forward.cache.stale, Some(Duration::from_hours(1)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (flags, said) in [
            (&["--cluster-domain=a..b"][..], "a..b"),
            (&["--stub-domain=corp.example"], "ZONE=ADDRESS"),
            (&["--dns-service=kube-dns"], "NAMESPACE/NAME"),
            (&["--ttl=4000"], "3600"),
            (&["--forward-timeout=x"], "seconds"),
            (&["--namespaces=a", "--namespace-labels=b"], "cannot be used with"),
        ] {
            let error = parse(flags).unwrap_err();
            assert!(error.contains(said), "{flags:?}: {error}");
        }
    }
}
