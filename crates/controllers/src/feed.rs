//! Watches all caches, keeps the shared picture up to date and tells each controller which keys to look at.
//!
//! The only place that knows what concerns whom. No work is done here: a change of a pod costs a few map operations
//! before the keys of its Services are in the queues.

use std::collections::HashSet;
use std::sync::Arc;

use portolan_client::{Dirty, Key};

use crate::caches::{LEASE_NAMESPACE, Shared};
use crate::gc::plan::{Dependent, OwnerKey};
use crate::kept::Manager;
use crate::objects::Owner;
use crate::queue::{Backoff, Queue};
use crate::{scheduler, servicecidrs};

/// One queue per controller.
#[derive(Clone)]
pub(crate) struct Queues {
    pub(crate) endpoints: Queue<Key>,
    pub(crate) slices: Queue<Key>,
    pub(crate) mirroring: Queue<Key>,
    pub(crate) scheduler: Queue<Key>,
    pub(crate) nodes: Queue<Key>,
    pub(crate) namespaces: Queue<Key>,
    pub(crate) deployments: Queue<Key>,
    pub(crate) replica_sets: Queue<Key>,
    pub(crate) service_cidrs: Queue<Key>,
    pub(crate) gc: Queue<(Dependent, Key)>,
}

impl Queues {
    pub(crate) fn new() -> Self {
        let backoff = Backoff::default();
        Self {
            endpoints: Queue::new(backoff),
            slices: Queue::new(backoff),
            mirroring: Queue::new(backoff),
            scheduler: Queue::new(backoff),
            nodes: Queue::new(backoff),
            namespaces: Queue::new(backoff),
            deployments: Queue::new(backoff),
            replica_sets: Queue::new(backoff),
            service_cidrs: Queue::new(backoff),
            gc: Queue::new(backoff),
        }
    }
}

/// What the feed tells besides keys.
pub(crate) trait Listener: Send + Sync {
    /// A Service that was there is gone.
    fn service_gone(&self, key: &Key);
    /// Nodes changed in a way that can make room for pods that found none.
    fn nodes_changed(&self);
}

pub(crate) struct Feed {
    shared: Arc<Shared>,
    queues: Queues,
    pods: Dirty,
    services: Dirty,
    nodes: Dirty,
    leases: Dirty,
    namespaces: Dirty,
    endpoints: Dirty,
    slices: Dirty,
    deployments: Dirty,
    replica_sets: Dirty,
    service_cidrs: Dirty,
    ip_addresses: Dirty,
}

impl Feed {
    /// Every object of the caches starts dirty, so the first [`Feed::step`] builds the whole picture.
    pub(crate) fn new(shared: Arc<Shared>, queues: Queues) -> Self {
        let caches = &shared.caches;
        Self {
            pods: caches.pods.subscribe(),
            services: caches.services.subscribe(),
            nodes: caches.nodes.subscribe(),
            leases: caches.leases.subscribe(),
            namespaces: caches.namespaces.subscribe(),
            endpoints: caches.endpoints.subscribe(),
            slices: caches.slices.subscribe(),
            deployments: caches.deployments.subscribe(),
            replica_sets: caches.replica_sets.subscribe(),
            service_cidrs: caches.service_cidrs.subscribe(),
            ip_addresses: caches.ip_addresses.subscribe(),
            shared,
            queues,
        }
    }

    pub(crate) async fn run(mut self, listener: &dyn Listener) {
        loop {
            tokio::select! {
                () = self.pods.wait() => {}
                () = self.services.wait() => {}
                () = self.nodes.wait() => {}
                () = self.leases.wait() => {}
                () = self.namespaces.wait() => {}
                () = self.endpoints.wait() => {}
                () = self.slices.wait() => {}
                () = self.deployments.wait() => {}
                () = self.replica_sets.wait() => {}
                () = self.service_cidrs.wait() => {}
                () = self.ip_addresses.wait() => {}
            }
            self.step(listener);
        }
    }

