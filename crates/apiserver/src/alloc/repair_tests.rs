//! Repair, finding by finding.

use super::*;

fn owner(name: &str) -> Owner {
    Owner { namespace: "default".into(), name: name.into() }
}

fn service(name: &str, addresses: &[&str], ports: &[u16]) -> Holding {
    let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
    Holding {
        owner: owner(name),
        uid: format!("uid-{name}"),
        revision: 7,
        age_seconds: 1000,
        external_name: false,
        addresses,
        ports: ports.to_vec(),
    }
}

fn record(address: &str, holder: Option<&str>) -> Record {
    Record {
        address: address.parse().unwrap(),
        uid: "uid".into(),
        revision: 5,
        owner: holder.map(owner),
        parent: Parent::default(),
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

fn found(observed: &Observed) -> Vec<(Finding, Action)> {
    plan(observed, &Suspects::new()).0.into_iter().map(|fix| (fix.finding, fix.action)).collect()
}

fn messages(observed: &Observed) -> Vec<String> {
    plan(observed, &Suspects::new()).0.into_iter().map(|fix| fix.message).collect()
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
        [(Finding::ClusterIPNotAllocated, create), (Finding::PortNotAllocated, Action::TakePort(30001))]
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
        assert_eq!(fixes, [(Finding::ClusterIPNotAllocated, replace.clone())]);
    }
}

#[test]
fn nothing_is_taken_from_a_service() {
    let services = vec![service("a", &["10.0.0.5"], &[30001]), service("b", &["10.0.0.5"], &[30001])];
    for holder in ["a", "b"] {
        let fixes = found(&observed(services.clone(), vec![record("10.0.0.5", Some(holder))], &[30001]));
        assert_eq!(
            fixes,
            [
                (Finding::ClusterIPAlreadyAllocated, Action::Report),
                (Finding::PortAlreadyAllocated, Action::Report)
            ]
        );
    }
    let odd = vec![service("a", &["10.9.9.9", "nonsense"], &[80])];
    assert_eq!(
        messages(&observed(odd, vec![], &[])),
        [
            "Cluster IP [IPv4]: 10.9.9.9 is not within any configured Service CIDR; please recreate service",
            "Cluster IP nonsense is not a valid IP; please recreate Service",
            "Port 80 is not within the port range 30000-30099; please recreate service",
        ]
    );
}

#[test]
fn leaked_addresses_go_once_they_are_old_enough() {
    let delete = Action::DeleteAddress { address: "10.0.0.5".parse().unwrap(), record: 5 };
    let leaked = record("10.0.0.5", Some("gone"));
    assert_eq!(
        found(&observed(vec![], vec![leaked.clone()], &[])),
        [(Finding::IPAddressNotAllocated, delete.clone())]
    );
    let moved = vec![service("a", &["10.0.0.6"], &[])];
    let records = vec![record("10.0.0.5", Some("a")), record("10.0.0.6", Some("a"))];
    assert_eq!(found(&observed(moved, records, &[])), [(Finding::IPAddressWrongReference, delete)]);
    let young = Record { age_seconds: 60, ..leaked.clone() };
    let foreign = Record { managed: false, ..leaked };
    assert_eq!(found(&observed(vec![], vec![young, foreign], &[])), []);
}

#[test]
fn an_address_that_its_service_does_not_hold_has_a_little_time() {
    let at = |age_seconds, service: &Holding| {
        let record = Record { age_seconds, ..record("10.0.0.5", Some("a")) };
        !found(&observed(vec![service.clone()], vec![record], &[])).is_empty()
    };
    let mut web = service("a", &[], &[]);
    assert_eq!([4, 5].map(|age| at(age, &web)), [false, true]);
    // Older than its Service: no change under way explains it.
    web.age_seconds = 3;
    assert!(at(4, &web));
    web.external_name = true;
    assert_eq!([59, 60].map(|age| at(age, &web)), [false, true]);
    // Whoever comes when it is time finds it.
    let left = |age_seconds, services: &[Holding]| {
        let record = Record { age_seconds, ..record("10.0.0.5", Some("a")) };
        young_for_seconds(&observed(services.to_vec(), vec![record], &[]))
    };
    assert_eq!([left(58, &[web.clone()]), left(60, &[web])], [Some(2), None]);
    assert_eq!([left(0, &[]), left(60, &[]), left(61, &[])], [Some(61), Some(1), None]);
    assert_eq!(left(3, &[service("a", &[], &[])]), Some(2));
    assert_eq!(left(3, &[service("a", &["10.0.0.5"], &[])]), None);
}

#[test]
fn an_address_of_ours_that_is_no_services_goes_at_once() {
    let parent = Parent { resource: "gateways".into(), name: "gw".into(), ..Parent::default() };
    let record = Record { age_seconds: 0, parent, ..record("10.0.0.5", None) };
    assert_eq!(
        messages(&observed(vec![], vec![record], &[])),
        ["IPAddress 10.0.0.5 appears to have been modified, not referencing a Service \
             &ParentReference{Group:,Resource:gateways,Namespace:,Name:gw,}: cleaning up"]
    );
}

#[test]
fn findings_are_said_in_kubernetes_words() {
    let twice = vec![service("a", &["10.0.0.5"], &[30001]), service("b", &["10.0.0.5"], &[30001])];
    assert_eq!(
        messages(&observed(twice, vec![record("10.0.0.5", Some("a"))], &[])),
        [
            "Cluster IP [IPv4]:10.0.0.5 was assigned to multiple services; please recreate service",
            "Port 30001 is not allocated; repairing",
            "Port 30001 was assigned to multiple services; please recreate service",
        ]
    );
    let missing = vec![service("a", &["10.0.0.5", "10.0.0.6"], &[])];
    let records = vec![record("10.0.0.6", Some("gone")), record("10.0.0.7", Some("gone"))];
    assert_eq!(
        messages(&observed(missing, records, &[])),
        [
            "Cluster IP [IPv4]: 10.0.0.5 is not allocated; repairing",
            "the ClusterIP [IPv4]: 10.0.0.6 for Service default/a has a wrong reference; repairing",
            "IPAddress: 10.0.0.7 for Service default/gone appears to have leaked: cleaning up",
        ]
    );
    // Labels are put right without a word to anybody.
    let unlabelled = Record { well_labelled: false, ..record("10.0.0.5", Some("a")) };
    let fixes =
        plan(&observed(vec![service("a", &["10.0.0.5"], &[])], vec![unlabelled], &[]), &Suspects::new()).0;
    assert_eq!(fixes.iter().map(|fix| &fix.subject).collect::<Vec<_>>(), [&None]);
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
