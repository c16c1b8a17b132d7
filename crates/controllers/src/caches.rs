//! The watch caches that all controllers share, and what they keep in common.

use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_api::apps::v1::{Deployment, ReplicaSet};
use portolan_api::meta::v1::ObjectMeta;
use portolan_api::networking::v1::ServiceCIDR;
use portolan_client::{
    Cache, Client, Error, EventRecorder, EventType, Key, ObjectRef, Selectors, cache, paths,
};

use crate::Config;
use crate::gc::plan::Owners;
use crate::kept::{self, Kept, KeptSlice};
use crate::objects::{Lease, Meta, Namespace, Node, Pod, Service};
use crate::servicecidrs::plan::MANAGED_ADDRESSES;
use crate::slices::SliceIndex;
use crate::world::World;
use crate::written::Endpoints;

/// One watch per kind, however many controllers read it.
pub(crate) struct Caches {
    pub(crate) pods: Cache<Pod>,
    pub(crate) services: Cache<Service>,
    pub(crate) nodes: Cache<Node>,
    pub(crate) leases: Cache<Lease>,
    pub(crate) namespaces: Cache<Namespace>,
    pub(crate) endpoints: Cache<Kept<Endpoints>>,
    pub(crate) slices: Cache<KeptSlice>,
    pub(crate) deployments: Cache<Deployment>,
    pub(crate) replica_sets: Cache<ReplicaSet>,
    pub(crate) service_cidrs: Cache<ServiceCIDR>,
    /// Those that the allocators made; the name is the address, and nothing else is asked for.
    pub(crate) ip_addresses: Cache<()>,
}

/// Where nodes keep their Leases.
pub(crate) const LEASE_NAMESPACE: &str = "kube-node-lease";

impl Caches {
    fn start(client: &Client) -> Self {
        let all = Selectors::default;
        let leases = Selectors { namespace: Some(LEASE_NAMESPACE.into()), ..all() };
        let managed = Selectors { labels: Some(MANAGED_ADDRESSES.into()), ..all() };
        Self {
            pods: Cache::start(client.clone(), paths::PODS, all(), cache::json),
            services: Cache::start(client.clone(), paths::SERVICES, all(), cache::json),
            nodes: Cache::start(client.clone(), paths::NODES, all(), cache::json),
            leases: Cache::start(client.clone(), paths::LEASES, leases, cache::json),
            namespaces: Cache::start(client.clone(), paths::NAMESPACES, all(), cache::json),
            endpoints: Cache::start(client.clone(), paths::ENDPOINTS, all(), kept::endpoints),
            slices: Cache::start(client.clone(), paths::ENDPOINT_SLICES, all(), kept::slice),
            deployments: Cache::start(client.clone(), paths::DEPLOYMENTS, all(), cache::json),
            replica_sets: Cache::start(client.clone(), paths::REPLICA_SETS, all(), cache::json),
            service_cidrs: Cache::start(client.clone(), paths::SERVICE_CIDRS, all(), cache::json),
            ip_addresses: Cache::start(client.clone(), paths::IP_ADDRESSES, managed, |_| Ok(())),
        }
    }

    async fn synced(&self) {
        self.pods.synced().await;
        self.services.synced().await;
        self.nodes.synced().await;
        self.leases.synced().await;
        self.namespaces.synced().await;
        self.endpoints.synced().await;
        self.slices.synced().await;
        self.deployments.synced().await;
        self.replica_sets.synced().await;
        self.service_cidrs.synced().await;
        self.ip_addresses.synced().await;
    }
}

/// What every controller works with.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) config: Config,
    pub(crate) caches: Caches,
    world: Mutex<World>,
    slices: Mutex<SliceIndex>,
    owners: Mutex<Owners>,
}

impl Shared {
    /// Starts the caches and waits until each has its first complete list.
    pub(crate) async fn start(client: Client, config: Config) -> Self {
        let caches = Caches::start(&client);
        caches.synced().await;
        Self {
            client,
            config,
            caches,
            world: Mutex::default(),
            slices: Mutex::default(),
            owners: Mutex::default(),
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(crate) fn slices(&self) -> MutexGuard<'_, SliceIndex> {
        lock(&self.slices)
    }

    pub(crate) fn owners(&self) -> MutexGuard<'_, Owners> {
        lock(&self.owners)
    }
}

/// A panic elsewhere does not make these values wrong: each update is whole before anything can fail.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Warning or Normal event about an object.
pub(crate) fn event(
    events: &EventRecorder,
    of: (&str, &str, &Meta),
    kind: EventType,
    reason: &str,
    message: &str,
) {
    let (api_version, object_kind, meta) = of;
    let about =
        about((api_version, object_kind), [&*meta.namespace, &meta.name, &meta.uid, &meta.resource_version]);
    events.record(&about, kind, reason, message);
}

/// The same about an object of the API's own types.
pub(crate) fn api_event(
    events: &EventRecorder,
    of: (&str, &str, &ObjectMeta),
    kind: EventType,
    reason: &str,
    message: &str,
) {
    let (api_version, object_kind, meta) = of;
    let about =
        about((api_version, object_kind), [&meta.namespace, &meta.name, &meta.uid, &meta.resource_version]);
    events.record(&about, kind, reason, message);
}

fn about((api_version, kind): (&str, &str), [namespace, name, uid, version]: [&str; 4]) -> ObjectRef {
    ObjectRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
        uid: uid.into(),
        resource_version: version.into(),
        field_path: String::new(),
    }
}

/// The namespace of the object is being deleted: nothing new can be made there, and nothing needs to.
pub(crate) fn namespace_ends(error: &Error) -> bool {
    let causes = error.status().and_then(|status| status.details.as_ref()).map(|details| &details.causes);
    causes.is_some_and(|causes| causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

/// Whether a failed write is part of the game: somebody else was faster, and the next look decides anew.
pub(crate) fn lost_race(error: &Error) -> bool {
    error.is_conflict() || error.is_already_exists() || error.is_not_found()
}

/// Now, as the API spells it.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The namespace argument of a request.
pub(crate) fn namespace(key: &Key) -> Option<&str> {
    (!key.namespace.is_empty()).then_some(&*key.namespace)
}
