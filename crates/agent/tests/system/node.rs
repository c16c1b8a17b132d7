//! A node for a test: a network namespace with an agent in it, and an API server in memory.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use portolan_agent::Config;
use portolan_client::testing::FakeApi;
use portolan_client::{DeleteOptions, paths};
use portolan_netlink::netns::{self, Netns};
use portolan_netlink::rt::Rt;
use serde_json::{Value, json};
use std::os::fd::AsFd as _;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// How long anything may take here; only failures take it all.
const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `look` until it gives something.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn until(what: &str, mut look: impl FnMut() -> bool) {
    eventually(what, || look().then_some(()));
}

/// A named network namespace, removed at the end with all that runs in it.
pub(crate) struct Namespace {
    path: PathBuf,
    pub(crate) netns: Netns,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pt-agent-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let netns = Netns::create(&path).unwrap();
        Rt::open_in(&netns).unwrap().set_up("lo").unwrap();
        Self { path, netns }
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Gives it a link `eth0` with an address, connected to nothing.
    pub(crate) fn with_address(self, address: &str) -> Self {
        let mut rt = Rt::open_in(&self.netns).unwrap();
        rt.add_bridge("eth0").unwrap();
        rt.add_address("eth0", address.parse().unwrap()).unwrap();
        rt.set_up("eth0").unwrap();
        self
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.netns.kill_processes(Duration::from_secs(5)));
        drop(Netns::delete(&self.path));
    }
}

/// An agent at work.
pub(crate) struct Agent {
    shutdown: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts it on a thread that is in the node's namespace, with all threads that it starts.
    pub(crate) fn start(netns: &Netns, api: &Arc<FakeApi>, config: Config) -> Self {
        let (shutdown, signal) = oneshot::channel::<()>();
        let (netns, client) = (netns.try_clone().unwrap(), api.client());
        let thread = std::thread::spawn(move || {
            netns::enter(netns.as_fd()).unwrap();
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let signal = async { drop(signal.await) };
            runtime.block_on(portolan_agent::run(client, config, signal)).unwrap();
        });
        Self { shutdown: Some(shutdown), thread: Some(thread) }
    }

    pub(crate) fn stop(&mut self) {
        drop(self.shutdown.take());
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking());
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A node with its agent.
pub(crate) struct Node {
    pub(crate) agent: Agent,
    pub(crate) api: Arc<FakeApi>,
    pub(crate) ns: Namespace,
    pub(crate) config: Config,
    pub(crate) data: TempDir,
}

impl Node {
    /// `node-a`, 192.0.2.1, with pods from 10.88.1.0/24.
    pub(crate) fn start() -> Self {
        Self::start_with(FakeApi::new(), Namespace::new().with_address("192.0.2.1/24"), "node-a", 1)
    }

    pub(crate) fn start_with(api: Arc<FakeApi>, ns: Namespace, name: &str, number: u8) -> Self {
        Self::give_range(&api, name, number);
        Self::start_without_range(api, ns, name, number)
    }

    /// What a controller of the control plane does.
    pub(crate) fn give_range(api: &FakeApi, name: &str, number: u8) {
        let range = format!("10.88.{number}.0/24");
        let node = json!({"metadata": {"name": name, "uid": name}});
        let mut node = api.get(&paths::NODES, "", name).unwrap_or(node);
        node["spec"] = json!({"podCIDR": range, "podCIDRs": [range]});
        api.put(&paths::NODES, node);
    }

    /// As [`Node::start`], with pods of so many processes at most.
    pub(crate) fn start_limited(pod_max_pids: u32) -> Self {
        let api = FakeApi::new();
        Self::give_range(&api, "node-a", 1);
        let ns = Namespace::new().with_address("192.0.2.1/24");
        Self::start_configured(api, ns, "node-a", 1, |config| config.pod_max_pids = Some(pod_max_pids))
    }

    pub(crate) fn start_without_range(api: Arc<FakeApi>, ns: Namespace, name: &str, number: u8) -> Self {
        Self::start_configured(api, ns, name, number, |_| {})
    }

