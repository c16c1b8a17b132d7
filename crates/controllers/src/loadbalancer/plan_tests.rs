//! What the allocator does, case by case, and what it never does.

use std::net::IpAddr;

use portolan_client::Key;
use proptest::prelude::*;
use serde_json::json;

use super::objects::{Port, Service};
use super::plan::{Allocator, Note, Verdict};
use super::pool::Pool;
use crate::objects::Labels;

fn pool(name: &str, addresses: &[&str]) -> Pool {
    pool_with(name, addresses, &json!({}))
}

fn pool_with(name: &str, addresses: &[&str], more: &serde_json::Value) -> Pool {
    let mut object = json!({"metadata": {"name": name}, "spec": {"addresses": addresses}});
    for (field, value) in more.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    let (pool, wrong) = Pool::of(&serde_json::from_value(object).unwrap());
    assert_eq!(wrong, [""; 0]);
    pool
}

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn service(name: &str) -> Service {
    let mut service = Service::default();
    service.metadata.name = name.into();
    service.metadata.namespace = "default".into();
    service.spec.kind = "LoadBalancer".into();
    service.spec.ip_families = vec!["IPv4".into()];
    service.spec.ports = vec![Port { protocol: "TCP".into(), port: 80 }];
    service
}

fn annotated(name: &str, annotations: &[(&str, &str)]) -> Service {
    let mut service = service(name);
    for (annotation, text) in annotations {
        service.metadata.annotations.insert(annotation, text);
    }
    service
}

fn allocator(pools: &[Pool]) -> Allocator {
    let mut allocator = Allocator::default();
    allocator.set_pools(pools.to_vec());
    allocator
}

fn plan(allocator: &mut Allocator, service: &Service) -> Verdict {
    allocator.plan(&key(&service.metadata.name), service, &Labels::new()).0
}

fn ips(verdict: &Verdict) -> Vec<String> {
    verdict.addresses.iter().map(ToString::to_string).collect()
}

fn problem(verdict: &Verdict) -> String {
    match &verdict.note {
        Note::Problem(problem) => format!("{}: {problem}", problem.reason()),
        other => panic!("{other:?}"),
    }
}

const ASK: &str = "metallb.io/loadBalancerIPs";
const SHARE: &str = "metallb.io/allow-shared-ip";
const POOL: &str = "metallb.io/address-pool";

#[test]
fn the_lowest_free_address_is_given_kept_and_used_again() {
    let mut all = allocator(&[pool("a", &["192.0.2.1-192.0.2.2"])]);
    assert_eq!(ips(&plan(&mut all, &service("one"))), ["192.0.2.1"]);
    assert_eq!(ips(&plan(&mut all, &service("two"))), ["192.0.2.2"]);
    assert_eq!(ips(&plan(&mut all, &service("one"))), ["192.0.2.1"]);
    let none = plan(&mut all, &service("three"));
    assert!(problem(&none).starts_with("PoolExhausted: no available IPs: no IPv4 address is left in a:"));
    assert_eq!(all.release(&key("one")), [key("three")]);
    assert_eq!(ips(&plan(&mut all, &service("three"))), ["192.0.2.1"]);
    assert!(all.waiting().is_empty());
}

#[test]
fn pools_are_asked_by_priority_and_by_their_selectors() {
    let labels = json!({"serviceSelector": {"matchLabels": {"tier": "gold"}}, "priority": 1});
    let pools = [
        pool("a", &["192.0.2.1/32"]),
        pool_with("b", &["192.0.2.2/32"], &json!({"priority": 7})),
        pool_with("gold", &["192.0.2.3/32"], &labels),
        pool_with("hidden", &["192.0.2.4/32"], &json!({"autoAssign": false})),
    ];
    let mut all = allocator(&pools);
    assert_eq!(ips(&plan(&mut all, &service("one"))), ["192.0.2.2"]);
    assert_eq!(ips(&plan(&mut all, &service("two"))), ["192.0.2.1"]);
    assert!(problem(&plan(&mut all, &service("three"))).contains("PoolExhausted"));
    assert_eq!(ips(&plan(&mut all, &annotated("four", &[(POOL, "hidden")]))), ["192.0.2.4"]);
    let refused = plan(&mut all, &annotated("five", &[(POOL, "gold")]));
    assert!(problem(&refused).starts_with("PoolRefuses"), "{refused:?}");
    let missing = plan(&mut all, &annotated("six", &[(POOL, "silver")]));
    assert!(
        problem(&missing).contains("there is no LoadBalancerPool \"silver\" (pools: gold, b, a, hidden)")
    );
    let mut golden = service("seven");
    golden.metadata.labels.insert("tier", "gold");
    assert_eq!(ips(&plan(&mut all, &golden)), ["192.0.2.3"]);
}

