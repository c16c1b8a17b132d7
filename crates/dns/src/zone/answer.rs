//! What a question gets: the specification's names, and CoreDNS' rules for the rest.
//!
//! A name is first found ([`Node`]), then asked for its records of a type. A name that exists without them is NODATA, a
//! name that does not exist NXDOMAIN; both carry the zone's SOA (RFC 2308).

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use super::entry::{Addresses, Body, Endpoint, Entry, Port};
use super::reverse::{Pointer, PointerKind, Reversed};
use super::{PodRecords, Zone, reverse};
use crate::limits::{CNAME_CHAIN_MAX, RECORDS_MAX};
use crate::name::{Name, QName};
use crate::rr::{Rcode, rtype};

/// The version of the specification (`dns-version` TXT), and how long that stays true.
const SPECIFICATION: &[u8] = b"1.1.0";
const VERSION_TTL: u32 = 28_800;

/// A name in an answer: some labels in front of a whole name.
#[derive(Debug, Clone, Copy)]
pub struct NameRef<'z> {
    /// Labels in wire form, without a root; may be empty.
    pub first: &'z [u8],
    /// A whole name in wire form.
    pub rest: &'z [u8],
}

impl<'z> From<&'z Name> for NameRef<'z> {
    fn from(name: &'z Name) -> Self {
        NameRef { first: &[], rest: name.as_wire() }
    }
}

impl NameRef<'_> {
    pub fn to_name(&self) -> Name {
        Name::from_wire(&[self.first, self.rest].concat())
    }
}

/// Whose record it is.
#[derive(Debug, Clone, Copy)]
pub enum Owner<'z> {
    /// The question's name.
    Question,
    /// The target of the answer record with this number.
    Target(u16),
    Name(NameRef<'z>),
}

#[derive(Debug, Clone, Copy)]
pub enum Data<'z> {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv { priority: u16, weight: u16, port: u16, target: NameRef<'z> },
    Ptr(NameRef<'z>),
    Cname(NameRef<'z>),
    Ns(NameRef<'z>),
    Txt(&'z [u8]),
}

#[derive(Debug, Clone, Copy)]
pub struct Record<'z> {
    pub owner: Owner<'z>,
    pub ttl: u32,
    pub data: Data<'z>,
}

/// The start of authority of the zone that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Soa {
    pub owner: Name,
    pub primary: Name,
    pub mailbox: Name,
    pub serial: u32,
    /// Of the record, and of denials.
    pub ttl: u32,
}

type Records<'z> = SmallVec<[Record<'z>; 2]>;

/// An answer of one of our own zones.
#[derive(Debug)]
pub struct Answer<'z> {
    pub rcode: Rcode,
    pub records: Records<'z>,
    pub additional: Records<'z>,
    /// As the answer itself (a question for it) or in the authority section (a denial).
    pub soa: Option<Box<Soa>>,
    /// The SOA is the answer.
    pub soa_answers: bool,
    /// An alias leads out of our zones: its target's records are to be added.
    pub follow: Option<&'z Name>,
}

/// Who answers.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly every answer is here, and none is worth an allocation")]
pub enum Found<'z> {
    Here(Answer<'z>),
    /// Not a name of ours, or one that falls through.
    Outside,
}

