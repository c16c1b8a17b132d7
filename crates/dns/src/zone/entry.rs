//! One Service compiled: every record it has, sorted and ready to be copied into an answer.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use smallvec::SmallVec;

use super::Options;
use super::view::{EndpointView, Protocol, ServiceKind, ServiceView, SliceView};
use crate::limits::RECORDS_MAX;
use crate::name::{Name, NameError};

/// A pod's namespace, as a label in wire form, and its address.
pub type PodKey = (Arc<[u8]>, IpAddr);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `service.namespace.svc.zone`
    pub(super) name: Name,
    /// How many bytes of the name the first two labels take.
    pub(super) key_bytes: u8,
    pub(super) body: Body,
    /// The ready ones, by label.
    pub(super) endpoints: Box<[Endpoint]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Cluster {
        addresses: Addresses,
        ports: Box<[Port]>,
    },
    Headless {
        addresses: Addresses,
    },
    External {
        target: Name,
    },
    /// An ExternalName that is no name, such as an address.
    Nameless,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Addresses {
    // Most Services have one address: it stands where the Service does.
    pub(super) v4: SmallVec<[Ipv4Addr; 4]>,
    pub(super) v6: SmallVec<[Ipv6Addr; 1]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    /// Lower case, without a length byte; empty for a port without a name.
    pub(super) name: Box<[u8]>,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// In wire form: a length byte and the label.
    pub(super) label: Box<[u8]>,
    pub(super) address: IpAddr,
    pub(super) ports: Arc<[Port]>,
    /// The label is a hostname that somebody chose.
    pub(super) named: bool,
}

/// A Service in the zone's map, found by its two labels in wire form, lower case: those that its name begins with, so
/// that a lookup reads the name once.
#[derive(Debug, Clone)]
pub(super) struct ByName(pub(super) Arc<Entry>);

impl ByName {
    fn key(&self) -> &[u8] {
        &self.0.name.as_wire()[..usize::from(self.0.key_bytes)]
    }
}

impl Borrow<[u8]> for ByName {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ByName {}

/// How [`super::Zone`] finds a Service: its two labels in wire form, lower case.
pub(super) fn service_key(namespace: &str, name: &str) -> Result<Arc<[u8]>, NameError> {
    let whole = Name::under([name.as_bytes(), namespace.as_bytes()], &Name::root())?;
    let wire = whole.as_wire();
    Ok(wire[..wire.len() - 1].into())
}

/// A label in wire form, lower case.
pub(super) fn wire_label(label: &str) -> Result<Arc<[u8]>, NameError> {
    let whole = Name::under([label.as_bytes()], &Name::root())?;
    let wire = whole.as_wire();
    Ok(wire[..wire.len() - 1].into())
}

/// What a Service and its slices say. An error names what cannot be a domain name.
pub(super) fn compile(
    options: &Options,
    key: &portolan_client::Key,
    service: &ServiceView,
    slices: &[Arc<SliceView>],
) -> Result<Entry, NameError> {
    let name = Name::under([key.name.as_bytes(), key.namespace.as_bytes(), b"svc"], &options.zone)?;
    let endpoints = endpoints(options, slices);
    let body = match &service.kind {
        ServiceKind::Cluster(addresses) => Body::Cluster {
            addresses: Addresses::collect(addresses.iter().copied()),
            ports: ports(service.ports.iter()),
        },
        ServiceKind::Headless => {
            Body::Headless { addresses: Addresses::collect(endpoints.iter().map(|e| e.address)) }
        }
        ServiceKind::External(target) => external(target),
    };
    // Two labels of at most 64 bytes each.
    let key_bytes = (key.name.len() + key.namespace.len() + 2) as u8;
    Ok(Entry { name, key_bytes, body, endpoints })
}

/// An address is no name to follow, as the API's documentation says of it.
fn external(target: &str) -> Body {
    if target.parse::<IpAddr>().is_ok() {
        return Body::Nameless;
    }
    match Name::parse(target) {
        Ok(name) if name != Name::root() => Body::External { target: name },
        _ => Body::Nameless,
    }
}

impl Addresses {
    /// Each once, in order.
    fn collect(all: impl Iterator<Item = IpAddr>) -> Addresses {
        let (mut v4, mut v6) = (SmallVec::<[Ipv4Addr; 4]>::new(), SmallVec::<[Ipv6Addr; 1]>::new());
        for address in all {
            match address {
                IpAddr::V4(ip) => v4.push(ip),
                IpAddr::V6(ip) => v6.push(ip),
            }
        }
        v4.sort_unstable();
        v4.dedup();
        v4.truncate(RECORDS_MAX);
        v6.sort_unstable();
        v6.dedup();
        v6.truncate(RECORDS_MAX);
        Addresses { v4, v6 }
    }
}

fn ports<'a>(views: impl Iterator<Item = &'a super::view::PortView>) -> Box<[Port]> {
    let port = |view: &super::view::PortView| Port {
        name: view.name.to_ascii_lowercase().into_bytes().into(),
        protocol: view.protocol,
        number: view.port,
    };
    views.map(port).collect()
}