#[test]
fn namespaces_are_selected_too() {
    let chosen = json!({"namespaceSelector": {"matchLabels": {"team": "a"}}});
    let mut all = allocator(&[pool_with("a", &["192.0.2.1/32"], &chosen)]);
    assert!(problem(&plan(&mut all, &service("one"))).starts_with("NoPoolFits"));
    let team = Labels::from_iter([("team", "a")]);
    assert_eq!(ips(&all.plan(&key("one"), &service("one"), &team).0), ["192.0.2.1"]);
}

#[test]
fn no_pool_at_all_says_what_to_do() {
    assert!(problem(&plan(&mut allocator(&[]), &service("one"))).starts_with("NoPools: there is no"));
}

#[test]
fn a_wish_moves_a_service_and_a_bad_wish_costs_nothing() {
    let mut all = allocator(&[pool("a", &["192.0.2.1-192.0.2.9"]), pool("b", &["198.51.100.1/32"])]);
    plan(&mut all, &service("one"));
    plan(&mut all, &service("two"));
    let taken = plan(&mut all, &annotated("one", &[(ASK, "192.0.2.2")]));
    assert_eq!(ips(&taken), ["192.0.2.1"], "kept");
    assert!(problem(&taken).contains("192.0.2.2 is held by default/two"), "{taken:?}");
    let outside = plan(&mut all, &annotated("one", &[(ASK, "203.0.113.1")]));
    assert!(problem(&outside).contains("no pool offers 203.0.113.1 (pools: a, b)"), "{outside:?}");
    let nonsense = plan(&mut all, &annotated("one", &[(ASK, "webby")]));
    assert_eq!(ips(&nonsense), ["192.0.2.1"], "kept");
    assert!(problem(&nonsense).starts_with("InvalidRequest"));
    let moved = plan(&mut all, &annotated("one", &[(ASK, "192.0.2.7")]));
    assert_eq!(ips(&moved), ["192.0.2.7"]);
    assert_eq!(moved.lost[0].1, "the Service asks for another");
    assert_eq!(ips(&plan(&mut all, &annotated("one", &[(POOL, "b")]))), ["198.51.100.1"]);
    // Who waits for an address by name is told when it is free.
    plan(&mut all, &annotated("four", &[(ASK, "192.0.2.2")]));
    assert_eq!(all.release(&key("two"))[0], key("four"));
}

#[test]
fn buggy_addresses_are_left_out_where_asked() {
    let avoid = json!({"avoidBuggyIPs": true});
    let mut all = allocator(&[pool_with("a", &["192.0.2.254-192.0.3.1"], &avoid)]);
    assert_eq!(all.pools().next().unwrap().counts(true), (0, 2));
    assert_eq!(ips(&plan(&mut all, &service("one"))), ["192.0.2.254"]);
    assert_eq!(ips(&plan(&mut all, &service("two"))), ["192.0.3.1"]);
    assert_eq!(all.pools().next().unwrap().counts(true), (2, 0));
    assert!(problem(&plan(&mut all, &service("three"))).starts_with("PoolExhausted"));
}

#[test]
fn both_families_come_from_one_pool_if_they_can() {
    let dual = |policy: &str| {
        let mut service = service("dual");
        service.spec.ip_families = vec!["IPv6".into(), "IPv4".into()];
        service.spec.ip_family_policy = policy.into();
        service
    };
    let mut all = allocator(&[pool("a", &["192.0.2.1/32"]), pool("b", &["192.0.2.9/32", "fd00::9/128"])]);
    assert_eq!(ips(&plan(&mut all, &dual("RequireDualStack"))), ["fd00::9", "192.0.2.9"]);
    let mut four = allocator(&[pool("a", &["192.0.2.1/32"])]);
    let required = plan(&mut four, &dual("RequireDualStack"));
    assert!(problem(&required).contains("pools a offer no IPv6 addresses"), "{required:?}");
    assert!(required.addresses.is_empty());
    let preferred = plan(&mut four, &dual("PreferDualStack"));
    assert_eq!(ips(&preferred), ["192.0.2.1"]);
    assert!(matches!(preferred.note, Note::Remark { reason: "FamilyMissing", .. }));
    four.set_pools(vec![pool("a", &["192.0.2.1/32", "fd00::1/128"])]);
    assert_eq!(ips(&plan(&mut four, &dual("PreferDualStack"))), ["fd00::1", "192.0.2.1"], "completed later");
}

