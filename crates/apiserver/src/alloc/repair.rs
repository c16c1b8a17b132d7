//! Repair: what a crash, an edit by hand or an older server left wrong between Services and the objects that hold their
//! addresses and ports. [`plan`] compares, as a pure function; [`super::Allocator::repair`] carries the plan out.
//!
//! Nothing is taken from a Service, ever: a Service that holds what another holds too is only reported. Leaked
//! addresses go after a minute, leaked ports when three runs in a row have seen them, since a create that is under way
//! holds its ports before its Service exists.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use portolan_store::Revision;

use super::bitmap::Bitmap;
use super::range::AddressRange;

/// How old an IPAddress without its Service has to be.
const LEAK_AGE_SECONDS: i64 = 60;
/// How many runs in a row have to see a port without its Service.
const LEAK_RUNS: u8 = 3;

/// A Service's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
}

/// What one Service holds.
#[derive(Debug, Clone)]
pub struct Holding {
    pub owner: Owner,
    pub revision: Revision,
    /// As the Service states them, be they addresses or not.
    pub addresses: Vec<String>,
    /// Node ports and the health-check port, each once.
    pub ports: Vec<u16>,
}

/// One stored IPAddress.
#[derive(Debug, Clone)]
pub struct Record {
    pub address: IpAddr,
    pub revision: Revision,
    /// None: it belongs to no Service.
    pub owner: Option<Owner>,
    /// It carries our manager's label.
    pub managed: bool,
    /// Its labels are as they should be.
    pub well_labelled: bool,
    pub age_seconds: i64,
}

/// Everything at one revision of the store.
#[derive(Debug)]
pub struct Observed {
    pub services: Vec<Holding>,
    pub records: Vec<Record>,
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

/// A finding, in the words Kubernetes uses in its events, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// One word, as the reason of an event.
    pub reason: &'static str,
    pub message: String,
    /// The Service it is about; none for what leaked.
    pub owner: Option<Owner>,
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
        |reason, message, action| Some(Fix { reason, message, owner: Some(holding.owner.clone()), action });
    let Ok(address) = text.parse::<IpAddr>() else {
        let message = format!("Cluster IP {text} is not a valid IP; please recreate service");
        return fix("ClusterIPNotValid", message, Action::Report);
    };
    let subject = format!("Cluster IP [{}]: {address}", if address.is_ipv4() { "IPv4" } else { "IPv6" });
    let twice = || {
        let message = format!("{subject} was assigned to multiple services; please recreate service");
        fix("ClusterIPAlreadyAllocated", message, Action::Report)
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
        let message = format!("{subject} is not within any configured Service CIDR; please recreate service");
        return fix("ClusterIPOutOfRange", message, Action::Report);
    }
    let (owner, service_revision) = (holding.owner.clone(), holding.revision);
    match record {
        None => {
            let action = Action::CreateAddress { address, owner, service_revision };
            fix("ClusterIPNotAllocated", format!("{subject} is not allocated; repairing"), action)
        }
        Some(record) if record.owner.as_ref() == Some(&holding.owner) && record.well_labelled => None,
        Some(record) => {
            let Owner { namespace, name } = &holding.owner;
            let message =
                format!("the {subject} for Service {namespace}/{name} has a wrong reference; repairing");
            let action = Action::ReplaceAddress { address, record: record.revision, owner, service_revision };
            fix("ClusterIPNotAllocated", message, action)
        }
    }
}

/// An IPAddress that no Service holds. Those that others manage are theirs.
fn check_record(record: &Record, services: &HashMap<&Owner, &Holding>) -> Option<Fix> {
    if !record.managed || record.age_seconds <= LEAK_AGE_SECONDS {
        return None;
    }
    let address = record.address;
    let (reason, message) = match &record.owner {
        Some(owner) if services.contains_key(owner) => (
            "IPAddressWrongReference",
            format!(
                "IPAddress: {address} for Service {}/{} has a wrong reference; cleaning up",
                owner.namespace, owner.name
            ),
        ),
        _ => ("IPAddressNotAllocated", format!("IPAddress: {address} appears to have leaked: cleaning up")),
    };
    let action = Action::DeleteAddress { address, record: record.revision };
    Some(Fix { reason, message, owner: record.owner.clone(), action })
}

