//! The proxy's loop against an API server in memory and a data plane that is a map: what reaches the kernel, when, and
//! how often.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_dataplane::{Change, DataPlane, Objects};
use portolan_forward::{NodeView, ServiceTable};
use portolan_proxy::Config;
use portolan_role::Progress;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// The kernel of these tests: frontends and the endpoints behind them.
#[derive(Debug, Default)]
struct Kernel {
    objects: BTreeMap<String, String>,
    /// How many objects each commit changed.
    commits: Vec<usize>,
    failures: VecDeque<()>,
}

#[derive(Clone, Default)]
struct Plane {
    kernel: Arc<Mutex<Kernel>>,
    rest: Duration,
}

#[derive(Debug, thiserror::Error)]
#[error("made to fail")]
struct Failed;

impl DataPlane for Plane {
    type Key = String;
    type Value = String;
    type Entry = ();
    type Batch = Vec<Change<String, String>>;
    type Error = Failed;

    fn base(&self, node: &NodeView, out: &mut Objects<String, String>) {
        out.insert("node".into(), format!("{:?}", node.addresses));
    }

    fn lower(&self, _: &ServiceTable, _: Option<(&ServiceTable, &())>) {}

    fn recall(&self, _: &ServiceTable, _: &Objects<String, String>) -> Option<()> {
        Some(())
    }

    fn objects(&self, _: &NodeView, table: &ServiceTable, (): &(), out: &mut Objects<String, String>) {
        for port in &table.ports {
            let endpoints: Vec<String> = port
                .cluster
                .iter()
                .map(|endpoint| format!("{}:{}", endpoint.address, endpoint.port))
                .collect();
            for frontend in &port.frontends {
                let address = frontend.kind.address().map_or("node".into(), |ip| ip.to_string());
                out.insert(format!("{address}:{}/{}", frontend.port, port.key.protocol), endpoints.join(" "));
            }
        }
    }

    fn is_shared(&self, _: &String) -> bool {
        false
    }

    fn plan(&self, changes: Vec<Change<String, String>>) -> Self::Batch {
        changes
    }

    fn weight(&self, batch: &Self::Batch) -> usize {
        batch.len()
    }

    fn commit(&mut self, batch: Self::Batch) -> Result<(), Failed> {
        let mut kernel = self.kernel.lock().unwrap();
        if kernel.failures.pop_front().is_some() {
            return Err(Failed);
        }
        kernel.commits.push(batch.len());
        for change in batch {
            match change.to {
                Some(to) => kernel.objects.insert(change.key, to),
                None => kernel.objects.remove(&change.key),
            };
        }
        Ok(())
    }

    fn rest(&self, _: Duration) -> Duration {
        self.rest
    }

    fn observe(&mut self) -> Result<Objects<String, String>, Failed> {
        let kernel = self.kernel.lock().unwrap();
        Ok(kernel.objects.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn cleanup(&mut self) -> Vec<Failed> {
        self.kernel.lock().unwrap().objects.clear();
        Vec::new()
    }
}

struct Proxy {
    plane: Plane,
    progress: Progress,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: JoinHandle<Result<(), portolan_proxy::Error>>,
}

fn config() -> Config {
    Config { healthz_address: None, metrics_address: None, ..Config::new("n1") }
}

fn api() -> Arc<FakeApi> {
    let api = FakeApi::new();
    api.put(&paths::NODES, node("192.0.2.1"));
    api
}

fn node(ip: &str) -> Value {
    json!({
        "metadata": { "name": "n1" },
        "status": { "addresses": [{ "type": "InternalIP", "address": ip }] },
    })
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}") },
        "spec": { "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                  "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}

fn slice(name: &str, service: &str, ips: &[&str]) -> Value {
    let endpoints: Vec<Value> = ips
        .iter()
        .map(|ip| json!({ "addresses": [ip], "conditions": { "ready": true }, "nodeName": "n1" }))
        .collect();
    json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "endpoints": endpoints,
        "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
    })
}

impl Proxy {
    fn start(api: &Arc<FakeApi>, config: Config, plane: Plane) -> Self {
        let progress = Progress::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shutdown = async { _ = stopped.await };
        let task = tokio::spawn(portolan_proxy::run_with(
            api.client(),
            config,
            plane.clone(),
            progress.clone(),
            shutdown,
        ));
        Self { plane, progress, stop: Some(stop), task }
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        self.task.await.unwrap().unwrap();
    }

