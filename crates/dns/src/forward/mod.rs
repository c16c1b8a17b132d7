//! Names outside the cluster: upstreams, a cache, and what to do when upstreams fail.
//!
//! [`config`] says whom to ask, [`upstream`] in which order, [`exchange`] asks one of them, [`stored`] is a checked answer,
//! [`cache`] keeps it. [`Forwarder::resolve`] puts them together: one question at a time for each name, the next upstream
//! if one is slow, a bound on everything that waits.

mod cache;
mod config;
mod exchange;
mod probe;
mod resolv;
mod stored;
mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, watch};

pub use config::{CacheConfig, Config, ConfigError, Policy, Stub, UPSTREAMS_MAX, upstreams, without_self};
pub use stored::Stored;

use crate::metrics::UpstreamTimes;
use crate::name::{Name, QName};
use crate::rr::{Rcode, rtype};
use crate::wire::{Query, flag};
use cache::{Cache, Hit};
use exchange::ExchangeError;
use probe::Probes;
use upstream::{Group, Upstream};

/// Clients that may wait for each question that is under way.
const WAITING_PER_QUESTION: usize = 8;

/// What is asked upstream: everything that makes an answer another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    pub(crate) name: Name,
    pub(crate) rtype: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    dnssec_ok: bool,
}

impl Ask {
    /// A client's question as it is.
    pub fn of(query: &Query) -> Ask {
        Ask {
            name: query.name.to_name(),
            rtype: query.rtype,
            recursion_desired: query.flags & flag::RECURSION_DESIRED != 0,
            checking_disabled: query.flags & flag::CHECKING_DISABLED != 0,
            dnssec_ok: query.edns.is_some_and(|edns| edns.dnssec_ok),
        }
    }

    /// What an alias leads to.
    pub fn address(name: Name, rtype: u16) -> Ask {
        Ask { name, rtype, recursion_desired: true, checking_disabled: false, dnssec_ok: false }
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Too much is under way.
    Busy,
    /// Nobody may be asked for this name.
    NoUpstream,
    /// Whoever was asked did not answer.
    Unanswered,
    /// The question came round to us.
    Loop,
}

impl Failure {
    pub fn rcode(self) -> Rcode {
        match self {
            Failure::Busy | Failure::NoUpstream => Rcode::Refused,
            Failure::Unanswered | Failure::Loop => Rcode::ServFail,
        }
    }
}

type Outcome = Result<Arc<Stored>, Failure>;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Forwarder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Config,
    /// By zone, the most particular first. No group: not forwarded.
    routes: Vec<(Name, usize, Option<Group>)>,
    answers: Cache,
    denials: Cache,
    under_way: Mutex<HashMap<Ask, watch::Receiver<Option<Outcome>>>>,
    slots: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    probes: Probes,
    /// Upstreams have been looked at for loops, or are being so.
    probed: AtomicBool,
    runtime: tokio::runtime::Handle,
    counts: Counts,
}

