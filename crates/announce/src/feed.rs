//! Watch caches to claims.

use std::time::Instant;

use portolan_api::coordination::v1::Lease;
use portolan_client::{Cache, Client, Dirty, Selectors, cache, paths};

use crate::claims::{Change, Planner};
use crate::lease::{self, Freshness};
use crate::objects::{NodeView, PoolView, ServiceView, SliceView};

pub(crate) struct Feed {
    services: (Cache<ServiceView>, Dirty),
    slices: (Cache<SliceView>, Dirty),
    nodes: (Cache<NodeView>, Dirty),
    pools: (Cache<PoolView>, Dirty),
    leases: (Cache<Lease>, Dirty),
    planner: Planner,
    freshness: Freshness,
}

fn watched<T: Send + Sync + 'static>(cache: Cache<T>) -> (Cache<T>, Dirty) {
    let dirty = cache.subscribe();
    (cache, dirty)
}

impl Feed {
    /// Starts the caches, and waits for their first complete lists.
    pub(crate) async fn start(client: &Client, without_class: bool) -> Self {
        let all = Selectors::default;
        let services = Selectors { spared: Some("spec.type=LoadBalancer".into()), ..all() };
        let leases = Selectors {
            namespace: Some(lease::NAMESPACE.into()),
            labels: Some(lease::LABEL.into()),
            ..all()
        };
        let client = || client.clone();
        let feed = Self {
            services: watched(Cache::start(client(), paths::SERVICES, services, move |bytes| {
                ServiceView::project(bytes, without_class)
            })),
            slices: watched(Cache::start(
                client(),
                paths::ENDPOINT_SLICES_OF_ANY_AGE,
                all(),
                SliceView::project,
            )),
            nodes: watched(Cache::start(client(), paths::NODES, all(), NodeView::project)),
            pools: watched(Cache::start(client(), paths::LOAD_BALANCER_POOLS, all(), PoolView::project)),
            leases: watched(Cache::start(client(), paths::LEASES, leases, cache::json)),
            planner: Planner::default(),
            freshness: Freshness::default(),
        };
        feed.services.0.synced().await;
        feed.slices.0.synced().await;
        feed.nodes.0.synced().await;
        feed.pools.0.synced().await;
        feed.leases.0.synced().await;
        feed
    }

    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            () = self.services.1.wait() => {}
            () = self.slices.1.wait() => {}
            () = self.nodes.1.wait() => {}
            () = self.pools.1.wait() => {}
            () = self.leases.1.wait() => {}
        }
    }

    /// Everything that is dirty now, as a change of the claims.
    pub(crate) fn take(&mut self) -> Change {
        for key in self.nodes.1.take() {
            self.planner.node(&key.name, self.nodes.0.get(&key));
        }
        for key in self.pools.1.take() {
            self.planner.pool(&key.name, self.pools.0.get(&key));
        }
        for key in self.slices.1.take() {
            self.planner.slice(&key, self.slices.0.get(&key));
        }
        for key in self.services.1.take() {
            self.planner.service(&key, self.services.0.get(&key));
        }
        if !self.leases.1.take().is_empty() {
            self.look_at_leases();
        }
        self.planner.take()
    }

    /// Leases that are not renewed any more say nothing by themselves: called now and then, but only while this node's
    /// own is renewed. Where the API is away, nobody renews, and nobody is dead for it.
    pub(crate) fn look_at_leases(&mut self) {
        let leases = self.leases.0.all();
        let found = leases.iter().map(|(key, lease)| (key, lease.as_ref()));
        let fresh = self.freshness.look(found, Instant::now());
        self.planner.leases(fresh);
    }
}
