//! Kernel objects as keys and values, and how each kind of element is encoded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use portolan_forward::{Endpoint, Family, FrontendKind, PoolScope, Protocol};
use portolan_netlink::nft::{Data, Element, FieldType, Value, Verdict};

use super::class::Class;
use super::layout::{LOCAL_INDEX, SetId};
use super::rules::Rule;

/// What identifies an object of ours.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A table with its sets, maps and base chains, all empty.
    Table(Family),
    /// A chain by its name. Base chains too: here it is their rules that count.
    Chain(Family, Arc<str>),
    Element(Family, SetId, ElementKey),
}

/// An element's key, as the kernel orders it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ElementKey {
    first: Value,
    /// In a set of ranges over several fields.
    last: Option<Box<Value>>,
    /// The end of a range in a set of ranges over one field.
    end: bool,
}

impl Key {
    pub fn family(&self) -> Family {
        match self {
            Self::Table(family) | Self::Chain(family, _) | Self::Element(family, ..) => *family,
        }
    }
}

/// What an object holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    Table(Layout),
    Chain(Arc<[Rule]>),
    Element { data: Data, comment: Option<Box<str>> },
}

impl Eq for Object {}

/// Whether a table's sets and base chains are what [`super::layout`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    Missing,
    Current,
    /// Made by another version, or changed by somebody: to be made anew.
    Other,
}

pub type Objects = crate::Objects<Key, Object>;

