//! `portolan lab`: clusters in network namespaces.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use portolan_lab::{Lab, Options, demo};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Name {
    /// Which lab; several can be up side by side
    #[arg(long, default_value = "lab")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster: a control plane, nodes, an outside client and an outside server
    Up {
        #[command(flatten)]
        name: Name,
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Give the segment and Services IPv6 addresses as well
        #[arg(long)]
        ipv6: bool,
        /// The mode of the nodes' proxies: nftables, iptables or ipvs
        #[arg(long, value_name = "MODE")]
        proxy_mode: Option<String>,
    },
    /// End it and remove everything of it, also after a crash
    Down {
        #[command(flatten)]
        name: Name,
    },
    /// Show its hosts and pods
    Status {
        #[command(flatten)]
        name: Name,
    },
    /// Run a command inside: on node-1, client, server, control-plane, or in a pod (web-1, shop/web-1)
    Exec {
        #[command(flatten)]
        name: Name,
        place: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Bring up a cluster and show the main job at work; succeeds only if every expectation held
    Demo {
        #[arg(long, default_value = "demo")]
        name: String,
        /// The directory of the example manifests
        #[arg(long, default_value = "examples")]
        examples: PathBuf,
    },
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.verb {
        Verb::Up { name, nodes, ipv6, proxy_mode } => {
            up(&Options { name: name.name, nodes, ipv6, exe: std::env::current_exe()?, proxy_mode })
        }
        Verb::Down { name } => {
            let was_there = Lab::down(&name.name)?;
            println!("lab {} {}", name.name, if was_there { "is down" } else { "was not up" });
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status { name } => status(&name.name),
        Verb::Exec { name, place, command } => {
            let place = Lab::find(&name.name)?.place(&place)?;
            Err(portolan_lab::enter(&place, &command).into())
        }
        Verb::Demo { name, examples } => {
            let held = demo::run(
                &Options { name, nodes: 3, ipv6: false, exe: std::env::current_exe()?, proxy_mode: None },
                &examples,
            )?;
            Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

fn up(options: &Options) -> anyhow::Result<ExitCode> {
    let lab = Lab::up(options)?;
    for (what, took) in &lab.timings {
        println!("{what:<20} {:>6.1} ms", took.as_secs_f64() * 1e3);
    }
    let flag = if lab.layout.name == "lab" { String::new() } else { format!("--name {} ", lab.layout.name) };
    println!("\nTry:");
    println!("  portolan lab exec {flag}control-plane -- kubectl get nodes -o wide");
    println!("  portolan lab status {flag}");
    println!("  portolan lab down {flag}");
    Ok(ExitCode::SUCCESS)
}

fn status(name: &str) -> anyhow::Result<ExitCode> {
    let status = Lab::find(name)?.status();
    println!("{:<15} {:<12} {:<35} PROCESSES", "HOST", "ADDRESS", "NAMESPACE");
    for (host, processes) in &status.hosts {
        let pids: Vec<String> = processes.iter().map(ToString::to_string).collect();
        let pids = if pids.is_empty() { "-".to_owned() } else { pids.join(" ") };
        println!(
            "{:<15} {:<12} {:<35} {pids}",
            host.to_string(),
            host.address().to_string(),
            status.layout.netns_name(*host)
        );
    }
    println!("\n{:<30} NODE", "POD");
    for (host, pod) in &status.pods {
        println!("{pod:<30} {host}");
    }
    Ok(ExitCode::SUCCESS)
}
