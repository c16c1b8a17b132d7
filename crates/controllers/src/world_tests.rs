use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::{labels, node, pod, service, set_ready};

fn key(name: &str) -> Key {
    Key::new("default", name)
}

fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
    pods.iter().map(|pod| &*pod.metadata.name).collect()
}

#[test]
fn pods_and_services_find_each_other_in_any_order() {
    let mut world = World::default();
    assert!(world.pod(&key("a"), Some(&Arc::new(pod("a", "10.0.0.1")))).is_empty());
    world.service(&key("web"), Some(Arc::new(service("web"))));
    assert_eq!(names(&world.pods_of(&key("web"))), ["a"]);
    assert_eq!(world.pod(&key("b"), Some(&Arc::new(pod("b", "10.0.0.2")))), [key("web")]);
    assert_eq!(names(&world.pods_of(&key("web"))), ["a", "b"]);
    assert_eq!(world.pod(&key("a"), None), [key("web")]);
    assert_eq!(names(&world.pods_of(&key("web"))), ["b"]);
}

#[test]
fn a_change_that_no_endpoint_shows_touches_nothing() {
    let mut world = World::default();
    world.service(&key("web"), Some(Arc::new(service("web"))));
    let mut it = pod("a", "10.0.0.1");
    world.pod(&key("a"), Some(&Arc::new(it.clone())));
    it.metadata.resource_version = "2".into();
    it.metadata.annotations = labels(&[("x", "y")]);
    assert!(world.pod(&key("a"), Some(&Arc::new(it.clone()))).is_empty());
    set_ready(&mut it, false);
    assert_eq!(world.pod(&key("a"), Some(&Arc::new(it.clone()))), [key("web")]);
    it.metadata.labels = labels(&[("app", "other")]);
    assert_eq!(world.pod(&key("a"), Some(&Arc::new(it))), [key("web")], "it leaves");
    assert!(world.pods_of(&key("web")).is_empty());
}

/// What of a pod endpoints show, and whose endpoints: those that it leaves and joins, or all if it changes as well.
#[test]
fn each_change_that_matters_touches_whom_it_concerns() {
    let mut world = World::default();
    let selecting = |name: &str, pairs: &[(&str, &str)]| {
        let mut it = service(name);
        it.spec.selector = Some(labels(pairs));
        Some(Arc::new(it))
    };
    world.service(&key("by-app"), selecting("by-app", &[("app", "web")]));
    world.service(&key("by-tier"), selecting("by-tier", &[("tier", "x")]));
    let it = pod("a", "10.0.0.1");
    world.pod(&key("a"), Some(&Arc::new(it.clone())));
    let mut now = it;
    let mut change = |what: &str, touched: &[&str], change: &dyn Fn(&mut Pod)| {
        change(&mut now);
        let mut found = world.pod(&key("a"), Some(&Arc::new(now.clone())));
        found.sort();
        assert_eq!(found, touched.iter().map(|name| key(name)).collect::<Vec<_>>(), "{what}");
    };
    change("an address more", &["by-app"], &|pod| {
        pod.status.pod_ips.push(crate::objects::PodIp { ip: "fd00::1".into() });
    });
    change("a hostname", &["by-app"], &|pod| pod.spec.hostname = "h".into());
    change("a subdomain", &["by-app"], &|pod| pod.spec.subdomain = "s".into());
    change("a message", &[], &|pod| pod.status.conditions[0].message = "m".into());
    change("a label that joins", &["by-tier"], &|pod| {
        pod.metadata.labels = labels(&[("app", "web"), ("tier", "x")]);
    });
    change("a label of nobody", &[], &|pod| pod.metadata.labels.insert("b", "c"));
    change("a label that leaves, and readiness", &["by-app", "by-tier"], &|pod| {
        pod.metadata.labels.remove("tier");
        set_ready(pod, false);
    });
    change("an end", &["by-app"], &|pod| {
        pod.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    });
}

#[test]
fn no_selector_selects_nothing_and_an_empty_one_everything() {
    let mut world = World::default();
    world.pod(&key("a"), Some(&Arc::new(pod("a", "10.0.0.1"))));
    let (mut none, mut all) = (service("none"), service("all"));
    none.spec.selector = None;
    all.spec.selector = Some(Labels::new());
    world.service(&key("none"), Some(Arc::new(none)));
    world.service(&key("all"), Some(Arc::new(all)));
    assert!(world.pods_of(&key("none")).is_empty());
    assert_eq!(names(&world.pods_of(&key("all"))), ["a"]);
    assert_eq!(world.pod(&key("b"), Some(&Arc::new(pod("b", "10.0.0.2")))), [key("all")]);
}

#[test]
fn other_namespaces_are_other_worlds() {
    let mut world = World::default();
    world.service(&key("web"), Some(Arc::new(service("web"))));
    let elsewhere = Key::new("other", "a");
    assert!(world.pod(&elsewhere, Some(&Arc::new(pod("a", "10.0.0.1")))).is_empty());
    assert!(world.pods_of(&key("web")).is_empty());
}