/// What stands at a name.
enum Node<'z> {
    /// Nothing, and nothing below.
    Missing,
    /// Nothing, but names below it.
    Empty,
    Apex,
    Version,
    NameServer,
    Service(&'z Entry),
    /// `_port._proto` of a Service.
    Port(&'z Entry, PortPick),
    Endpoint(&'z Entry, &'z [Endpoint]),
    Pod(IpAddr),
}

/// The labels that pick a port, without their underscores.
struct PortPick {
    name: SmallVec<[u8; 24]>,
    protocol: SmallVec<[u8; 8]>,
}

impl PortPick {
    fn matches(&self, port: &Port) -> bool {
        *port.name == *self.name && port.protocol.label() == &*self.protocol
    }
}

impl Zone {
    /// What a question for `name` and a type gets.
    pub fn answer(&self, name: &QName, rtype: u16) -> Found<'_> {
        if let Some(before) = name.labels_before(self.options().zone.as_wire(), self.fixed.zone_labels) {
            let answer = self.in_zone(name, before, rtype);
            return self.or_outside(name, answer);
        }
        let reverse = self
            .fixed
            .reverse
            .iter()
            .find(|(zone, count)| name.labels_before(zone.as_wire(), *count).is_some());
        match reverse {
            Some((zone, _)) => self.in_reverse(name, zone, rtype),
            None => Found::Outside,
        }
    }

    /// A missing name may be somebody else's.
    fn or_outside<'z>(&'z self, name: &QName, answer: Answer<'z>) -> Found<'z> {
        if answer.rcode == Rcode::NxDomain && answer.records.is_empty() && self.falls_through(name) {
            Found::Outside
        } else {
            Found::Here(answer)
        }
    }

    fn falls_through(&self, name: &QName) -> bool {
        let covers = |(zone, count): &(Name, usize)| name.labels_before(zone.as_wire(), *count).is_some();
        self.fixed.fallthrough.iter().any(covers)
    }

    fn in_zone(&self, name: &QName, before: usize, rtype: u16) -> Answer<'_> {
        let mut answer = Answer::new();
        let node = self.node(name, before);
        match node {
            Node::Service(Entry { body: Body::External { target }, .. }) => {
                self.alias(&mut answer, target, rtype);
            }
            node => self.fill(&mut answer, Owner::Question, &node, rtype),
        }
        if answer.records.is_empty() && answer.soa.is_none() {
            answer.soa = Some(Box::new(self.soa(&self.options().zone)));
        }
        answer
    }

    /// Finds what stands at a name, right to left.
    fn node(&self, name: &QName, before: usize) -> Node<'_> {
        let Some(last) = before.checked_sub(1) else { return Node::Apex };
        match name.label(last) {
            b"svc" => self.service_node(name, last),
            b"pod" => self.pod_node(name, last),
            b"dns-version" if last == 0 => Node::Version,
            b"dns" if last == 0 => Node::Empty,
            b"dns" if last == 1 && name.label(0) == b"ns" => Node::NameServer,
            _ => Node::Missing,
        }
    }

    /// Reads ahead what the questions for these names will need of their Services, for all at once: most of a look-up is
    /// waiting for memory.
    pub fn read_ahead<'q>(&self, names: impl Iterator<Item = &'q QName>) {
        let zone = &self.fixed;
        let key = |name: &'q QName| {
            let before = name.labels_before(zone.options.zone.as_wire(), zone.zone_labels)?;
            let last = before.checked_sub(1).filter(|last| name.label(*last) == b"svc")?;
            service_key(name, last)
        };
        let likely = self.services.likely(names.filter_map(key));
        black_box(likely.iter().map(|(service, ())| service.0.touch()).sum::<usize>());
        black_box(likely.iter().map(|(service, ())| usize::from(service.0.name.as_wire()[0])).sum::<usize>());
    }

    /// `last` labels stand before `svc`.
    fn service_node(&self, name: &QName, last: usize) -> Node<'_> {
        let Some(namespace) = last.checked_sub(1) else { return Node::Empty };
        if !self.exposed(name, namespace) {
            return Node::Missing;
        }
        let Some(service) = namespace.checked_sub(1) else { return Node::Empty };
        let Some(entry) = service_key(name, last).and_then(|key| self.find(key)) else {
            return Node::Missing;
        };
        if self.hides(entry) {
            return Node::Missing;
        }
        match service {
            0 => Node::Service(entry),
            1 => endpoint_node(entry, name.label(0)),
            2 => port_node(entry, name.label(0), name.label(1)),
            _ => Node::Missing,
        }
    }

    /// The namespace exists and is one of those to be shown.
    fn exposed(&self, name: &QName, label: usize) -> bool {
        self.namespaces.contains(&name.as_wire()[name.start(label)..name.start(label + 1)])
    }

    /// A Service that is there but must not be seen.
    fn hides(&self, entry: &Entry) -> bool {
        match &entry.body {
            Body::Cluster { .. } => self.options().ignore_empty_service && !entry.has_endpoints(),
            Body::Headless { .. } => !entry.has_endpoints(),
            Body::External { .. } => false,
            Body::Nameless => true,
        }
    }

    fn pod_node(&self, name: &QName, last: usize) -> Node<'_> {
        if last == 0 {
            return Node::Empty;
        }
        if self.options().pods == PodRecords::Disabled || !self.exposed(name, last - 1) {
            return Node::Missing;
        }
        match last {
            1 => Node::Empty,
            2 => self.pod(name),
            _ => Node::Missing,
        }
    }

    fn pod(&self, name: &QName) -> Node<'_> {
        let Some(address) = dashed_address(name.label(0)) else { return Node::Missing };
        if self.options().pods == PodRecords::Verified {
            let namespace = &name.as_wire()[name.start(1)..name.start(2)];
            if !self.pods.contains(&(namespace.into(), address)) {
                return Node::Missing;
            }
        }
        Node::Pod(address)
    }

    /// An ExternalName: the alias, and for addresses also what it leads to.
    fn alias<'z>(&'z self, answer: &mut Answer<'z>, target: &'z Name, rtype: u16) {
        let ttl = self.options().ttl;
        answer.records.push(Record { owner: Owner::Question, ttl, data: Data::Cname(target.into()) });
        if !matches!(rtype, rtype::A | rtype::AAAA) {
            return;
        }
        let mut target = target;
        for _ in 0..CNAME_CHAIN_MAX {
            let name = QName::from_name(target);
            let Some(before) = name.labels_before(self.options().zone.as_wire(), self.fixed.zone_labels)
            else {
                answer.follow = Some(target);
                return;
            };
            let owner = Owner::Name(target.into());
            match self.node(&name, before) {
                Node::Service(Entry { body: Body::External { target: next }, .. }) => {
                    answer.records.push(Record { owner, ttl, data: Data::Cname(next.into()) });
                    target = next;
                }
                node => {
                    self.fill(answer, owner, &node, rtype);
                    if answer.records.last().is_some_and(|r| matches!(r.data, Data::Cname(_))) {
                        answer.soa = Some(Box::new(self.soa(&self.options().zone)));
                    }
                    return;
                }
            }
        }
        // Aliases that lead to each other.
        *answer = Answer::new();
        answer.rcode = Rcode::ServFail;
        answer.soa = Some(Box::new(self.soa(&self.options().zone)));
    }

    fn fill<'z>(&'z self, answer: &mut Answer<'z>, owner: Owner<'z>, node: &Node<'z>, rtype: u16) {
        let ttl = self.options().ttl;
        match node {
            Node::Missing => answer.rcode = Rcode::NxDomain,
            Node::Empty => {}
            Node::Apex => self.apex(answer, &self.options().zone, rtype),
            Node::Version => {
                if rtype == rtype::TXT {
                    answer.records.push(Record { owner, ttl: VERSION_TTL, data: Data::Txt(SPECIFICATION) });
                }
            }
            Node::NameServer => self.name_server_addresses(&mut answer.records, owner, rtype),
            Node::Service(entry) => service_records(answer, owner, entry, rtype, ttl),
            Node::Port(entry, pick) => {
                if rtype == rtype::SRV {
                    services(answer, owner, entry, |port| pick.matches(port), ttl);
                }
            }
            Node::Endpoint(entry, endpoints) => match rtype {
                rtype::SRV => endpoint_services(answer, owner, entry, endpoints, |_| true, ttl),
                rtype::A | rtype::AAAA => {
                    push_endpoints(&mut answer.records, owner, endpoints, Some(rtype), ttl);
                }
                _ => {}
            },
            Node::Pod(address) => push_address(&mut answer.records, owner, *address, Some(rtype), ttl),
        }
    }

    /// The zone's own records.
    fn apex<'z>(&'z self, answer: &mut Answer<'z>, zone: &'z Name, rtype: u16) {
        match rtype {
            rtype::SOA => {
                answer.soa = Some(Box::new(self.soa(zone)));
                answer.soa_answers = true;
            }
            rtype::NS => {
                let data = Data::Ns((&self.fixed.name_server).into());
                answer.records.push(Record { owner: Owner::Question, ttl: self.options().ttl, data });
                for rtype in [rtype::A, rtype::AAAA] {
                    self.name_server_addresses(&mut answer.additional, Owner::Target(0), rtype);
                }
            }
            _ => {}
        }
    }

    /// The addresses of the DNS Service, or of this process.
    fn name_server_addresses<'z>(&'z self, records: &mut Records<'z>, owner: Owner<'z>, rtype: u16) {
        let options = self.options();
        let entry = self.fixed.dns_service.as_ref().and_then(|key| self.find(key));
        let (before, ttl) = (records.len(), options.ttl);
        if let Some(Body::Cluster { addresses, .. } | Body::Headless { addresses }) = entry.map(|e| &e.body) {
            push_addresses(records, owner, addresses, Some(rtype), ttl);
            if !addresses.v4.is_empty() || !addresses.v6.is_empty() {
                return;
            }
        }
        for address in &options.own_addresses {
            if records.len() < before + RECORDS_MAX {
                push_address(records, owner, *address, Some(rtype), ttl);
            }
        }
    }

    fn in_reverse<'z>(&'z self, name: &QName, zone: &'z Name, rtype: u16) -> Found<'z> {
        let mut answer = Answer::new();
        let falls_through = self.falls_through(name);
        if name.as_wire() == zone.as_wire() {
            self.apex(&mut answer, zone, rtype);
        } else {
            match reverse::read(name) {
                Reversed::Address(address) => match self.pointers.get(&address) {
                    Some(pointers) if rtype == rtype::PTR => self.push_pointers(&mut answer, pointers),
                    Some(_) => {}
                    None => answer.rcode = Rcode::NxDomain,
                },
                // What stands below is not known without a look at every address; a denial would deny it all.
                Reversed::Partial if !falls_through => {}
                Reversed::Partial => return Found::Outside,
                Reversed::Nonsense => answer.rcode = Rcode::NxDomain,
            }
        }
        if answer.records.is_empty() && answer.soa.is_none() {
            answer.soa = Some(Box::new(self.soa(zone)));
        }
        self.or_outside(name, answer)
    }

    /// A Service's own address has one name; else each endpoint with the address has one.
    fn push_pointers<'z>(&'z self, answer: &mut Answer<'z>, pointers: &'z [Pointer]) {
        for pointer in pointers.iter().take(RECORDS_MAX) {
            let first: &[u8] = match &pointer.kind {
                PointerKind::Cluster => &[],
                PointerKind::Endpoint(label) => label,
            };
            let data = Data::Ptr(NameRef { first, rest: pointer.service.as_wire() });
            answer.records.push(Record { owner: Owner::Question, ttl: self.options().ttl, data });
            if pointer.kind == PointerKind::Cluster {
                return;
            }
        }
    }
}

