//! Repair: what a crash, an edit by hand or an older server left wrong between Services and the objects that hold their
//! addresses and ports. [`plan`] compares, as a pure function; [`super::Allocator::repair`] carries the plan out.
//!
//! Nothing is taken from a Service, ever: a Service that holds what another holds too is only reported. Leaked
//! addresses go after a minute, leaked ports when three runs in a row have seen them, since a create that is under way
//! holds its ports before its Service exists (and, with a kube-apiserver on the same store, its addresses).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use portolan_api::service::families::Family;
use portolan_store::Revision;
use serde::Deserialize;
use serde_json::Value;

use super::bitmap::Bitmap;
use super::objects;
use super::range::AddressRange;

/// How old an IPAddress without its Service has to be.
const LEAK_AGE_SECONDS: i64 = 60;
/// How old one has to be that its Service does not hold, and was made after it: the Service is being changed.
const CHANGE_AGE_SECONDS: i64 = 5;
/// How many runs in a row have to see a port without its Service.
const LEAK_RUNS: u8 = 3;

/// A Service's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

impl Owner {
    /// The Service that a stored IPAddress belongs to.
    pub(super) fn of_address(object: &Value) -> Option<Owner> {
        let (namespace, name) = objects::parent_service(object)?;
        Some(Owner { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// What one Service holds.
#[derive(Debug, Clone)]
pub struct Holding {
    pub owner: Owner,
    pub uid: String,
    pub revision: Revision,
    pub age_seconds: i64,
    pub external_name: bool,
    /// As the Service states them, be they addresses or not.
    pub addresses: Vec<String>,
    /// Node ports and the health-check port, each once.
    pub ports: Vec<u16>,
}

/// One stored IPAddress.
#[derive(Debug, Clone)]
pub struct Record {
    pub address: IpAddr,
    pub uid: String,
    pub revision: Revision,
    /// None: it belongs to no Service.
    pub owner: Option<Owner>,
    /// What it says it belongs to.
    pub parent: Parent,
    /// It carries our manager's label.
    pub managed: bool,
    /// Its labels are as they should be.
    pub well_labelled: bool,
    pub age_seconds: i64,
}

/// A reference as it is stored.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Parent {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

/// As Go prints such a value, which Kubernetes' message shows.
impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, namespace, name } = self;
        write!(f, "&ParentReference{{Group:{group},Resource:{resource},Namespace:{namespace},Name:{name},}}")
    }
}

/// Everything at one revision of the store.
#[derive(Debug)]
pub struct Observed {
    pub services: Vec<Holding>,
    pub records: Vec<Record>,
    /// Those of every ServiceCIDR, in use or on its way out.
    pub ranges: Vec<AddressRange>,
    pub ports: Bitmap,
}

/// Ports that look leaked, with how many runs in a row have seen them so.
pub type Suspects = BTreeMap<u16, u8>;

/// What to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Only a person can.
    Report,
    CreateAddress {
        address: IpAddr,
        owner: Owner,
        service_revision: Revision,
    },
    /// Delete the stored one (if `record` is still its revision) and create it for its owner.
    ReplaceAddress {
        address: IpAddr,
        record: Revision,
        owner: Owner,
        service_revision: Revision,
    },
    DeleteAddress {
        address: IpAddr,
        record: Revision,
    },
    TakePort(u16),
    ReleasePort(u16),
}

/// What may be found. The names are those of the reasons of Kubernetes' events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    ClusterIPNotValid,
    ClusterIPOutOfRange,
    ClusterIPNotAllocated,
    ClusterIPAlreadyAllocated,
    IPAddressNotAllocated,
    IPAddressWrongReference,
    PortOutOfRange,
    PortNotAllocated,
    PortAlreadyAllocated,
    /// There is no event of it: it is nobody's.
    PortLeaked,
}

