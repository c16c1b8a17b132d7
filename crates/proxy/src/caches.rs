//! What the proxy watches: Services, EndpointSlices, its own Node and the ServiceCIDRs, each kept parsed.

use std::sync::Arc;

use ipnet::IpNet;
use portolan_client::{Cache, Client, Dirty, Selectors, paths};

use crate::views::{self, Interner, NodeObject, ServiceObject, SliceObject};

/// The watch caches of the proxy.
pub(crate) struct Caches {
    pub(crate) services: Cache<ServiceObject>,
    pub(crate) slices: Cache<SliceObject>,
    pub(crate) nodes: Cache<NodeObject>,
    pub(crate) service_cidrs: Cache<Vec<IpNet>>,
}

impl Caches {
    pub(crate) fn start(client: &Client, node_name: &str) -> Self {
        let interner = Arc::new(Interner::default());
        let shared = Arc::clone(&interner);
        let services = Selectors {
            labels: Some(format!("!{}", views::PROXY_NAME_LABEL)),
            spared: Some("spec.clusterIP!=None".into()),
            ..Selectors::default()
        };
        let slices =
            Selectors { labels: Some(format!("!{}", views::HEADLESS_LABEL)), ..Selectors::default() };
        let own = Selectors { fields: Some(format!("metadata.name={node_name}")), ..Selectors::default() };
        Self {
            services: Cache::start(client.clone(), paths::SERVICES, services, move |bytes| {
                views::service(bytes, &shared)
            }),
            slices: Cache::start(client.clone(), paths::ENDPOINT_SLICES_OF_ANY_AGE, slices, move |bytes| {
                views::slice(bytes, &interner)
            }),
            nodes: Cache::start(client.clone(), paths::NODES, own, views::node),
            service_cidrs: Cache::start(
                client.clone(),
                paths::SERVICE_CIDRS,
                Selectors::default(),
                views::service_cidr,
            ),
        }
    }

    pub(crate) fn subscribe(&self) -> Changes {
        Changes {
            services: self.services.subscribe(),
            slices: self.slices.subscribe(),
            nodes: self.nodes.subscribe(),
            service_cidrs: self.service_cidrs.subscribe(),
        }
    }

    /// Objects that could not be read at all.
    pub(crate) fn decode_failures(&self) -> u64 {
        self.services.decode_failures()
            + self.slices.decode_failures()
            + self.nodes.decode_failures()
            + self.service_cidrs.decode_failures()
    }
}

/// One subscription per cache.
pub(crate) struct Changes {
    pub(crate) services: Dirty,
    pub(crate) slices: Dirty,
    pub(crate) nodes: Dirty,
    pub(crate) service_cidrs: Dirty,
}

impl Changes {
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            () = self.services.wait() => {}
            () = self.slices.wait() => {}
            () = self.nodes.wait() => {}
            () = self.service_cidrs.wait() => {}
        }
    }
}
