//! Watches Services, pools and namespaces; plans in one task, writes in several.
//!
//! Planning is one loop so that a burst of Services gets its addresses oldest first, whatever the order of the writes.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_client::{
    Cache, Client, Dirty, EventRecorder, EventType, Key, Patch, Selectors, Subresource, cache, paths,
};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::metrics::Metrics;
use super::objects::{Namespace, PoolObject, Service};
use super::plan::{Allocator, Verdict};
use super::pool::Pool;
use super::status;
use crate::caches::{event, lock, lost_race, now};
use crate::objects::{Labels, Meta};
use crate::queue::{Backoff, Outcome, Queue};

/// Those who wait are looked at again even if nothing seems to have changed.
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// Counts in pools' status are for people: once in a while is enough.
const POOL_STATUS_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Config {
    /// Services without a load-balancer class are ours too.
    pub without_class: bool,
    /// How many statuses are written at once.
    pub workers: usize,
    pub metrics: Arc<Metrics>,
}

impl Default for Config {
    fn default() -> Self {
        Self { without_class: true, workers: 8, metrics: Arc::default() }
    }
}

/// What is to be written for a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Has(Verdict),
    /// None of ours any more.
    Cleared,
}

struct Controller {
    client: Client,
    config: Config,
    events: EventRecorder,
    services: Cache<Service>,
    pools: Cache<PoolObject>,
    namespaces: Cache<Namespace>,
    allocator: Mutex<Allocator>,
    targets: Mutex<HashMap<Key, Arc<Target>>>,
    queue: Queue<Key>,
    counts_changed: Notify,
}

/// Runs until `shutdown` ends. Only one may run in a cluster: whoever cannot know that takes a Lease first.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()> + Send) {
    // Dropped with everything in it when `shutdown` ends.
    let mut tasks = JoinSet::new();
    let work = async {
        let controller = Arc::new(Controller::start(client, config).await);
        let mut feed = Feed::new(&controller);
        controller.adopt();
        feed.step(&controller);
        for _ in 0..controller.config.workers.max(1) {
            let own = Arc::clone(&controller);
            tasks.spawn(async move { own.queue.work(|key| own.sync(key)).await });
        }
        let own = Arc::clone(&controller);
        tasks.spawn(async move { own.keep_pool_status().await });
        tasks.spawn(async move { feed.run(controller).await });
        while tasks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = work => {}
        () = shutdown => {}
    }
}

struct Feed {
    services: Dirty,
    pools: Dirty,
    namespaces: Dirty,
}

impl Feed {
    fn new(controller: &Controller) -> Self {
        Self {
            services: controller.services.subscribe(),
            pools: controller.pools.subscribe(),
            namespaces: controller.namespaces.subscribe(),
        }
    }

    async fn run(mut self, controller: Arc<Controller>) {
        let mut retry = tokio::time::interval(RETRY_EVERY);
        retry.tick().await;
        loop {
            let mut keys = HashSet::new();
            tokio::select! {
                () = self.services.wait() => {}
                () = self.pools.wait() => {}
                () = self.namespaces.wait() => {}
                _ = retry.tick() => keys.extend(lock(&controller.allocator).waiting()),
            }
            controller.plan(keys);
            self.step(&controller);
        }
    }

    /// Takes in everything that is dirty now.
    fn step(&mut self, controller: &Controller) {
        let mut keys = self.services.take();
        if !self.pools.take().is_empty() {
            controller.set_pools();
            keys.extend(controller.services.all().into_iter().map(|(key, _)| key));
        }
        let spaces = self.namespaces.take();
        if !spaces.is_empty() && lock(&controller.allocator).selects_by_namespace() {
            let names: HashSet<Arc<str>> = spaces.into_iter().map(|key| key.name).collect();
            let all = controller.services.all().into_iter().map(|(key, _)| key);
            keys.extend(all.filter(|key| names.contains(&key.namespace)));
        }
        controller.plan(keys);
    }
}

impl Controller {
    async fn start(client: Client, config: Config) -> Self {
        let services = Selectors { spared: Some("spec.type=LoadBalancer".into()), ..Selectors::default() };
        let all = Selectors::default;
        let controller = Self {
            events: EventRecorder::new(client.clone(), "portolan-loadbalancer", ""),
            services: Cache::start(client.clone(), paths::SERVICES, services, cache::json),
            pools: Cache::start(client.clone(), paths::LOAD_BALANCER_POOLS, all(), cache::json),
            namespaces: Cache::start(client.clone(), paths::NAMESPACES, all(), cache::json),
            client,
            config,
            allocator: Mutex::default(),
            targets: Mutex::default(),
            queue: Queue::new(Backoff::default()),
            counts_changed: Notify::new(),
        };
        controller.services.synced().await;
        controller.pools.synced().await;
        controller.namespaces.synced().await;
        controller
    }