impl Finding {
    /// The event's reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIPNotValid => "ClusterIPNotValid",
            Self::ClusterIPOutOfRange => "ClusterIPOutOfRange",
            Self::ClusterIPNotAllocated => "ClusterIPNotAllocated",
            Self::ClusterIPAlreadyAllocated => "ClusterIPAlreadyAllocated",
            Self::IPAddressNotAllocated => "IPAddressNotAllocated",
            Self::IPAddressWrongReference => "IPAddressWrongReference",
            Self::PortOutOfRange => "PortOutOfRange",
            Self::PortNotAllocated => "PortNotAllocated",
            Self::PortAlreadyAllocated => "PortAlreadyAllocated",
            Self::PortLeaked => "PortLeaked",
        }
    }

    /// The event's action: what the controller was about to do.
    pub fn action(self) -> &'static str {
        match self {
            Self::ClusterIPNotValid => "ClusterIPValidation",
            Self::ClusterIPOutOfRange | Self::ClusterIPNotAllocated | Self::ClusterIPAlreadyAllocated => {
                "ClusterIPAllocation"
            }
            Self::IPAddressNotAllocated | Self::IPAddressWrongReference => "IPAddressAllocation",
            _ => "PortAllocation",
        }
    }

    /// Whether it is about a node port and not an address.
    pub fn is_of_ports(self) -> bool {
        self.action() == "PortAllocation"
    }

    /// Who reports it.
    pub fn reporter(self) -> &'static str {
        if self.is_of_ports() { "portallocator-repair-controller" } else { "ipallocator-repair-controller" }
    }

    /// What counters call it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ClusterIPNotValid => "invalid",
            Self::ClusterIPOutOfRange | Self::PortOutOfRange => "outOfRange",
            Self::ClusterIPNotAllocated | Self::PortNotAllocated => "repair",
            Self::ClusterIPAlreadyAllocated | Self::PortAlreadyAllocated => "duplicate",
            Self::IPAddressNotAllocated | Self::IPAddressWrongReference | Self::PortLeaked => "leak",
        }
    }
}

/// The object that a finding is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Service { owner: Owner, uid: String, revision: Revision },
    Address { address: IpAddr, uid: String, revision: Revision },
}

/// A finding, in the words Kubernetes uses in its events, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    pub finding: Finding,
    pub message: String,
    /// `None` for what is mended without telling anybody but the log.
    pub subject: Option<Subject>,
    pub action: Action,
}

/// Compares. The suspects of the last run go in, those of this one come out.
pub fn plan(observed: &Observed, suspects: &Suspects) -> (Vec<Fix>, Suspects) {
    let mut fixes = Vec::new();
    let mut holders: HashMap<IpAddr, &Owner> = HashMap::new();
    let records: HashMap<IpAddr, &Record> =
        observed.records.iter().map(|record| (record.address, record)).collect();
    let services: HashMap<&Owner, &Holding> =
        observed.services.iter().map(|holding| (&holding.owner, holding)).collect();
    for holding in &observed.services {
        for text in &holding.addresses {
            if let Some(fix) = check_address(text, holding, observed, &records, &services, &mut holders) {
                fixes.push(fix);
            }
        }
    }
    let leaked = observed.records.iter().filter(|record| !holders.contains_key(&record.address));
    fixes.extend(leaked.filter_map(|record| check_record(record, &services)));
    let suspects = check_ports(observed, suspects, &mut fixes);
    (fixes, suspects)
}

fn check_address<'a>(
    text: &str,
    holding: &'a Holding,
    observed: &Observed,
    records: &HashMap<IpAddr, &Record>,
    services: &HashMap<&Owner, &Holding>,
    holders: &mut HashMap<IpAddr, &'a Owner>,
) -> Option<Fix> {
    let fix =
        |finding, message, action| Some(Fix { finding, message, subject: Some(holding.subject()), action });
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("Cluster IP {text} is not a valid IP; please recreate Service");
        return fix(Finding::ClusterIPNotValid, message, Action::Report);
    };
    let family = Family::of(address).as_str();
    let twice = || {
        let message = format!(
            "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
        );
        fix(Finding::ClusterIPAlreadyAllocated, message, Action::Report)
    };
    if holders.contains_key(&address) {
        return twice();
    }
    let record = records.get(&address);
    let other = record.and_then(|record| record.owner.as_ref()).filter(|owner| **owner != holding.owner);
    if other.and_then(|other| services.get(other)).is_some_and(|other| other.holds(address)) {
        return twice();
    }
    holders.insert(address, &holding.owner);
    if !observed.ranges.iter().any(|range| range.contains(address)) {
        let message = format!(
            "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return fix(Finding::ClusterIPOutOfRange, message, Action::Report);
    }
    let (owner, service_revision) = (holding.owner.clone(), holding.revision);
    match record {
        None => {
            let action = Action::CreateAddress { address, owner, service_revision };
            let message = format!("Cluster IP [{family}]: {address} is not allocated; repairing");
            fix(Finding::ClusterIPNotAllocated, message, action)
        }
        Some(record) => {
            let Owner { namespace, name } = &holding.owner;
            let own = record.owner.as_ref() == Some(&holding.owner);
            if own && record.well_labelled {
                return None;
            }
            let wrong = if own { "labels" } else { "reference" };
            let message = format!(
                "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong {wrong}; repairing"
            );
            let action = Action::ReplaceAddress { address, record: record.revision, owner, service_revision };
            let subject = (!own).then(|| holding.subject());
            Some(Fix { finding: Finding::ClusterIPNotAllocated, message, subject, action })
        }
    }
}