fn check_ports(observed: &Observed, suspects: &Suspects, fixes: &mut Vec<Fix>) -> Suspects {
    let mut used = BTreeMap::new();
    for holding in &observed.services {
        for port in &holding.ports {
            let found = if !observed.ports.covers(*port) {
                let message = format!("Port {port} is not within the port range; please recreate service");
                Some(("PortOutOfRange", message, Action::Report))
            } else if used.insert(*port, &holding.owner).is_some() {
                let message =
                    format!("Port {port} was assigned to multiple services; please recreate service");
                Some(("PortAlreadyAllocated", message, Action::Report))
            } else if !observed.ports.has(*port) {
                Some((
                    "PortNotAllocated",
                    format!("Port {port} is not allocated; repairing"),
                    Action::TakePort(*port),
                ))
            } else {
                None
            };
            fixes.extend(found.map(|(reason, message, action)| Fix {
                reason,
                message,
                owner: Some(holding.owner.clone()),
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
            fixes.push(Fix { reason: "PortLeaked", message, owner: None, action: Action::ReleasePort(port) });
        }
    }
    next
}

impl Holding {
    fn holds(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|text| text.parse() == Ok(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "default".into(), name: name.into() }
    }

    fn service(name: &str, addresses: &[&str], ports: &[u16]) -> Holding {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        Holding { owner: owner(name), revision: 7, addresses, ports: ports.to_vec() }
    }

    fn record(address: &str, holder: Option<&str>) -> Record {
        Record {
            address: address.parse().unwrap(),
            revision: 5,
            owner: holder.map(owner),
            managed: true,
            well_labelled: true,
            age_seconds: 100,
        }
    }

    fn observed(services: Vec<Holding>, records: Vec<Record>, ports: &[u16]) -> Observed {
        let mut bitmap = Bitmap::new(&(30000..=30099));
        for port in ports {
            bitmap.take(*port).unwrap();
        }
        let ranges = vec![AddressRange::new("10.0.0.0/24".parse().unwrap())];
        Observed { services, records, ranges, ports: bitmap }
    }

    fn found(observed: &Observed) -> Vec<(&'static str, Action)> {
        plan(observed, &Suspects::new()).0.into_iter().map(|fix| (fix.reason, fix.action)).collect()
    }

    #[test]
    fn a_sound_cluster_needs_nothing() {
        let services = vec![service("a", &["10.0.0.5"], &[30001]), service("b", &["10.0.0.6"], &[])];
        let records = vec![record("10.0.0.5", Some("a")), record("10.0.0.6", Some("b"))];
        let (fixes, suspects) = plan(&observed(services, records, &[30001]), &Suspects::new());
        assert_eq!((fixes, suspects), (vec![], Suspects::new()));
    }

    #[test]
    fn what_is_missing_is_made() {
        let address = "10.0.0.5".parse().unwrap();
        let create = Action::CreateAddress { address, owner: owner("a"), service_revision: 7 };
        assert_eq!(
            found(&observed(vec![service("a", &["10.0.0.5"], &[30001])], vec![], &[])),
            [("ClusterIPNotAllocated", create), ("PortNotAllocated", Action::TakePort(30001))]
        );
    }

    #[test]
    fn wrong_references_and_labels_are_put_right() {
        let address = "10.0.0.5".parse().unwrap();
        let replace = Action::ReplaceAddress { address, record: 5, owner: owner("a"), service_revision: 7 };
        let mut unlabelled = record("10.0.0.5", Some("a"));
        unlabelled.well_labelled = false;
        for wrong in [record("10.0.0.5", Some("gone")), record("10.0.0.5", None), unlabelled] {
            let fixes = found(&observed(vec![service("a", &["10.0.0.5"], &[])], vec![wrong], &[]));
            assert_eq!(fixes, [("ClusterIPNotAllocated", replace.clone())]);
        }
    }

    #[test]
    fn nothing_is_taken_from_a_service() {
        let services = vec![service("a", &["10.0.0.5"], &[30001]), service("b", &["10.0.0.5"], &[30001])];
        for holder in ["a", "b"] {
            let fixes = found(&observed(services.clone(), vec![record("10.0.0.5", Some(holder))], &[30001]));
            assert_eq!(
                fixes,
                [("ClusterIPAlreadyAllocated", Action::Report), ("PortAlreadyAllocated", Action::Report)]
            );
        }
        let odd = vec![service("a", &["10.9.9.9", "nonsense"], &[80])];
        assert_eq!(
            found(&observed(odd, vec![], &[])).iter().map(|(reason, _)| *reason).collect::<Vec<_>>(),
            ["ClusterIPOutOfRange", "ClusterIPNotValid", "PortOutOfRange"]
        );
    }

    #[test]
    fn leaked_addresses_go_once_they_are_old_enough() {
        let delete = Action::DeleteAddress { address: "10.0.0.5".parse().unwrap(), record: 5 };
        let leaked = record("10.0.0.5", Some("gone"));
        assert_eq!(
            found(&observed(vec![], vec![leaked.clone()], &[])),
            [("IPAddressNotAllocated", delete.clone())]
        );
        let moved = vec![service("a", &["10.0.0.6"], &[])];
        let records = vec![record("10.0.0.5", Some("a")), record("10.0.0.6", Some("a"))];
        assert_eq!(found(&observed(moved, records, &[])), [("IPAddressWrongReference", delete)]);
        let young = Record { age_seconds: 60, ..leaked.clone() };
        let foreign = Record { managed: false, ..leaked };
        assert_eq!(found(&observed(vec![], vec![young, foreign], &[])), []);
    }

    #[test]
    fn leaked_ports_go_with_the_third_run_that_sees_them() {
        let leaky = observed(vec![], vec![], &[30007]);
        let (first, suspects) = plan(&leaky, &Suspects::new());
        let (second, suspects) = plan(&leaky, &suspects);
        let (third, suspects) = plan(&leaky, &suspects);
        assert_eq!((first, second), (vec![], vec![]));
        assert_eq!(third[0].action, Action::ReleasePort(30007));
        assert!(suspects.is_empty());
        // A port that was in use in between starts over.
        let (_, seen_once) = plan(&leaky, &Suspects::new());
        let (_, cleared) = plan(&observed(vec![service("a", &[], &[30007])], vec![], &[30007]), &seen_once);
        assert!(cleared.is_empty());
    }
}