    /// Takes in everything that is dirty now. Nodes and pods first: what Services make of them should be new.
    pub(crate) fn step(&mut self, listener: &dyn Listener) {
        let keys = self.nodes.take();
        self.nodes(keys, listener);
        let keys = self.services.take();
        self.services(keys, listener);
        let keys = self.pods.take();
        self.pods(keys);
        for key in self.deployments.take() {
            if self.shared.caches.deployments.get(&key).is_none() {
                self.owner_gone(&key, "Deployment");
            }
            self.queues.deployments.add(key);
        }
        let keys = self.replica_sets.take();
        self.replica_sets(keys);
        let keys = self.slices.take();
        self.slices(keys);
        let keys = self.endpoints.take();
        self.endpoints(keys);
        for key in self.leases.take() {
            let lease = self.shared.caches.leases.get(&key);
            let owners = lease.as_ref().map(|lease| &lease.metadata.owner_references);
            self.owned(Dependent::Lease, &key, owners);
            if &*key.namespace == LEASE_NAMESPACE {
                self.queues.nodes.add(Key { namespace: "".into(), name: key.name });
            }
        }
        self.queues.namespaces.extend(self.namespaces.take());
        self.service_cidrs();
    }

    /// A range that comes or goes may decide about others on their way out, and so may an address in them.
    fn service_cidrs(&mut self) {
        let (changed, addresses) = (self.service_cidrs.take(), self.ip_addresses.take());
        let all = self.shared.caches.service_cidrs.all().into_iter().map(|(_, cidr)| cidr);
        let ending: Vec<_> = all.filter(|cidr| cidr.metadata.deletion_timestamp.is_some()).collect();
        let key = |name: &str| Key { namespace: "".into(), name: name.into() };
        if !changed.is_empty() {
            self.queues.service_cidrs.extend(ending.iter().map(|cidr| key(&cidr.metadata.name)));
            self.queues.service_cidrs.extend(changed);
        }
        for address in addresses.iter().filter(|_| !ending.is_empty()).filter_map(|key| key.name.parse().ok())
        {
            self.queues.service_cidrs.extend(servicecidrs::plan::having(&ending, address).map(key));
        }
    }

    fn nodes(&self, keys: HashSet<Key>, listener: &dyn Listener) {
        let mut placement = false;
        for key in keys {
            let node = self.shared.caches.nodes.get(&key);
            if node.is_none() {
                self.owner_gone(&key, "Node");
            }
            let touched = self.shared.world().node(&key.name, node.as_ref());
            placement |= touched.placement;
            self.queues.slices.extend(touched.services);
            self.queues.nodes.add(key);
        }
        if placement {
            listener.nodes_changed();
        }
    }

    fn services(&self, keys: HashSet<Key>, listener: &dyn Listener) {
        for key in keys {
            let service = self.shared.caches.services.get(&key);
            let gone = service.is_none();
            self.shared.world().service(&key, service);
            if gone {
                listener.service_gone(&key);
                self.owner_gone(&key, "Service");
            }
            self.queues.slices.add(key.clone());
            self.queues.endpoints.add(key.clone());
            self.queues.mirroring.add(key);
        }
    }