impl Answer<'_> {
    fn new() -> Self {
        Answer {
            rcode: Rcode::NoError,
            records: SmallVec::new(),
            additional: SmallVec::new(),
            soa: None,
            soa_answers: false,
            follow: None,
        }
    }
}

/// The labels `service namespace` of a name that has `last` labels before `svc`.
fn service_key(name: &QName, last: usize) -> Option<&[u8]> {
    let service = last.checked_sub(2)?;
    Some(&name.as_wire()[name.start(service)..name.start(last)])
}

fn endpoint_node<'z>(entry: &'z Entry, label: &[u8]) -> Node<'z> {
    if matches!(entry.body, Body::External { .. }) {
        return Node::Missing;
    }
    let endpoints = entry.endpoints_named(label);
    if !endpoints.is_empty() {
        return Node::Endpoint(entry, endpoints);
    }
    // `_tcp` has names below it where a port of that protocol has a name.
    let protocol = label.strip_prefix(b"_").unwrap_or_default();
    if any_port(entry, |port| !port.name.is_empty() && port.protocol.label() == protocol) {
        Node::Empty
    } else {
        Node::Missing
    }
}

fn port_node<'z>(entry: &'z Entry, port: &[u8], protocol: &[u8]) -> Node<'z> {
    fn plain(label: &[u8]) -> &[u8] {
        label.strip_prefix(b"_").unwrap_or(label)
    }
    let pick = PortPick { name: plain(port).into(), protocol: plain(protocol).into() };
    if any_port(entry, |port| pick.matches(port)) { Node::Port(entry, pick) } else { Node::Missing }
}

