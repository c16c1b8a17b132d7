//! Watch caches to zone to answers: the loop that ties the rest together.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_client::{Cache, Client, Dirty, Selectors, cache, paths};
use portolan_role::Progress;
use portolan_role::http::{Answer, OPEN_METRICS, StatusCode, TEXT, answer, listen, not_found, serve};
use portolan_role::listen::{Families, tcp};
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::forward::{self, Forwarder};
use crate::metrics::{Metrics, Tally};
use crate::name::NameError;
use crate::objects;
use crate::server::limit::Limiter;
use crate::server::udp::{Shared, Workers};
use crate::server::{self, Handler, Snapshot};
use crate::zone::view::{PodView, ServiceView, SliceView};
use crate::zone::{Catalogue, PodRecords, Zone};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the cluster's domain cannot be used: {0}")]
    Domain(#[from] NameError),
    #[error("cannot listen on {address}: {source}; stop what listens there, or choose another address")]
    Listen { address: SocketAddr, source: io::Error },
}

/// Answers names until `shutdown` ends. It is ready when every name is known and answered, at the addresses that it says.
pub async fn run(
    client: Client,
    config: Config,
    progress: Progress<Arc<[SocketAddr]>>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let mut catalogue = Catalogue::new(config.zone.clone())?;
    let caches = Caches::start(&client, &config);
    let forwarder = config.forward.clone().and_then(|forward| start_forwarder(forward, &config));
    let handler = Arc::new(Handler::new(Zone::empty(config.zone.clone())?, forwarder, config.payload));
    let later = Arc::new(Tally::default());
    let workers = match config.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        chosen => chosen,
    };
    let tallies: Vec<_> = (0..workers).map(|_| Arc::new(Tally::default())).collect();
    let all = tallies.iter().chain([&later]).cloned().collect();
    let server = config.listen.first().map(|address| format!("dns://{address}")).unwrap_or_default();
    let metrics = Arc::new(Metrics::new(handler.clone(), all, server));
    let mut tasks = JoinSet::new();
    serve_http(&mut tasks, &config, &handler, &metrics);

    tokio::pin!(shutdown);
    let mut watching = Watching { caches: &caches, metrics: &metrics, handler: &handler };
    let mut dirty = caches.subscribe();
    tokio::select! {
        _ = tokio::time::timeout(config.startup_timeout, caches.synced()) => {}
        () = &mut shutdown => return Ok(()),
    }
    if caches.is_synced() {
        watching.update(&mut catalogue, &mut dirty);
    } else {
        tracing::warn!("the API server has not been read yet: names of the cluster fail until it has");
    }
    let limiter = Arc::new(Limiter::new(&config.trusted, config.rate));
    let shared = Shared { handler: handler.clone(), limiter, later: later.clone() };
    let mut listening = Vec::new();
    for address in &config.listen {
        match answer_at(*address, &shared, &tallies, config.tcp, &mut tasks) {
            Ok(workers) => listening.push(workers),
            Err(Error::Listen { source, .. }) if config.listen.len() > 1 && lacks_family(&source) => {
                tracing::info!(%address, "this host does not speak this family: not listening there");
            }
            Err(error) => return Err(error),
        }
    }
    let addresses: Arc<[SocketAddr]> = listening.iter().map(Workers::address).collect();
    tracing::info!(?addresses, zone = %config.zone.zone, "answering DNS questions");

    let follow = async {
        caches.synced().await;
        loop {
            watching.update(&mut catalogue, &mut dirty);
            progress.set_ready(addresses.clone());
            dirty.wait().await;
        }
    };
    tokio::pin!(follow);
    tokio::select! {
        () = &mut follow => {}
        () = &mut shutdown => {}
    }
    // Clients still ask until they have heard that this endpoint is gone.
    _ = tokio::time::timeout(config.lameduck, follow).await;
    Ok(())
}

fn start_forwarder(mut forward: forward::Config, config: &Config) -> Option<Forwarder> {
    let own = &config.zone.own_addresses;
    forward.upstreams = forward::without_self(forward.upstreams, &config.listen, own);
    for stub in &mut forward.stubs {
        let upstreams = std::mem::take(&mut stub.upstreams);
        stub.upstreams = forward::without_self(upstreams, &config.listen, own);
    }
    Forwarder::new(forward)
}

/// The host has no IPv6, as a rule.
fn lacks_family(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

/// UDP and TCP on one address.
fn answer_at(
    address: SocketAddr,
    shared: &Shared,
    tallies: &[Arc<Tally>],
    limits: server::tcp::Limits,
    tasks: &mut JoinSet<()>,
) -> Result<Workers, Error> {
    let failed = |source| Error::Listen { address, source };
    let workers = Workers::start(address, shared, tallies).map_err(failed)?;
    let listener = tcp(workers.address(), Families::Own).map_err(failed)?;
    tasks.spawn(server::tcp::serve(listener, shared.handler.clone(), shared.later.clone(), limits));
    Ok(workers)
}

fn serve_http(tasks: &mut JoinSet<()>, config: &Config, handler: &Arc<Handler>, metrics: &Arc<Metrics>) {
    if let Some(address) = config.health {
        tasks.spawn(say(address, "health", |path| match path {
            "/health" => answer(StatusCode::OK, TEXT, "OK"),
            _ => not_found(),
        }));
    }
    if let Some(address) = config.ready {
        let handler = handler.clone();
        tasks.spawn(say(address, "readiness", move |path| match path {
            "/ready" if handler.snapshot().synced => answer(StatusCode::OK, TEXT, "OK"),
            // The part that is not, as CoreDNS names it.
            "/ready" => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "kubernetes"),
            _ => not_found(),
        }));
    }
    if let Some(address) = config.metrics {
        let metrics = metrics.clone();
        tasks.spawn(say(address, "metrics", move |path| match path {
            "/metrics" => answer(StatusCode::OK, OPEN_METRICS, metrics.render()),
            _ => not_found(),
        }));
    }
}

