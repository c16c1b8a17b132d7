//! The program: one file per verb, each wiring roles together and nothing else.
//!
//! `up` is the control plane with this host as a node; `node` is a node of somebody's control plane; `proxy` replaces
//! kube-proxy, `dns` CoreDNS, `lb` MetalLB; `kubeconfig` gives access; `lab` makes whole clusters in namespaces; `trace`
//! explains; `echo` is the built-in image. Start at the verb you want.

mod announcer;
mod dns;
mod echo;
mod encryption;
mod failure;
mod in_process;
mod kernel_check;
mod kubeconfig;
mod lab;
mod lb;
mod logging;
mod memory;
mod migrate;
mod monitor;
mod node;
mod node_address;
mod proxy;
mod ready;
mod service_route;
mod snapshot;
mod store;
mod trace;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The whole Kubernetes Service system in one binary.
#[derive(Debug, Parser)]
#[command(name = "portolan", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the control plane with this host as a node, in one process
    Up(up::Arguments),
    /// Run this host as a node of a control plane: agent and proxy
    Node(node::Arguments),
    /// Run the node proxy alone, in place of kube-proxy, for any Kubernetes cluster
    Proxy(proxy::Arguments),
    /// Run cluster DNS alone, in place of CoreDNS, for any Kubernetes cluster
    Dns(Box<dns::Arguments>),
    /// Load-balancer addresses for any Kubernetes cluster: given from pools, announced from the nodes
    Lb(lb::Arguments),
    /// Issue access to a control plane whose data directory is on this host
    Kubeconfig(kubeconfig::Arguments),
    /// Save, check and restore the store
    Snapshot(snapshot::Arguments),
    /// Move the store of a data directory into etcd
    Migrate(migrate::Arguments),
    /// Whole clusters in network namespaces on this machine
    Lab(lab::Arguments),
    /// Explain what happens to a connection to a Service, and why
    Trace(trace::Arguments),
    /// The built-in image portolan.dev/echo: answers who it is and who asked
    Echo(echo::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Up(arguments) => up::run(arguments),
        Verb::Node(arguments) => node::run(arguments),
        Verb::Proxy(arguments) => proxy::run(arguments),
        Verb::Dns(arguments) => dns::run(*arguments),
        Verb::Lb(arguments) => lb::run(arguments),
        Verb::Kubeconfig(arguments) => kubeconfig::run(&arguments),
        Verb::Snapshot(arguments) => snapshot::run(arguments),
        Verb::Migrate(arguments) => migrate::run(&arguments),
        Verb::Lab(arguments) => lab::run(arguments),
        Verb::Trace(arguments) => trace::run(&arguments),
        Verb::Echo(arguments) => echo::run(arguments),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("portolan: {error:#}");
            ExitCode::FAILURE
        }
    }
}