/// For metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: [AtomicU64; 2],
    pub(crate) misses: AtomicU64,
    pub(crate) evictions: [AtomicU64; 2],
    pub(crate) stale: AtomicU64,
    pub(crate) prefetches: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) all_down: AtomicU64,
    pub(crate) health_failures: AtomicU64,
    pub(crate) untrue: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Forwarder {
    /// Must be called within a runtime: health checks and refreshes run there. `None`: there is nobody to ask.
    pub fn new(config: Config) -> Option<Forwarder> {
        let group = |addresses: &[_]| (!addresses.is_empty()).then(|| Group::new(addresses, config.policy));
        let mut routes: Vec<_> = config
            .stubs
            .iter()
            .map(|s| (s.zone.clone(), s.zone.label_count(), group(&s.upstreams)))
            .collect();
        if let Some(group) = group(&config.upstreams) {
            routes.push((Name::root(), 0, Some(group)));
        }
        if routes.is_empty() {
            return None;
        }
        routes.sort_by_key(|(_, labels, _)| std::cmp::Reverse(*labels));
        let cache = &config.cache;
        let inner = Inner {
            routes,
            answers: Cache::new(cache.entries, cache.stale),
            denials: Cache::new(cache.entries, cache.stale),
            under_way: Mutex::default(),
            slots: Arc::new(Semaphore::new(config.max_concurrent)),
            waiting: Arc::new(Semaphore::new(config.max_concurrent.saturating_mul(WAITING_PER_QUESTION))),
            probes: Probes::default(),
            probed: AtomicBool::new(false),
            runtime: tokio::runtime::Handle::current(),
            counts: Counts::default(),
            config,
        };
        Some(Forwarder(Arc::new(inner)))
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Of every upstream of every zone.
    pub(crate) fn upstream_times(&self) -> impl Iterator<Item = (SocketAddr, &UpstreamTimes)> {
        let groups = self.0.routes.iter().filter_map(|(_, _, group)| group.as_ref());
        groups.flat_map(|group| &group.upstreams).map(|upstream| (upstream.address, &upstream.times))
    }

    /// Entries in the cache: answers, denials.
    pub fn entries(&self) -> [usize; 2] {
        [self.0.answers.len(), self.0.denials.len()]
    }

    /// From the cache, if it is there and fresh.
    pub fn cached(&self, ask: &Ask, now: Instant) -> Option<Arc<Stored>> {
        let inner = &self.0;
        for (n, cache) in [&inner.answers, &inner.denials].into_iter().enumerate() {
            match cache.get(ask, now) {
                Some(Hit::Fresh(stored)) => {
                    count(&inner.counts.hits[n]);
                    let failed = stored.rcode() == Rcode::ServFail as u8;
                    return failed.then(|| self.stale(ask)).flatten().or(Some(stored));
                }
                Some(Hit::Refresh(stored)) => {
                    count(&inner.counts.hits[n]);
                    if inner.config.cache.prefetch {
                        self.refresh(ask.clone());
                    }
                    return Some(stored);
                }
                None => {}
            }
        }
        count(&inner.counts.misses);
        None
    }

    fn refresh(&self, ask: Ask) {
        count(&self.0.counts.prefetches);
        let forwarder = self.clone();
        self.0.runtime.spawn(async move {
            if forwarder.ask_once(&ask, true).await.is_err() {
                forwarder.0.answers.refresh_failed(&ask);
                forwarder.0.denials.refresh_failed(&ask);
            }
        });
    }

    /// Asks upstream; what is under way for the same question is shared. Bounded in time and number.
    pub async fn resolve(&self, ask: Ask) -> Outcome {
        if ask.rtype == rtype::HINFO && self.0.probes.came_back(&ask.name) {
            return Err(Failure::Loop);
        }
        let Ok(_waiting) = self.0.waiting.clone().try_acquire_owned() else {
            count(&self.0.counts.rejected);
            return Err(Failure::Busy);
        };
        let outcome = self.ask_once(&ask, false).await;
        match outcome {
            // What we cannot do anything about; a refusal by the operator's own limit stays one.
            Err(Failure::Unanswered) => self.stale(&ask).ok_or(Failure::Unanswered),
            Ok(stored) if stored.rcode() == Rcode::ServFail as u8 => Ok(self.stale(&ask).unwrap_or(stored)),
            other => other,
        }
    }

    /// An expired answer to stand in.
    fn stale(&self, ask: &Ask) -> Option<Arc<Stored>> {
        self.0.config.cache.stale?;
        let (stored, fresh) = self.0.answers.peek(ask, Instant::now())?;
        if fresh {
            return Some(stored);
        }
        count(&self.0.counts.stale);
        Some(Arc::new(stored.to_stale()))
    }

    /// Joins a question under way, or starts it in a task of its own: a client that goes away ends nothing for others.
    /// `again`: even if there is a fresh answer.
    async fn ask_once(&self, ask: &Ask, again: bool) -> Outcome {
        let mut receiver = {
            let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(receiver) = under_way.get(ask) {
                receiver.clone()
            } else {
                // It may have come between a look at the cache and here.
                if let Some(stored) = self.fresh(ask).filter(|_| !again) {
                    return Ok(stored);
                }
                let Ok(slot) = self.0.slots.clone().try_acquire_owned() else {
                    count(&self.0.counts.rejected);
                    return Err(Failure::Busy);
                };
                let (sender, receiver) = watch::channel(None);
                under_way.insert(ask.clone(), receiver.clone());
                let (forwarder, ask) = (self.clone(), ask.clone());
                self.0.runtime.spawn(async move {
                    let _slot = slot;
                    let outcome = forwarder.ask_upstreams(&ask).await;
                    if let Ok(stored) = &outcome {
                        forwarder.keep(&ask, stored);
                    }
                    let mut under_way = forwarder.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
                    under_way.remove(&ask);
                    drop(under_way);
                    sender.send_replace(Some(outcome));
                });
                receiver
            }
        };
        let outcome = receiver.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
        outcome.unwrap_or(Err(Failure::Unanswered))
    }

    /// As [`Forwarder::cached`], uncounted.
    fn fresh(&self, ask: &Ask) -> Option<Arc<Stored>> {
        let now = Instant::now();
        let caches = [&self.0.answers, &self.0.denials].into_iter();
        caches.filter_map(|cache| cache.peek(ask, now)).find_map(|(stored, fresh)| fresh.then_some(stored))
    }

    fn keep(&self, ask: &Ask, stored: &Arc<Stored>) {
        let (n, cache) = if stored.is_positive() { (0, &self.0.answers) } else { (1, &self.0.denials) };
        let evicted = cache.put(ask, stored);
        self.0.counts.evictions[n].fetch_add(evicted, Ordering::Relaxed);
    }

    fn group(&self, name: &Name) -> Option<&Group> {
        let name = QName::from_name(name);
        let covers = |zone: &Name, labels: usize| name.labels_before(zone.as_wire(), labels).is_some();
        self.0
            .routes
            .iter()
            .find(|(zone, labels, _)| covers(zone, *labels))
            .and_then(|(_, _, group)| group.as_ref())
    }

    /// Tries upstreams one after the other; a slow one does not hold up the next.
    async fn ask_upstreams(&self, ask: &Ask) -> Outcome {
        let config = &self.0.config;
        let group = self.group(&ask.name).ok_or(Failure::NoUpstream)?;
        self.find_loops();
        let order = group.order(config.max_fails, config.fail_fast, rand::random_range(0..usize::MAX));
        if order.is_empty() {
            count(&self.0.counts.all_down);
            return Err(Failure::Unanswered);
        }
        // Each is tried twice, as packets get lost.
        let mut next = order.iter().chain(&order);
        let (mut tries, mut unanswered) = (FuturesUnordered::new(), Vec::new());
        let mut fallback = None;
        let deadline = tokio::time::sleep(config.deadline);
        tokio::pin!(deadline);
        loop {
            if let Some(upstream) = next.next() {
                unanswered.push((upstream, Instant::now()));
                tries.push(async move { (upstream, self.try_one(upstream, ask).await) });
            } else if tries.is_empty() {
                break;
            }
            tokio::select! {
                Some((upstream, result)) = tries.next() => {
                    unanswered.retain(|(other, _)| !Arc::ptr_eq(other, upstream));
                    match result {
                        Some(stored) if config.next_on.contains(&stored.rcode()) => fallback = Some(stored),
                        Some(stored) => {
                            self.blame_slow(&unanswered);
                            return Ok(stored);
                        }
                        None => {}
                    }
                }
                () = tokio::time::sleep(config.hedge) => {}
                () = &mut deadline => {
                    self.blame_slow(&unanswered);
                    break;
                }
            }
        }
        fallback.ok_or(Failure::Unanswered)
    }

    /// Those that let another one overtake them have failed: otherwise each question would wait for them again.
    fn blame_slow(&self, unanswered: &[(&Arc<Upstream>, Instant)]) {
        for (upstream, since) in unanswered {
            if since.elapsed() >= self.0.config.hedge {
                self.failed(upstream);
            }
        }
    }

    fn failed(&self, upstream: &Arc<Upstream>) {
        if upstream.failed() && self.0.config.max_fails > 0 {
            self.check_health(upstream.clone());
        }
    }

    async fn try_one(&self, upstream: &Arc<Upstream>, ask: &Ask) -> Option<Arc<Stored>> {
        let config = &self.0.config;
        let exchange = exchange::exchange(upstream.address, ask, config.force_tcp, &config.cache);
        let begin = Instant::now();
        match tokio::time::timeout(config.timeout, exchange).await {
            Ok(Ok(stored)) => {
                upstream.times.add(stored.rcode(), begin.elapsed());
                upstream.succeeded();
                return Some(stored);
            }
            Ok(Err(error)) => {
                if matches!(error, ExchangeError::Untrue(_)) {
                    count(&self.0.counts.untrue);
                }
                tracing::debug!(upstream = %upstream.address, name = %ask.name, %error, "an upstream failed");
            }
            Err(_) => {
                tracing::debug!(upstream = %upstream.address, name = %ask.name, "an upstream did not answer");
            }
        }
        self.failed(upstream);
        None
    }

    /// Asks an upstream that failed until it answers anything at all.
    fn check_health(&self, upstream: Arc<Upstream>) {
        // Not kept alive by its own checks.
        let inner = Arc::downgrade(&self.0);
        self.0.runtime.spawn(async move {
            let ask = Ask::address(Name::root(), rtype::NS);
            while let Some(inner) = inner.upgrade() {
                let config = &inner.config;
                let exchange = exchange::exchange(upstream.address, &ask, config.force_tcp, &config.cache);
                let healthy =
                    matches!(tokio::time::timeout(health_timeout(config), exchange).await, Ok(Ok(_)));
                upstream.checked(healthy);
                if healthy {
                    return;
                }
                count(&inner.counts.health_failures);
                let interval = config.health_interval;
                drop(inner);
                tokio::time::sleep(interval).await;
            }
        });
    }

    /// Once, with the first question that goes out: finds upstreams that lead back to us, by asking each for a name that
    /// nobody else would ask.
    fn find_loops(&self) {
        if self.0.probed.swap(true, Ordering::Relaxed) {
            return;
        }
        let groups = self.0.routes.iter().filter_map(|(zone, _, group)| Some((zone, group.as_ref()?)));
        for (zone, upstream) in
            groups.flat_map(|(zone, group)| group.upstreams.iter().map(move |u| (zone, u)))
        {
            let (forwarder, zone, upstream) = (self.clone(), zone.clone(), upstream.clone());
            self.0.runtime.spawn(async move { forwarder.probe(&zone, &upstream).await });
        }
    }

    async fn probe(&self, zone: &Name, upstream: &Arc<Upstream>) {
        let Some(name) = self.0.probes.start(zone, upstream) else { return };
        let ask = Ask { name: name.clone(), ..Ask::address(name.clone(), rtype::HINFO) };
        let config = &self.0.config;
        for _ in 0..probe::TRIES {
            let exchange = exchange::exchange(upstream.address, &ask, config.force_tcp, &config.cache);
            match tokio::time::timeout(config.timeout, exchange).await {
                Ok(Ok(_)) => break,
                _ if upstream.is_looped() => break,
                _ => tokio::time::sleep(probe::AGAIN).await,
            }
        }
        self.0.probes.end(&name);
    }

    /// The upstreams that were found to lead back to us.
    pub fn loops(&self) -> Vec<std::net::SocketAddr> {
        let groups = self.0.routes.iter().filter_map(|(_, _, group)| group.as_ref());
        let upstreams = groups.flat_map(|group| &group.upstreams);
        upstreams.filter(|u| u.is_looped()).map(|u| u.address).collect()
    }
}

fn health_timeout(config: &Config) -> Duration {
    config.timeout.min(Duration::from_secs(1))
}
