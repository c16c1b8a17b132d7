//! Tables for single facts, properties for what must hold of every plan.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::objects::PortRef;
use crate::testing::{labels, pod, service, set_ready, shared};
use crate::written::{Endpoint, Hints, Named};

/// Slices as an API server would hold them.
#[derive(Default, Clone)]
struct World {
    slices: Vec<Arc<EndpointSlice>>,
    made: usize,
}

#[allow(
    clippy::option_option,
    clippy::unnecessary_wraps,
    reason = "what a zone lookup gives: no such node, no zone, a zone"
)]
fn known(_: &str) -> Option<Option<String>> {
    Some(Some("z1".into()))
}

impl World {
    fn plan(&self, service: &Service, pods: &[Pod], max: usize) -> Plan {
        let pods = shared(pods.to_vec());
        plan(&Input {
            service,
            pods: &pods,
            slices: &self.slices,
            zone_of: &known,
            trigger: Some("2026-01-01T00:00:00Z"),
            max_per_slice: max,
            shares: &Err(Obstacle::OneZone),
        })
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Create(mut slice) => {
                self.made += 1;
                slice.metadata.name = format!("{}{}", slice.metadata.generate_name, self.made);
                self.slices.push(Arc::new(slice));
            }
            Write::Update { slice, from } => {
                assert_eq!(slice.metadata.name, from.metadata.name);
                assert_eq!(slice.address_type, from.address_type, "the address type cannot change");
                let held = self.slices.iter_mut().find(|held| held.metadata.name == slice.metadata.name);
                *held.expect("updated slices exist") = Arc::new(slice);
            }
            Write::Delete(slice) => {
                let before = self.slices.len();
                self.slices.retain(|held| held.metadata.name != slice.metadata.name);
                assert_eq!(self.slices.len(), before - 1, "deleted slices exist");
            }
        }
    }

    /// Plans and applies; how many writes it took.
    fn sync(&mut self, service: &Service, pods: &[Pod], max: usize) -> usize {
        let writes = self.plan(service, pods, max).writes;
        let count = writes.len();
        for write in writes {
            self.apply(write);
        }
        count
    }

    /// `address ready serving terminating ports`, sorted.
    fn content(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .slices
            .iter()
            .flat_map(|slice| {
                let ports: Vec<i32> = slice.ports.iter().filter_map(|port| port.port).collect();
                slice.endpoints.iter().map(move |e| {
                    let c = &e.conditions;
                    let flags = [c.ready, c.serving, c.terminating].map(|f| f.is_some_and(|f| f));
                    format!("{} {flags:?} {ports:?}", e.addresses.join(","))
                })
            })
            .collect();
        lines.sort();
        lines
    }

    fn ready(&self) -> BTreeSet<String> {
        let endpoints = self.slices.iter().flat_map(|slice| &slice.endpoints);
        endpoints.filter(|e| e.conditions.ready == Some(true)).flat_map(|e| e.addresses.clone()).collect()
    }

    fn only(&self) -> &EndpointSlice {
        assert_eq!(self.slices.len(), 1, "{:#?}", self.slices);
        &self.slices[0]
    }

    fn endpoint(&self) -> &Endpoint {
        &self.only().endpoints[0]
    }
}

fn pods(count: usize) -> Vec<Pod> {
    (0..count).map(|i| pod(&format!("p{i:04}"), &format!("10.0.{}.{}", i / 200, i % 200 + 1))).collect()
}

#[test]
fn a_slice_is_owned_labelled_and_named_after_its_service() {
    let mut web = service("web");
    web.metadata.labels =
        labels(&[("team", "a"), ("kubernetes.io/service-name", "spoofed"), (HEADLESS, "spoofed")]);
    let mut world = World::default();
    world.sync(&web, &pods(1), 100);
    let slice = world.only();
    assert_eq!(slice.metadata.generate_name, "web-");
    let owner = slice.metadata.controller().unwrap();
    assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Service", "uid-web"));
    let expected = labels(&[
        ("team", "a"),
        ("kubernetes.io/service-name", "web"),
        ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io"),
    ]);
    assert_eq!(slice.metadata.labels, expected);
    web.spec.cluster_ip = "None".into();
    assert_eq!(world.sync(&web, &pods(1), 100), 1, "labels changed");
    assert_eq!(world.only().metadata.labels.get(HEADLESS), Some(""));
}