#[test]
fn sharing_follows_metallbs_rules() {
    let with = |name: &str, sharing: &str, port: i32, local: bool| {
        let mut service = annotated(name, &[(SHARE, sharing)]);
        service.spec.ports[0].port = port;
        if local {
            service.spec.external_traffic_policy = "Local".into();
            service.spec.selector.insert("app", name);
        }
        service
    };
    let mut all = allocator(&[pool("a", &["192.0.2.1-192.0.2.9"])]);
    assert_eq!(ips(&plan(&mut all, &with("one", "k", 80, false))), ["192.0.2.1"]);
    assert_eq!(ips(&plan(&mut all, &with("two", "k", 81, false))), ["192.0.2.1"]);
    assert_eq!(ips(&plan(&mut all, &with("three", "k", 80, false))), ["192.0.2.2"], "the port is taken");
    assert_eq!(ips(&plan(&mut all, &with("four", "l", 82, false))), ["192.0.2.3"], "another key");
    assert_eq!(ips(&plan(&mut all, &with("five", "k", 83, true))), ["192.0.2.4"], "another policy");
    let mut asked = with("six", "k", 80, false);
    asked.spec.load_balancer_ip = "192.0.2.1".into();
    let verdict = plan(&mut all, &asked);
    assert!(problem(&verdict).contains("port 80/TCP is already in use on 192.0.2.1 by default/one"));
    // Sharing ends: who changed moves.
    let moved = plan(&mut all, &with("two", "other", 81, false));
    assert_eq!(ips(&moved), ["192.0.2.5"]);
    assert!(moved.lost[0].1.contains("another sharing key"), "{moved:?}");
}

#[test]
fn changes_of_pools_move_nobody() {
    let mut all = allocator(&[pool("a", &["192.0.2.1-192.0.2.9"])]);
    plan(&mut all, &service("one"));
    all.set_pools(vec![pool("a", &["198.51.100.0/24"])]);
    let kept = plan(&mut all, &service("one"));
    assert_eq!(ips(&kept), ["192.0.2.1"]);
    assert!(matches!(&kept.note, Note::Remark { reason: "OutsidePools", .. }));
    all.set_pools(Vec::new());
    assert_eq!(ips(&plan(&mut all, &service("one"))), ["192.0.2.1"]);
    all.set_pools(vec![pool("b", &["192.0.2.0/24"])]);
    let back = plan(&mut all, &service("one"));
    assert_eq!(back.note, Note::Assigned { pools: "b".into() });
    assert_eq!(ips(&plan(&mut all, &service("two"))), ["192.0.2.0"]);
    assert_eq!(ips(&plan(&mut all, &service("three"))), ["192.0.2.2"], "what is held is not given again");
}

#[test]
fn after_a_restart_the_older_keeps_what_two_claim() {
    let mut all = allocator(&[pool("a", &["192.0.2.1-192.0.2.9"])]);
    let with = |name: &str| {
        let mut service = service(name);
        service.status.load_balancer.ingress = vec![json!({"ip": "192.0.2.5"})];
        service
    };
    all.adopt(&key("old"), &with("old"));
    all.adopt(&key("young"), &with("young"));
    assert_eq!(ips(&plan(&mut all, &with("young"))), ["192.0.2.1"]);
    assert_eq!(ips(&plan(&mut all, &with("old"))), ["192.0.2.5"]);
}

