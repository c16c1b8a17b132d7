//! From an API write to the first connect that shows it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portolan_client::Client;
use serde_json::json;
use tokio::runtime::Runtime;

use super::services::{create, populate, set_endpoints};
use super::site::{ENDPOINT, ENDPOINT_PORT, Site};
use super::stats::Distribution;

const PATIENCE: Duration = Duration::from_secs(30);
const ENDPOINTS: usize = 10;

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
    runtime.block_on(populate(&client, services, ENDPOINTS))?;
    let populated = begin.elapsed();
    let service = runtime.block_on(create(&client, "target", &json!([]), ENDPOINT_PORT))?;
    let changes = Changes::measure(&runtime, &client, service, ENDPOINT.into(), changes)?;
    let row = |what: &str, value: &dyn std::fmt::Display| println!("{services:>9} {what:<36} {value}");
    row("endpoint added: to first connect", &changes.connect);
    row("endpoint removed: to refusal", &changes.refusal);
    row("added, from the request's start", &changes.whole);
    row("ready after start (ms)", &format!("{:>8.1}", site.ready.as_secs_f64() * 1e3));
    row("all Services and slices written (ms)", &format!("{:>8.0}", populated.as_secs_f64() * 1e3));
    row("resident memory, whole program (MiB)", &format!("{:>8}", site.resident_mib()?));
    Ok(())
}

/// One endpoint of the Service `target` comes and goes, and how long until connects show it.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) connect: Distribution,
    pub(crate) refusal: Distribution,
    pub(crate) whole: Distribution,
}

impl Changes {
    pub(crate) fn measure(
        runtime: &Runtime,
        client: &Client,
        service: SocketAddr,
        endpoint: Ipv4Addr,
        changes: usize,
    ) -> anyhow::Result<Self> {
        let mut measured = Self::default();
        // The first rounds find caches cold and code unread; they are not counted.
        let warm_up = changes / 10;
        for round in 0..warm_up + changes {
            for present in [true, false] {
                let endpoints: &[Ipv4Addr] = if present { &[endpoint] } else { &[] };
                let begin = Instant::now();
                runtime.block_on(set_endpoints(client, "target", endpoints))?;
                let answered = Instant::now();
                until(service, present)?;
                if round < warm_up {
                    continue;
                }
                if present {
                    measured.connect.add(answered.elapsed());
                    measured.whole.add(begin.elapsed());
                } else {
                    measured.refusal.add(answered.elapsed());
                }
            }
        }
        Ok(measured)
    }
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