fn any_port(entry: &Entry, matches: impl Fn(&Port) -> bool) -> bool {
    match &entry.body {
        Body::Cluster { ports, .. } => ports.iter().any(matches),
        Body::Headless { .. } => entry.endpoints.iter().any(|e| e.ports.iter().any(&matches)),
        Body::External { .. } | Body::Nameless => false,
    }
}

fn service_records<'z>(answer: &mut Answer<'z>, owner: Owner<'z>, entry: &'z Entry, rtype: u16, ttl: u32) {
    match (rtype, &entry.body) {
        (rtype::SRV, _) => services(answer, owner, entry, |_| true, ttl),
        (rtype::A | rtype::AAAA, Body::Cluster { addresses, .. } | Body::Headless { addresses }) => {
            push_addresses(&mut answer.records, owner, addresses, Some(rtype), ttl);
        }
        _ => {}
    }
}

/// SRV of a Service's ports that match: to itself, or for a headless one to each endpoint.
fn services<'z>(
    answer: &mut Answer<'z>,
    owner: Owner<'z>,
    entry: &'z Entry,
    matches: impl Fn(&Port) -> bool,
    ttl: u32,
) {
    match &entry.body {
        Body::Cluster { addresses, ports } => {
            let target = NameRef::from(&entry.name);
            let mut numbers: SmallVec<[u16; 8]> =
                ports.iter().filter(|p| matches(p)).map(|p| p.number).collect();
            numbers.sort_unstable();
            numbers.dedup();
            let weight = weight(numbers.len());
            let record = |port| Record { owner, ttl, data: Data::Srv { priority: 0, weight, port, target } };
            answer.records.extend(numbers.into_iter().map(record));
            if !answer.records.is_empty() {
                push_addresses(&mut answer.additional, Owner::Target(0), addresses, None, ttl);
            }
        }
        Body::Headless { .. } => endpoint_services(answer, owner, entry, &entry.endpoints, matches, ttl),
        Body::External { .. } | Body::Nameless => {}
    }
}

