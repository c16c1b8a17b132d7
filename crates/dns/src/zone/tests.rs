//! What a change costs, and that a zone changed step by step is the zone made at once.

use std::sync::Arc;

use portolan_client::Key;
use proptest::prelude::*;

use super::view::{EndpointView, PortView, Protocol, ServiceKind, ServiceView, SliceView};
use super::{Catalogue, Found, Options, Zone};
use crate::name::{Name, QName};
use crate::rr::rtype;

fn options() -> Options {
    let mut options = Options::new("cluster.local").unwrap();
    options.fallthrough.clear();
    options
}

fn service(kind: ServiceKind) -> Arc<ServiceView> {
    let port = PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 };
    Arc::new(ServiceView { kind, ports: vec![port] })
}

fn slice(service: &Key, addresses: &[u8], ready: bool) -> Arc<SliceView> {
    let endpoint = |n: &u8| EndpointView {
        addresses: vec![[10, 0, 0, *n].into()],
        ready: ready || n.is_multiple_of(2),
        hostname: n.is_multiple_of(3).then(|| format!("h{}", n % 4).into()),
        target: None,
    };
    let ports = vec![PortView { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }].into();
    let endpoints = addresses.iter().map(endpoint).collect();
    Arc::new(SliceView { service: Some(service.clone()), endpoints, ports, trigger_ns: None })
}

#[test]
fn a_change_compiles_one_service_and_shares_the_rest() {
    let mut catalogue = Catalogue::new(options()).unwrap();
    let keys: Vec<_> = (0..1_000).map(|n| Key::new("ns", format!("s{n}"))).collect();
    for key in &keys {
        catalogue.set_service(key, Some(&service(ServiceKind::Headless)));
        catalogue.set_slice(key, Some(&slice(key, &[2], true)));
    }
    let before = catalogue.commit(1).unwrap();
    catalogue.set_slice(&keys[7], Some(&slice(&keys[7], &[2, 4], true)));
    let after = catalogue.commit(1).unwrap();
    let shared = |key: &Key| Arc::ptr_eq(before.service(key).unwrap(), after.service(key).unwrap());
    assert_eq!(keys.iter().filter(|key| !shared(key)).collect::<Vec<_>>(), [&keys[7]]);
    assert!(after.serial() > before.serial());
}

#[test]
fn a_change_that_means_nothing_makes_no_zone() {
    let mut catalogue = Catalogue::new(options()).unwrap();
    let key = Key::new("ns", "s");
    catalogue.set_service(&key, Some(&service(ServiceKind::Headless)));
    catalogue.set_slice(&key, Some(&slice(&key, &[1, 2], true)));
    assert!(catalogue.commit(1).is_some());
    catalogue.set_slice(&key, Some(&slice(&key, &[2, 1], true)));
    assert!(catalogue.commit(1).is_none(), "the order of endpoints is no change");
    catalogue.set_service(&Key::new("ns", "none"), None);
    assert!(catalogue.commit(1).is_none());
}

#[test]
fn a_service_that_cannot_be_named_is_left_out() {
    let mut catalogue = Catalogue::new(options()).unwrap();
    catalogue.set_service(&Key::new("ns", "x".repeat(64)), Some(&service(ServiceKind::Headless)));
    assert!(catalogue.commit(1).is_none());
    assert_eq!(catalogue.refused(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Service(u8, Option<u8>),
    Slice(u8, u8, Option<(Vec<u8>, bool)>),
    Namespace(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4u8, proptest::option::of(0..4u8)).prop_map(|(s, k)| Step::Service(s, k)),
        (0..6u8, 0..4u8, proptest::option::of((proptest::collection::vec(1..20u8, 0..6), any::<bool>())))
            .prop_map(|(n, s, e)| Step::Slice(n, s, e)),
        (0..2u8, any::<bool>()).prop_map(|(n, e)| Step::Namespace(n, e)),
    ]
}

fn key(n: u8) -> Key {
    Key::new(format!("ns{}", n % 2), format!("s{n}"))
}

fn kind(n: u8) -> ServiceKind {
    match n {
        0 => ServiceKind::Headless,
        1 => ServiceKind::Cluster(vec![[10, 0, 0, 1].into()]),
        2 => ServiceKind::External("s1.ns1.svc.cluster.local".into()),
        _ => ServiceKind::Cluster(vec![[10, 0, 0, 9].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 9u16].into()]),
    }
}

fn apply(catalogue: &mut Catalogue, step: &Step) {
    match step {
        Step::Service(n, k) => catalogue.set_service(&key(*n), k.map(|k| service(kind(k))).as_ref()),
        Step::Slice(n, of, endpoints) => {
            let name = Key::new("ns0", format!("slice{n}"));
            let view = endpoints.as_ref().map(|(addresses, ready)| slice(&key(*of), addresses, *ready));
            catalogue.set_slice(&name, view.as_ref());
        }
        Step::Namespace(n, exists) => catalogue.set_namespace(&format!("ns{n}"), *exists),
    }
}

/// Every answer that could differ.
fn describe(zone: &Zone) -> Vec<String> {
    let services = (0..4).map(|n| format!("s{n}.ns{}.svc.cluster.local", n % 2));
    let below = services
        .clone()
        .flat_map(|s| [format!("h1.{s}"), format!("10-0-0-2.{s}"), format!("_http._tcp.{s}")]);
    let addresses = (0..20).map(|n| format!("{n}.0.0.10.in-addr.arpa"));
    let all = services.chain(below).chain(addresses).chain(["ns0.svc.cluster.local".into()]);
    let describe = |name: String| {
        let question = QName::from_name(&Name::parse(&name).unwrap());
        [rtype::A, rtype::AAAA, rtype::SRV, rtype::PTR].map(|rtype| match zone.answer(&question, rtype) {
            Found::Here(answer) => {
                format!("{name} {rtype} {:?} {:?} {:?}", answer.rcode, answer.records, answer.additional)
            }
            Found::Outside => format!("{name} outside"),
        })
    };
    all.flat_map(describe).collect()
}

proptest! {
    #[test]
    fn the_way_to_a_zone_does_not_matter(steps in proptest::collection::vec(step(), 0..40)) {
        let mut gradual = Catalogue::new(options()).unwrap();
        let mut at_once = Catalogue::new(options()).unwrap();
        for step in &steps {
            apply(&mut gradual, step);
            gradual.commit(1);
            apply(&mut at_once, step);
        }
        // Force both out.
        for catalogue in [&mut gradual, &mut at_once] {
            catalogue.set_namespace("last", true);
        }
        let (gradual, at_once) = (gradual.commit(1).unwrap(), at_once.commit(1).unwrap());
        prop_assert_eq!(describe(&gradual), describe(&at_once));
        prop_assert_eq!(gradual.service_count(), at_once.service_count());
    }

    #[test]
    fn a_copy_of_a_zone_never_changes(steps in proptest::collection::vec(step(), 1..40), at in 0..40usize) {
        let mut catalogue = Catalogue::new(options()).unwrap();
        catalogue.set_namespace("first", true);
        let mut kept = catalogue.commit(1).unwrap();
        let mut said = describe(&kept);
        for (n, step) in steps.iter().enumerate() {
            apply(&mut catalogue, step);
            if let Some(zone) = catalogue.commit(1) && n == at {
                said = describe(&zone);
                kept = zone;
            }
        }
        prop_assert_eq!(describe(&kept), said);
    }
}