#[test]
fn a_node_touches_services_by_zone_and_pods_by_place() {
    let mut world = World::default();
    world.service(&key("web"), Some(Arc::new(service("web"))));
    world.pod(&key("a"), Some(&Arc::new(pod("a", "10.0.0.1"))));
    let name: Arc<str> = "n1".into();
    let all = NodeTouched { services: vec![key("web")], placement: true };
    assert_eq!(world.node(&name, Some(&Arc::new(node("n1", "z1")))), all);
    assert_eq!(world.node(&name, Some(&Arc::new(node("n1", "z1")))), NodeTouched::default());
    assert_eq!(world.node(&name, Some(&Arc::new(node("n1", "z2")))), all);
    let mut sick = node("n1", "z2");
    sick.status.conditions[0].status = "Unknown".into();
    assert_eq!(world.node(&name, Some(&Arc::new(sick))), NodeTouched { services: vec![], placement: true });
    assert_eq!((world.pod_count("n1"), world.pods_on("n1").count()), (1, 1));
}

#[test]
fn alike_pods_by_labels_and_by_name() {
    let mut world = World::default();
    for (name, app) in [("web-1", "web"), ("web-2", "odd"), ("other", "web"), ("alone", "odd")] {
        let mut it = pod(name, "10.0.0.1");
        it.metadata.labels = labels(&[("app", app)]);
        world.pod(&key(name), Some(&Arc::new(it)));
    }
    let found = world.perhaps_alike(&pod("web-3", ""));
    let found: Vec<&str> = found.iter().map(|pod| &*pod.metadata.name).collect();
    assert_eq!(found, ["other", "web-1", "web-2"]);
}

#[derive(Debug, Clone)]
#[allow(clippy::option_option, reason = "gone, or there with or without a selector")]
enum Event {
    Pod(u8, Option<(u8, bool)>),
    Service(u8, Option<Option<u8>>),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let pod =
        (0..6u8, prop::option::weighted(0.8, (0..3u8, any::<bool>()))).prop_map(|(i, to)| Event::Pod(i, to));
    let service = (0..4u8, prop::option::weighted(0.8, prop::option::weighted(0.8, 0..4u8)))
        .prop_map(|(i, to)| Event::Service(i, to));
    prop::collection::vec(prop_oneof![3 => pod, 1 => service], 1..60)
}

/// Selector number: 3 is the empty selector.
fn selector(number: u8) -> Labels {
    if number == 3 { Labels::new() } else { labels(&[("app", ["x", "y", "z"][usize::from(number)])]) }
}

proptest! {
    /// The indexes say what a walk over everything would say, and every Service whose endpoints differ is named.
    #[test]
    fn indexes_agree_with_a_full_walk(events in events()) {
        let mut world = World::default();
        let mut pods: BTreeMap<u8, Pod> = BTreeMap::new();
        let mut services: BTreeMap<u8, Service> = BTreeMap::new();
        let walk = |service: &Service, pods: &BTreeMap<u8, Pod>| -> Vec<(String, bool)> {
            let chosen = pods.values().filter(|pod| {
                service.selector().is_some_and(|selector| matches(selector, &pod.metadata.labels))
            });
            chosen.map(|pod| (pod.metadata.name.to_string(), pod.ready())).collect()
        };
        for event in events {
            let before: Vec<_> = services.iter().map(|(i, service)| (*i, walk(service, &pods))).collect();
            match event {
                Event::Pod(i, to) => {
                    let name = format!("p{i}");
                    let new = to.map(|(label, ready)| {
                        let mut pod = pod(&name, "10.0.0.1");
                        pod.metadata.labels = selector(label);
                        set_ready(&mut pod, ready);
                        pod
                    });
                    let touched = world.pod(&key(&name), new.clone().map(Arc::new).as_ref());
                    match new {
                        Some(pod) => { pods.insert(i, pod); }
                        None => { pods.remove(&i); }
                    }
                    for (service, before) in before {
                        let changed = walk(&services[&service], &pods) != before;
                        let told = touched.contains(&key(&format!("s{service}")));
                        prop_assert!(!changed || told, "s{service} changed and was not named");
                    }
                }
                Event::Service(i, to) => {
                    let name = format!("s{i}");
                    let new = to.map(|number| {
                        let mut service = service(&name);
                        service.spec.selector = number.map(selector);
                        service
                    });
                    world.service(&key(&name), new.clone().map(Arc::new));
                    match new {
                        Some(service) => { services.insert(i, service); }
                        None => { services.remove(&i); }
                    }
                }
            }
            for (i, service) in &services {
                let held: Vec<_> = world.pods_of(&key(&format!("s{i}"))).iter()
                    .map(|pod| (pod.metadata.name.to_string(), pod.ready())).collect();
                prop_assert_eq!(held, walk(service, &pods));
            }
        }
    }
}
