//! From an API write to the first connect that shows it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portolan_client::{Client, Patch, Subresource, paths};
use serde_json::{Value, json};

use super::site::{ENDPOINT, ENDPOINT_PORT, Site};
use super::stats::Distribution;

const NAMESPACE: Option<&str> = Some("default");
const PATIENCE: Duration = Duration::from_secs(30);
const WRITERS: usize = 16;

/// Prints one block of rows. Runs on a thread of its own, whose namespace changes.
pub(crate) fn measure(exe: &Path, services: usize, changes: usize) -> anyhow::Result<()> {
    let exe = exe.canonicalize().with_context(|| format!("{}: build it with `make build`", exe.display()))?;
    let thread = std::thread::spawn(move || in_namespace(&exe, services, changes));
    thread.join().map_err(|_| anyhow::anyhow!("the benchmark panicked"))?
}

fn in_namespace(exe: &Path, services: usize, changes: usize) -> anyhow::Result<()> {
    let site = Site::start(exe)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = site.client()?;
    let begin = Instant::now();
    runtime.block_on(populate(&client, services))?;
    let populated = begin.elapsed();
    let service = runtime.block_on(target(&client))?;

    let mut connect = Distribution::default();
    let mut refusal = Distribution::default();
    let mut whole = Distribution::default();
    // The first rounds find caches cold and code unread; they are not counted.
    let warm_up = changes / 10;
    for round in 0..warm_up + changes {
        for (present, distribution) in [(true, &mut connect), (false, &mut refusal)] {
            let begin = Instant::now();
            runtime.block_on(set_endpoint(&client, present))?;
            let answered = Instant::now();
            until(service, present)?;
            if round >= warm_up {
                distribution.add(answered.elapsed());
                if present {
                    whole.add(begin.elapsed());
                }
            }
        }
    }
    let row = |what: &str, value: &dyn std::fmt::Display| println!("{services:>9} {what:<36} {value}");
    row("endpoint added: to first connect", &connect);
    row("endpoint removed: to refusal", &refusal);
    row("added, from the request's start", &whole);
    row("ready after start (ms)", &format!("{:>8.1}", site.ready.as_secs_f64() * 1e3));
    row("all Services and slices written (ms)", &format!("{:>8.0}", populated.as_secs_f64() * 1e3));
    row("resident memory, whole program (MiB)", &format!("{:>8}", site.resident_mib()?));
    Ok(())
}

/// Services without selector, each with one slice of ten endpoints that nobody asks for.
async fn populate(client: &Client, services: usize) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        tasks.spawn(async move {
            for index in (writer..services).step_by(WRITERS) {
                let name = format!("other-{index}");
                let endpoint = |n: usize| json!({"addresses": [format!("10.99.{}.{}", index % 250, n + 1)]});
                let endpoints: Vec<Value> = (0..10).map(endpoint).collect();
                create(&client, &name, &json!(endpoints), 8000 + (index / 250) as u16).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}

async fn target(client: &Client) -> anyhow::Result<SocketAddr> {
    let service = create(client, "target", &json!([]), ENDPOINT_PORT).await?;
    let ip = service["spec"]["clusterIP"].as_str().context("the Service has no ClusterIP")?;
    Ok(SocketAddr::new(ip.parse()?, 80))
}

async fn create(client: &Client, name: &str, endpoints: &Value, port: u16) -> anyhow::Result<Value> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]},
    });
    let service: Value = client.create(&paths::SERVICES, NAMESPACE, &service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    });
    let _: Value = client.create(&paths::ENDPOINT_SLICES, NAMESPACE, &slice).await?;
    Ok(service)
}

async fn set_endpoint(client: &Client, present: bool) -> anyhow::Result<()> {
    let address = std::net::Ipv4Addr::from(ENDPOINT).to_string();
    let endpoints = if present { json!([{"addresses": [address]}]) } else { json!([]) };
    let patch = json!({"endpoints": endpoints});
    let patch = Patch::Merge(&patch);
    let _: Value =
        client.patch(&paths::ENDPOINT_SLICES, NAMESPACE, "target", Subresource::None, patch).await?;
    Ok(())
}

fn until(service: SocketAddr, present: bool) -> anyhow::Result<()> {
    let begin = Instant::now();
    loop {
        let shown = match TcpStream::connect_timeout(&service, PATIENCE) {
            Ok(_) => present,
            Err(error) => !present && error.kind() == io::ErrorKind::ConnectionRefused,
        };
        if shown {
            return Ok(());
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the change never showed at {service}");
        // Two cores: busy asking must not take from those who make it true.
        std::thread::sleep(Duration::from_micros(100));
    }
}