    fn ours(&self, service: &Service) -> bool {
        service.is_ours(self.config.without_class)
    }

    /// What statuses say is taken over before anything new is given: the oldest Service first.
    fn adopt(&self) {
        self.set_pools();
        let mut services: Vec<(Key, Arc<Service>)> = self.services.all();
        services.retain(|(_, service)| self.ours(service));
        services.sort_by(|(_, a), (_, b)| a.age_order().cmp(&b.age_order()));
        let mut allocator = lock(&self.allocator);
        for (key, service) in services {
            allocator.adopt(&key, &service);
        }
    }

    fn set_pools(&self) {
        let objects = self.pools.all();
        let mut pools = Vec::with_capacity(objects.len());
        for (_, object) in objects {
            let (pool, wrong) = Pool::of(&object);
            for message in wrong {
                self.about_pool(&object, EventType::Warning, "InvalidPool", &message);
            }
            pools.push(pool);
        }
        lock(&self.allocator).set_pools(pools);
        self.counts_changed.notify_one();
    }

    /// Decides about these Services, oldest first, and about whom that concerns.
    fn plan(&self, keys: HashSet<Key>) {
        let mut keys = keys;
        // Whom a decision concerns is decided about in the next round; a round settles at least one of them.
        while !keys.is_empty() {
            let mut known: Vec<(Key, Option<Arc<Service>>)> =
                keys.drain().map(|key| (key.clone(), self.services.get(&key))).collect();
            known.sort_by(|(a, x), (b, y)| {
                let age = |service: &Option<Arc<Service>>| {
                    service.as_ref().and_then(|service| service.metadata.creation_timestamp.clone())
                };
                (age(x), a).cmp(&(age(y), b))
            });
            for (key, service) in known {
                keys.extend(self.plan_one(&key, service.as_deref()));
            }
        }
    }

    fn plan_one(&self, key: &Key, service: Option<&Service>) -> Vec<Key> {
        let Some(service) = service.filter(|service| self.ours(service)) else {
            let mut allocator = lock(&self.allocator);
            let held = allocator.holds(key);
            let woken = allocator.release(key);
            drop(allocator);
            if held {
                self.counts_changed.notify_one();
            }
            // The cache holds only Services of the type: one that has left it may have changed its type.
            if lock(&self.targets).remove(key).is_some()
                || service.is_some_and(|s| s.condition(status::CONDITION).is_some())
            {
                lock(&self.targets).insert(key.clone(), Arc::new(Target::Cleared));
                self.queue.add(key.clone());
            }
            return woken;
        };
        let mut allocator = lock(&self.allocator);
        if allocator.pools().next().is_none() && !allocator.holds(key) && !service.addresses().is_empty() {
            // Somebody else's, as long as there is no pool.
            return Vec::new();
        }
        let (mut verdict, woken) = {
            let none = Labels::new();
            let space = self.namespaces.get(&Key::new("", Arc::clone(&key.namespace)));
            let labels = space.as_ref().map_or(&none, |space| &space.metadata.labels);
            allocator.plan(key, service, labels)
        };
        drop(allocator);
        let mut targets = lock(&self.targets);
        if verdict.lost.is_empty()
            && let Some(Target::Has(before)) = targets.get(key).map(AsRef::as_ref)
        {
            // Not written yet, perhaps: the reason is still to be told.
            verdict.lost.clone_from(&before.lost);
        }
        let write = status::patch(service, &verdict, "").is_some();
        targets.insert(key.clone(), Arc::new(Target::Has(verdict)));
        drop(targets);
        if write {
            self.counts_changed.notify_one();
            self.queue.add(key.clone());
        }
        woken
    }

    async fn sync(&self, key: Key) -> Outcome {
        let target = lock(&self.targets).get(&key).cloned();
        let result = match target.as_deref() {
            None => return Outcome::Done,
            Some(Target::Has(verdict)) => self.write(&key, verdict).await,
            Some(Target::Cleared) => self.clear(&key).await,
        };
        match result {
            Ok(()) => Outcome::Done,
            Err(error) if error.is_not_found() => Outcome::Done,
            Err(error) => {
                if !lost_race(&error) {
                    tracing::warn!(service = %key, %error, "cannot write the addresses of a Service");
                }
                Outcome::Failed
            }
        }
    }