    fn commits(&self) -> Vec<usize> {
        self.plane.kernel.lock().unwrap().commits.clone()
    }

    async fn eventually<T: Debug>(&self, what: &str, look: impl Fn(&Kernel) -> Result<(), T>) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match look(&self.plane.kernel.lock().unwrap()) {
                Ok(()) => return,
                Err(found) => assert!(Instant::now() < deadline, "{what}: {found:?}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The frontend is in the kernel with these endpoints; `None`: it is not there.
    async fn serves(&self, frontend: &str, endpoints: Option<&str>) {
        self.eventually(frontend, |kernel| {
            let found = kernel.objects.get(frontend).map(String::as_str);
            if found == endpoints { Ok(()) } else { Err(kernel.objects.clone()) }
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_there_first_is_one_commit_and_changes_follow() {
    let api = api();
    for i in 1..=50 {
        api.put(&paths::SERVICES, service(&format!("s{i}"), &format!("10.96.0.{i}")));
        api.put(&paths::ENDPOINT_SLICES, slice(&format!("s{i}-a"), &format!("s{i}"), &["10.0.0.1"]));
    }
    let proxy = Proxy::start(&api, config(), Plane::default());
    proxy.progress.ready().await;
    assert_eq!(proxy.commits(), [51], "all Services and the node");
    api.put(&paths::ENDPOINT_SLICES, slice("s7-a", "s7", &["10.0.0.1", "10.0.0.2"]));
    proxy.serves("10.96.0.7:80/TCP", Some("10.0.0.1:8080 10.0.0.2:8080")).await;
    api.put(&paths::ENDPOINT_SLICES, slice("s7-b", "s7", &["10.0.0.3"]));
    proxy.serves("10.96.0.7:80/TCP", Some("10.0.0.1:8080 10.0.0.2:8080 10.0.0.3:8080")).await;
    assert_eq!(proxy.commits(), [51, 1, 1], "one change, one object");
    api.remove(&paths::SERVICES, "default", "s7");
    proxy.serves("10.96.0.7:80/TCP", None).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_restart_changes_nothing_that_is_right() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &["10.0.0.1"]));
    let first = Proxy::start(&api, config(), Plane::default());
    first.serves("10.96.0.1:80/TCP", Some("10.0.0.1:8080")).await;
    let plane = first.plane.clone();
    first.stop().await;
    let before = plane.kernel.lock().unwrap().commits.len();
    assert!(!plane.kernel.lock().unwrap().objects.is_empty(), "a stopped proxy leaves the rules");
    let second = Proxy::start(&api, config(), plane);
    second.progress.ready().await;
    assert_eq!(second.commits().len(), before);
    second.stop().await;
}

#[tokio::test]
async fn a_failed_commit_is_made_good() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let proxy = Proxy::start(&api, config(), Plane::default());
    proxy.progress.ready().await;
    proxy.plane.kernel.lock().unwrap().failures.extend([(), ()]);
    api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &["10.0.0.1"]));
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.1:8080")).await;
    api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &["10.0.0.2"]));
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.2:8080")).await;
    proxy.stop().await;
}

#[tokio::test]
async fn what_others_change_is_put_right() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &["10.0.0.1"]));
    let config = Config { verify_period: Duration::from_millis(10), ..config() };
    let proxy = Proxy::start(&api, config, Plane::default());
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.1:8080")).await;
    {
        let mut kernel = proxy.plane.kernel.lock().unwrap();
        kernel.objects.clear();
        kernel.objects.insert("stranger".into(), String::new());
    }
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.1:8080")).await;
    proxy.serves("stranger", None).await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_storm_coalesces_and_nothing_is_lost() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let config = Config { min_sync_period: Duration::from_millis(100), ..config() };
    let proxy = Proxy::start(&api, config, Plane::default());
    proxy.progress.ready().await;
    for i in 1..=200 {
        api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &[&format!("10.0.0.{i}")]));
        tokio::task::yield_now().await;
    }
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.200:8080")).await;
    assert!(proxy.commits().len() < 20, "{:?}", proxy.commits());
    proxy.stop().await;
}