const HEADLESS: &str = crate::written::HEADLESS_LABEL;

#[test]
fn conditions_follow_the_pod() {
    let web = service("web");
    let mut world = World::default();
    let mut it = pod("a", "10.0.0.1");
    world.sync(&web, std::slice::from_ref(&it), 100);
    assert_eq!(world.content(), ["10.0.0.1 [true, true, false] [8080]"]);
    set_ready(&mut it, false);
    world.sync(&web, std::slice::from_ref(&it), 100);
    assert_eq!(world.content(), ["10.0.0.1 [false, false, false] [8080]"]);
    set_ready(&mut it, true);
    it.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    world.sync(&web, std::slice::from_ref(&it), 100);
    assert_eq!(world.content(), ["10.0.0.1 [false, true, true] [8080]"], "terminating, still serving");
    let mut eager = service("web");
    eager.spec.publish_not_ready_addresses = true;
    set_ready(&mut it, false);
    world.sync(&eager, std::slice::from_ref(&it), 100);
    assert_eq!(world.content(), ["10.0.0.1 [true, false, true] [8080]"]);
    it.status.phase = "Succeeded".into();
    world.sync(&eager, &[it], 100);
    assert!(world.content().is_empty());
}

#[test]
fn an_endpoint_says_node_zone_pod_and_hostname() {
    let web = service("web");
    let mut it = pod("a", "10.0.0.1");
    it.spec.hostname = "host-a".into();
    it.spec.subdomain = "web".into();
    let mut world = World::default();
    world.sync(&web, std::slice::from_ref(&it), 100);
    let endpoint = world.endpoint();
    assert_eq!(endpoint.node_name.as_deref(), Some("n1"));
    assert_eq!(endpoint.zone.as_deref(), Some("z1"));
    assert_eq!(endpoint.hostname.as_deref(), Some("host-a"));
    let target = endpoint.target_ref.as_ref().unwrap();
    assert_eq!((target.kind.as_str(), target.name.as_str(), target.uid.as_str()), ("Pod", "a", "uid-a"));
    it.spec.subdomain = "other".into();
    world.sync(&web, &[it], 100);
    assert_eq!(world.endpoint().hostname, None);
}

#[test]
fn nothing_selected_leaves_one_placeholder_per_family() {
    let mut web = service("web");
    web.spec.ip_families = vec!["IPv4".into(), "IPv6".into()];
    let mut world = World::default();
    assert_eq!(world.sync(&web, &[], 100), 2);
    assert_eq!(world.sync(&web, &[], 100), 0, "stable");
    assert!(world.slices.iter().all(|slice| slice.endpoints.is_empty() && slice.ports.is_empty()));
    assert_eq!(world.sync(&web, &pods(1), 100), 1, "the placeholder is filled, not replaced");
    assert_eq!(world.slices.len(), 2);
    assert_eq!(world.sync(&web, &[], 100), 1);
    web.spec.ip_families.pop();
    assert_eq!(world.sync(&web, &[], 100), 1, "the family that went takes its slice along");
    assert_eq!(world.only().address_type, AddressType::V4);
}

#[test]
fn each_family_has_its_own_addresses() {
    let mut web = service("web");
    web.spec.ip_families = vec!["IPv6".into(), "IPv4".into()];
    let mut it = pod("a", "10.0.0.1");
    it.status.pod_ips.push(crate::objects::PodIp { ip: "fd00:0::1".into() });
    let mut world = World::default();
    world.sync(&web, &[it, pod("b", "10.0.0.2")], 100);
    assert_eq!(
        world.content(),
        [
            "10.0.0.1 [true, true, false] [8080]",
            "10.0.0.2 [true, true, false] [8080]",
            "fd00::1 [true, true, false] [8080]"
        ]
    );
    assert_eq!(world.slices.len(), 2);
}

#[test]
fn named_ports_split_pods_into_slices() {
    let mut web = service("web");
    web.spec.ports[0].target_port = Some(PortRef::Name("http".into()));
    let mut other = pod("b", "10.0.0.2");
    other.spec.containers[0].ports[0].container_port = 9090;
    let mut without = pod("c", "10.0.0.3");
    without.spec.containers.clear();
    let mut world = World::default();
    world.sync(&web, &[pod("a", "10.0.0.1"), other, without], 100);
    assert_eq!(
        world.content(),
        [
            "10.0.0.1 [true, true, false] [8080]",
            "10.0.0.2 [true, true, false] [9090]",
            "10.0.0.3 [true, true, false] []"
        ]
    );
}

