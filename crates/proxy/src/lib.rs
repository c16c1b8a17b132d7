//! The node proxy: keeps this node's kernel in step with the cluster's Services.
//!
//! Watch caches hold Services and EndpointSlices as parsed views ([`views`]); what is dirty is compiled to a delta of
//! the node's table ([`snapshot`]); a data plane writes it. One loop on a thread of its own does all of it (`sync`), the
//! first sync, changes and recovery alike. Which data plane that is says the mode (`modes`). Around it: stale UDP flows ([`stale`]), health-check node ports, healthz
//! ([`health`]) and metrics ([`metrics`]).
//!
//! Start at [`run`], then `sync`.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_client::{Client, EventRecorder, EventType, ObjectRef};
use portolan_dataplane::DataPlane;
use portolan_forward::Family;
use portolan_role::Progress;
use tokio::sync::{oneshot, watch};

mod alarm;
mod caches;
mod config;
mod conntrack;
pub mod endpoints;
pub mod health;
mod ipvs;
mod lock;
pub mod metrics;
mod modes;
pub mod node;
mod objects;
mod pace;
mod servers;
pub mod snapshot;
pub mod stale;
mod sync;
#[cfg(test)]
mod testing;
mod uncommitted;
pub mod views;

pub use config::{Config, DetectLocal, Ipvs, Mode, NodePortAddresses};
pub use lock::{Holder, holder};
pub use modes::{cleanup, support};

use alarm::Alarm;
use caches::Caches;
use health::{Health, Now};
use lock::Lock;
use metrics::Metrics;
use modes::Takeover;
use servers::Place;
use sync::{Loop, Surroundings};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot talk to the kernel's packet filter: {0}; the proxy needs root (CAP_NET_ADMIN) and nf_tables"
    )]
    Kernel(#[source] io::Error),
    #[error("mode {}: {why}", mode.as_str())]
    Mode { mode: Mode, why: String },
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("the masquerade bit is {0}; it must be between 0 and 31")]
    MasqueradeBit(u8),
    #[error("another portolan proxy runs here ({0}); two would undo each other's rules: stop that one first")]
    NotAlone(Holder),
    #[error("cannot listen on {address}: {source}; choose another address with {flag}")]
    Listen { address: SocketAddr, flag: &'static str, source: io::Error },
    #[error("the thread that writes to the kernel ended early; its panic is in the log")]
    Ended,
}

/// The name of kube-proxy's tables, of families ip and ip6.
pub const KUBE_PROXY_TABLE: &str = "kube-proxy";

/// Runs the proxy in the caller's network namespace until `shutdown` ends. It is ready when the first sync is in the kernel.
pub async fn run(
    client: Client,
    config: Config,
    progress: Progress,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    if config.masquerade_bit > 31 {
        return Err(Error::MasqueradeBit(config.masquerade_bit));
    }
    let _lock = Lock::take().await.map_err(Error::NotAlone)?;
    modes::run(client, config, progress, shutdown).await
}

/// As [`run`], over any data plane.
pub async fn run_with<D: DataPlane + Send + 'static>(
    client: Client,
    config: Config,
    plane: D,
    progress: Progress,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    run_with_alarm(client, config, plane, Alarm::Silent, Takeover::none(), progress, shutdown).await
}

async fn run_with_alarm<D: DataPlane + Send + 'static>(
    client: Client,
    config: Config,
    plane: D,
    alarm: Alarm,
    takeover: Takeover,
    progress: Progress,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let families = families();
    let health = Arc::new(Health::new(families.clone(), Now::get()));
    let metrics = Arc::new(Metrics::new(families, config.mode));
    let events = EventRecorder::new(client.clone(), "portolan-proxy", &config.node_name);
    let (health_checks, wanted_checks) = watch::channel(servers::HealthChecks::default());
    let mut tasks = tokio::task::JoinSet::new();
    let node = node_reference(&config.node_name);
    if let Some(address) = config.healthz_address {
        let mut place = Place::healthz(address, &events, &node);
        if config.bind_address_hard_fail {
            place.take()?;
        }
        tasks.spawn(servers::healthz(place, Arc::clone(&health), Arc::clone(&metrics)));
    }
    if let Some(address) = config.metrics_address {
        let mut place = Place::metrics(address, &events, &node);
        if config.bind_address_hard_fail {
            place.take()?;
        }
        tasks.spawn(servers::metrics(place, config.mode, config.shown.clone(), Arc::clone(&metrics)));
    }
    tasks.spawn(servers::service_health(wanted_checks, Arc::clone(&health), events.clone()));
    events.record(&node, EventType::Normal, "Starting", "");
    let caches = Caches::start(&client, &config.node_name);
    let cleaner = conntrack::Cleaner::start(Arc::clone(&metrics)).map_err(Error::Thread)?;
    let around = Surroundings {
        config,
        health,
        metrics,
        events,
        node,
        alarm,
        takeover,
        cleaner,
        health_checks,
        progress,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = spawn_loop(around, caches, plane, stopped)?;
    tokio::pin!(ended);
    tokio::select! {
        _ = &mut ended => return Err(Error::Ended),
        () = shutdown => {}
    }
    drop(stop);
    // A commit that runs is waited for; the kernel is left whole.
    _ = ended.await;
    Ok(())
}

/// Starts the thread of the loop. The answer comes when it has ended, by `stopped` or by a panic.
fn spawn_loop<D: DataPlane + Send + 'static>(
    around: Surroundings,
    caches: Caches,
    plane: D,
    stopped: oneshot::Receiver<()>,
) -> Result<oneshot::Receiver<()>, Error> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
    let (end, ended) = oneshot::channel();
    let body = move || {
        let _end: oneshot::Sender<()> = end;
        runtime.block_on(async {
            let stop = async { _ = stopped.await };
            tokio::pin!(stop);
            let prepared = tokio::select! {
                prepared = Loop::prepare(around, caches, plane) => prepared,
                () = &mut stop => return,
            };
            prepared.run(stop).await;
        });
    };
    std::thread::Builder::new().name("proxy-sync".into()).spawn(body).map_err(Error::Thread)?;
    Ok(ended)
}

/// What this host can speak: IPv4, and IPv6 where the kernel has it.
fn families() -> Vec<Family> {
    let v6 = std::path::Path::new("/proc/net/if_inet6").exists();
    if v6 { Family::ALL.to_vec() } else { vec![Family::V4] }
}

fn node_reference(node_name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node_name.into(),
        // What kubelet and kube-proxy put there: they do not know the node's UID when they start.
        uid: node_name.into(),
        ..ObjectRef::default()
    }
}