#[test]
fn ten_thousand_services_are_quick() {
    let mut all = allocator(&[pool("a", &["10.0.0.0/16"])]);
    let services: Vec<Service> = (0..10_000).map(|i| service(&format!("s{i:05}"))).collect();
    let begin = std::time::Instant::now();
    for service in &services {
        assert_eq!(plan(&mut all, service).addresses.len(), 1);
    }
    for service in services.iter().step_by(2) {
        all.release(&key(&service.metadata.name));
    }
    for service in &services {
        assert_eq!(plan(&mut all, service).addresses.len(), 1);
    }
    // Debug builds on busy machines included; scanning would take minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[derive(Debug, Clone)]
enum Step {
    Plan { service: usize, ask: Option<u8>, share: Option<u8>, port: u8, local: bool, families: u8 },
    Release(usize),
    Pools(Vec<(u8, u8)>),
}

fn step() -> impl Strategy<Value = Step> {
    let plan = (
        0..8usize,
        proptest::option::of(0..12u8),
        proptest::option::of(0..2u8),
        0..3u8,
        any::<bool>(),
        0..3u8,
    );
    prop_oneof![
        8 => plan.prop_map(|(service, ask, share, port, local, families)| {
            Step::Plan { service, ask, share, port, local, families }
        }),
        2 => (0..8usize).prop_map(Step::Release),
        1 => proptest::collection::vec((0..6u8, 0..6u8), 0..3).prop_map(Step::Pools),
    ]
}

fn made(step: &Step) -> Service {
    let Step::Plan { service: index, ask, share, port, local, families } = step else { unreachable!() };
    let mut service = service(&format!("s{index}"));
    if let Some(ask) = ask {
        service.spec.load_balancer_ip = format!("192.0.2.{ask}");
    }
    if let Some(share) = share {
        service.metadata.annotations.insert(SHARE, &format!("k{share}"));
    }
    service.spec.ports[0].port = 80 + i32::from(*port);
    if *local {
        service.spec.external_traffic_policy = "Local".into();
        service.spec.selector.insert("app", &format!("a{}", index % 2));
    }
    service.spec.ip_families = [vec!["IPv4"], vec!["IPv4", "IPv6"], vec!["IPv6", "IPv4"]]
        [usize::from(*families)]
    .iter()
    .map(|family| (*family).to_owned())
    .collect();
    service.spec.ip_family_policy = if *families == 0 { "SingleStack" } else { "PreferDualStack" }.into();
    service
}

/// The rules of sharing, said again in another way.
fn may_share(a: &Service, b: &Service) -> bool {
    let sharing = |s: &Service| s.metadata.annotations.get(SHARE).map(str::to_owned);
    let backends = |s: &Service| (s.spec.external_traffic_policy == "Local").then(|| s.spec.selector.clone());
    sharing(a).is_some()
        && sharing(a) == sharing(b)
        && backends(a) == backends(b)
        && a.spec.ports[0].port != b.spec.ports[0].port
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_address_is_never_given_to_two_that_may_not_share(steps in proptest::collection::vec(step(), 1..60)) {
        let mut all = allocator(&[pool("p", &["192.0.2.0-192.0.2.5", "fd00::0-fd00::2"])]);
        let mut services = std::collections::HashMap::<String, Service>::new();
        let mut last = std::collections::HashMap::<String, Vec<IpAddr>>::new();
        for step in &steps {
            match step {
                Step::Plan { .. } => {
                    let service = made(step);
                    let name = service.metadata.name.to_string();
                    let verdict = plan(&mut all, &service);
                    let again = plan(&mut all, &service);
                    prop_assert_eq!(&verdict.addresses, &again.addresses, "a decision is a fixed point");
                    last.insert(name.clone(), verdict.addresses);
                    services.insert(name, service);
                }
                Step::Release(index) => {
                    let name = format!("s{index}");
                    all.release(&key(&name));
                    services.remove(&name);
                    last.remove(&name);
                }
                Step::Pools(ranges) => {
                    let pools: Vec<Pool> = ranges.iter().enumerate().map(|(i, (first, length))| {
                        let range = format!("192.0.2.{first}-192.0.2.{}", first + length);
                        pool(&format!("p{i}"), &[&range])
                    }).collect();
                    all.set_pools(pools);
                }
            }
            let held: Vec<(String, Vec<IpAddr>)> =
                all.holdings().map(|(key, ips)| (key.name.to_string(), ips.to_vec())).collect();
            // Minimal moves: nobody but the Service of the step has other addresses than before.
            for (name, ips) in &held {
                prop_assert_eq!(Some(ips), last.get(name));
            }
            for (i, (a, theirs)) in held.iter().enumerate() {
                for (b, ours) in &held[i + 1..] {
                    if theirs.iter().any(|ip| ours.contains(ip)) {
                        prop_assert!(may_share(&services[a], &services[b]), "{} and {}", a, b);
                    }
                }
            }
            for pool in all.pools() {
                let (taken, left) = pool.counts(true);
                let size: u64 = pool.ranges.iter().filter(|range| range.is_ipv4()).map(|range| {
                    (portolan_api::range::number(range.last()) - portolan_api::range::number(range.first())) as u64 + 1
                }).sum();
                prop_assert_eq!(taken + left, size, "nothing leaks");
            }
        }
    }
}