/// The pool of a Service port is known by one of the port's frontends, its ClusterIP as a rule. No two ports share a
/// frontend, so no numbers need to be given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pool {
    pub address: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl Pool {
    pub fn of(family: Family, protocol: Protocol, kind: FrontendKind, port: u16) -> Self {
        Self { address: kind.address().unwrap_or(unspecified(family)), protocol, port }
    }

    fn family(&self) -> Family {
        Family::of(self.address)
    }

    fn push(&self, value: Value) -> Value {
        value.addr(self.address).proto(self.protocol.number()).port(self.port)
    }
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

impl ElementKey {
    fn new(first: Value) -> Self {
        Self { first, last: None, end: false }
    }

    pub fn of(element: &Element) -> Self {
        Self {
            first: element.key.clone(),
            last: element.key_end.clone().map(Box::new),
            end: element.interval_end,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.first.as_slice()
    }

    pub fn into_element(self, object: Option<Object>) -> Element {
        let (data, comment) = match object {
            Some(Object::Element { data, comment }) => (data, comment),
            _ => (Data::None, None),
        };
        Element {
            key: self.first,
            key_end: self.last.map(|last| *last),
            interval_end: self.end,
            data,
            comment,
            ..Element::default()
        }
    }
}

impl Object {
    pub fn of(element: Element) -> Self {
        Self::Element { data: element.data, comment: element.comment }
    }

    fn member() -> Self {
        Self::Element { data: Data::None, comment: None }
    }

    fn value(value: Value) -> Self {
        Self::Element { data: Data::Value(value), comment: None }
    }
}

type Pair = (Key, Object);

fn pair(family: Family, set: SetId, key: Value, object: Object) -> Pair {
    (Key::Element(family, set, ElementKey::new(key)), object)
}

/// A member of a set of addresses.
pub fn address(set: SetId, address: IpAddr) -> Pair {
    pair(Family::of(address), set, Value::from(address), Object::member())
}

/// Members of a set of ranges over one field: where each begins, and where it has ended.
pub fn ranges(set: SetId, ranges: &[IpNet]) -> impl Iterator<Item = Pair> {
    IpNet::aggregate(&ranges.to_vec()).into_iter().flat_map(move |range| {
        let family = Family::of(range.addr());
        let end = successor(range.broadcast()).map(|end| {
            let key = ElementKey { end: true, ..ElementKey::new(Value::from(end)) };
            (Key::Element(family, set, key), Object::member())
        });
        std::iter::once(address(set, range.network())).chain(end)
    })
}

fn successor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(ip) => ip.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// An address, protocol and port on which a Service listens; `comment` names the Service port.
pub fn frontend(kind: FrontendKind, port: u16, pool: Pool, class: &Class, comment: String) -> Pair {
    let data = pool.push(Value::new().mark(class.number()));
    let (set, key) = match kind.address() {
        Some(address) => {
            (SetId::Frontends, Value::new().addr(address).proto(pool.protocol.number()).port(port))
        }
        None => (SetId::Nodeports, Value::new().proto(pool.protocol.number()).port(port)),
    };
    let object = Object::Element { data: Data::Value(data), comment: Some(comment.into()) };
    pair(pool.family(), set, key, object)
}

pub fn class(class: &Class) -> Pair {
    let key = Value::host32(class.number());
    let object = Object::Element { data: Data::Verdict(class.verdict()), comment: None };
    pair(class.family, SetId::Classes, key, object)
}

/// Sources that a guarded frontend admits.
pub fn sources(frontend: Pool, allowed: &[IpNet]) -> impl Iterator<Item = Pair> {
    // The kernel refuses ranges that overlap.
    IpNet::aggregate(&allowed.to_vec()).into_iter().map(move |range| {
        let first = frontend.push(Value::new()).addr(range.network());
        let last = frontend.push(Value::new()).addr(range.broadcast());
        let key = ElementKey { first, last: Some(Box::new(last)), end: false };
        (Key::Element(frontend.family(), SetId::Sources, key), Object::member())
    })
}

/// Where an endpoint stands in its pool's map.
pub fn backend_key(pool: Pool, scope: PoolScope, index: u32, affine: bool) -> Key {
    let set = if affine { SetId::AffinityBackends } else { SetId::Backends };
    let range = if scope == PoolScope::Local { LOCAL_INDEX } else { 0 };
    let key = pool.push(Value::new()).mark(range | index);
    Key::Element(pool.family(), set, ElementKey::new(key))
}

pub fn backend(pool: Pool, scope: PoolScope, index: u32, affine: bool, endpoint: &Endpoint) -> Pair {
    let data = if affine { Value::new().mark(0) } else { Value::new() };
    let data = data.addr(endpoint.address).port(endpoint.port);
    (backend_key(pool, scope, index, affine), Object::value(data))
}

/// The address and port in the data of a backend.
pub fn backend_of(object: &Object, family: Family, affine: bool) -> Option<(IpAddr, u16)> {
    let Object::Element { data: Data::Value(value), .. } = object else { return None };
    let bytes = value.as_slice().get(if affine { 4 } else { 0 }..)?;
    let (address, port) = bytes.split_at_checked(if family == Family::V4 { 4 } else { 16 })?;
    let address: IpAddr = match family {
        Family::V4 => <[u8; 4]>::try_from(address).ok()?.into(),
        Family::V6 => <[u8; 16]>::try_from(address).ok()?.into(),
    };
    Some((address, u16::from_be_bytes(port.get(..2)?.try_into().ok()?)))
}

/// Says that a client that remembers this endpoint may still have it.
pub fn affinity_member(pool: Pool, scope: PoolScope, endpoint: &Endpoint) -> Pair {
    let set = match scope {
        PoolScope::Cluster => SetId::AffinityMembers,
        PoolScope::Local => SetId::AffinityLocalMembers,
    };
    let key = pool.push(Value::new().addr(endpoint.address).port(endpoint.port));
    pair(pool.family(), set, key, Object::member())
}

pub fn hairpin(address: IpAddr) -> Pair {
    let key = Value::new().addr(address).addr(address);
    pair(Family::of(address), SetId::Hairpins, key, Object::member())
}

/// In the words of `nft`, for people who look for drift.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |family: &Family| if *family == Family::V4 { "ip" } else { "ip6" };
        match self {
            Self::Table(family) => write!(f, "table {}", ip(family)),
            Self::Chain(family, name) => write!(f, "chain {} {name}", ip(family)),
            Self::Element(family, set, key) => {
                let spec = set.spec(*family);
                write!(f, "element {} {} {{ ", ip(family), set.name())?;
                write_fields(f, spec.key.fields(), key.first.as_slice())?;
                if let Some(last) = &key.last {
                    f.write_str(" - ")?;
                    write_fields(f, spec.key.fields(), last.as_slice())?;
                }
                f.write_str(if key.end { " (end) }" } else { " }" })
            }
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[FieldType], mut bytes: &[u8]) -> fmt::Result {
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            f.write_str(" . ")?;
        }
        let Some((value, rest)) = bytes.split_at_checked(field.len()) else { return f.write_str("?") };
        write_field(f, *field, value)?;
        bytes = rest.get(field.padded_len() - field.len()..).unwrap_or_default();
    }
    Ok(())
}

fn write_field(f: &mut fmt::Formatter<'_>, field: FieldType, bytes: &[u8]) -> fmt::Result {
    match (field, bytes) {
        (FieldType::InetProto, [proto]) => write!(f, "{proto}"),
        (FieldType::InetService, &[high, low]) => write!(f, "{}", u16::from_be_bytes([high, low])),
        (FieldType::Ipv4Addr, bytes) if let Ok(octets) = <[u8; 4]>::try_from(bytes) => {
            write!(f, "{}", Ipv4Addr::from(octets))
        }
        (FieldType::Ipv6Addr, bytes) if let Ok(octets) = <[u8; 16]>::try_from(bytes) => {
            write!(f, "{}", Ipv6Addr::from(octets))
        }
        (FieldType::Mark, bytes) if let Ok(octets) = <[u8; 4]>::try_from(bytes) => {
            write!(f, "0x{:08x}", u32::from_ne_bytes(octets))
        }
        (_, bytes) => bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
    }
}

/// The verdict of a class, for tests and messages.
pub fn verdict_of(object: &Object) -> Option<&Verdict> {
    match object {
        Object::Element { data: Data::Verdict(verdict), .. } => Some(verdict),
        _ => None,
    }
}