#[test]
fn hints_follow_the_distribution_and_only_ready_endpoints_have_them() {
    let mut web = service("web");
    let zone = vec![Named { name: "z1".into() }];
    let mut world = World::default();
    let mut it = pod("a", "10.0.0.1");
    let node = vec![Named { name: "n1".into() }];
    for (distribution, nodes) in
        [("PreferClose", vec![]), ("PreferSameZone", vec![]), ("PreferSameNode", node)]
    {
        web.spec.traffic_distribution = distribution.into();
        world.sync(&web, std::slice::from_ref(&it), 100);
        let hints = Hints { for_zones: zone.clone(), for_nodes: nodes };
        assert_eq!(world.endpoint().hints, Some(hints), "{distribution}");
    }
    set_ready(&mut it, false);
    world.sync(&web, std::slice::from_ref(&it), 100);
    assert_eq!(world.endpoint().hints, None);
    set_ready(&mut it, true);
    web.metadata.annotations = labels(&[("service.kubernetes.io/topology-mode", "Auto")]);
    world.sync(&web, &[it], 100);
    assert_eq!(world.endpoint().hints, None, "the annotation overrides the field");
}

#[test]
fn hints_that_nobody_asks_for_go_and_nothing_known_is_no_hint() {
    let mut web = service("web");
    let pods = pods(1);
    let mut world = World::default();
    web.spec.traffic_distribution = "PreferSameZone".into();
    world.sync(&web, &pods, 100);
    assert!(world.endpoint().hints.is_some());
    web.spec.traffic_distribution = "".into();
    assert_eq!(world.sync(&web, &pods, 100), 1);
    assert_eq!(world.endpoint().hints, None);
    web.spec.traffic_distribution = "PreferSameNode".into();
    let mut nowhere = pods;
    nowhere[0].spec.node_name = "".into();
    world.sync(&web, &nowhere, 100);
    assert_eq!((&world.endpoint().hints, &world.endpoint().zone), (&None, &None));
}

#[test]
fn a_slice_in_full() {
    let mut web = service("web");
    web.spec.traffic_distribution = "PreferSameNode".into();
    web.spec.ports[0].app_protocol = Some("a/b".into());
    let mut it = pod("a", "10.0.0.1");
    it.spec.hostname = "host-a".into();
    it.spec.subdomain = "web".into();
    let plan = World::default().plan(&web, &[it], 100);
    let [Write::Create(slice)] = plan.writes.as_slice() else { panic!("{plan:?}") };
    assert_eq!(
        serde_json::to_value(slice).unwrap(),
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-", "namespace": "default",
                "labels": { "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io" },
                "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "uid-web",
                    "controller": true, "blockOwnerDeletion": true }],
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.0.0.1"], "conditions": { "ready": true, "serving": true, "terminating": false },
                "hostname": "host-a", "nodeName": "n1", "zone": "z1",
                "targetRef": { "kind": "Pod", "namespace": "default", "name": "a", "uid": "uid-a" },
                "hints": { "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "n1" }] },
            }],
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP", "appProtocol": "a/b" }],
        })
    );
}

