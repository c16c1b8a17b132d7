//! Runs the proxy with everything around it: sysctls, identity, the end and the new beginning.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use portolan_client::{Client, Config};
use portolan_role::Progress;

use crate::up::interrupted;
use crate::{memory, ready};

use super::flags::Flags;
use super::restart::{self, Watched};
use super::settings::Settings;
use super::sysctls;

const USER_AGENT: &str = "portolan-proxy";

/// Why the proxy stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Asked,
    NewConfiguration,
}

pub(crate) fn run(settings: Settings, flags: &Flags) -> anyhow::Result<ExitCode> {
    sysctls::apply(&settings.conntrack)?;
    if flags.init_only == Some(true) {
        tracing::info!("all that needs more privileges is done");
        return Ok(ExitCode::SUCCESS);
    }
    set_oom_score(settings.oom_score_adj);
    memory::keep_little();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let end = runtime.block_on(serve(settings, flags))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    match end {
        End::Asked => Ok(ExitCode::SUCCESS),
        End::NewConfiguration => {
            Err(restart::again()).context("cannot start anew with the new configuration")
        }
    }
}

async fn serve(settings: Settings, flags: &Flags) -> anyhow::Result<End> {
    let client = client(&settings, flags)?;
    let watched = match &flags.config {
        Some(path) => Some(Watched::new(path)?),
        None => None,
    };
    let interrupted = interrupted()?;
    let mut end = End::Asked;
    let ends = async {
        let changed = async {
            match watched {
                Some(watched) => watched.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = interrupted => {}
            () = changed => end = End::NewConfiguration,
        }
    };
    let node = settings.proxy.node_name.clone();
    tracing::info!(%node, mode = settings.proxy.mode.as_str(), "starting");
    let progress = Progress::default();
    let say = async {
        progress.ready().await;
        ready::say(&format!("portolan proxy serves node {node}"));
        memory::give_back();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        result = portolan_proxy::run(client, settings.proxy, progress.clone(), ends) => result?,
        () = say => {}
    }
    Ok(end)
}

fn client(settings: &Settings, flags: &Flags) -> anyhow::Result<Client> {
    let mut config = match (&settings.kubeconfig, &flags.master) {
        (Some(path), _) => Config::from_kubeconfig(path, None)?,
        (None, Some(_)) => Config::default(),
        (None, None) => Config::in_cluster().context(
            "neither --kubeconfig nor --master nor --config names an API server, and this is not a pod with access",
        )?,
    };
    if let Some(master) = &flags.master {
        config.server.clone_from(master);
    }
    Ok(Client::from_config(&config, USER_AGENT)?)
}

/// The kernel is to end others first when memory runs out.
fn set_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(%error, score, "cannot set oom_score_adj");
    }
}
