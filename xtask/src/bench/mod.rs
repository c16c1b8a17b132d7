//! Benchmarks: the real program in a namespace, measured from outside. Figures are distributions of one run.

mod answerer;
pub(crate) mod api;
mod convergence;
pub(crate) mod dataplanes;
pub(crate) mod endpoints;
mod listeners;
mod load;
pub(crate) mod loadbalancer;
mod plant;
mod plots;
mod process;
pub(crate) mod scale;
mod services;
mod site;
pub(crate) mod spaces;
mod stats;

use std::path::Path;

pub(crate) fn run(exe: &Path, services: &[usize], changes: usize) -> anyhow::Result<()> {
    println!(
        "Convergence: one endpoint of one Service comes or goes; the other Services have 10 endpoints each."
    );
    println!(
        "From the API's answer, unless it says otherwise, to the first connect through the ClusterIP that shows it.\n"
    );
    println!("{:>9} {:<36} {}", "Services", "what", stats::HEADER);
    for &count in services {
        convergence::measure(exe, count, changes)?;
    }
    Ok(())
}