#[test]
fn hints_by_share_of_processors() {
    let mut web = service("web");
    web.metadata.annotations = labels(&[("service.kubernetes.io/topology-mode", "Auto")]);
    web.spec.traffic_distribution = "PreferClose".into();
    let pods = shared((1..=4).map(|n| pod(&format!("p{n}"), &format!("10.0.0.{n}"))));
    let even = Ok([("z1".to_owned(), 0.5), ("z2".to_owned(), 0.5)].into());
    let planned = |slices: &[Arc<EndpointSlice>], shares: &Shares| {
        let zone_of = &known;
        let trigger = None;
        plan(&Input { service: &web, pods: &pods, slices, zone_of, trigger, max_per_slice: 100, shares })
    };
    let zones = |plan: &Plan| -> Vec<String> {
        let [Write::Create(slice) | Write::Update { slice, .. }] = &plan.writes[..] else {
            panic!("{plan:?}")
        };
        let hint = |e: &Endpoint| e.hints.as_ref().map_or("-".to_owned(), |h| h.for_zones[0].name.clone());
        slice.endpoints.iter().map(hint).collect()
    };
    let first = planned(&[], &even);
    assert_eq!(zones(&first), ["z1", "z1", "z2", "z2"]);
    assert_eq!(first.topology, [(AddressType::V4, Topology::Enabled { new: true })]);
    let mut world = World::default();
    first.writes.into_iter().for_each(|write| world.apply(write));
    let slices = world.slices.clone();
    assert_eq!(planned(&slices, &even).writes, [], "the same again changes nothing");
    let none = planned(&slices, &Err(Obstacle::OneZone));
    assert_eq!(zones(&none), ["-", "-", "-", "-"]);
    assert_eq!(none.topology, [(AddressType::V4, Topology::Impossible(Obstacle::OneZone))]);
}

#[test]
fn a_pod_of_an_unknown_node_is_left_out_and_said() {
    let web = service("web");
    let pods = shared([pod("a", "10.0.0.1")]);
    let unknown = |_: &str| None;
    let input = Input {
        service: &web,
        pods: &pods,
        slices: &[],
        zone_of: &unknown,
        trigger: None,
        max_per_slice: 100,
        shares: &Err(Obstacle::OneZone),
    };
    let planned = plan(&input);
    assert!(planned.incomplete);
    let Write::Create(slice) = &planned.writes[0] else { panic!("{planned:?}") };
    assert!(slice.endpoints.is_empty());
    // Who publishes what is not ready does not ask where it is either.
    let mut eager = service("web");
    eager.spec.publish_not_ready_addresses = true;
    let planned = plan(&Input { service: &eager, ..input });
    assert!(!planned.incomplete);
    let Write::Create(slice) = &planned.writes[0] else { panic!("{planned:?}") };
    assert_eq!((slice.endpoints.len(), &slice.endpoints[0].zone), (1, &None));
}

#[test]
fn a_slice_on_its_way_out_is_let_go() {
    let web = service("web");
    let mut world = World::default();
    world.sync(&web, &pods(1), 100);
    Arc::make_mut(&mut world.slices[0]).metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    let planned = world.plan(&web, &pods(1), 100);
    assert!(matches!(planned.writes.as_slice(), [Write::Create(_)]), "{:?}", planned.writes);
}

/// How many endpoints each slice holds, in the order in which the slices were made.
fn fill(world: &World) -> Vec<usize> {
    world.slices.iter().map(|slice| slice.endpoints.len()).collect()
}

#[test]
fn slices_are_filled_but_never_balanced() {
    let web = service("web");
    let mut world = World::default();
    let mut there = pods(300);
    world.sync(&web, &there, 100);
    assert_eq!(fill(&world), [100, 100, 100]);
    let mut drop = |world: &mut World, slice: usize, count: usize| {
        let names: BTreeSet<String> = world.slices[slice].endpoints[..count]
            .iter()
            .map(|e| e.target_ref.as_ref().unwrap().name.clone())
            .collect();
        there.retain(|pod| !names.contains(&*pod.metadata.name));
        world.sync(&web, &there, 100);
        there.clone()
    };
    drop(&mut world, 0, 60);
    drop(&mut world, 1, 30);
    let there = drop(&mut world, 2, 5);
    assert_eq!(fill(&world), [40, 70, 95], "what is left is not moved together");
    // More are put where they leave the least room, if one slice takes them all.
    let more = |from: &[Pod], count: usize, name: &str| -> Vec<Pod> {
        let new = (0..count).map(|i| pod(&format!("{name}{i}"), &format!("10.7.{}.{}", name.len(), i + 1)));
        from.iter().cloned().chain(new).collect()
    };
    let ten = more(&there, 10, "ten");
    assert_eq!(world.sync(&web, &ten, 100), 1);
    assert_eq!(fill(&world), [40, 80, 95]);
    let fifty = more(&ten, 50, "fifty");
    assert_eq!(world.sync(&web, &fifty, 100), 1);
    assert_eq!(fill(&world), [90, 80, 95]);
    // What fits nowhere gets a slice of its own.
    let thirty = more(&fifty, 30, "thirty");
    assert_eq!(world.sync(&web, &thirty, 100), 1);
    assert_eq!(fill(&world), [90, 80, 95, 30]);
    // A slice that is written anyway takes first.
    let mut changed = more(&thirty, 4, "four");
    let in_second = world.slices[1].endpoints[0].target_ref.as_ref().unwrap().name.clone();
    let position = changed.iter().position(|pod| *pod.metadata.name == *in_second).unwrap();
    set_ready(&mut changed[position], false);
    assert_eq!(world.sync(&web, &changed, 100), 1);
    assert_eq!(fill(&world), [90, 84, 95, 30]);
}

