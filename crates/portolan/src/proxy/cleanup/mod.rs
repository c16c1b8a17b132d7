//! `portolan proxy cleanup`: takes our rules out of the kernel, and kube-proxy's if asked. Errors are collected: what
//! can be removed is.

mod iptables;
mod ipvs;

use std::process::ExitCode;

use clap::Args;
use portolan_dataplane::nftables::layout;
use portolan_forward::Family;
use portolan_netlink::netns::Netns;
use portolan_netlink::nft::{Batch, NfTables as _, Op, Socket, Table};
use portolan_proxy::KUBE_PROXY_TABLE;

use crate::failure::Failure;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Also what kube-proxy left: its nftables tables, its iptables chains, its IPVS servers
    #[arg(long)]
    kube_proxy: bool,
    /// What kube-proxy left, and nothing of ours: for when portolan has taken over and runs
    #[arg(long, conflicts_with = "kube_proxy")]
    only_kube_proxy: bool,
}

impl Arguments {
    pub(crate) fn everything() -> Self {
        Self { kube_proxy: true, only_kube_proxy: false }
    }
}

/// What was done and what went wrong.
#[derive(Debug, Default)]
struct Findings {
    removed: Vec<String>,
    errors: Vec<String>,
}

impl Findings {
    fn note(&mut self, what: impl Into<String>, result: Result<bool, impl std::fmt::Display>) {
        let what = what.into();
        match result {
            Ok(true) => self.removed.push(what),
            Ok(false) => {}
            Err(error) => self.errors.push(format!("{what}: {error}")),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { verb: "portolan proxy cleanup" }.into());
    }
    let mut findings = Findings::default();
    if !arguments.only_kube_proxy {
        refuse_while_running()?;
        ours(&mut findings);
    }
    if arguments.kube_proxy || arguments.only_kube_proxy {
        if let Some(pid) = running("kube-proxy") {
            findings.errors.push(format!(
                "kube-proxy still runs here (process {pid}) and will put its rules back: stop it first, then do this again"
            ));
        }
        tables(&mut findings, KUBE_PROXY_TABLE);
        iptables::clean_up(&mut findings);
        ipvs::clean_up(&mut findings);
    }
    for what in &findings.removed {
        println!("removed {what}");
    }
    for error in &findings.errors {
        eprintln!("portolan: {error}");
    }
    if findings.removed.is_empty() && findings.errors.is_empty() {
        println!("nothing to remove");
    }
    Ok(if findings.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// It would make its rules anew at once.
fn refuse_while_running() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(portolan_proxy::holder()) {
        Some(holder) => Err(Failure::ProxyRuns { holder }.into()),
        None => Ok(()),
    }
}

/// What the proxy made, in any mode.
fn ours(findings: &mut Findings) {
    iptables::clean_up_ours(findings);
    tables(findings, layout::TABLE);
    tables(findings, layout::IPVS_TABLE);
    // Last, when no rule leads there any more.
    if portolan_dataplane::ipvs::is_there() {
        let errors = portolan_dataplane::ipvs::remove();
        if errors.is_empty() {
            findings.removed.push("our IPVS virtual servers and the route to them".into());
        }
        findings.errors.extend(errors.iter().map(|error| format!("IPVS: {error}")));
    }
}

/// The nftables tables of this name, of both families.
fn tables(findings: &mut Findings, name: &str) {
    let mut socket = match Socket::open() {
        Ok(socket) => socket,
        Err(error) => return findings.errors.push(format!("nftables: {error}")),
    };
    let there = match socket.tables() {
        Ok(tables) => tables,
        Err(error) => return findings.errors.push(format!("nftables: {error}")),
    };
    for table in Family::ALL.map(|family| Table::new(layout::nft_family(family), name)) {
        if there.iter().any(|info| info.table == table) {
            let batch: Batch = [Op::DelTable(table.clone())].into_iter().collect();
            findings.note(format!("nftables table {table}"), socket.commit(&batch).map(|()| true));
        }
    }
}

/// A process of this name in this network namespace.
fn running(name: &str) -> Option<u32> {
    let here = Netns::current().ok()?;
    let is_it = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    here.processes().into_iter().find(is_it)
}
