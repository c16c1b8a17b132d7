//! What stands between a pod and a packet: from a probe's answer that turns a pod to the first or last connect, and what
//! probes cost the node.
//!
//! The probes ask this program, so it knows when each answer left. Everything else is the real way: agent, pod status,
//! endpoints controller, slice, proxy, kernel.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portolan_client::{Client, paths};
use serde_json::{Value, json};

use super::answerer::{self, ANSWERER_PORT};
use super::site::{HOST, Site};
use super::stats::{Distribution, HEADER};

const NAMESPACE: Option<&str> = Some("default");
const PATIENCE: Duration = Duration::from_mins(1);
/// Where probes whose answers turn are answered.
const TURNING_PORT: u16 = 9100;
/// Between the starts of two pods, so that their probes do not all fall on one moment.
const STAGGER: Duration = Duration::from_millis(37);
/// Each with a probe of readiness and one of liveness, once a second.
const CONTAINERS_PER_POD: usize = 50;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) pods: usize,
    pub(crate) changes: usize,
    /// Probes a second of each kind but commands, of which there are a tenth.
    pub(crate) probes: usize,
    pub(crate) seconds: u64,
}

pub(crate) fn run(exe: &Path, effort: Effort) -> anyhow::Result<()> {
    let exe = exe.canonicalize().with_context(|| format!("{}: build it with `make build`", exe.display()))?;
    println!("From a probe's answer that turns a pod to the connect through the ClusterIP that shows it.\n");
    println!("{:>9} {:<36} {HEADER}", "pods", "what");
    let own = exe.clone();
    on_thread(move || turning(&own, effort))?;
    println!("\nWhat probes cost the whole program (processor time in hundredths of a core).\n");
    println!(
        "{:<8} {:>9} {:>9} {:>13} {:>9} {:>9}",
        "kind", "probes/s", "% core", "per 1,000/s", "threads", "MiB"
    );
    for kind in ["none", "http", "tcp", "grpc", "exec"] {
        let own = exe.clone();
        on_thread(move || cost(&own, kind, effort))?;
    }
    Ok(())
}

/// The thread's namespace changes, so it is one of its own.
fn on_thread(work: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<()> {
    std::thread::spawn(work).join().map_err(|_| anyhow::anyhow!("the benchmark panicked"))?
}

/// A pod and its Service, between which a probe stands.
struct Subject {
    service: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What the next probe is answered, and what the last one was.
    next: bool,
    last: bool,
}

/// How long one turn took, and whether it was to ready.
type Turn = (bool, Duration);

fn turning(exe: &Path, effort: Effort) -> anyhow::Result<()> {
    let site = Site::start(exe)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = site.client()?;
    let mut subjects = Vec::new();
    for number in 0..effort.pods {
        let service = runtime.block_on(create_service(&client, number))?;
        let state = Mutex::new(State { next: true, last: true });
        subjects.push(Subject { service, state });
    }
    let turns = serve(Arc::new(subjects))?;
    for number in 0..effort.pods {
        runtime.block_on(create_turning(&client, number))?;
        std::thread::sleep(STAGGER);
    }
    let (mut came, mut went) = (Distribution::default(), Distribution::default());
    // The first turns find caches cold and code unread; they are not counted.
    let warm_up = 2 * effort.pods;
    for count in 0..warm_up + effort.changes {
        let (ready, took) = turns.recv_timeout(PATIENCE).context("no probe turned")?;
        if count >= warm_up {
            if ready { came.add(took) } else { went.add(took) }
        }
    }
    println!("{:>9} {:<36} {came}", effort.pods, "ready: to the first connect");
    println!("{:>9} {:<36} {went}", effort.pods, "not ready: to the refusal");
    Ok(())
}

async fn create_service(client: &Client, number: usize) -> anyhow::Result<SocketAddr> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("turning-{number}")},
        "spec": {"selector": {"number": number.to_string()}, "ports": [{"port": 80}]},
    });
    let service: Value = client.create(&paths::SERVICES, NAMESPACE, &service).await?;
    let ip: IpAddr =
        service["spec"]["clusterIP"].as_str().context("the Service has no ClusterIP")?.parse()?;
    Ok(SocketAddr::new(ip, 80))
}

async fn create_turning(client: &Client, number: usize) -> anyhow::Result<()> {
    let ask = json!({"host": IpAddr::from(HOST), "port": TURNING_PORT, "path": format!("/{number}")});
    let probe = json!({"httpGet": ask, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 5});
    let container = json!({"name": "web", "image": "portolan.dev/echo", "args": ["--http", "80"], "readinessProbe": probe});
    let meta = json!({"name": format!("turning-{number}"), "labels": {"number": number.to_string()}});
    create_pod(client, &json!({"metadata": meta, "spec": {"containers": [container]}})).await
}

async fn create_pod(client: &Client, pod: &Value) -> anyhow::Result<()> {
    let mut pod = pod.clone();
    (pod["apiVersion"], pod["kind"]) = ("v1".into(), "Pod".into());
    let _: Value = client.create(&paths::PODS, NAMESPACE, &pod).await?;
    Ok(())
}