#[tokio::test]
async fn changes_gather_while_the_data_plane_rests() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let plane = Plane { rest: Duration::from_millis(300), ..Plane::default() };
    let proxy = Proxy::start(&api, config(), plane);
    proxy.progress.ready().await;
    let begin = Instant::now();
    for i in 1..=20 {
        api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &[&format!("10.0.0.{i}")]));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.20:8080")).await;
    let commits_max = 3 + begin.elapsed().as_millis() / 300;
    assert!(proxy.commits().len() as u128 <= commits_max, "{:?}, not {commits_max}", proxy.commits());
    proxy.stop().await;
}

#[tokio::test]
async fn the_node_is_waited_for_and_followed() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let proxy = Proxy::start(&api, config(), Plane::default());
    api.put(&paths::NODES, json!({ "metadata": { "name": "n1" } }));
    api.put(&paths::NODES, node("192.0.2.7"));
    proxy.progress.ready().await;
    proxy.serves("node", Some("[192.0.2.7]")).await;
    assert_eq!(proxy.commits().len(), 1, "nothing before the node had an address");
    api.put(&paths::NODES, node("192.0.2.8"));
    proxy.serves("node", Some("[192.0.2.8]")).await;
    proxy.stop().await;
    let short = Config { node_wait: Duration::from_millis(10), ..config() };
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let proxy = Proxy::start(&api, short, Plane::default());
    proxy.serves("10.96.0.1:80/TCP", Some("")).await;
    proxy.stop().await;
}

