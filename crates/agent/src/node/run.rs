//! The tasks that keep the node registered and its routes right.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use portolan_api::coordination::v1::Lease;
use portolan_api::core::v1::Node;
use portolan_client::{BoxError, Cache, Client, Selectors, paths};
use tokio::sync::{Notify, watch};

use super::object::Facts;
use super::{register, routes};
use crate::Config;
use crate::network::egress;

const LEASE_EVERY: Duration = Duration::from_secs(10);
/// The status changes rarely; a write now and then shows that it is still meant.
const STATUS_EVERY: Duration = Duration::from_mins(5);
/// Before a status that somebody wrote over is written again. A controller does that to a node that was silent.
const REPAIR_PAUSE: Duration = Duration::from_millis(100);
/// The first wait after a failed write, doubled up to [`LEASE_EVERY`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Routes that could not be set, such as through an address that is not there yet, and routes that somebody removed.
const ROUTES_EVERY: Duration = Duration::from_secs(10);

/// What the agent must know of any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    /// `InternalIP` addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// Where the addresses of its pods are from.
    pub(crate) ranges: Vec<IpNet>,
    /// It is said to be ready.
    pub(crate) ready: bool,
}

impl NodeView {
    fn of(node: &Node) -> Self {
        let spec = &node.spec;
        let mut ranges: Vec<IpNet> = spec.pod_cidrs.iter().filter_map(|text| text.parse().ok()).collect();
        if ranges.is_empty() {
            ranges.extend(spec.pod_cidr.parse::<IpNet>());
        }
        let internal = node.status.addresses.iter().filter(|a| a.type_ == "InternalIP");
        Self {
            name: node.metadata.name.clone(),
            addresses: internal.filter_map(|a| a.address.parse().ok()).collect(),
            ranges,
            ready: node.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        }
    }

    fn project(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(Self::of(&serde_json::from_slice(bytes)?))
    }

    fn range_v4(&self) -> Option<Ipv4Net> {
        self.ranges.iter().find_map(|range| if let IpNet::V4(range) = range { Some(*range) } else { None })
    }
}

/// Keeps the node registered.
#[derive(Clone)]
pub(crate) struct NodeTask {
    client: Client,
    config: Arc<Config>,
    facts: Arc<Facts>,
    range: watch::Sender<Option<Ipv4Net>>,
    /// The Node object does not say what it should.
    amiss: Arc<Notify>,
}

impl NodeTask {
    pub(crate) fn new(client: Client, config: Arc<Config>) -> Self {
        let facts = Arc::new(Facts::read());
        Self { client, config, facts, range: watch::Sender::new(None), amiss: Arc::default() }
    }

    /// The range of the node's pods, once a controller has assigned it.
    pub(crate) fn range(&self) -> watch::Receiver<Option<Ipv4Net>> {
        self.range.subscribe()
    }

    /// Runs until dropped.
    pub(crate) async fn run(self) {
        self.register().await;
        tokio::join!(self.renew_lease(), self.report_status(), self.follow_nodes());
    }

    async fn register(&self) {
        self.retried("register", || {
            let task = self.clone();
            let range = *self.range.borrow();
            async move { register::register(&task.client, &task.config, range).await.map(drop) }
        })
        .await;
    }

    /// Attempts own what they need: a future that borrows from its closure is not known to be `Send`.
    async fn retried<F: Future<Output = Result<(), portolan_client::Error>>>(
        &self,
        action: &'static str,
        attempt: impl Fn() -> F,
    ) {
        let mut wait = RETRY_FIRST;
        while let Err(error) = attempt().await {
            tracing::warn!(%error, node = %self.config.node_name, "cannot {action} the node");
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LEASE_EVERY);
        }
    }

    async fn renew_lease(&self) {
        let mut lease: Option<Lease> = None;
        let mut wait = RETRY_FIRST;
        loop {
            match register::renew(&self.client, &self.config, lease.take()).await {
                Ok(renewed) => {
                    lease = Some(renewed);
                    wait = RETRY_FIRST;
                    tokio::time::sleep(LEASE_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, node = %self.config.node_name, "cannot renew the node's lease");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(LEASE_EVERY);
                }
            }
        }
    }

    async fn report_status(&self) {
        let mut range = self.range();
        loop {
            let has_range = range.borrow_and_update().is_some();
            self.retried("report", || {
                let task = self.clone();
                async move { register::report(&task.client, &task.config, &task.facts, has_range).await }
            })
            .await;
            let changed =
                async { while range.changed().await.is_ok() && range.borrow().is_some() == has_range {} };
            tokio::select! {
                _ = tokio::time::timeout(STATUS_EVERY, changed) => {}
                // If somebody keeps saying otherwise, both get their word, but not as fast as they can.
                () = self.amiss.notified() => tokio::time::sleep(REPAIR_PAUSE).await,
            }
        }
    }

    /// Watches all nodes: the own one for its range, the others for routes.
    async fn follow_nodes(&self) {
        let nodes = Cache::start(self.client.clone(), paths::NODES, Selectors::default(), NodeView::project);
        nodes.synced().await;
        let mut dirty = nodes.subscribe();
        loop {
            drop(tokio::time::timeout(ROUTES_EVERY, dirty.wait()).await);
            dirty.take();
            let all: HashMap<String, Arc<NodeView>> =
                nodes.all().into_iter().map(|(key, node)| (key.name.to_string(), node)).collect();
            match all.get(&self.config.node_name) {
                // Deleted while we run: as long as we do, the node is there.
                None => {
                    self.register().await;
                    self.amiss.notify_one();
                }
                Some(own) if !own.ready && self.range.borrow().is_some() => self.amiss.notify_one(),
                Some(_) => {}
            }
            if let Some(range) = all.get(&self.config.node_name).and_then(|node| node.range_v4()) {
                // Before any pod has an address of it.
                if *self.range.borrow() != Some(range) {
                    self.set_masquerade(range).await;
                }
                self.range.send_if_modified(|old| old.replace(range) != Some(range));
            }
            if self.config.network.peer_routes {
                self.set_routes(all).await;
            }
        }
    }

    async fn set_masquerade(&self, range: Ipv4Net) {
        let cluster = self.config.network.cluster_cidrs.clone();
        let work = move || egress::masquerade(range, &cluster);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
            tracing::error!(%error);
        }
    }

    async fn set_routes(&self, nodes: HashMap<String, Arc<NodeView>>) {
        let own = self.config.node_name.clone();
        let apply = move || routes::apply(&routes::wanted(&own, nodes.values().map(AsRef::as_ref)));
        for error in tokio::task::spawn_blocking(apply).await.unwrap_or_default() {
            tracing::warn!(%error, "cannot set a route to another node's pods");
        }
    }
}
