//! The proxy over the real kernel, in a network namespace of its own. Needs root.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_netlink::conntrack::{Conntrack, Family, Flow};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Route, Rt};
use portolan_proxy::Config;
use portolan_role::Progress;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

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
    slice_of("dns", "UDP", ip.as_slice())
}

fn slice_of(service: &str, protocol: &str, ips: &[&str]) -> Value {
    let endpoints: Vec<Value> = ips
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true }, "nodeName": "n1" }))
        .collect();
    json!({
        "metadata": { "name": format!("{service}-a"), "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "", "port": 5353, "protocol": protocol }],
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

/// A proxy that runs until it is stopped.
struct Running {
    progress: Progress,
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<Result<(), portolan_proxy::Error>>,
}

impl Running {
    fn start(api: &Arc<FakeApi>, config: Config) -> Self {
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let run = portolan_proxy::run(api.client(), config, progress.clone(), shutdown);
        Self { progress, stop, task: tokio::spawn(run) }
    }

    async fn synced(api: &Arc<FakeApi>, config: Config) -> Self {
        let running = Self::start(api, config);
        running.progress.ready().await;
        running
    }

    async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

/// Never by looking: only by hearing.
fn listening() -> Config {
    Config { verify_period: Duration::from_hours(1), ..config() }
}

fn nft(script: &str) -> String {
    let output = Command::new("nft").arg(script).output().unwrap();
    assert!(output.status.success(), "nft {script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Result<(), T>) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while let Err(found) = look() {
        assert!(Instant::now() < deadline, "{what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn rules_that_somebody_flushes_are_mended_at_once() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        let proxy = Running::synced(&api, listening()).await;
        answers(&client("10.96.0.10:53"), "10.244.0.1").await;
        let whole = nft("list table ip portolan");
        for damage in [
            "flush ruleset",
            "delete table ip portolan",
            "flush chain ip portolan services",
            "flush map ip portolan frontends",
            "add element ip portolan cluster-ips { 10.96.0.99 }",
        ] {
            nft(damage);
            until(damage, || {
                let output = Command::new("nft").arg("list table ip portolan").output().unwrap();
                let now = String::from_utf8(output.stdout).unwrap();
                if sorted(&now) == sorted(&whole) { Ok(()) } else { Err(now) }
            })
            .await;
            answers(&client("10.96.0.10:53"), "10.244.0.1").await;
        }
        nft("add table ip elsewhere");
        proxy.stop().await;
    });
}

/// Maps are listed in no particular order.
fn sorted(listing: &str) -> Vec<&str> {
    let mut words: Vec<&str> =
        listing.split([' ', '\n', '\t', ',']).filter(|word| !word.is_empty()).collect();
    words.sort_unstable();
    words
}

#[test]
fn a_second_proxy_on_a_node_is_refused_by_name() {
    let space = Space::new();
    space.run(async {
        let api = cluster(None);
        let first = Running::synced(&api, config()).await;
        let second = Running::start(&api, config()).task.await.unwrap().unwrap_err().to_string();
        assert!(second.contains("another portolan proxy runs here"), "{second}");
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        first.stop().await;
        Running::synced(&api, config()).await.stop().await;
    });
}

#[test]
fn a_kernel_that_refuses_is_asked_again_until_it_takes_the_rules() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        // A table that another program owns: the kernel lets nobody else touch it.
        let mut owner = Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().unwrap();
        let mut input = owner.stdin.take().unwrap();
        input.write_all(b"add table ip portolan { flags owner; }\n").unwrap();
        until("the owner's table", || match nft("list tables") {
            tables if tables.contains("portolan") => Ok(()),
            tables => Err(tables),
        })
        .await;
        let metrics = free_address();
        let proxy = Running::start(&api, Config { metrics_address: Some(metrics), ..config() });
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let text = get(metrics, "/metrics").await;
            if failures(&text) > 2 {
                break;
            }
            assert!(Instant::now() < deadline, "{text}");
        }
        assert!(!proxy.progress.is_ready());
        drop(input);
        owner.wait().unwrap();
        answers(&client("10.96.0.10:53"), "10.244.0.1").await;
        proxy.stop().await;
    });
}

