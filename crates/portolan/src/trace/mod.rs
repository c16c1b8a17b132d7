//! `portolan trace`: what happens to a connection, and why; from a cluster or from manifests.
//!
//! Objects come from an API server ([`cluster`]) or from files ([`manifests`], completed by [`invent`] and [`derive`])
//! and are parsed once ([`world`]). The question becomes addresses ([`resolve`]), the pure model explains
//! (`portolan_forward::explain`) by what [`proxy_flags`] say of the proxy, [`reasons`] and [`sentences`] have the words, [`diagnose`] names likely mistakes, and
//! [`answer`] puts it together as a [`report`].
//! [`text`] renders it. In the namespaces that [`places`] finds, [`kernel`] compares with what the node's kernel holds and
//! [`live`] follows a [`probe`]. Start at [`run`], then [`answer`].

mod answer;
mod chains;
mod cluster;
mod derive;
mod diagnose;
mod invent;
mod kernel;
mod live;
mod manifests;
mod objects;
mod places;
mod probe;
mod proxy_flags;
mod reasons;
mod report;
mod resolve;
mod sentences;
mod text;
mod world;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use portolan_lab::Lab;
use portolan_proxy::Config;

use answer::{Aimed, Answer, Question};
use places::Places;
use proxy_flags::ProxyFlags;
use report::{KernelPart, KernelState, LivePart, OutcomeKind, Report};
use world::World;

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
    /// A lab of this machine, from anywhere on it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["manifests", "kubeconfig"])]
    lab: Option<String>,
    /// Objects from a directory or file instead of a cluster; what a cluster would add is made up, and said
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Whether to compare with what the kernel of the node holds
    #[arg(long, value_enum, default_value = "auto")]
    kernel: Kernel,
    /// Send a probe and show the rules that it meets; as root, on the node or in a lab. A Service of UDP gets a datagram
    #[arg(long, conflicts_with = "manifests")]
    live: bool,
    /// The network namespace that the probe is sent from, where it is neither this one nor one of a lab or agent here
    #[arg(long, value_name = "PATH", requires = "live")]
    probe_netns: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    #[command(flatten)]
    proxy: ProxyFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Whether to compare with the kernel of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kernel {
    /// Where it can be looked at; otherwise say how
    Auto,
    Skip,
    /// It is an error when it cannot be looked at
    Require,
}

/// A difference must still be there after this many looks: the proxy may just be writing.
const LOOKS: u32 = 4;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(150);

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let settings = arguments.proxy.config()?;
    let question = Question {
        from: arguments.from.clone(),
        to: arguments.to.clone(),
        node: arguments.node.clone(),
        namespace: arguments.namespace.clone(),
    };
    let report = match &arguments.manifests {
        Some(path) => {
            let mut objects = manifests::read(path, &arguments.namespace)?;
            invent::complete(&mut objects);
            manifests::check_services(&mut objects);
            derive::slices(&mut objects);
            answer::answer(&World::new(objects), &settings, &question).report
        }
        None => of_cluster(arguments, &settings, &question)?,
    };
    print(&report, arguments.output)?;
    let drifted = report.kernel.as_ref().is_some_and(|kernel| kernel.state == KernelState::Drifted);
    let answered = report.verdict.outcome != OutcomeKind::None;
    let held = report.live.as_ref().and_then(|live| live.as_explained) != Some(false);
    Ok(if answered && !drifted && held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A reader that has seen enough is no error.
fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    let text = match output {
        Output::Text => report.to_string(),
        Output::Json => serde_json::to_string_pretty(report)? + "\n",
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn kubeconfig(arguments: &Arguments) -> anyhow::Result<PathBuf> {
    if let Some(name) = &arguments.lab {
        return Ok(Lab::find(name)?.layout.kubeconfig());
    }
    let from_environment = || std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
    let given = arguments.kubeconfig.clone().or_else(|| from_environment().map(PathBuf::from));
    given.context("no cluster to ask: give --kubeconfig (or set KUBECONFIG), or files with --manifests")
}

fn of_cluster(arguments: &Arguments, settings: &Config, question: &Question) -> anyhow::Result<Report> {
    let kubeconfig = kubeconfig(arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let places = Places::new(&kubeconfig);
    let mut looks = 0;
    loop {
        looks += 1;
        let read = || runtime.block_on(cluster::read(&kubeconfig));
        let objects = match places.api() {
            Some(netns) => netns.run(read)?,
            None => read(),
        };
        let world = World::new(objects?);
        let Answer { mut report, aimed } = answer::answer(&world, settings, question);
        let Some(aimed) = aimed else { return Ok(report) };
        report.kernel = kernel_part(arguments.kernel, &places, &aimed)?;
        let drifted = report.kernel.as_ref().is_some_and(|part| part.state == KernelState::Drifted);
        if drifted && looks < LOOKS {
            std::thread::sleep(LOOK_AGAIN_AFTER);
            continue;
        }
        if arguments.live {
            report.live = Some(live_part(arguments, &places, &aimed, &report)?);
        }
        return Ok(report);
    }
}

fn kernel_part(mode: Kernel, places: &Places, aimed: &Aimed) -> anyhow::Result<Option<KernelPart>> {
    if mode == Kernel::Skip {
        return Ok(None);
    }
    let node = aimed.table.node();
    let part = match places.node(&node.name, &node.addresses) {
        Ok(netns) => kernel::look(&netns, aimed),
        Err(why) => kernel::not_looked_at(why),
    };
    let part = match (part.note, places.how(&node.name)) {
        (Some(why), Some(how)) if part.state == KernelState::NotLookedAt => {
            kernel::not_looked_at(format!("{why}; as root: {how}"))
        }
        (note, _) => KernelPart { note, ..part },
    };
    if mode == Kernel::Require && part.state == KernelState::NotLookedAt {
        anyhow::bail!("the kernel of node {}: {}", node.name, part.note.unwrap_or_default());
    }
    Ok(Some(part))
}

fn live_part(
    arguments: &Arguments,
    places: &Places,
    aimed: &Aimed,
    report: &Report,
) -> anyhow::Result<LivePart> {
    let node = aimed.table.node();
    let name = report.from.name.as_deref();
    let source = places.source(name, aimed.packet.source, arguments.probe_netns.as_deref());
    let part = places
        .node(&node.name, &node.addresses)
        .and_then(|node| live::look(&node, &source?, aimed, &report.endpoints));
    part.map_err(|why| anyhow::anyhow!("--live: {why}"))
}