/// An IPAddress that no Service holds. Those that others manage are theirs.
fn check_record(record: &Record, services: &HashMap<&Owner, &Holding>) -> Option<Fix> {
    if !record.managed || record.age_seconds < grace_seconds(record, services) {
        return None;
    }
    let address = record.address;
    let (finding, message) = match &record.owner {
        None => {
            let what = format!("appears to have been modified, not referencing a Service {}", record.parent);
            (Finding::IPAddressNotAllocated, format!("IPAddress {address} {what}: cleaning up"))
        }
        Some(owner @ Owner { namespace, name }) => {
            let of = format!("IPAddress: {address} for Service {namespace}/{name}");
            if services.contains_key(owner) {
                (Finding::IPAddressWrongReference, format!("{of} has a wrong reference; cleaning up"))
            } else {
                (Finding::IPAddressNotAllocated, format!("{of} appears to have leaked: cleaning up"))
            }
        }
    };
    let action = Action::DeleteAddress { address, record: record.revision };
    let subject = Subject::Address { address, uid: record.uid.clone(), revision: record.revision };
    Some(Fix { finding, message, subject: Some(subject), action })
}

/// How old an IPAddress has to be before it matters that its Service is not there or does not hold it.
fn grace_seconds(record: &Record, services: &HashMap<&Owner, &Holding>) -> i64 {
    let Some(owner) = &record.owner else { return 0 };
    match services.get(owner) {
        None => LEAK_AGE_SECONDS + 1,
        Some(service) if service.external_name => LEAK_AGE_SECONDS,
        Some(service) if record.age_seconds < service.age_seconds => CHANGE_AGE_SECONDS,
        Some(_) => 0,
    }
}

/// In how many seconds to look again, because an IPAddress that no Service holds is too young to judge.
pub fn young_for_seconds(observed: &Observed) -> Option<u64> {
    let services: HashMap<&Owner, &Holding> =
        observed.services.iter().map(|holding| (&holding.owner, holding)).collect();
    let held = |record: &Record| observed.services.iter().any(|service| service.holds(record.address));
    let unheld = observed.records.iter().filter(|record| record.managed && !held(record));
    let left = unheld.map(|record| grace_seconds(record, &services) - record.age_seconds);
    left.filter_map(|left| u64::try_from(left).ok()).filter(|left| *left > 0).min()
}

fn check_ports(observed: &Observed, suspects: &Suspects, fixes: &mut Vec<Fix>) -> Suspects {
    let mut used = BTreeMap::new();
    for holding in &observed.services {
        for port in &holding.ports {
            let found = if !observed.ports.covers(*port) {
                let range = observed.ports.range();
                let message =
                    format!("Port {port} is not within the port range {range}; please recreate service");
                Some((Finding::PortOutOfRange, message, Action::Report))
            } else if used.insert(*port, &holding.owner).is_some() {
                let message =
                    format!("Port {port} was assigned to multiple services; please recreate service");
                Some((Finding::PortAlreadyAllocated, message, Action::Report))
            } else if !observed.ports.has(*port) {
                Some((
                    Finding::PortNotAllocated,
                    format!("Port {port} is not allocated; repairing"),
                    Action::TakePort(*port),
                ))
            } else {
                None
            };
            fixes.extend(found.map(|(finding, message, action)| Fix {
                finding,
                message,
                subject: Some(holding.subject()),
                action,
            }));
        }
    }
    let mut next = Suspects::new();
    for port in observed.ports.ports().filter(|port| !used.contains_key(port)) {
        let runs = suspects.get(&port).copied().unwrap_or_default() + 1;
        if runs < LEAK_RUNS {
            next.insert(port, runs);
        } else {
            let message = format!("Port {port} appears to have leaked: cleaning up");
            let (finding, action) = (Finding::PortLeaked, Action::ReleasePort(port));
            fixes.push(Fix { finding, message, subject: None, action });
        }
    }
    next
}

impl Holding {
    fn holds(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|text| text.parse() == Ok(address))
    }

    fn subject(&self) -> Subject {
        Subject::Service { owner: self.owner.clone(), uid: self.uid.clone(), revision: self.revision }
    }
}

#[cfg(test)]
#[path = "repair_tests.rs"]
mod tests;
