//! The figures of forwarding against the size of the cluster.

use std::net::SocketAddr;
use std::num::ParseIntError;
use std::path::Path;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::convergence::Changes;
use super::plant::{Plant, SERVER, server};
use super::services::{create, populate};
use super::{listeners, load, plots};

const TARGET_PORT: u16 = 8080;
/// Straight connections have a port of their own: the connection table would have to find other source ports for
/// translated ones that want the same addresses and ports, and that is not what is measured.
const THROUGH_PORT: u16 = 8081;
const STRAIGHT_PORT: u16 = 8082;
const ROUND: Duration = Duration::from_secs(1);

/// `10000` Services of ten endpoints, or `100000x3` with so many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    services: usize,
    endpoints: usize,
}

impl FromStr for Size {
    type Err = ParseIntError;
    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        let (services, endpoints) = text.split_once('x').unwrap_or((text, "10"));
        Ok(Self { services: services.parse()?, endpoints: endpoints.parse()? })
    }
}

/// How much is measured at each size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) changes: usize,
    pub(crate) rounds: usize,
}

/// What was measured at one size.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) services: usize,
    pub(crate) endpoints: usize,
    /// Milliseconds, of the sync alone and from the start of the process.
    pub(crate) first_sync: f64,
    pub(crate) first_from_start: f64,
    pub(crate) first_operations: u64,
    pub(crate) restart_sync: f64,
    pub(crate) restart_from_start: f64,
    /// Milliseconds from the API's answer.
    pub(crate) change_median: f64,
    pub(crate) change_p99: f64,
    pub(crate) removal_median: f64,
    /// MiB.
    pub(crate) memory_first: f64,
    pub(crate) memory_after: f64,
    pub(crate) memory_peak: f64,
    /// Of the whole node's process: agent and proxy.
    #[serde(default)]
    pub(crate) memory_node: f64,
    /// New connections per second.
    pub(crate) straight: f64,
    pub(crate) through: f64,
    pub(crate) ratio: f64,
    /// Listeners elsewhere on the machine at the first sync, which slow it down.
    #[serde(default)]
    pub(crate) listeners: usize,
}

/// Measures, prints, and writes JSON and plots.
pub(crate) fn run(
    exe: &Path,
    sizes: &[Size],
    effort: Effort,
    json: &Path,
    plots_in: &Path,
) -> anyhow::Result<()> {
    let exe = exe.canonicalize().with_context(|| format!("{}: build it with `make build`", exe.display()))?;
    let mut rows = Vec::new();
    for &size in sizes {
        let exe = exe.clone();
        let thread = std::thread::spawn(move || measure(&exe, size, effort));
        let row = thread.join().map_err(|_| anyhow::anyhow!("the benchmark panicked"))??;
        print(&row);
        rows.push(row);
        // One size at a time, so that what is measured already outlives what fails later.
        if let Some(dir) = json.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(json, serde_json::to_vec_pretty(&rows)?)?;
    }
    table(&rows);
    plots::draw(&rows, plots_in)
}

/// Draws what an earlier run has measured.
pub(crate) fn draw(json: &Path, plots_in: &Path) -> anyhow::Result<()> {
    let rows: Vec<Row> = serde_json::from_slice(&std::fs::read(json)?)?;
    plots::draw(&rows, plots_in)
}

fn measure(exe: &Path, size: Size, effort: Effort) -> anyhow::Result<Row> {
    let Size { services, endpoints } = size;
    let plant = Plant::start(exe)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let api = plant.api()?;
    let begin = Instant::now();
    runtime.block_on(populate(&api, services, endpoints))?;
    eprintln!("{services} Services with {endpoints} endpoints written in {:.1?}", begin.elapsed());
    let target = runtime.block_on(create(&api, "target", &json!([]), TARGET_PORT))?;
    let endpoint = json!([{"addresses": [SERVER.to_string()]}]);
    let through = runtime.block_on(create(&api, "through", &endpoint, THROUGH_PORT))?;

    runtime.block_on(plant.register(&api))?;
    let listeners = listeners::count();
    if listeners > 0 {
        eprintln!(
            "{listeners} sockets on this machine listen for nftables changes: the first sync will be slower"
        );
    }
    let proxy = plant.start_proxy()?;
    let memory_first = proxy.settled_memory_mib()?.0;
    let (first_sync, first_from_start) = (ms(proxy.sync), ms(proxy.from_start));
    let first_operations = proxy.operations;
    for port in [TARGET_PORT, THROUGH_PORT, STRAIGHT_PORT] {
        load::serve(&plant.server, server(port))?;
    }
    let changes = Changes::measure(&runtime, &api, target, SERVER, effort.changes)?;
    let (memory_after, memory_peak) = proxy.memory_mib()?;
    drop(proxy);

    let proxy = plant.start_proxy()?;
    anyhow::ensure!(proxy.operations == 0, "the restart wrote {} operations", proxy.operations);
    let (straight, through, ratio) = ratio(&plant, through, effort.rounds)?;
    let (restart_sync, restart_from_start) = (ms(proxy.sync), ms(proxy.from_start));
    drop(proxy);
    let memory_node = plant.start_node()?.settled_memory_mib()?.0;
    eprintln!("measured in {:.1?}", begin.elapsed());
    Ok(Row {
        services,
        endpoints,
        first_sync,
        first_from_start,
        first_operations,
        restart_sync,
        restart_from_start,
        change_median: changes.connect.quantile(0.5),
        change_p99: changes.connect.quantile(0.99),
        removal_median: changes.refusal.quantile(0.5),
        memory_first,
        memory_after,
        memory_peak,
        memory_node,
        straight,
        through,
        ratio,
        listeners,
    })
}

