//! From API objects to what the model reads: the only place where text becomes addresses, ports and ranges.
//!
//! Odd input never stops anything: what cannot be understood is left out and becomes a [`Note`]. The caches keep the
//! results, so that each object is parsed once.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use portolan_client::BoxError;
use portolan_forward::{
    ALGORITHM_ANNOTATION, Affinity, Algorithm, EndpointPort, EndpointView, Family, Note, NoteKind, Policy,
    Protocol, ServiceKey, ServicePortView, ServiceView,
};

use crate::endpoints::Endpoints;
use crate::objects;

pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
pub const TRIGGER_TIME_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// The API's own default, should a Service come without.
const AFFINITY_TIMEOUT_S: u32 = 10_800;

/// A Service, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceObject {
    pub view: ServiceView,
    /// For events.
    pub uid: String,
    pub notes: Vec<Note>,
}

/// A slice, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceObject {
    /// Whose it is; `None` for one without the label, which serves nobody.
    pub service: Option<ServiceKey>,
    pub endpoints: Endpoints,
    /// When what it tells of happened, as the controller says: nanoseconds since 1970.
    pub trigger_ns: Option<i128>,
    pub notes: Vec<Note>,
}

/// A node, parsed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeObject {
    pub uid: String,
    pub zone: Option<Arc<str>>,
    /// The first `InternalIP` of each family, or the first ExternalIP where there is none.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
    /// It may take traffic: it is not being deleted, and no autoscaler is about to.
    pub eligible: bool,
}

/// Shares text that many objects repeat: names of nodes, zones, ports, namespaces.
#[derive(Debug, Default)]
pub struct Interner {
    known: Mutex<HashSet<Arc<str>>>,
}

/// When so many different texts are known, start over: names of nodes that are gone are not kept for ever.
const INTERNED_MAX: usize = 65_536;

impl Interner {
    pub fn get(&self, text: &str) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(text) {
            return Arc::clone(shared);
        }
        if known.len() >= INTERNED_MAX {
            known.clear();
        }
        let shared: Arc<str> = text.into();
        known.insert(Arc::clone(&shared));
        shared
    }
}

/// Collects what was left out of one object.
struct Notes {
    service: ServiceKey,
    notes: Vec<Note>,
}

impl Notes {
    fn invalid(&mut self, field: &str, value: &str, why: &str) {
        let kind = NoteKind::Invalid { field: field.into(), value: value.into(), why: why.into() };
        self.notes.push(Note { service: self.service.clone(), kind });
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let parsed = address(text);
        if parsed.is_none() {
            self.invalid(field, text, "not an IP address");
        }
        parsed
    }

    fn range(&mut self, field: &str, text: &str) -> Option<IpNet> {
        let parsed = text.trim().parse::<IpNet>().ok();
        if parsed.is_none() {
            self.invalid(field, text, "not a range such as 192.0.2.0/24");
        }
        parsed.map(|range| range.trunc())
    }

    fn port(&mut self, field: &str, number: i64) -> Option<u16> {
        let parsed = u16::try_from(number).ok().filter(|port| *port != 0);
        if parsed.is_none() {
            self.invalid(field, &number.to_string(), "a port is between 1 and 65535");
        }
        parsed
    }

    fn protocol(&mut self, field: &str, text: &str) -> Option<Protocol> {
        let parsed = Protocol::from_str(if text.is_empty() { "TCP" } else { text }).ok();
        if parsed.is_none() {
            self.invalid(field, text, "a protocol is TCP, UDP or SCTP");
        }
        parsed
    }
}

