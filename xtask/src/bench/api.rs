//! The API server measured from outside: start, memory, writes, lists, watches. Over TLS, as every client comes.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use http_body_util::BodyExt as _;
use ipnet::IpNet;
use portolan_client::{ApiPath, Client, WatchOptions, paths};
use portolan_netlink::netns;
use portolan_netlink::rt::Rt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::process;
use super::spaces::Spaces;
use super::stats::{self, Distribution};

/// Where the control plane is, in a namespace that has nothing but a loopback.
const HOST: &str = "10.77.0.1";

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) starts: usize,
    pub(crate) creates: usize,
    pub(crate) clients: usize,
    pub(crate) objects: usize,
    pub(crate) watchers: usize,
    pub(crate) events: usize,
}

pub(crate) fn run(exe: &Path, effort: Effort) -> anyhow::Result<()> {
    let spaces = Spaces::new()?;
    let netns = spaces.create("netns")?;
    let mut rt = Rt::open_in(&netns)?;
    rt.set_up("lo")?;
    rt.add_address("lo", IpNet::new(HOST.parse()?, 32)?)?;
    netns::enter(netns.as_fd())?;
    measure(exe, &spaces, effort)
}

fn measure(exe: &Path, spaces: &Spaces, effort: Effort) -> anyhow::Result<()> {
    println!("{:<44} {}", "cold start, to the first answer of /readyz", stats::HEADER);
    let mut starts = Distribution::default();
    for _ in 0..effort.starts {
        starts.add(Plane::start(exe, spaces)?.ready);
    }
    println!("{:<44} {starts}", format!("  {} starts", effort.starts));
    let plane = Plane::start(exe, spaces)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        println!("{:<44} {:>8.1} MiB", "memory, empty", plane.resident_mib()?);
        for kind in ["configmaps", "services"] {
            creates(&plane, kind, effort).await?;
        }
        fill(&plane, effort).await?;
        let what = format!("memory, {} Services and slices", effort.objects);
        println!("{what:<44} {:>8.1} MiB", plane.resident_mib()?);
        lists(&plane, effort).await?;
        fan_out(&plane, effort).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        println!("{:<44} {:>8.1} MiB", "memory after all, at rest", plane.resident_mib()?);
        Ok(())
    })
}

/// A control plane by itself.
struct Plane {
    child: Child,
    dir: tempfile::TempDir,
    ready: Duration,
}

impl Plane {
    fn start(exe: &Path, spaces: &Spaces) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir_in(spaces.path())?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let begin = Instant::now();
        let child = Command::new(exe)
            .args(["up", "--control-plane", "--node-ip", HOST, "--no-dns", "--data-dir"])
            .arg(dir.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}: build it with `make build`", exe.display()))?;
        let mut plane = Self { child, dir, ready: Duration::ZERO };
        let mut line = String::new();
        if let Some(stdout) = plane.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let log = || std::fs::read_to_string(plane.dir.path().join("log")).unwrap_or_default();
        anyhow::ensure!(!line.is_empty(), "the control plane did not come up:\n{}", log());
        let client = plane.client()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(client.get_raw("/readyz"))?;
        plane.ready = begin.elapsed();
        Ok(plane)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("data/kubeconfig")
    }

    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::from_kubeconfig(&self.kubeconfig(), "bench")?)
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        process::resident_mib(self.child.id())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"}, "data": {"key": "x".repeat(256)},
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

fn slice(name: &str, number: usize) -> Value {
    let endpoint = |index: usize| {
        let address = format!("10.{}.{}.{}", 128 + number / 62_500 % 64, number / 250 % 250, 1 + index);
        json!({"addresses": [address], "conditions": {"ready": true}, "nodeName": format!("node-{index}")})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-bench"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "bench"},
        },
        "endpoints": (0..10).map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    })
}