/// The ready endpoints of all slices, each name and address once.
fn endpoints(options: &Options, slices: &[Arc<SliceView>]) -> Box<[Endpoint]> {
    let mut all = Vec::new();
    for slice in slices {
        let ports: Arc<[Port]> = ports(slice.ports.iter()).into();
        for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
            for address in &endpoint.addresses {
                let Some((label, named)) = label(options, endpoint, *address) else { continue };
                all.push(Endpoint { label, address: *address, ports: ports.clone(), named });
            }
        }
    }
    // Two slices may tell of the same endpoint, with other ports each: both stay.
    all.sort_by(|a, b| (&a.label, a.address).cmp(&(&b.label, b.address)));
    all.dedup_by(|a, b| a == b);
    all.truncate(RECORDS_MAX);
    all.into()
}

/// The endpoint's own label: its hostname, its pod's name where asked for, else its address with dashes.
fn label(options: &Options, endpoint: &EndpointView, address: IpAddr) -> Option<(Box<[u8]>, bool)> {
    let wire = |text: &str| wire_label(text).ok().map(|label| Box::from(&*label));
    if let Some(label) = endpoint.hostname.as_deref().filter(|h| !h.is_empty()) {
        return Some((wire(label)?, true));
    }
    if options.endpoint_pod_names
        && let Some(label) = endpoint.target.as_deref().and_then(wire)
    {
        return Some((label, false));
    }
    let mut dashed = address.to_string().replace(['.', ':'], "-");
    if dashed.ends_with('-') {
        dashed.push('0');
    }
    Some((wire(&dashed)?, false))
}

impl Entry {
    /// Has at least one ready endpoint.
    pub fn has_endpoints(&self) -> bool {
        !self.endpoints.is_empty()
    }

    /// Reads a byte of each part that an answer needs, but for the name.
    pub(super) fn touch(&self) -> usize {
        let first = match &self.body {
            Body::Cluster { addresses, .. } | Body::Headless { addresses } => {
                addresses.v4.first().map_or(0, |ip| ip.octets()[0])
            }
            Body::External { .. } | Body::Nameless => 0,
        };
        usize::from(self.key_bytes) + usize::from(first)
    }

    pub fn is_headless(&self) -> bool {
        matches!(self.body, Body::Headless { .. })
    }

    /// The endpoints with this label (without its length byte).
    pub(super) fn endpoints_named(&self, label: &[u8]) -> &[Endpoint] {
        let start = self.endpoints.partition_point(|e| wire_order(&e.label, label).is_lt());
        let count = self.endpoints[start..].iter().take_while(|e| &e.label[1..] == label).count();
        &self.endpoints[start..start + count]
    }
}

/// The order of the labels in wire form: first by length.
fn wire_order(wire: &[u8], label: &[u8]) -> std::cmp::Ordering {
    (wire.len() - 1).cmp(&label.len()).then_with(|| wire[1..].cmp(label))
}