/// An address in any spelling the API has ever let in; an IPv4 address written as IPv6 is what it means.
fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// Decodes and parses a Service.
pub fn service(bytes: &[u8], interner: &Interner) -> Result<ServiceObject, BoxError> {
    let object: objects::Service = serde_json::from_slice(bytes)?;
    let key = ServiceKey {
        namespace: interner.get(&object.metadata.namespace),
        name: interner.get(&object.metadata.name),
    };
    let mut notes = Notes { service: key.clone(), notes: Vec::new() };
    let (spec, status) = (&object.spec, &object.status);
    let cluster_ips = match spec.cluster_ips.as_slice() {
        [] => std::slice::from_ref(&spec.cluster_ip),
        several => several,
    };
    let parse_all = |notes: &mut Notes, field: &str, texts: &[String]| -> Vec<IpAddr> {
        let mut addresses = Vec::with_capacity(texts.len());
        addresses.extend(texts.iter().filter_map(|text| notes.address(field, text)));
        addresses
    };
    let mut ports = Vec::with_capacity(spec.ports.len());
    ports.extend(spec.ports.iter().filter_map(|port| service_port(&mut notes, port, interner)));
    let named: Vec<String> =
        cluster_ips.iter().filter(|ip| !ip.is_empty() && *ip != "None").cloned().collect();
    let balancer: Vec<String> = status
        .load_balancer
        .ingress
        .iter()
        .filter(|ingress| !ingress.ip.is_empty() && ingress.ip_mode != "Proxy")
        .map(|ingress| ingress.ip.clone())
        .collect();
    let ranges = &spec.load_balancer_source_ranges;
    let view = ServiceView {
        external_name: spec.kind == "ExternalName",
        other_proxy: object.metadata.labels.contains_key(PROXY_NAME_LABEL),
        cluster_ips: parse_all(&mut notes, "spec.clusterIPs", &named),
        external_ips: parse_all(&mut notes, "spec.externalIPs", &spec.external_ips),
        load_balancer_ips: parse_all(&mut notes, "status.loadBalancer.ingress[].ip", &balancer),
        source_ranges: ranges
            .iter()
            .filter_map(|range| notes.range("spec.loadBalancerSourceRanges", range))
            .collect(),
        ports,
        internal_policy: policy(&spec.internal_traffic_policy),
        external_policy: policy(&spec.external_traffic_policy),
        affinity: affinity(&mut notes, spec),
        algorithm: algorithm(&mut notes, &object.metadata.annotations),
        health_check_node_port: health_check_port(&mut notes, spec),
        key,
    };
    Ok(ServiceObject { view, uid: object.metadata.uid, notes: notes.notes })
}

fn service_port(
    notes: &mut Notes,
    port: &objects::ServicePort,
    interner: &Interner,
) -> Option<ServicePortView> {
    Some(ServicePortView {
        name: interner.get(&port.name),
        protocol: notes.protocol("spec.ports[].protocol", &port.protocol)?,
        port: notes.port("spec.ports[].port", port.port)?,
        node_port: port
            .node_port
            .filter(|number| *number != 0)
            .and_then(|number| notes.port("spec.ports[].nodePort", number)),
    })
}

fn policy(text: &str) -> Policy {
    if text == "Local" { Policy::Local } else { Policy::Cluster }
}

fn algorithm(notes: &mut Notes, annotations: &BTreeMap<String, String>) -> Option<Algorithm> {
    let text = annotations.get(ALGORITHM_ANNOTATION)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        let why = format!("it must be one of {}", Algorithm::names());
        notes.invalid(&format!("metadata.annotations[{ALGORITHM_ANNOTATION}]"), text, &why);
    }
    parsed
}

fn affinity(notes: &mut Notes, spec: &objects::ServiceSpec) -> Option<Affinity> {
    if spec.session_affinity != "ClientIP" {
        return None;
    }
    let given = spec.session_affinity_config.client_ip.timeout_seconds;
    let timeout = given.and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0);
    if let (Some(given), None) = (given, timeout) {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        notes.invalid(field, &given.to_string(), "must be between 1 and 86400; 10800 is used");
    }
    Some(Affinity { timeout_seconds: timeout.unwrap_or(AFFINITY_TIMEOUT_S) })
}

/// NP-3: only a LoadBalancer with policy Local has one.
fn health_check_port(notes: &mut Notes, spec: &objects::ServiceSpec) -> Option<u16> {
    if spec.kind != "LoadBalancer" || spec.external_traffic_policy != "Local" {
        return None;
    }
    notes.port("spec.healthCheckNodePort", spec.health_check_node_port?)
}