/// So many objects by so many clients, each with a connection of its own and one request at a time.
async fn create_all(
    plane: &Plane,
    clients: usize,
    path: &'static ApiPath,
    objects: Vec<Value>,
) -> anyhow::Result<Distribution> {
    let (mut tasks, mut all) = (JoinSet::new(), Distribution::default());
    let next = Arc::new(AtomicUsize::new(0));
    let objects = Arc::new(objects);
    for _ in 0..clients {
        let (client, next, objects) = (plane.client()?, next.clone(), objects.clone());
        tasks.spawn(async move {
            let mut took = Vec::new();
            while let Some(object) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                let begin = Instant::now();
                let _: Value = client.create(path, Some("default"), object).await?;
                took.push(begin.elapsed());
            }
            Ok::<_, portolan_client::Error>(took)
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??.into_iter().for_each(|took| all.add(took));
    }
    Ok(all)
}

async fn creates(plane: &Plane, kind: &'static str, effort: Effort) -> anyhow::Result<()> {
    let name = |number: usize| format!("create-{number}");
    let (path, objects): (_, Vec<Value>) = match kind {
        "services" => (&paths::SERVICES, (0..effort.creates).map(|n| service(&name(n))).collect()),
        _ => (&paths::CONFIG_MAPS, (0..effort.creates).map(|n| config_map(&name(n))).collect()),
    };
    let processors = || {
        let of = |pid| process::processor_time(pid).map(|time| time.as_secs_f64());
        Ok::<_, anyhow::Error>([of(plane.child.id())?, of(std::process::id())?])
    };
    let (begin, before) = (Instant::now(), processors()?);
    let all = create_all(plane, effort.clients, path, objects).await?;
    let (took, after) = (begin.elapsed().as_secs_f64(), processors()?);
    let what = format!("{} {kind} by {} clients", effort.creates, effort.clients);
    println!("{what:<44} {took:>8.3} s, {:.0} per second, each {all} ms", effort.creates as f64 / took);
    let each = |index: usize| (after[index] - before[index]) * 1e6 / effort.creates as f64;
    let (server, clients) = (each(0), each(1));
    println!(
        "{:<44} {server:>8.0} us of the server, {clients:.0} us of the clients",
        "  processor time of each"
    );
    Ok(())
}

async fn fill(plane: &Plane, effort: Effort) -> anyhow::Result<()> {
    let name = |number: usize| format!("fill-{number}");
    let services = (0..effort.objects).map(|number| service(&name(number))).collect();
    create_all(plane, effort.clients, &paths::SERVICES, services).await?;
    let slices = (0..effort.objects).map(|number| slice(&name(number), number)).collect();
    create_all(plane, effort.clients, &paths::ENDPOINT_SLICES, slices).await?;
    // Controllers come to rest.
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(())
}

async fn lists(plane: &Plane, effort: Effort) -> anyhow::Result<()> {
    let client = plane.client()?;
    for path in ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
        let (mut all, mut bytes) = (Distribution::default(), 0);
        for _ in 0..effort.starts.max(3) {
            let begin = Instant::now();
            bytes = client.get_raw(path).await?.len();
            all.add(begin.elapsed());
        }
        let kind = path.rsplit('/').next().unwrap_or_default();
        println!("{:<44} {all} ms, {:.1} MB", format!("list of all {kind}"), bytes as f64 / 1e6);
    }
    Ok(())
}

/// From the answer to a write to each watcher's having its event.
async fn fan_out(plane: &Plane, effort: Effort) -> anyhow::Result<()> {
    let (mut tasks, open) = (JoinSet::new(), Arc::new(Semaphore::new(0)));
    let client = plane.client()?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "fan"}});
    let _: Value = client.create(&paths::NAMESPACES, None, &namespace).await?;
    for _ in 0..effort.watchers {
        let (client, open, events) = (client.clone(), open.clone(), effort.events);
        tasks.spawn(async move {
            let mut body =
                client.watch_raw(&paths::CONFIG_MAPS, Some("fan"), &WatchOptions::default()).await?;
            open.add_permits(1);
            let mut seen = Vec::with_capacity(events);
            while seen.len() < events {
                let frame = body.frame().await.context("the watch ended")?;
                let frame = frame.map_err(|error| anyhow::anyhow!("the watch broke off: {error}"))?;
                let lines = frame.data_ref().map_or(0, |data| data.split(|b| *b == b'\n').count() - 1);
                seen.extend((0..lines).map(|_| Instant::now()));
            }
            Ok::<_, anyhow::Error>(seen)
        });
    }
    let _all_open = open.acquire_many(u32::try_from(effort.watchers)?).await?;
    let mut sent = Vec::new();
    for number in 0..effort.events {
        let mut object = config_map(&format!("fan-{number}"));
        object["metadata"]["namespace"] = "fan".into();
        let begin = Instant::now();
        let _: Value = client.create(&paths::CONFIG_MAPS, Some("fan"), &object).await?;
        sent.push(begin);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut each, mut last) = (Distribution::default(), vec![Duration::ZERO; effort.events]);
    while let Some(done) = tasks.join_next().await {
        for (index, at) in done??.into_iter().enumerate() {
            let took = at.saturating_duration_since(sent[index]);
            each.add(took);
            last[index] = last[index].max(took);
        }
    }
    let mut all = Distribution::default();
    for took in last {
        all.add(took);
    }
    println!("{:<44} {each} ms", format!("event to each of {} watchers", effort.watchers));
    println!("{:<44} {all} ms", "  to the last of them");
    Ok(())
}
