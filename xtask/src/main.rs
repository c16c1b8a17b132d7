//! Automation that has outgrown the Makefile: `cargo run -p xtask -- bench`.

mod bench;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Bench { exe, services, changes } => bench::run(&exe, &services, changes),
    }
}