fn failures(text: &str) -> u64 {
    let name = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} ";
    text.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Empty while nothing listens.
async fn get(address: SocketAddr, path: &str) -> String {
    let mut answer = String::new();
    let Ok(mut stream) = TcpStream::connect(address).await else { return answer };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn the_last_good_rules_stay_while_the_api_is_in_trouble() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        Running::synced(&api, config()).await.stop().await;
        let by_cluster_ip = client("10.96.0.10:53");
        answers(&by_cluster_ip, "10.244.0.1").await;
        let before = nft("list table ip portolan");

        // The API is down at the start.
        let seen = api.requests().len();
        api.fail_next(12, 503, "ServiceUnavailable");
        let proxy = Running::start(&api, listening());
        until("failed requests", || match api.requests().len() - seen {
            count if count > 8 => Ok(()),
            count => Err(count),
        })
        .await;
        assert!(!proxy.progress.is_ready());
        assert_eq!(nft("list table ip portolan"), before);
        answers(&by_cluster_ip, "10.244.0.1").await;
        proxy.progress.ready().await;
        assert_eq!(nft("list table ip portolan"), before, "nothing that was right is written again");

        // Later: watches end, history is gone (410), lists fail half way.
        api.expire();
        api.drop_watches();
        api.fail_next(12, 500, "InternalError");
        let seen = api.requests().len();
        until("failed requests", || match api.requests().len() - seen {
            count if count > 6 => Ok(()),
            count => Err(count),
        })
        .await;
        assert_eq!(nft("list table ip portolan"), before);
        backend("10.244.0.2");
        api.put(&paths::ENDPOINT_SLICES, slice(Some("10.244.0.2")));
        answers(&by_cluster_ip, "10.244.0.2").await;
        proxy.stop().await;
    });
}