/// SRV of endpoints' ports that match: each name and port once, with the name's addresses.
fn endpoint_services<'z>(
    answer: &mut Answer<'z>,
    owner: Owner<'z>,
    entry: &'z Entry,
    endpoints: &'z [Endpoint],
    matches: impl Fn(&Port) -> bool,
    ttl: u32,
) {
    for group in endpoints.chunk_by(|a, b| a.label == b.label) {
        let ports = group.iter().flat_map(|e| e.ports.iter()).filter(|p| matches(p));
        let mut numbers: SmallVec<[u16; 8]> = ports.map(|p| p.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() || answer.records.len() + numbers.len() > RECORDS_MAX {
            continue;
        }
        let target = NameRef { first: &group[0].label, rest: entry.name.as_wire() };
        let at = Owner::Target(answer.records.len() as u16);
        let record = |port| Record { owner, ttl, data: Data::Srv { priority: 0, weight: 0, port, target } };
        answer.records.extend(numbers.into_iter().map(record));
        push_endpoints(&mut answer.additional, at, group, None, ttl);
    }
    let each = weight(answer.records.len());
    for record in &mut answer.records {
        if let Data::Srv { weight, .. } = &mut record.data {
            *weight = each;
        }
    }
}

/// Equal shares of 100, as CoreDNS has them.
fn weight(count: usize) -> u16 {
    (100 / count.max(1)).max(1) as u16
}

/// Adds the addresses of a type, or of both.
fn push_addresses<'z>(
    records: &mut Records<'z>,
    owner: Owner<'z>,
    addresses: &Addresses,
    only: Option<u16>,
    ttl: u32,
) {
    if only.is_none_or(|t| t == rtype::A) {
        records.extend(addresses.v4.iter().map(|ip| Record { owner, ttl, data: Data::A(*ip) }));
    }
    if only.is_none_or(|t| t == rtype::AAAA) {
        records.extend(addresses.v6.iter().map(|ip| Record { owner, ttl, data: Data::Aaaa(*ip) }));
    }
}

/// Adds the addresses of endpoints of one label, which stand in order: each once.
fn push_endpoints<'z>(
    records: &mut Records<'z>,
    owner: Owner<'z>,
    endpoints: &[Endpoint],
    only: Option<u16>,
    ttl: u32,
) {
    let mut last = None;
    for endpoint in endpoints {
        if last.replace(endpoint.address) != Some(endpoint.address) {
            push_address(records, owner, endpoint.address, only, ttl);
        }
    }
}

fn push_address<'z>(
    records: &mut Records<'z>,
    owner: Owner<'z>,
    address: IpAddr,
    only: Option<u16>,
    ttl: u32,
) {
    let (rtype, data) = match address {
        IpAddr::V4(ip) => (rtype::A, Data::A(ip)),
        IpAddr::V6(ip) => (rtype::AAAA, Data::Aaaa(ip)),
    };
    if only.is_none_or(|only| only == rtype) {
        records.push(Record { owner, ttl, data });
    }
}

/// `1-2-3-4` is an IPv4 address; anything else with dashes may be an IPv6 one.
fn dashed_address(label: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(label).ok()?;
    let dashes = text.bytes().filter(|b| *b == b'-').count();
    if dashes == 3 && !text.contains("--") {
        text.replace('-', ".").parse::<Ipv4Addr>().ok().map(IpAddr::V4)
    } else {
        text.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
    }
}
