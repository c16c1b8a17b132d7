//! Which endpoints a Service should have, family by family, before anybody thinks of slices.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::objects::{Labels, Pod, Service, or_tcp};
use crate::written::{
    AddressType, Conditions, Endpoint, EndpointPort, HEADLESS_LABEL, Hints, MANAGED_BY_LABEL, Named,
    ObjectReference, SERVICE_NAME_LABEL,
};

/// What is known of a node by its name: `None` for a node that does not exist (yet), else its zone.
pub type ZoneOf<'a> = &'a dyn Fn(&str) -> Option<Option<String>>;

/// Endpoints that share a port list, in the order of their pods. Every group goes to slices of its own (EPC-4).
pub type Groups = BTreeMap<Vec<EndpointPort>, Vec<Endpoint>>;

/// The address types that the Service has slices for.
pub fn address_types(service: &Service) -> Vec<AddressType> {
    let families = service.spec.ip_families.iter();
    let types: Vec<_> = families
        .filter_map(|family| match &**family {
            "IPv4" => Some(AddressType::V4),
            "IPv6" => Some(AddressType::V6),
            _ => None,
        })
        .collect();
    match service.spec.cluster_ip.parse::<IpAddr>() {
        _ if !types.is_empty() => types,
        Ok(ip) => vec![AddressType::of(ip)],
        Err(_) => vec![AddressType::V4, AddressType::V6],
    }
}

/// The endpoints of one family. The flag says that pods on unknown nodes were left out.
pub fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    family: AddressType,
    zone_of: ZoneOf<'_>,
) -> (Groups, bool) {
    let mut groups = Groups::new();
    let mut incomplete = false;
    for pod in pods.iter().filter(|pod| !pod.finished()) {
        let addresses = addresses(pod, family);
        if addresses.is_empty() {
            continue;
        }
        let node = (!pod.spec.node_name.is_empty()).then_some(&*pod.spec.node_name);
        let zone = match node.map(zone_of) {
            // A pod of a node that is gone or not yet known: nobody can say where it is.
            Some(None) if !service.spec.publish_not_ready_addresses => {
                incomplete = true;
                continue;
            }
            Some(Some(zone)) => zone,
            Some(None) | None => None,
        };
        groups.entry(ports(service, pod)).or_default().push(endpoint(service, pod, addresses, zone));
    }
    (groups, incomplete)
}

/// The pod's addresses of one family, in canonical spelling.
pub fn addresses(pod: &Pod, family: AddressType) -> Vec<String> {
    pod.addresses()
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .filter(|address| AddressType::of(*address) == family)
        .map(|address| address.to_string())
        .collect()
}

fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let found = service.spec.ports.iter().filter_map(|port| {
        Some(EndpointPort {
            name: Some(port.name.clone()),
            protocol: Some(or_tcp(&port.protocol).to_owned()),
            port: Some(port.target(pod)?),
            app_protocol: port.app_protocol.clone(),
        })
    });
    found.collect()
}

/// EPC-1, EPC-2, EPC-6.
fn endpoint(service: &Service, pod: &Pod, addresses: Vec<String>, zone: Option<String>) -> Endpoint {
    let serving = pod.ready();
    let terminating = pod.metadata.deleting();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node_name = (!pod.spec.node_name.is_empty()).then(|| pod.spec.node_name.to_string());
    Endpoint {
        hints: if ready { hints(service, zone.as_deref(), node_name.as_deref()) } else { None },
        addresses,
        conditions: Conditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) },
        hostname: hostname(service, pod),
        target_ref: Some(pod_reference(pod)),
        node_name,
        zone,
    }
}

/// The pod's hostname, where its subdomain is this Service.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == *service.metadata.name;
    named.then(|| pod.spec.hostname.clone())
}

pub fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: "Pod".into(),
        namespace: pod.metadata.namespace.to_string(),
        name: pod.metadata.name.to_string(),
        uid: pod.metadata.uid.to_string(),
        ..ObjectReference::default()
    }
}

/// EPC-9. The annotation for shares of processors overrides the field: then [`super::topology`] decides.
fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<Hints> {
    if super::topology::is_auto(service) {
        return None;
    }
    let named = |name: Option<&str>| name.into_iter().map(|name| Named { name: name.to_owned() }).collect();
    let hints = match &*service.spec.traffic_distribution {
        "PreferClose" | "PreferSameZone" => Hints { for_zones: named(zone), for_nodes: Vec::new() },
        "PreferSameNode" => Hints { for_zones: named(zone), for_nodes: named(node) },
        _ => return None,
    };
    (hints != Hints::default()).then_some(hints)
}

/// The labels of the Service's slices: its own, but for those that say who manages what.
pub fn labels(service: &Service, managed_by: &str) -> Labels {
    let mut labels = service.metadata.labels.clone();
    for reserved in [SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL] {
        labels.remove(reserved);
    }
    labels.insert(SERVICE_NAME_LABEL, &service.metadata.name);
    labels.insert(MANAGED_BY_LABEL, managed_by);
    if service.headless() {
        labels.insert(HEADLESS_LABEL, "");
    }
    labels
}

/// Port lists that differ in order only are the same.
pub fn sorted(ports: &[EndpointPort]) -> Vec<EndpointPort> {
    let mut ports = ports.to_vec();
    ports.sort();
    ports
}
