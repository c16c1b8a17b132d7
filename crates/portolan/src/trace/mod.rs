//! `portolan trace`: what happens to a connection, and why; from a cluster or from manifests.
//!
//! Objects come from an API server ([`cluster`]) or from files ([`manifests`], completed by [`invent`] and [`derive`])
//! and are parsed once ([`world`]). The question becomes addresses ([`resolve`]), the pure model explains
//! (`portolan_forward::explain`), [`diagnose`] names likely mistakes, and [`answer`] puts it together as a [`report`].
//! [`text`] renders it. Start at [`run`], then [`answer`].

mod answer;
mod cluster;
mod derive;
mod diagnose;
mod invent;
mod manifests;
mod objects;
mod report;
mod resolve;
mod text;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use answer::{Answer, Question};
use report::OutcomeKind;
use world::{ProxySettings, World};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Who sends: a pod (web-1, shop/web-1), a node, or an address
    #[arg(long, value_name = "WHO")]
    from: String,
    /// To what: a Service (web, shop/web, web:80, web:http, web:53/udp), an address with its port, or a pod with a port
    #[arg(long, value_name = "WHAT")]
    to: String,
    /// The node whose rules decide; otherwise the one that the source is on
    #[arg(long)]
    node: Option<String>,
    /// Where names without a namespace are looked up
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The cluster to ask; otherwise $KUBECONFIG
    #[arg(long, conflicts_with = "manifests")]
    kubeconfig: Option<PathBuf>,
    /// Objects from a directory or file instead of a cluster; what a cluster would add is made up, and said
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Where pods get their addresses from, as the proxy has it
    #[arg(long, default_value = "10.244.0.0/16", value_delimiter = ',')]
    cluster_cidr: Vec<IpNet>,
    /// The proxy masquerades everything
    #[arg(long)]
    masquerade_all: bool,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let settings = ProxySettings {
        cluster_cidrs: arguments.cluster_cidr.clone(),
        masquerade_all: arguments.masquerade_all,
    };
    let question = Question {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        node: arguments.node.clone(),
        namespace: arguments.namespace.clone(),
    };
    let world = World::new(objects(&arguments)?);
    let Answer { report, aimed: _ } = answer::answer(&world, &settings, &question);
    match arguments.output {
        Output::Text => print!("{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let answered = report.verdict.outcome != OutcomeKind::None;
    Ok(if answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn objects(arguments: &Arguments) -> anyhow::Result<objects::Objects> {
    if let Some(path) = &arguments.manifests {
        let mut objects = manifests::read(path, &arguments.namespace)?;
        invent::complete(&mut objects);
        derive::slices(&mut objects);
        return Ok(objects);
    }
    let from_environment =
        || std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let Some(kubeconfig) = arguments.kubeconfig.clone().or_else(from_environment) else {
        anyhow::bail!("no cluster to ask: give --kubeconfig (or set KUBECONFIG), or files with --manifests");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cluster::read(&kubeconfig))
}