#[tokio::test]
async fn one_bad_service_does_not_block_the_others() {
    let api = api();
    let mut bad = service("bad", "10.96.0.1");
    bad["spec"]["clusterIPs"] = json!(["10.96.0.1", "nonsense"]);
    bad["spec"]["ports"] = json!([{ "port": 123_456 }, { "port": 81 }]);
    api.put(&paths::SERVICES, bad);
    api.put(&paths::SERVICES, json!({ "metadata": { "name": "worse" }, "spec": { "ports": "none" } }));
    api.put(&paths::SERVICES, service("good", "10.96.0.2"));
    let proxy = Proxy::start(&api, config(), Plane::default());
    proxy.serves("10.96.0.2:80/TCP", Some("")).await;
    proxy.serves("10.96.0.1:81/TCP", Some("")).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let events = api.all(&paths::EVENTS);
        let about_bad = |event: &&Value| {
            event["involvedObject"]["name"] == "bad" && event["message"].to_string().contains("nonsense")
        };
        if events.iter().any(|event| about_bad(&event)) {
            break;
        }
        assert!(Instant::now() < deadline, "{events:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    proxy.stop().await;
}

#[tokio::test]
async fn services_of_others_are_left_to_them() {
    let api = api();
    let mut other = service("other", "10.96.0.1");
    other["metadata"]["labels"] = json!({ "service.kubernetes.io/service-proxy-name": "someone" });
    api.put(&paths::SERVICES, other.clone());
    let mut headless = slice("web-headless", "web", &["10.0.0.9"]);
    headless["metadata"]["labels"]["service.kubernetes.io/headless"] = "".into();
    api.put(&paths::ENDPOINT_SLICES, headless);
    api.put(&paths::SERVICES, service("web", "10.96.0.2"));
    let proxy = Proxy::start(&api, config(), Plane::default());
    proxy.serves("10.96.0.2:80/TCP", Some("")).await;
    proxy.serves("10.96.0.1:80/TCP", None).await;
    other["metadata"].as_object_mut().unwrap().remove("labels");
    api.put(&paths::SERVICES, other);
    proxy.serves("10.96.0.1:80/TCP", Some("")).await;
    proxy.stop().await;
}

#[tokio::test]
async fn cleanup_on_exit_is_a_choice() {
    let api = api();
    let proxy = Proxy::start(&api, Config { cleanup_on_exit: true, ..config() }, Plane::default());
    proxy.progress.ready().await;
    let plane = proxy.plane.clone();
    proxy.stop().await;
    assert!(plane.kernel.lock().unwrap().objects.is_empty());
}

/// An address of the loopback interface that nobody listens on right now.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// The whole answer to `GET path`, once something answers.
async fn get(address: SocketAddr, path: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn node_2_healthz_metrics_and_mode_are_served() {
    let api = api();
    api.put(&paths::SERVICES, service("web", "10.96.0.1"));
    let (healthz, metrics) = (free_address(), free_address());
    let config = Config {
        healthz_address: Some(healthz),
        metrics_address: Some(metrics),
        shown: Some("{\"mode\":\"nftables\"}".into()),
        ..config()
    };
    let proxy = Proxy::start(&api, config, Plane::default());
    proxy.progress.ready().await;
    let answer = get(healthz, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"nodeEligible\":true"), "{answer}");
    assert!(get(healthz, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(healthz, "/else").await.starts_with("HTTP/1.1 404"));
    assert!(get(metrics, "/proxyMode").await.ends_with("nftables"));
    assert!(get(metrics, "/healthz").await.ends_with("ok"));
    let indicators = get(metrics, "/metrics/slis").await;
    for line in [
        "kubernetes_healthcheck{name=\"ping\",type=\"healthz\"} 1",
        "kubernetes_healthcheck{name=\"sync\",type=\"livez\"} 1",
        "kubernetes_healthchecks_total{name=\"sync\",status=\"success\",type=\"healthz\"} 1",
    ] {
        assert!(indicators.contains(line), "{line} is not in\n{indicators}");
    }
    let configz = get(metrics, "/configz").await;
    assert!(configz.trim().ends_with("{\"kubeproxy.config.k8s.io\":{\"mode\":\"nftables\"}}"), "{configz}");
    let text = get(metrics, "/metrics").await;
    assert!(text.contains("kubeproxy_sync_proxy_rules_service_changes_pending 0"), "{text}");
    assert!(
        text.contains("kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"} 1"),
        "{text}"
    );
    assert!(text.contains("portolan_proxy_services 1"), "{text}");
    let mut going = node("192.0.2.1");
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    api.put(&paths::NODES, going);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !get(healthz, "/healthz").await.starts_with("HTTP/1.1 503") {
        assert!(Instant::now() < deadline, "a node that goes is not healthy");
    }
    assert!(get(healthz, "/livez").await.starts_with("HTTP/1.1 200"));
    proxy.stop().await;
}

#[tokio::test]
async fn np_3_health_check_node_ports_count_local_endpoints() {
    let api = FakeApi::new();
    api.put(&paths::NODES, node("127.0.0.1"));
    let port = free_address().port();
    let mut web = service("web", "10.96.0.1");
    web["spec"]["type"] = "LoadBalancer".into();
    web["spec"]["externalTrafficPolicy"] = "Local".into();
    web["spec"]["healthCheckNodePort"] = port.into();
    api.put(&paths::SERVICES, web);
    let proxy = Proxy::start(&api, config(), Plane::default());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let answer = get(address, "/").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"localEndpoints\": 0"), "{answer}");
    api.put(&paths::ENDPOINT_SLICES, slice("web-a", "web", &["10.0.0.1", "10.0.0.2"]));
    proxy.serves("10.96.0.1:80/TCP", Some("10.0.0.1:8080 10.0.0.2:8080")).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = get(address, "/anything").await;
        if answer.starts_with("HTTP/1.1 200") {
            assert!(answer.contains("\r\nX-Load-Balancing-Endpoint-Weight: 2\r\n"), "{answer}");
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
    api.remove(&paths::SERVICES, "default", "web");
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "the port is closed with its Service");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_waited_for_or_the_end_as_one_likes() {
    let api = api();
    let taken = [0; 3].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    let [healthz_address, metrics_address, check] =
        taken.each_ref().map(|listener| listener.local_addr().ok());
    let config = Config { healthz_address, metrics_address, ..config() };
    let mut web = service("web", "10.96.0.1");
    web["spec"]["type"] = "LoadBalancer".into();
    web["spec"]["externalTrafficPolicy"] = "Local".into();
    web["spec"]["healthCheckNodePort"] = check.unwrap().port().into();
    api.put(&paths::SERVICES, web);
    let proxy = Proxy::start(&api, config.clone(), Plane::default());
    proxy.progress.ready().await;
    for (reason, about) in [
        ("FailedToStartProxierHealthcheck", "n1"),
        ("FailedToStartMetricServer", "n1"),
        ("FailedToStartServiceHealthcheck", "web"),
    ] {
        let said = |event: &Value| event["reason"] == reason && event["involvedObject"]["name"] == about;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !api.all(&paths::EVENTS).iter().any(said) {
            assert!(Instant::now() < deadline, "{:?}", api.all(&paths::EVENTS));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    proxy.stop().await;
    let config = Config { bind_address_hard_fail: true, ..config };
    let error = Proxy::start(&api, config, Plane::default()).task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("--healthz-bind-address"), "{error}");
}