    async fn write(&self, key: &Key, verdict: &Verdict) -> Result<(), portolan_client::Error> {
        let Some(service) = self.services.get(key) else { return Ok(()) };
        let Some(patch) = status::patch(&service, verdict, &now()) else { return Ok(()) };
        self.patch(key, &patch).await?;
        for said in status::said(&service, verdict) {
            event(&self.events, ("v1", "Service", &service.metadata), said.kind, said.reason, &said.message);
        }
        Ok(())
    }

    async fn clear(&self, key: &Key) -> Result<(), portolan_client::Error> {
        let service: Service = self.client.get(&paths::SERVICES, Some(&key.namespace), &key.name).await?;
        if let Some(patch) = status::cleared(&service).filter(|_| !self.ours(&service)) {
            self.patch(key, &patch).await?;
        }
        let mut targets = lock(&self.targets);
        if targets.get(key).is_some_and(|target| **target == Target::Cleared) {
            targets.remove(key);
        }
        Ok(())
    }

    async fn patch(&self, key: &Key, patch: &Value) -> Result<(), portolan_client::Error> {
        let (status, patch) = (Subresource::Status, Patch::Merge(patch));
        let space = Some(&*key.namespace);
        self.client.patch::<Value>(&paths::SERVICES, space, &key.name, status, patch).await.map(drop)
    }

    async fn keep_pool_status(&self) {
        loop {
            self.counts_changed.notified().await;
            self.count();
            for (_, object) in self.pools.all() {
                if let Err(error) = self.write_pool_status(&object).await
                    && !lost_race(&error)
                {
                    tracing::warn!(pool = object.metadata.name, %error, "cannot write the status of a pool");
                }
            }
            tokio::time::sleep(POOL_STATUS_EVERY).await;
        }
    }

    fn count(&self) {
        let allocator = lock(&self.allocator);
        self.config.metrics.set(allocator.pools(), allocator.waiting_count());
    }

    async fn write_pool_status(&self, object: &PoolObject) -> Result<(), portolan_client::Error> {
        let name = &object.metadata.name;
        let (counts, overlap) = {
            let allocator = lock(&self.allocator);
            let Some(pool) = allocator.pools().find(|pool| pool.name == *name) else { return Ok(()) };
            ([pool.counts(true), pool.counts(false)], allocator.overlaps().remove(name))
        };
        let Some(patch) = pool_status(object, counts, overlap.as_deref()) else { return Ok(()) };
        if let Some(message) = overlap {
            self.about_pool(object, EventType::Warning, "Overlapping", &message);
        }
        let patch = Patch::Merge(&patch);
        let path = &paths::LOAD_BALANCER_POOLS;
        self.client.patch::<Value>(path, None, name, Subresource::Status, patch).await.map(drop)
    }

    fn about_pool(&self, object: &PoolObject, kind: EventType, reason: &str, message: &str) {
        let meta = Meta {
            name: object.metadata.name.as_str().into(),
            uid: object.metadata.uid.as_str().into(),
            resource_version: object.metadata.resource_version.clone(),
            ..Meta::default()
        };
        let version = paths::LOAD_BALANCER_POOLS.api_version();
        event(&self.events, (&version, "LoadBalancerPool", &meta), kind, reason, message);
    }
}

/// The merge patch for a pool's status; `None` when it says so already.
fn pool_status(object: &PoolObject, counts: [(u64, u64); 2], overlap: Option<&str>) -> Option<Value> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let [v4, v6] = counts.map(|(held, left)| (number(held), number(left)));
    let old = &object.status;
    let known = old.conditions.iter().find(|condition| condition.type_ == "Overlapping");
    let same_overlap =
        known.map(|known| (known.status == "True").then_some(known.message.as_str())) == Some(overlap);
    let same = (old.assigned_ipv4, old.available_ipv4) == v4 && (old.assigned_ipv6, old.available_ipv6) == v6;
    if same && same_overlap {
        return None;
    }
    let mut status = json!({
        "assignedIPv4": v4.0, "availableIPv4": v4.1, "assignedIPv6": v6.0, "availableIPv6": v6.1,
    });
    if !same_overlap {
        let (value, reason) = if overlap.is_some() { ("True", "AnotherPool") } else { ("False", "Alone") };
        let message = overlap.unwrap_or("no other pool offers its addresses");
        status["conditions"] = json!([{
            "type": "Overlapping", "status": value, "reason": reason, "message": message,
            "lastTransitionTime": now(), "observedGeneration": object.metadata.generation,
        }]);
    }
    Some(json!({ "status": status }))
}