/// A taken address is tried for ever: names matter more than the news about them.
async fn say<F>(address: SocketAddr, what: &'static str, handler: F)
where
    F: Fn(&str) -> Answer + Send + Sync + 'static,
{
    let failed = |error: &io::Error| {
        tracing::warn!(%address, %error, "cannot serve {what}; set another address if something else runs there");
    };
    serve(listen(address, Families::Both, failed).await, handler).await;
}

/// Nothing of a namespace matters but that it is there.
#[derive(Debug, Deserialize)]
struct Nothing {}

struct Caches {
    services: Cache<ServiceView>,
    slices: Option<Cache<SliceView>>,
    namespaces: Cache<Nothing>,
    pods: Option<Cache<PodView>>,
}

impl Caches {
    fn start(client: &Client, config: &Config) -> Caches {
        let labels = || Selectors { labels: config.labels.clone(), ..Selectors::default() };
        let namespaces = Selectors { labels: config.namespace_labels.clone(), ..Selectors::default() };
        let verified = config.zone.pods == PodRecords::Verified;
        let slices =
            || Cache::start(client.clone(), paths::ENDPOINT_SLICES_OF_ANY_AGE, labels(), objects::slice);
        let pods = || Cache::start(client.clone(), paths::PODS, Selectors::default(), objects::pod);
        Caches {
            services: Cache::start(client.clone(), paths::SERVICES, labels(), objects::service),
            slices: config.endpoints.then(slices),
            namespaces: Cache::start(client.clone(), paths::NAMESPACES, namespaces, cache::json),
            pods: verified.then(pods),
        }
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.namespaces.synced().await;
        if let Some(slices) = &self.slices {
            slices.synced().await;
        }
        if let Some(pods) = &self.pods {
            pods.synced().await;
        }
    }

    fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.namespaces.is_synced()
            && self.slices.as_ref().is_none_or(Cache::is_synced)
            && self.pods.as_ref().is_none_or(Cache::is_synced)
    }

    fn subscribe(&self) -> AnyDirty {
        AnyDirty {
            services: self.services.subscribe(),
            slices: self.slices.as_ref().map(Cache::subscribe),
            namespaces: self.namespaces.subscribe(),
            pods: self.pods.as_ref().map(Cache::subscribe),
        }
    }
}

struct AnyDirty {
    services: Dirty,
    slices: Option<Dirty>,
    namespaces: Dirty,
    pods: Option<Dirty>,
}

impl AnyDirty {
    async fn wait(&mut self) {
        async fn some(dirty: &mut Option<Dirty>) {
            match dirty {
                Some(dirty) => dirty.wait().await,
                None => std::future::pending().await,
            }
        }
        tokio::select! {
            () = self.services.wait() => {}
            () = some(&mut self.slices) => {}
            () = self.namespaces.wait() => {}
            () = some(&mut self.pods) => {}
        }
    }
}

struct Watching<'a> {
    caches: &'a Caches,
    metrics: &'a Metrics,
    handler: &'a Handler,
}

impl Watching<'_> {
    /// Takes everything that is dirty into one new zone, and answers from it.
    fn update(&mut self, catalogue: &mut Catalogue, dirty: &mut AnyDirty) {
        let mut triggers = Vec::new();
        for key in dirty.namespaces.take() {
            catalogue.set_namespace(&key.name, self.caches.namespaces.get(&key).is_some());
        }
        for key in dirty.services.take() {
            catalogue.set_service(&key, self.caches.services.get(&key).as_ref());
        }
        if let (Some(dirty), Some(slices)) = (&mut dirty.slices, &self.caches.slices) {
            for key in dirty.take() {
                let slice = slices.get(&key);
                triggers.extend(slice.as_ref().and_then(|s| Some((s.service.clone()?, s.trigger_ns?))));
                catalogue.set_slice(&key, slice.as_ref());
            }
        }
        if let (Some(dirty), Some(pods)) = (&mut dirty.pods, &self.caches.pods) {
            for key in dirty.take() {
                catalogue.set_pod(&key, pods.get(&key).as_ref());
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let first = !self.handler.snapshot().synced;
        match catalogue.commit(now.as_secs() as u32) {
            Some(zone) => {
                self.metrics.zone_changed();
                if !first {
                    self.measure(&zone, &triggers, now);
                }
                self.handler.set_snapshot(Snapshot { zone, synced: true });
            }
            None if first => {
                let zone = self.handler.snapshot().zone.clone();
                self.handler.set_snapshot(Snapshot { zone, synced: true });
            }
            None => {}
        }
    }

    /// How long changes of headless Services took, which only names tell of.
    fn measure(&self, zone: &Zone, triggers: &[(portolan_client::Key, i128)], now: Duration) {
        for (service, trigger_ns) in triggers {
            if zone.service(service).is_some_and(|entry| entry.is_headless()) {
                let since = u64::try_from(now.as_nanos() as i128 - trigger_ns).unwrap_or(0);
                self.metrics.programmed(Duration::from_nanos(since));
            }
        }
    }
}
