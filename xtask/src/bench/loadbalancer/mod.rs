//! Load-balancer addresses: how soon a Service has one, and how soon it is answered again after each kind of loss.
//!
//! A lab of three nodes, an outside client, and an outside server as the only endpoint, so that the loss of a node takes
//! nothing but the address.

mod assignment;
mod curves;
mod failover;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use portolan_client::Client;
use portolan_lab::{Host, Options};
use portolan_netlink::netns;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::spaces::TemporaryLab;
use super::stats::{self, Distribution};
use curves::Curve;

const NODES: u8 = 3;
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Failovers of each kind.
    pub(crate) runs: usize,
    /// Services that get their address one after the other.
    pub(crate) assignments: usize,
    /// Services that wait for a pool and get their addresses together.
    pub(crate) services: usize,
}

/// Milliseconds of every run of one kind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    pub(super) group: Group,
    pub(super) name: String,
    pub(super) ms: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Group {
    Assignment,
    Failover,
}

impl Measured {
    fn new(group: Group, name: &str, samples: &[Duration]) -> Self {
        let ms = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        Self { group, name: name.into(), ms }
    }
}

pub(crate) fn run(exe: &Path, effort: Effort, json: &Path, plots: &Path) -> anyhow::Result<()> {
    let exe = exe.canonicalize().with_context(|| format!("{}: build it with `make build`", exe.display()))?;
    let name = format!("bench{}", std::process::id());
    let lab =
        TemporaryLab::up(&Options { name, nodes: NODES, ipv6: false, exe: exe.clone(), proxy_mode: None })?;
    // On a thread of its own, whose namespace changes.
    let thread = std::thread::spawn(move || Bench::new(lab, exe.clone())?.measure(effort));
    let measured = thread.join().map_err(|_| anyhow::anyhow!("the benchmark panicked"))??;
    if let Some(dir) = json.parent() {
        std::fs::create_dir_all(dir)?;
    }
    std::fs::write(json, serde_json::to_string_pretty(&measured)?)?;
    draw(json, plots)
}

/// Prints and draws what was measured.
pub(crate) fn draw(json: &Path, plots: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(json).with_context(|| json.display().to_string())?;
    let measured: Vec<Measured> = serde_json::from_str(&text)?;
    println!("{:<60} {:>5} {}", "what", "runs", stats::HEADER);
    for row in &measured {
        let mut distribution = Distribution::default();
        row.ms.iter().for_each(|ms| distribution.add(Duration::from_secs_f64(ms / 1e3)));
        println!("{:<60} {:>5} {distribution}", row.name, row.ms.len());
    }
    std::fs::create_dir_all(plots)?;
    let of = |group| -> Vec<Curve<'_>> {
        let rows = measured.iter().filter(|row| row.group == group);
        rows.map(|row| Curve { name: &row.name, ms: &row.ms }).collect()
    };
    let title = "From a loss to the next connect: part of the runs that took no longer";
    let aims = [("planned: 100 ms", 100.0), ("unplanned: 1 s", 1000.0)];
    std::fs::write(plots.join("failover.svg"), curves::svg(title, &of(Group::Failover), &aims)?)?;
    let title = "From the API to a Service's address: part of the Services that waited no longer";
    std::fs::write(plots.join("assignment.svg"), curves::svg(title, &of(Group::Assignment), &[])?)?;
    Ok(())
}

/// The lab, and a way to its API from the outside client's host.
struct Bench {
    lab: TemporaryLab,
    exe: std::path::PathBuf,
    runtime: Runtime,
    client: Client,
}

impl Bench {
    fn new(lab: TemporaryLab, exe: std::path::PathBuf) -> anyhow::Result<Self> {
        netns::enter(lab.lab.host(Host::Client)?.as_fd())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = Client::from_kubeconfig(&lab.lab.layout.kubeconfig(), "bench")?;
        Ok(Self { lab, exe, runtime, client })
    }

    fn measure(&self, effort: Effort) -> anyhow::Result<Vec<Measured>> {
        // First, while no other Service is there.
        let mut measured = failover::measure(self, effort.runs)?;
        measured.extend(assignment::measure(self, effort.assignments, effort.services)?);
        Ok(measured)
    }
}
