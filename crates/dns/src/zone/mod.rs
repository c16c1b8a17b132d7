//! Names of the cluster: objects in, an immutable value out, and what it answers. No async, no clock, no I/O.
//!
//! [`view`] is what the zone wants to know of API objects; [`Catalogue`] collects views and makes the next [`Zone`]
//! from the last one, at a cost that follows the change; [`entry`] is one Service compiled; [`answer`] says what a
//! question gets. [`map`] is the map that makes a zone cheap to copy.
//!
//! Start at [`Zone::answer`] for a wrong answer, at [`entry`] for a wrong record.

mod answer;
mod catalogue;
mod entry;
mod map;
mod reverse;
#[cfg(test)]
mod tests;
pub mod view;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_client::Key;

pub use answer::{Answer, Data, Found, NameRef, Owner, Record, Soa};
pub use catalogue::Catalogue;
pub use entry::{Entry, PodKey};

use crate::name::{Name, NameError};
use entry::ByName;
use map::Map;
use reverse::Pointer;

/// Which names pods get (`pods` of CoreDNS' kubernetes plugin).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodRecords {
    /// None.
    #[default]
    Disabled,
    /// Every address in a namespace that exists, whether a pod has it or not.
    Insecure,
    /// Addresses that a pod of the namespace has. Needs a watch on all pods.
    Verified,
}

/// What an operator chooses about the zone.
#[derive(Debug, Clone)]
pub struct Options {
    /// The cluster's domain.
    pub zone: Name,
    /// Of every record but the version's, and how long a denial is kept.
    pub ttl: u32,
    pub pods: PodRecords,
    /// Reverse zones that are answered here.
    pub reverse: Vec<Name>,
    /// Zones whose missing names are asked upstream instead of denied.
    pub fallthrough: Vec<Name>,
    /// The only namespaces shown; empty: all that are watched.
    pub namespaces: HashSet<String>,
    /// Endpoints without a hostname are named after their pod instead of their address.
    pub endpoint_pod_names: bool,
    /// Deny Services with a ClusterIP and no ready endpoint.
    pub ignore_empty_service: bool,
    /// PTR records only for endpoints with a hostname.
    pub ptr_hostname_only: bool,
    /// The Service whose addresses the zone's name server has.
    pub dns_service: Key,
    /// The name server's addresses while that Service has none.
    pub own_addresses: Vec<IpAddr>,
}

impl Options {
    /// CoreDNS' defaults, and the reverse zones of kubeadm's configuration.
    pub fn new(zone: &str) -> Result<Options, NameError> {
        let reverse = vec![Name::parse("in-addr.arpa")?, Name::parse("ip6.arpa")?];
        Ok(Options {
            zone: Name::parse(zone)?,
            ttl: 5,
            pods: PodRecords::default(),
            fallthrough: reverse.clone(),
            reverse,
            namespaces: HashSet::new(),
            endpoint_pod_names: false,
            ignore_empty_service: false,
            ptr_hostname_only: false,
            dns_service: Key::new("kube-system", "kube-dns"),
            own_addresses: Vec::new(),
        })
    }
}

/// Names that follow from the options.
#[derive(Debug)]
struct Fixed {
    options: Options,
    zone_labels: usize,
    /// `ns.dns.<zone>`
    name_server: Name,
    /// `hostmaster.<zone>`
    mailbox: Name,
    /// The key of the DNS Service in [`Zone::services`].
    dns_service: Option<Arc<[u8]>>,
    /// The reverse zones with their numbers of labels.
    reverse: Vec<(Name, usize)>,
    fallthrough: Vec<(Name, usize)>,
}

/// Everything the server knows of the cluster at one moment. Never changes; the next one shares what did not change.
#[derive(Debug, Clone)]
pub struct Zone {
    fixed: Arc<Fixed>,
    /// By the labels `service namespace` in wire form.
    services: Map<ByName, ()>,
    /// By label in wire form.
    namespaces: Map<Arc<[u8]>, ()>,
    /// Who has an address, for PTR.
    pointers: Map<IpAddr, Arc<[Pointer]>>,
    /// How many pods of a namespace have an address.
    pods: Map<PodKey, u32>,
    serial: u32,
}

impl Zone {
    /// Without any object.
    pub fn empty(options: Options) -> Result<Zone, NameError> {
        let with_labels = |names: &[Name]| names.iter().map(|n| (n.clone(), n.label_count())).collect();
        let key = &options.dns_service;
        let fixed = Fixed {
            zone_labels: options.zone.label_count(),
            name_server: Name::under([&b"ns"[..], b"dns"], &options.zone)?,
            mailbox: Name::under([&b"hostmaster"[..]], &options.zone)?,
            dns_service: entry::service_key(&key.namespace, &key.name).ok(),
            reverse: with_labels(&options.reverse),
            fallthrough: with_labels(&options.fallthrough),
            options,
        };
        Ok(Zone {
            fixed: Arc::new(fixed),
            services: Map::default(),
            namespaces: Map::default(),
            pointers: Map::default(),
            pods: Map::default(),
            serial: 1,
        })
    }

    pub fn options(&self) -> &Options {
        &self.fixed.options
    }

    /// Goes up with every change.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// The compiled Service, to see whether a change touched it.
    pub fn service(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.find(&entry::service_key(&key.namespace, &key.name).ok()?)
    }

    fn find(&self, key: &[u8]) -> Option<&Arc<Entry>> {
        self.services.get_entry(key).map(|(by_name, ())| &by_name.0)
    }

    fn soa(&self, owner: &Name) -> Soa {
        Soa {
            owner: owner.clone(),
            primary: self.fixed.name_server.clone(),
            mailbox: self.fixed.mailbox.clone(),
            serial: self.serial,
            ttl: self.fixed.options.ttl,
        }
    }
}
