//! What an operator can choose, after the flags and files have been read.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::UDP_PAYLOAD_MAX;
use crate::server::tcp;
use crate::{forward, zone};

#[derive(Debug, Clone)]
pub struct Config {
    pub zone: zone::Options,
    /// Where questions are taken, by UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// UDP threads for each address; 0: one for each core.
    pub workers: usize,
    /// The longest answer over UDP.
    pub payload: u16,
    pub tcp: tcp::Limits,
    /// Names outside the cluster. `None`: refused.
    pub forward: Option<forward::Config>,
    /// Sources that are never limited.
    pub trusted: Vec<IpNet>,
    /// Answers per second for each network of other sources; 0: no limit.
    pub rate: u32,
    /// Only Services, slices and pods with these labels.
    pub labels: Option<String>,
    /// Only namespaces with these labels.
    pub namespace_labels: Option<String>,
    /// Off: no slices are watched, and there are no headless Services or names of endpoints.
    pub endpoints: bool,
    /// How long to wait for the API server before answering without it.
    pub startup_timeout: Duration,
    /// How long to go on answering after the request to stop.
    pub lameduck: Duration,
    /// `/health`
    pub health: Option<SocketAddr>,
    /// `/ready`
    pub ready: Option<SocketAddr>,
    /// `/metrics`
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// CoreDNS' defaults under kubeadm, where there are any.
    pub fn new(zone: zone::Options) -> Config {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Config {
            zone,
            listen: vec![any(53)],
            workers: 0,
            payload: UDP_PAYLOAD_MAX,
            tcp: tcp::Limits::default(),
            forward: None,
            trusted: private_ranges(),
            rate: 100,
            labels: None,
            namespace_labels: None,
            endpoints: true,
            startup_timeout: Duration::from_secs(5),
            lameduck: Duration::ZERO,
            health: Some(any(8080)),
            ready: Some(any(8181)),
            metrics: Some(any(9153)),
        }
    }
}

/// Loopback, private, carrier-grade NAT and link-local ranges: what clusters use for nodes and pods.
pub fn private_ranges() -> Vec<IpNet> {
    const RANGES: [&str; 9] = [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ];
    RANGES.iter().filter_map(|range| range.parse().ok()).collect()
}