    fn start_configured(
        api: Arc<FakeApi>,
        ns: Namespace,
        name: &str,
        number: u8,
        configure: impl FnOnce(&mut Config),
    ) -> Self {
        let data = tempfile::tempdir().unwrap();
        let ip = IpAddr::from([192, 0, 2, number]);
        let mut config = Config::new(name, ip, data.path(), env!("CARGO_BIN_EXE_portolan-echo"));
        config.restart_backoff.initial = Duration::from_millis(300);
        configure(&mut config);
        let agent = Agent::start(&ns.netns, &api, config.clone());
        Self { agent, api, ns, config, data }
    }

    /// Binds a pod to this node.
    pub(crate) fn run(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = self.config.node_name.clone().into();
        let metadata =
            json!({"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1});
        self.api.put(&paths::PODS, json!({ "metadata": metadata, "spec": spec }));
    }

    pub(crate) fn delete(&self, name: &str, grace: u64) {
        let options = DeleteOptions { grace_period_seconds: Some(grace), ..DeleteOptions::default() };
        let client = self.api.client();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.delete(&paths::PODS, Some("shop"), name, &options)).unwrap();
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Value> {
        self.api.get(&paths::PODS, "shop", name)
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        self.pod(name).map(|pod| pod["status"].clone()).unwrap_or_default()
    }

    pub(crate) fn container(&self, name: &str) -> Value {
        self.status(name)["containerStatuses"][0].clone()
    }

    pub(crate) fn condition(&self, name: &str, type_: &str) -> Value {
        condition_of(&self.status(name), type_)
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.condition(name, "Ready")["status"] == "True"
    }

    pub(crate) fn wait_ready(&self, name: &str) -> String {
        until(&format!("{name} is ready: {}", self.status(name)), || self.is_ready(name));
        self.status(name)["podIP"].as_str().unwrap().to_owned()
    }

    pub(crate) fn pod_dir(&self, name: &str) -> PathBuf {
        self.data.path().join("pods").join(format!("shop_{name}"))
    }

    pub(crate) fn log_path(&self, pod: &str, container: &str, run: u32) -> PathBuf {
        self.pod_dir(pod).join("logs").join(container).join(format!("{run}.log"))
    }

    /// What a run of a container printed, without the times.
    pub(crate) fn log(&self, pod: &str, container: &str, run: u32) -> String {
        let records = std::fs::read_to_string(self.log_path(pod, container, run)).unwrap_or_default();
        let text = |record: &str| match record.splitn(4, ' ').collect::<Vec<_>>()[..] {
            [_, "stdout" | "stderr", "F", text] => format!("{text}\n"),
            [_, "stdout" | "stderr", "P", text] => text.to_owned(),
            _ => panic!("no record: {record:?}"),
        };
        records.lines().map(text).collect()
    }

    /// The messages of events about a pod, by reason.
    pub(crate) fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let ours = |e: &Value| e["involvedObject"]["name"] == pod && e["reason"] == reason;
        let all = self.api.all(&paths::EVENTS);
        all.iter().filter(|e| ours(e)).map(|e| e["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The names of the pods' links on the node.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = Rt::open_in(&self.ns.netns).unwrap().links().unwrap();
        links.into_iter().map(|link| link.name).filter(|name| name.starts_with("pt")).collect()
    }
}

/// One HTTP request from inside a namespace: status and body.
pub(crate) fn http(
    from: &Netns,
    method: &str,
    host: &str,
    port: u16,
    path: &str,
) -> std::io::Result<(u16, String)> {
    use std::io::{Read as _, Write as _};
    let address = std::net::SocketAddr::new(host.parse().unwrap(), port);
    let mut stream =
        from.run(|| std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2))).unwrap()?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0), body.to_owned()))
}

/// A condition of a status that was read once, where two readings could see two states.
pub(crate) fn condition_of(status: &Value, type_: &str) -> Value {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|c| c["type"] == type_).unwrap_or_default()
}