/// In turns, so that whatever else the machine does touches both sides alike; the ratio is the median of the rounds'.
fn ratio(plant: &Plant, through: SocketAddr, rounds: usize) -> anyhow::Result<(f64, f64, f64)> {
    // Closed connections leave the table soon, so that it does not fill up.
    plant.node_sysctl("net/netfilter/nf_conntrack_tcp_timeout_close", "1")?;
    let straight = server(STRAIGHT_PORT);
    let (mut sides, mut ratios) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 0..=rounds {
        let mut rates = [0.0; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            rates[side] = load::connect(&plant.client, [straight, through][side], ROUND)?;
        }
        // The first round warms up.
        if round > 0 {
            ratios.push(rates[1] / rates[0]);
            sides[0].push(rates[0]);
            sides[1].push(rates[1]);
        }
    }
    Ok((median(&mut sides[0]), median(&mut sides[1]), median(&mut ratios)))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn print(row: &Row) {
    println!("{} Services of {} endpoints", row.services, row.endpoints);
    println!("  first sync             {:>9.0} ms, {} operations", row.first_sync, row.first_operations);
    println!("    from the start       {:>9.0} ms", row.first_from_start);
    println!("  restart, no write      {:>9.0} ms", row.restart_sync);
    println!("    from the start       {:>9.0} ms", row.restart_from_start);
    println!("  change to connect      {:>9.2} ms median, {:.2} ms p99", row.change_median, row.change_p99);
    println!("  removal to refusal     {:>9.2} ms median", row.removal_median);
    println!("  memory, first sync     {:>9.1} MiB", row.memory_first);
    println!("    after the changes    {:>9.1} MiB, {:.1} at its peak", row.memory_after, row.memory_peak);
    println!("    with the agent       {:>9.1} MiB", row.memory_node);
    println!("  connections straight   {:>9.0} per second", row.straight);
    println!("    through a ClusterIP  {:>9.0} per second, ratio {:.2}", row.through, row.ratio);
}

/// The table of `docs/benchmarks/forwarding.md`, ready to be put there.
fn table(rows: &[Row]) {
    let line = |what: &str, cell: &dyn Fn(&Row) -> String| {
        let cells: Vec<String> = rows.iter().map(cell).collect();
        println!("| {what} | {} |", cells.join(" | "));
    };
    println!();
    line("", &|row| format!("{} x {}", row.services, row.endpoints));
    line("---", &|_| "---".into());
    line("one endpoint changes: API's answer to first connect, median", &|row| {
        format!("{:.2} ms", row.change_median)
    });
    line("the same, 99th percentile", &|row| format!("{:.1} ms", row.change_p99));
    line("first sync into an empty kernel", &|row| format!("{:.0} ms", row.first_sync));
    line("from the start of the process", &|row| format!("{:.0} ms", row.first_from_start));
    line("sync after a restart; nothing is written", &|row| format!("{:.0} ms", row.restart_sync));
    line("resident memory of the proxy", &|row| format!("{:.0} MiB", row.memory_first));
    line("resident memory of agent and proxy in one process", &|row| format!("{:.0} MiB", row.memory_node));
    line("new connections through a ClusterIP against straight to the pod", &|row| {
        format!("{:.2}", row.ratio)
    });
    let listeners = rows.iter().map(|row| row.listeners).max().unwrap_or_default();
    println!("\nnftables listeners elsewhere on the machine at the first sync: at most {listeners}");
}