#[test]
fn ct_2_udp_flows_leave_endpoints_that_are_gone() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        backend("10.244.0.2");
        let api = cluster(Some("10.244.0.1"));
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let proxy = tokio::spawn(portolan_proxy::run(api.client(), config(), progress.clone(), shutdown));
        progress.ready().await;
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
fn ct_2_a_flow_from_before_the_rules_finds_its_endpoint() {
    let space = Space::new();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        let service = api.get(&paths::SERVICES, "default", "dns").unwrap();
        api.remove(&paths::SERVICES, "default", "dns");
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let proxy = tokio::spawn(portolan_proxy::run(api.client(), config(), progress.clone(), shutdown));
        progress.ready().await;
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

const SCTP: u8 = 132;

/// Sends the first chunk of an SCTP association. By a raw socket: kernels without SCTP of their own track it all the
/// same.
fn begin_association(from_port: u16, to: &str) {
    use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType, socket_with};
    let to: SocketAddr = to.parse().unwrap();
    let protocol = Protocol::from_raw(u32::from(SCTP).try_into().unwrap());
    let socket =
        socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol)).unwrap();
    rustix::net::bind(&socket, &"192.0.2.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let mut packet = Vec::new();
    packet.extend(from_port.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    // No verification tag yet; the kernel does not check sums of what it sends itself.
    packet.extend([0; 8]);
    // INIT of 20 bytes: tag, window, streams out and in, first sequence number.
    packet.extend([1, 0, 0, 20]);
    packet.extend([0, 0, 0, 9, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let to = SocketAddr::new(to.ip(), 0);
    rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to).unwrap();
}

/// Client ports of the associations with the Service, and the endpoints that they lead to.
fn associations() -> Vec<(u16, String)> {
    let flows = Conntrack::open().unwrap().flows(Family::V4).unwrap();
    let of_service =
        |flow: &&Flow| flow.original.proto == SCTP && flow.original.dst.to_string() == "10.96.0.20";
    let mut found: Vec<_> = flows
        .iter()
        .filter(of_service)
        .map(|flow| (flow.original.src_port().unwrap(), flow.reply.src.to_string()))
        .collect();
    found.sort();
    found
}

#[test]
fn ct_2_sctp_associations_leave_endpoints_that_are_gone_and_others_stay() {
    let space = Space::new();
    // Unanswered ones would be forgotten within seconds by themselves.
    for state in ["closed", "cookie_wait", "cookie_echoed", "established"] {
        let key = format!("net/netfilter/nf_conntrack_sctp_timeout_{state}");
        space.netns.set_sysctl(&key, "600").unwrap();
    }
    space.run(async {
        let api = cluster(None);
        api.put(
            &paths::SERVICES,
            json!({
                "metadata": { "name": "signal", "uid": "s" },
                "spec": { "type": "ClusterIP", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"],
                          "ports": [{ "port": 38412, "protocol": "SCTP" }] },
            }),
        );
        let (one, two) = ("10.244.0.1", "10.244.0.2");
        api.put(&paths::ENDPOINT_SLICES, slice_of("signal", "SCTP", &[one, two]));
        let proxy = Running::synced(&api, config()).await;
        // Endpoints are picked at random.
        let mut before = Vec::new();
        for port in 4000..4200 {
            begin_association(port, "10.96.0.20:38412");
            before = associations();
            if [one, two].iter().all(|ip| before.iter().any(|(_, endpoint)| endpoint == ip)) {
                break;
            }
        }
        let of = |ip: &str| before.iter().filter(|(_, e)| e == ip).cloned().collect::<Vec<_>>();
        assert!(!of(one).is_empty() && !of(two).is_empty(), "{before:?}");

        api.put(&paths::ENDPOINT_SLICES, slice_of("signal", "SCTP", &[two]));
        let left = of(two);
        until("those to the endpoint that is gone", || match associations() {
            now if now == left => Ok(()),
            now => Err(now),
        })
        .await;
        // The client sends again, and is served.
        let (again, _) = of(one)[0];
        begin_association(again, "10.96.0.20:38412");
        assert!(associations().contains(&(again, two.to_owned())), "{:?}", associations());

        api.put(&paths::ENDPOINT_SLICES, slice_of("signal", "SCTP", &[]));
        until("all of them", || match associations() {
            now if now.is_empty() => Ok(()),
            now => Err(now),
        })
        .await;
        proxy.stop().await;
    });
}

/// A LoadBalancer with one address that the node handles and one that is the balancer's own.
fn load_balancer(node_port: Option<u16>) -> Value {
    json!({
        "metadata": { "name": "dns", "uid": "u" },
        "spec": { "type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
                  "allocateLoadBalancerNodePorts": false,
                  "ports": [{ "port": 53, "nodePort": node_port, "protocol": "UDP" }] },
        "status": { "loadBalancer": { "ingress": [
            { "ip": "203.0.113.9", "ipMode": "Proxy" }, { "ip": "203.0.113.10", "ipMode": "VIP" },
            { "hostname": "balancer.example" },
        ] } },
    })
}

#[test]
fn lb_2_and_3_the_node_handles_its_addresses_only_and_node_ports_where_there_are_any() {
    let space = Space::new();
    let mut rt = Rt::open_in(&space.netns).unwrap();
    let lo = rt.link("lo").unwrap().index;
    rt.add_route(&Route::on_link("203.0.113.0/24".parse().unwrap(), lo)).unwrap();
    space.run(async {
        backend("10.244.0.1");
        let api = cluster(Some("10.244.0.1"));
        api.put(&paths::SERVICES, load_balancer(None));
        let proxy = Running::synced(&api, config()).await;
        answers(&client("203.0.113.10:53"), "10.244.0.1").await;
        // The other goes out as it is, to the balancer.
        client("203.0.113.9:53").send(b"who").unwrap();
        let flows = Conntrack::open().unwrap().flows(Family::V4).unwrap();
        let to_balancer: Vec<&Flow> =
            flows.iter().filter(|flow| flow.original.dst.to_string() == "203.0.113.9").collect();
        assert!(!to_balancer.is_empty() && to_balancer.iter().all(|flow| !flow.is_dnat()), "{flows:?}");
        assert!(!nft("list map ip portolan nodeports").contains("elements"));
        // One that exists already stays until somebody clears it.
        api.put(&paths::SERVICES, load_balancer(Some(30053)));
        answers(&client("192.0.2.1:30053"), "10.244.0.1").await;
        proxy.stop().await;
    });
}