/// Answers the probes; each answer that turns a pod is followed to its effect.
fn serve(subjects: Arc<Vec<Subject>>) -> anyhow::Result<Receiver<Turn>> {
    let listener = TcpListener::bind(SocketAddr::new(HOST.into(), TURNING_PORT))?;
    let (sender, turns) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (subjects, sender) = (subjects.clone(), sender.clone());
            std::thread::spawn(move || answer(&stream, &subjects, &sender));
        }
    });
    Ok(turns)
}

fn answer(stream: &TcpStream, subjects: &[Subject], turns: &Sender<Turn>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next()?;
    let number: usize = request.split(['/', ' ']).nth(2)?.parse().ok()?;
    lines.find(String::is_empty)?;
    let subject = subjects.get(number)?;
    let mut state = subject.state.lock().unwrap_or_else(PoisonError::into_inner);
    let (ready, turned) = (state.next, state.next != state.last);
    let status = if ready { "200 OK" } else { "503 Service Unavailable" };
    let begin = Instant::now();
    write!(&*stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").ok()?;
    state.last = ready;
    // While this is followed no other probe of the pod is answered: a turn is never overtaken by the next.
    if turned {
        until(subject.service, ready)?;
        turns.send((ready, begin.elapsed())).ok()?;
        state.next = !ready;
    } else if connects(subject.service) == Some(ready) {
        state.next = !ready;
    }
    Some(())
}

/// `None`: neither answered nor refused.
fn connects(service: SocketAddr) -> Option<bool> {
    match TcpStream::connect_timeout(&service, Duration::from_secs(1)) {
        Ok(_) => Some(true),
        Err(error) => (error.kind() == io::ErrorKind::ConnectionRefused).then_some(false),
    }
}

fn until(service: SocketAddr, ready: bool) -> Option<()> {
    let begin = Instant::now();
    while connects(service) != Some(ready) {
        if begin.elapsed() > PATIENCE {
            return None;
        }
        // Two cores: busy asking must not take from those who make it true.
        std::thread::sleep(Duration::from_micros(100));
    }
    Some(())
}

fn cost(exe: &Path, kind: &str, effort: Effort) -> anyhow::Result<()> {
    let site = Site::start(exe)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = site.client()?;
    let rate = if kind == "exec" { effort.probes / 10 } else { effort.probes };
    let containers = rate / 2;
    let probe = probe(kind);
    let answered = answerer::start()?;
    let pods = containers.div_ceil(CONTAINERS_PER_POD);
    for number in 0..pods {
        let size = CONTAINERS_PER_POD.min(containers - number * CONTAINERS_PER_POD);
        runtime.block_on(create_probed(&client, number, size, &probe))?;
    }
    runtime.block_on(all_ready(&client, pods))?;
    // Past the events of the start.
    std::thread::sleep(Duration::from_secs(2));
    let (before, answers, begin) = (site.processor_time()?, answered.count(), Instant::now());
    std::thread::sleep(Duration::from_secs(effort.seconds));
    let took = begin.elapsed().as_secs_f64();
    let part = site.processor_time()?.saturating_sub(before).as_secs_f64() / took;
    let asked = match kind {
        "none" => 0.0,
        "exec" => rate as f64,
        _ => (answered.count() - answers) as f64 / took,
    };
    let per_thousand = if asked > 0.0 { format!("{:.1}", part * 1e5 / asked) } else { String::new() };
    let (threads, memory) = (site.threads()?, site.resident_mib()?);
    println!("{kind:<8} {asked:>9.0} {:>9.1} {per_thousand:>13} {threads:>9} {memory:>9}", part * 100.0);
    Ok(())
}

fn probe(kind: &str) -> Value {
    let mut probe = match kind {
        "http" => json!({"httpGet": {"port": ANSWERER_PORT, "path": "/"}}),
        "tcp" => json!({"tcpSocket": {"port": ANSWERER_PORT}}),
        "grpc" => json!({"grpc": {"port": ANSWERER_PORT}}),
        "exec" => json!({"exec": {"command": ["true"]}}),
        _ => return Value::Null,
    };
    (probe["periodSeconds"], probe["timeoutSeconds"]) = (1.into(), 5.into());
    probe
}

/// On the node's own network, where the answerer is.
async fn create_probed(
    client: &Client,
    number: usize,
    containers: usize,
    probe: &Value,
) -> anyhow::Result<()> {
    let container = |n: usize| {
        let mut container =
            json!({"name": format!("c{n}"), "image": "portolan.dev/host", "command": ["sleep", "100000"]});
        if !probe.is_null() {
            (container["readinessProbe"], container["livenessProbe"]) = (probe.clone(), probe.clone());
        }
        container
    };
    let containers: Vec<Value> = (0..containers).map(container).collect();
    let spec = json!({"hostNetwork": true, "containers": containers});
    create_pod(client, &json!({"metadata": {"name": format!("probed-{number}")}, "spec": spec})).await
}

async fn all_ready(client: &Client, pods: usize) -> anyhow::Result<()> {
    let begin = Instant::now();
    for number in 0..pods {
        loop {
            let pod: Value = client.get(&paths::PODS, NAMESPACE, &format!("probed-{number}")).await?;
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            if conditions.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
                break;
            }
            anyhow::ensure!(begin.elapsed() < PATIENCE, "not ready: {}", pod["status"]);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
