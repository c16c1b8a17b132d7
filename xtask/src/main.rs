//! Automation that has outgrown the Makefile: `cargo run -p xtask -- bench`.

mod bench;
mod fuzz;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure, in namespaces of its own, and print distributions
    Bench {
        /// The program to measure
        #[arg(long, default_value = "target/release/portolan")]
        exe: PathBuf,
        /// Numbers of Services to measure at, each of 10 endpoints
        #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
        services: Vec<usize>,
        /// Changes measured at each size
        #[arg(long, default_value_t = 200)]
        changes: usize,
    },
    /// Measure forwarding against the size of the cluster: syncs, changes, memory, connections
    Scale {
        /// The program to measure
        #[arg(long, default_value = "target/release/portolan")]
        exe: PathBuf,
        /// Numbers of Services to measure at, each of ten endpoints, or of as many as follow an x
        #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
        services: Vec<bench::scale::Size>,
        /// Changes measured at each size
        #[arg(long, default_value_t = 400)]
        changes: usize,
        /// Rounds of connections at each size, of a second each way
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// What was measured, for `plots`
        #[arg(long, default_value = "target/bench/forwarding.json")]
        json: PathBuf,
        /// Where the plots go
        #[arg(long, default_value = "target/bench")]
        plots: PathBuf,
    },
    /// Measure load-balancer addresses: how soon a Service has one, and failover after each kind of loss
    Loadbalancer {
        /// The program to measure
        #[arg(long, default_value = "target/release/portolan")]
        exe: PathBuf,
        /// Failovers of each kind
        #[arg(long, default_value_t = 20)]
        runs: usize,
        /// Services that get an address one after the other
        #[arg(long, default_value_t = 200)]
        assignments: usize,
        /// Services that wait for one pool
        #[arg(long, default_value_t = 10_000)]
        services: usize,
        /// What was measured
        #[arg(long, default_value = "target/bench/loadbalancer.json")]
        json: PathBuf,
        /// Where the plots go
        #[arg(long, default_value = "target/bench")]
        plots: PathBuf,
        /// Measure nothing: print and draw what the file holds
        #[arg(long)]
        only_draw: bool,
    },
    /// Measure from a probe's answer to the packet that shows it, and what probes cost
    Endpoints {
        /// The program to measure
        #[arg(long, default_value = "target/release/portolan")]
        exe: PathBuf,
        /// Pods whose probes turn, each behind a Service of its own
        #[arg(long, default_value_t = 20)]
        pods: usize,
        /// Turns measured
        #[arg(long, default_value_t = 400)]
        changes: usize,
        /// Probes a second whose cost is measured
        #[arg(long, default_value_t = 1000)]
        probes: usize,
        /// How long, for each kind
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Draw what `cargo bench -p portolan-dataplane` has measured of every data plane
    Dataplanes {
        #[arg(long, default_value = "target/bench/dataplanes.json")]
        json: PathBuf,
        #[arg(long, default_value = "docs/benchmarks")]
        plots: PathBuf,
    },
    /// Measure the API server: cold start, memory, writes, lists, watches
    Api {
        /// The program to measure
        #[arg(long, default_value = "target/release/portolan")]
        exe: PathBuf,
        #[arg(long, default_value_t = 10)]
        starts: usize,
        /// Objects created for the measure of writing
        #[arg(long, default_value_t = 2000)]
        creates: usize,
        /// Who create them, each with a connection of its own
        #[arg(long, default_value_t = 64)]
        clients: usize,
        /// Services, and slices, for memory and lists
        #[arg(long, default_value_t = 10_000)]
        objects: usize,
        #[arg(long, default_value_t = 1000)]
        watchers: usize,
        /// Writes that every watcher hears of
        #[arg(long, default_value_t = 50)]
        events: usize,
    },
    /// Feed arbitrary input to decoders, patches and selectors
    Fuzz {
        /// One of them; otherwise all, each for so long
        target: Option<String>,
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Repeats the inputs of an earlier run
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Draw what `scale` has measured
    Plots {
        #[arg(long, default_value = "target/bench/forwarding.json")]
        json: PathBuf,
        #[arg(long, default_value = "docs/benchmarks")]
        plots: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    bench::spaces::end_by_signals()?;
    match Arguments::parse().verb {
        Verb::Bench { exe, services, changes } => bench::run(&exe, &services, changes),
        Verb::Scale { exe, services, changes, rounds, json, plots } => {
            let effort = bench::scale::Effort { changes, rounds };
            bench::scale::run(&exe, &services, effort, &json, &plots)
        }
        Verb::Loadbalancer { json, plots, only_draw: true, .. } => bench::loadbalancer::draw(&json, &plots),
        Verb::Loadbalancer { exe, runs, assignments, services, json, plots, .. } => {
            let effort = bench::loadbalancer::Effort { runs, assignments, services };
            bench::loadbalancer::run(&exe, effort, &json, &plots)
        }
        Verb::Endpoints { exe, pods, changes, probes, seconds } => {
            bench::endpoints::run(&exe, bench::endpoints::Effort { pods, changes, probes, seconds })
        }
        Verb::Api { exe, starts, creates, clients, objects, watchers, events } => {
            let effort = bench::api::Effort { starts, creates, clients, objects, watchers, events };
            bench::api::run(&exe, effort)
        }
        Verb::Fuzz { target, seconds, seed } => fuzz::run(target.as_deref(), seconds, seed),
        Verb::Plots { json, plots } => bench::scale::draw(&json, &plots),
        Verb::Dataplanes { json, plots } => bench::dataplanes::draw(&json, &plots),
    }
}