#[test]
fn slices_of_another_owner_go() {
    let web = service("web");
    let mut world = World::default();
    world.sync(&web, &pods(1), 100);
    let mut again = service("web");
    again.metadata.uid = "uid-second".into();
    assert_eq!(world.sync(&again, &pods(1), 100), 2);
    assert_eq!(world.only().metadata.controller().unwrap().uid, "uid-second");
}

#[test]
fn one_endpoint_more_writes_one_slice() {
    let web = service("web");
    let mut world = World::default();
    assert_eq!(world.sync(&web, &pods(950), 100), 10);
    assert_eq!(world.sync(&web, &pods(951), 100), 1);
    let full = pods(1000);
    assert_eq!(world.sync(&web, &full, 100), 1, "the last slice has room");
    assert_eq!(world.sync(&web, &pods(1001), 100), 1, "a new slice");
    assert_eq!(world.slices.len(), 11);
    let mut one_less = pods(1001);
    one_less.remove(500);
    assert_eq!(world.sync(&web, &one_less, 100), 1);
    one_less.push(pod("new", "10.9.9.9"));
    assert_eq!(world.sync(&web, &one_less, 100), 1);
    set_ready(&mut one_less[7], false);
    assert_eq!(world.sync(&web, &one_less, 100), 1);
}

#[test]
fn replacing_all_pods_rewrites_slices_in_place() {
    let web = service("web");
    let mut world = World::default();
    world.sync(&web, &pods(200), 100);
    let other: Vec<Pod> = (0..200).map(|i| pod(&format!("q{i}"), &format!("10.8.0.{i}"))).collect();
    assert_eq!(world.sync(&web, &other, 100), 2);
    assert_eq!(world.slices.len(), 2);
}

#[test]
fn a_changed_port_rewrites_the_slice_in_place() {
    let mut web = service("web");
    let mut world = World::default();
    world.sync(&web, &pods(2), 100);
    web.spec.ports[0].target_port = Some(PortRef::Number(9000));
    assert_eq!(world.sync(&web, &pods(2), 100), 1);
    assert_eq!(
        world.content(),
        ["10.0.0.1 [true, true, false] [9000]", "10.0.0.2 [true, true, false] [9000]"]
    );
}

#[test]
fn a_service_being_deleted_gets_no_new_slices() {
    let mut web = service("web");
    web.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    assert!(World::default().plan(&web, &pods(1), 100).writes.is_empty());
}

#[test]
fn the_trigger_is_written_and_removed_but_is_no_reason_to_write() {
    let web = service("web");
    let mut world = World::default();
    world.sync(&web, &pods(1), 100);
    let time = |world: &World| {
        world.only().metadata.annotations.get(crate::written::TRIGGER_TIME_ANNOTATION).map(str::to_owned)
    };
    assert_eq!(time(&world).as_deref(), Some("2026-01-01T00:00:00Z"));
    let pods = shared(pods(2));
    let input = Input {
        service: &web,
        pods: &pods[..1],
        slices: &world.slices.clone(),
        zone_of: &known,
        trigger: None,
        max_per_slice: 100,
        shares: &Err(Obstacle::OneZone),
    };
    assert!(plan(&input).writes.is_empty());
    for write in plan(&Input { pods: &pods, ..input }).writes {
        world.apply(write);
    }
    assert_eq!(time(&world), None);
}

/// One pod of the properties: which port it offers, whether it is there, ready, deleting.
#[derive(Debug, Clone)]
struct Shape {
    there: bool,
    ready: bool,
    deleting: bool,
    port: i32,
}