/// Decodes and parses a slice.
pub fn slice(bytes: &[u8], interner: &Interner) -> Result<SliceObject, BoxError> {
    let object: objects::EndpointSlice<'_> = serde_json::from_slice(bytes)?;
    let namespace = interner.get(&object.metadata.namespace);
    let name = object.metadata.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty());
    let service = name.map(|name| ServiceKey { namespace: Arc::clone(&namespace), name: interner.get(name) });
    let about = service.clone().unwrap_or(ServiceKey { namespace, name: "".into() });
    let mut notes = Notes { service: about, notes: Vec::new() };
    let family = match &*object.address_type {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        // Names are nothing that a kernel forwards to.
        _ => {
            let endpoints = Endpoints::new(Arc::from([]), []);
            return Ok(SliceObject { service, endpoints, trigger_ns: None, notes: notes.notes });
        }
    };
    let ports: Arc<[EndpointPort]> =
        object.ports.iter().filter_map(|port| endpoint_port(&mut notes, port, interner)).collect();
    let views = object.endpoints.iter().filter_map(|one| endpoint(&mut notes, one, family, &ports, interner));
    let endpoints = Endpoints::new(Arc::clone(&ports), views);
    let trigger = object.metadata.annotations.get(TRIGGER_TIME_ANNOTATION);
    let trigger_ns = trigger.and_then(|time| Some(time.parse::<jiff::Timestamp>().ok()?.as_nanosecond()));
    Ok(SliceObject { service, endpoints, trigger_ns, notes: notes.notes })
}

fn endpoint_port(
    notes: &mut Notes,
    port: &objects::EndpointPort<'_>,
    interner: &Interner,
) -> Option<EndpointPort> {
    // A port without a number stands for all ports, which no frontend can mean; 0 likewise.
    let number = port.port.filter(|number| *number != 0)?;
    Some(EndpointPort {
        name: interner.get(port.name.as_deref()?),
        protocol: notes.protocol("ports[].protocol", port.protocol.as_deref().unwrap_or_default())?,
        port: notes.port("ports[].port", number)?,
    })
}

fn endpoint(
    notes: &mut Notes,
    from: &objects::Endpoint<'_>,
    family: Family,
    ports: &Arc<[EndpointPort]>,
    interner: &Interner,
) -> Option<EndpointView> {
    let address = notes.address("endpoints[].addresses", from.addresses.first()?)?;
    if Family::of(address) != family {
        notes.invalid("endpoints[].addresses", &address.to_string(), "not of the slice's addressType");
        return None;
    }
    let names = |list: &[objects::Named<'_>]| list.iter().map(|named| interner.get(&named.name)).collect();
    Some(EndpointView {
        address,
        ready: from.conditions.ready.unwrap_or(true),
        serving: from.conditions.serving.unwrap_or(true),
        terminating: from.conditions.terminating.unwrap_or(false),
        node_name: from.node_name().map(|name| interner.get(name)),
        for_zones: names(&from.hints.for_zones),
        for_nodes: names(&from.hints.for_nodes),
        ports: Arc::clone(ports),
    })
}

/// Decodes and parses a Node.
pub fn node(bytes: &[u8]) -> Result<NodeObject, BoxError> {
    let object: objects::Node = serde_json::from_slice(bytes)?;
    let mut addresses = Vec::new();
    for kind in ["InternalIP", "ExternalIP"] {
        let of_kind = object.status.addresses.iter().filter(|entry| entry.kind == kind);
        for ip in of_kind.filter_map(|entry| address(&entry.address)) {
            if !addresses.iter().any(|known: &IpAddr| known.is_ipv4() == ip.is_ipv4()) {
                addresses.push(ip);
            }
        }
    }
    let cidrs = match object.spec.pod_cidrs.as_slice() {
        [] => std::slice::from_ref(&object.spec.pod_cidr),
        several => several,
    };
    let about_to_go = object.spec.taints.iter().any(|taint| taint.key == "ToBeDeletedByClusterAutoscaler");
    Ok(NodeObject {
        uid: object.metadata.uid,
        zone: object.metadata.labels.get("topology.kubernetes.io/zone").map(|zone| zone.as_str().into()),
        addresses,
        pod_cidrs: ranges(cidrs),
        eligible: object.metadata.deletion_timestamp.is_none() && !about_to_go,
    })
}

/// Decodes and parses a ServiceCIDR.
pub fn service_cidr(bytes: &[u8]) -> Result<Vec<IpNet>, BoxError> {
    let object: objects::ServiceCidr = serde_json::from_slice(bytes)?;
    Ok(ranges(&object.spec.cidrs))
}

fn ranges(texts: &[String]) -> Vec<IpNet> {
    texts.iter().filter_map(|text| text.parse::<IpNet>().ok()).map(|range| range.trunc()).collect()
}

#[cfg(test)]
#[path = "views_tests.rs"]
mod tests;
