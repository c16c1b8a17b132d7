//! The controllers: what keeps Endpoints, EndpointSlices, Deployments, nodes, namespaces and Service ranges in step with
//! the cluster.
//!
//! Every controller is a folder with the same two files: `plan.rs` (pure: a snapshot in, the writes out) and `run.rs`
//! (thin: one key at a time, writes, retries). All of them read the same watch caches (`caches`); which pods belong to
//! which Service is worked out once ([`world`]), event by event (`feed`), so that the work follows the change.
//!
//! Start at [`run`], then [`endpointslice`].

#![forbid(unsafe_code)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use portolan_client::{Client, EventRecorder, Key};
use tokio::task::JoinSet;

mod caches;
pub mod deployments;
pub mod endpoints;
pub mod endpointslice;
mod feed;
pub mod gc;
pub mod kept;
pub mod leader;
pub mod loadbalancer;
pub mod mirroring;
pub mod namespaces;
pub mod nodes;
pub mod objects;
pub mod pending;
mod queue;
pub mod replicasets;
mod requests;
pub mod scheduler;
pub mod servicecidrs;
pub mod slices;
#[cfg(test)]
mod testing;
pub mod trigger;
pub mod world;
pub mod written;

/// What an operator can choose.
#[derive(Debug, Clone)]
pub struct Config {
    /// The ranges that pods get their addresses from, one per family; each node gets a /24 or /64 of each.
    pub cluster_cidrs: Vec<IpNet>,
    /// How long a node may give no sign of life.
    pub node_grace: Duration,
    /// 1 to 1000.
    pub max_endpoints_per_slice: usize,
    /// How many keys of one controller are worked on at once.
    pub workers: usize,
    pub load_balancer_metrics: Arc<loadbalancer::Metrics>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster_cidrs: vec![IpNet::V4(ipnet::Ipv4Net::new_assert(
                std::net::Ipv4Addr::new(10, 244, 0, 0),
                16,
            ))],
            node_grace: Duration::from_secs(40),
            max_endpoints_per_slice: 100,
            workers: 8,
            load_balancer_metrics: Arc::default(),
        }
    }
}

/// All controllers, with their queues and the feed between them and the caches.
struct Controllers {
    queues: feed::Queues,
    endpoints: endpoints::Controller,
    slices: endpointslice::Controller,
    mirroring: mirroring::Controller,
    scheduler: scheduler::Controller,
    nodes: nodes::Controller,
    namespaces: namespaces::Controller,
    deployments: deployments::Controller,
    replica_sets: replicasets::Controller,
    service_cidrs: servicecidrs::Controller,
    gc: gc::Controller,
}

impl feed::Listener for Controllers {
    fn service_gone(&self, key: &Key) {
        self.endpoints.service_gone(key);
    }

    fn nodes_changed(&self) {
        self.queues.scheduler.extend(self.scheduler.waiting());
    }
}

impl Controllers {
    fn new(client: &Client, shared: &Arc<caches::Shared>) -> Self {
        let events = |component: &str| EventRecorder::new(client.clone(), component, "");
        let shared = || Arc::clone(shared);
        Self {
            queues: feed::Queues::new(),
            endpoints: endpoints::Controller::new(shared(), &events("endpoint-controller")),
            slices: endpointslice::Controller::new(shared(), &events("endpoint-slice-controller")),
            mirroring: mirroring::Controller::new(shared(), &events("endpoint-slice-mirroring-controller")),
            scheduler: scheduler::Controller::new(shared(), &events("default-scheduler")),
            nodes: nodes::Controller::new(shared(), &events("node-controller")),
            namespaces: namespaces::Controller::new(shared()),
            deployments: deployments::Controller::new(shared(), &events("deployment-controller")),
            replica_sets: replicasets::Controller::new(shared(), &events("replicaset-controller")),
            service_cidrs: servicecidrs::Controller::new(shared(), &events(servicecidrs::CONTROLLER)),
            gc: gc::Controller::new(shared()),
        }
    }

    /// Starts the workers of all controllers.
    fn start(self: &Arc<Self>, workers: usize, tasks: &mut JoinSet<()>) {
        /// One controller's: `sync` of the field of the same name as its queue.
        macro_rules! start {
            ($($field:ident),+) => { $(
                for _ in 0..workers.max(1) {
                    let all = Arc::clone(self);
                    tasks.spawn(async move { all.queues.$field.work(|key| all.$field.sync(key)).await });
                }
            )+ };
        }
        start!(slices, endpoints, mirroring, scheduler, nodes, namespaces, deployments, replica_sets);
        start!(service_cidrs, gc);
    }
}

/// Runs all controllers until `shutdown` ends. Nothing is written before every cache has its first complete list.
pub async fn run(client: Client, config: Config, shutdown: impl Future<Output = ()> + Send) {
    // Dropped with everything in it when `shutdown` ends.
    let mut tasks = JoinSet::new();
    let work = async {
        let workers = config.workers;
        let metrics = Arc::clone(&config.load_balancer_metrics);
        let shared = Arc::new(caches::Shared::start(client.clone(), config).await);
        let controllers = Arc::new(Controllers::new(&client, &shared));
        tasks.spawn(loadbalancer::run(
            client.clone(),
            loadbalancer::Config { workers, metrics, ..loadbalancer::Config::default() },
            std::future::pending(),
        ));
        let mut feed = feed::Feed::new(shared, controllers.queues.clone());
        // The whole picture first: a Service planned before its pods are known would lose its endpoints.
        feed.step(&*controllers);
        controllers.start(workers, &mut tasks);
        tasks.spawn(async move { feed.run(&*controllers).await });
        while tasks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = work => {}
        () = shutdown => {}
    }
}

/// The same for one of several control planes: runs while it leads, as `election` says.
pub async fn run_elected(
    client: Client,
    config: Config,
    election: leader::Config,
    shutdown: impl Future<Output = ()> + Send,
) {
    let work = || run(client.clone(), config.clone(), std::future::pending());
    leader::lead(&client, election, work, shutdown).await;
}