fn shapes(count: usize) -> impl Strategy<Value = Vec<Shape>> {
    let shape = (prop::bool::weighted(0.7), prop::bool::weighted(0.8), prop::bool::weighted(0.1), 1..3i32);
    let shape = shape.prop_map(|(there, ready, deleting, port)| Shape { there, ready, deleting, port });
    prop::collection::vec(shape, count)
}

fn built(shapes: &[Shape]) -> Vec<Pod> {
    let there = shapes.iter().enumerate().filter(|(_, shape)| shape.there);
    there
        .map(|(i, shape)| {
            let mut pod = pod(&format!("p{i:03}"), &format!("10.0.0.{}", i + 1));
            set_ready(&mut pod, shape.ready);
            pod.metadata.deletion_timestamp = shape.deleting.then(|| "2026-01-01T00:00:00Z".into());
            pod.spec.containers[0].ports[0].container_port = shape.port;
            pod
        })
        .collect()
}

/// What `content` should be, said without slices.
fn expected(pods: &[Pod], named: bool) -> Vec<String> {
    let mut lines: Vec<String> = pods
        .iter()
        .map(|pod| {
            let flags = [pod.ready() && !pod.metadata.deleting(), pod.ready(), pod.metadata.deleting()];
            let port = if named { pod.spec.containers[0].ports[0].container_port } else { 8080 };
            format!("{} {flags:?} [{port}]", pod.status.pod_ip)
        })
        .collect();
    lines.sort();
    lines
}

fn web(named: bool) -> Service {
    let mut web = service("web");
    if named {
        web.spec.ports[0].target_port = Some(PortRef::Name("http".into()));
    }
    web
}

proptest! {
    /// Whatever came before: the plan applied gives exactly the desired endpoints, a second plan is empty, every slice
    /// is within its limit, and no endpoint that is ready before and after is missing at any moment.
    #[test]
    fn plans_reach_the_goal_without_a_gap(
        history in prop::collection::vec((shapes(20), any::<bool>(), 1..8usize), 1..5),
    ) {
        let mut world = World::default();
        for (shapes, named, max) in history {
            let (service, pods) = (web(named), built(&shapes));
            let writes = world.plan(&service, &pods, max).writes;
            let after = {
                let mut after = world.clone();
                for write in writes.clone() {
                    after.apply(write);
                }
                after
            };
            let steady: BTreeSet<String> = world.ready().intersection(&after.ready()).cloned().collect();
            for write in writes {
                world.apply(write);
                let missing: Vec<_> = steady.difference(&world.ready()).cloned().collect();
                prop_assert!(missing.is_empty(), "missing in between: {missing:?}");
            }
            prop_assert_eq!(world.content(), expected(&pods, named));
            prop_assert!(world.plan(&service, &pods, max).writes.is_empty(), "the second plan is empty");
        }
    }

    /// With one port list, a change writes no more slices than it has to: those that lose or change an endpoint, and
    /// as many more as the new endpoints need beyond the room in those.
    #[test]
    fn plans_write_as_little_as_possible(before in shapes(30), after in shapes(30), max in 1..10usize) {
        let service = web(false);
        let mut world = World::default();
        world.sync(&service, &built(&before), max);
        let old = world.slices.clone();
        let pods = built(&after);
        let goal: Vec<Endpoint> = {
            let mut fresh = World::default();
            fresh.sync(&service, &pods, 1000);
            fresh.slices.iter().flat_map(|slice| slice.endpoints.clone()).collect()
        };
        let is_goal = |endpoint: &Endpoint| goal.contains(endpoint);
        let touched = old.iter().filter(|slice| !slice.endpoints.iter().all(is_goal)).count();
        let held = |e: &Endpoint| old.iter().any(|s| s.endpoints.iter().any(|o| o.addresses == e.addresses));
        let new = goal.iter().filter(|e| !held(e)).count();
        let room: usize = old
            .iter()
            .filter(|slice| !slice.endpoints.iter().all(is_goal))
            .map(|slice| {
                let kept = slice.endpoints.iter().filter(|o| goal.iter().any(|e| e.addresses == o.addresses)).count();
                max - kept
            })
            .sum();
        let placeholder = usize::from(goal.is_empty() || old[0].endpoints.is_empty());
        let least = touched + new.saturating_sub(room).div_ceil(max) + placeholder;
        let writes = world.sync(&service, &pods, max);
        prop_assert!(writes <= least, "{writes} writes where {least} are enough");
    }
}