    fn pods(&self, keys: HashSet<Key>) {
        for key in keys {
            let pod = self.shared.caches.pods.get(&key);
            let (services, silent) = {
                let mut world = self.shared.world();
                let services = world.pod(&key, pod.as_ref());
                let node =
                    pod.as_ref().filter(|pod| pod.ready()).and_then(|pod| world.node_at(&pod.spec.node_name));
                (services, node.filter(|node| !node.ready()).map(|node| Arc::clone(&node.metadata.name)))
            };
            self.queues.slices.extend(services.iter().cloned());
            self.queues.endpoints.extend(services);
            if let Some(node) = silent {
                self.queues.nodes.add(Key { namespace: "".into(), name: node });
            }
            match &pod {
                Some(pod) if scheduler::plan::is_ours(pod) => self.queues.scheduler.add(key.clone()),
                Some(_) => {}
                None => self.owner_gone(&key, "Pod"),
            }
            let owners = pod.as_ref().map(|pod| &pod.metadata.owner_references);
            // Whoever owned it before its references changed or it went hears of it too.
            self.tell_sets(&key.namespace, &self.shared.owners().owners_of(Dependent::Pod, &key));
            self.tell_sets(&key.namespace, owners.map_or(&[], |owners| owners));
            self.owned(Dependent::Pod, &key, owners);
        }
    }

    fn tell_sets(&self, namespace: &Arc<str>, owners: &[Owner]) {
        let sets = owners.iter().filter(|owner| owner.controller && owner.kind == "ReplicaSet");
        let key = |owner: &Owner| Key { namespace: Arc::clone(namespace), name: Arc::clone(&owner.name) };
        self.queues.replica_sets.extend(sets.map(key));
    }

    fn replica_sets(&self, keys: HashSet<Key>) {
        for key in keys {
            let set = self.shared.caches.replica_sets.get(&key);
            let owners: Option<Arc<[Owner]>> =
                set.as_ref().map(|set| set.metadata.owner_references.iter().map(owner).collect());
            let before = self.shared.owners().owners_of(Dependent::ReplicaSet, &key);
            for owner in before.iter().chain(owners.iter().flat_map(|owners| owners.iter())) {
                if owner.controller && owner.kind == "Deployment" {
                    let name = Arc::clone(&owner.name);
                    self.queues.deployments.add(Key { namespace: Arc::clone(&key.namespace), name });
                }
            }
            if set.is_none() {
                self.owner_gone(&key, "ReplicaSet");
            }
            self.owned(Dependent::ReplicaSet, &key, owners.as_ref());
            self.queues.replica_sets.add(key);
        }
    }

    fn slices(&self, keys: HashSet<Key>) {
        for key in keys {
            let slice = self.shared.caches.slices.get(&key);
            let owners = slice.as_ref().map(|slice| slice.owners());
            self.owned(Dependent::EndpointSlice, &key, owners);
            for (service, manager) in self.shared.slices().update(&key, slice) {
                match manager {
                    Manager::EndpointSlices => self.queues.slices.add(service),
                    Manager::Mirroring => self.queues.mirroring.add(service),
                    Manager::Other => {}
                }
            }
        }
    }

    fn endpoints(&self, keys: HashSet<Key>) {
        for key in keys {
            let endpoints = self.shared.caches.endpoints.get(&key);
            if endpoints.is_none() {
                self.owner_gone(&key, "Endpoints");
            }
            let owners = endpoints.as_ref().map(|endpoints| &endpoints.owners);
            self.owned(Dependent::Endpoints, &key, owners);
            self.queues.endpoints.add(key.clone());
            self.queues.mirroring.add(key);
        }
    }

    /// Records who owns an object, and has it looked at if anybody does.
    fn owned(&self, kind: Dependent, key: &Key, owners: Option<&Arc<[Owner]>>) {
        let none = Arc::default();
        if self.shared.owners().update(kind, key, owners.unwrap_or(&none)) {
            self.queues.gc.add((kind, key.clone()));
        }
    }

    fn owner_gone(&self, key: &Key, kind: &'static str) {
        let owner = OwnerKey { kind, object: key.clone() };
        let dependents = self.shared.owners().dependents(&owner);
        self.queues.gc.extend(dependents);
    }
}

fn owner(owner: &portolan_api::meta::v1::OwnerReference) -> Owner {
    Owner {
        api_version: owner.api_version.as_str().into(),
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
        uid: owner.uid.as_str().into(),
        controller: owner.controller.unwrap_or_default(),
    }
}
