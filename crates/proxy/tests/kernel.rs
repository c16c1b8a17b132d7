//! The proxy over the real kernel, in a network namespace of its own. Needs root.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_netlink::conntrack::{Conntrack, Family};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Route, Rt};
use portolan_proxy::{Config, Progress};
use serde_json::{Value, json};

/// A namespace that goes with the test.
struct Space {
    netns: Netns,
    path: PathBuf,
}

impl Space {
    fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("portolan-proxy-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from("/run/netns").join(name);
        let netns = Netns::create(&path).expect("making a network namespace needs root");
        let mut rt = Rt::open_in(&netns).unwrap();
        rt.set_up("lo").unwrap();
        for address in ["192.0.2.1/32", "10.244.0.1/32", "10.244.0.2/32"] {
            rt.add_address("lo", address.parse().unwrap()).unwrap();
        }
        let lo = rt.link("lo").unwrap().index;
        rt.add_route(&Route::on_link("10.96.0.0/16".parse().unwrap(), lo)).unwrap();
        Self { netns, path }
    }

    /// Runs a test inside, on one thread with its own runtime.
    fn run(&self, test: impl Future<Output = ()> + Send) {
        let body = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test);
        };
        self.netns.run(body).unwrap();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        _ = Netns::delete(&self.path);
    }
}

fn slice(ip: Option<&str>) -> Value {
    let endpoints: Vec<Value> = ip
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true }, "nodeName": "n1" }))
        .collect();
    json!({
        "metadata": { "name": "dns-a", "labels": { "kubernetes.io/service-name": "dns" } },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "", "port": 5353, "protocol": "UDP" }],
    })
}

fn cluster(endpoint: Option<&str>) -> Arc<FakeApi> {
    let api = FakeApi::new();
    api.put(
        &paths::NODES,
        json!({ "metadata": { "name": "n1" }, "status": { "addresses": [{ "type": "InternalIP", "address": "192.0.2.1" }] } }),
    );
    api.put(
        &paths::SERVICES,
        json!({
            "metadata": { "name": "dns", "uid": "u" },
            "spec": { "type": "NodePort", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                      "ports": [{ "port": 53, "nodePort": 30053, "protocol": "UDP" }] },
        }),
    );
    api.put(&paths::ENDPOINT_SLICES, slice(endpoint));
    api
}

fn config() -> Config {
    Config { healthz_address: None, metrics_address: None, ..Config::new("n1") }
}

/// Answers with its own name for as long as the process lives.
fn backend(ip: &'static str) {
    let socket = UdpSocket::bind((ip.parse::<Ipv4Addr>().unwrap(), 5353)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(ip.as_bytes(), from).is_err() {
                return;
            }
        }
    });
}

/// Sends on the same socket, so with the same flow, until `expected` answers.
async fn answers(socket: &UdpSocket, expected: &str) {
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = String::new();
    while last != expected {
        assert!(Instant::now() < deadline, "{last:?} answers, not {expected}");
        let mut buffer = [0; 64];
        // Refused while there are no rules or no endpoint: try again.
        last = match socket.send(b"who").and_then(|_| socket.recv(&mut buffer)) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) => error.to_string(),
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn client(to: &str) -> UdpSocket {
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    socket.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
    socket
}

#[test]
fn udp_flows_leave_endpoints_that_are_gone() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        backend("10.244.0.2");
        let api = cluster(Some("10.244.0.1"));
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let proxy =
            tokio::spawn(portolan_proxy::run_reporting(api.client(), config(), progress.clone(), shutdown));
        progress.synced().await;
        let (by_cluster_ip, by_node_port) = (client("10.96.0.10:53"), client("192.0.2.1:30053"));
        answers(&by_cluster_ip, "10.244.0.1").await;
        answers(&by_node_port, "10.244.0.1").await;
        api.put(&paths::ENDPOINT_SLICES, slice(Some("10.244.0.2")));
        answers(&by_cluster_ip, "10.244.0.2").await;
        answers(&by_node_port, "10.244.0.2").await;
        drop(stop);
        proxy.await.unwrap().unwrap();
        answers(&client("10.96.0.10:53"), "10.244.0.2").await;
        assert_eq!(portolan_proxy::cleanup(), Vec::<String>::new());
    });
}

#[test]
fn a_flow_from_before_the_rules_finds_its_endpoint() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        let service = api.get(&paths::SERVICES, "default", "dns").unwrap();
        api.remove(&paths::SERVICES, "default", "dns");
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let proxy =
            tokio::spawn(portolan_proxy::run_reporting(api.client(), config(), progress.clone(), shutdown));
        progress.synced().await;
        // Sent while nobody translates: the kernel tracks the flow as it is.
        let early = client("10.96.0.10:53");
        early.send(b"hello").unwrap();
        let flows = Conntrack::open().unwrap().flows(Family::V4).unwrap();
        assert!(
            flows.iter().any(|flow| flow.original.dst_port() == Some(53) && !flow.is_dnat()),
            "{flows:?}"
        );
        api.put(&paths::SERVICES, service);
        answers(&early, "10.244.0.1").await;
        drop(stop);
        proxy.await.unwrap().unwrap();
    });
}
