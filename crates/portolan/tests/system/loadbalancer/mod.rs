//! Load-balancer addresses: given, announced on the segment, and there again after whatever happens to their node.

mod client;
mod haproxy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use portolan_api::schema::{Schema, Type};
use portolan_lab::probe::Answer;
use portolan_lab::{Host, Lab};
use portolan_netlink::rt::Rt;
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, PATIENCE, at, peer, settles, web_pod, who, yaml};
use client::Client;

/// The first address of the pool.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 240));
const POOL: &str = "
apiVersion: portolan.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: main}
spec: {addresses: [10.0.0.240-10.0.0.250]}
";
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
";

fn vip() -> SocketAddr {
    at(ADDRESS, 80)
}

/// A cluster with the pool and the Service.
fn announced(nodes: u8) -> Bed {
    let bed = Bed::up(nodes);
    bed.apply(&format!("{POOL}---{SERVICE}"));
    bed.until_field("service web", "{.status.loadBalancer.ingress[0].ip}", |ip| ip == "10.0.0.240");
    bed
}

/// The node that answers for the address, by what the client's kernel has learnt.
fn owner(bed: &Bed) -> u8 {
    let begin = Instant::now();
    loop {
        let _ = bed.http("client", vip());
        let client = bed.lab.host(Host::Client).unwrap();
        let neighbours = Rt::open_in(&client).unwrap().neighbours().unwrap();
        let mac = neighbours.iter().find(|n| n.address == ADDRESS).and_then(|n| n.mac);
        for node in 1..=bed.lab.layout.nodes {
            let link = Rt::open_in(&bed.lab.host(Host::Node(node)).unwrap()).unwrap().link("eth0").unwrap();
            if mac.is_some() && link.mac == mac {
                return node;
            }
        }
        assert!(begin.elapsed() < PATIENCE, "nobody answers for {ADDRESS}: {neighbours:?}");
    }
}

/// Three nodes; pods on those that do not answer for the address, so that only the address is at stake.
fn served() -> (Bed, u8) {
    let bed = announced(3);
    let owner = owner(&bed);
    let others = (1..=3).filter(|node| *node != owner);
    let pods = others.map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&pods.collect::<String>());
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    (bed, owner)
}

fn load(bed: &Bed) -> Client {
    Client::start(bed.lab.host(Host::Client).unwrap(), vip())
}

/// Until another node answers for the address.
fn until_moved(bed: &Bed, from: u8) {
    let begin = Instant::now();
    while owner(bed) == from {
        assert!(begin.elapsed() < PATIENCE, "node-{from} still answers");
    }
}

fn signal(lab: &Lab, node: u8, signal: Signal) {
    for pid in lab.host(Host::Node(node)).unwrap().processes() {
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }
}

/// What a machine with two busy cores may add to what was measured.
const SLACK: Duration = Duration::from_millis(1500);

#[test]
fn an_outside_client_reaches_the_service_by_its_address() {
    let (bed, owner) = served();
    assert!(who(&bed.http("client", vip())).starts_with("web-"));
    // In the cluster as well, without the segment.
    assert!(who(&bed.http("node-2", vip())).starts_with("web-"));
    let status = bed.field("service web", "{.status.loadBalancer.ingress[0]}");
    assert_eq!(status, r#"{"ip":"10.0.0.240","ipMode":"VIP","ports":[{"port":80,"protocol":"TCP"}]}"#);
    assert_eq!(bed.field("lbpool main", "{.status.assignedIPv4}"), "1");
    let events = bed.until_field("events", "{.items[*].reason}", |all| all.contains("nodeAssigned"));
    assert!(events.contains("IPAllocated"), "{events}");
    // Nothing is added to any interface.
    let addresses = Rt::open_in(&bed.lab.host(Host::Node(owner)).unwrap()).unwrap().addresses().unwrap();
    assert!(addresses.iter().all(|address| address.net.addr() != ADDRESS), "{addresses:?}");
    // A Service that goes takes its address with it.
    bed.run(&["delete", "service", "web"]);
    settles(|| bed.http("client", vip()), |answer| answer.text().is_none());
}

#[test]
fn a_killed_owner_is_followed_by_another_node() {
    let (bed, owner) = served();
    let load = load(&bed);
    let begin = Instant::now();
    bed.lab.host(Host::Node(owner)).unwrap().kill_processes(PATIENCE).unwrap();
    until_moved(&bed, owner);
    let gap = load.end().longest_gap(begin);
    println!("killed: {gap:?} without an answer");
    // The dead node's kernel still forwards what it gets: only the address moves, when the others miss its beats.
    assert!(gap < Duration::from_secs(1) + SLACK, "{gap:?}");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
}

#[test]
fn a_frozen_owner_is_followed_and_answers_nothing_when_it_wakes() {
    let (bed, owner) = served();
    let load = load(&bed);
    let begin = Instant::now();
    signal(&bed.lab, owner, Signal::STOP);
    until_moved(&bed, owner);
    signal(&bed.lab, owner, Signal::CONT);
    // It gets its address back when it has shown to be alive.
    let woken = Instant::now();
    while self::owner(&bed) != owner {
        assert!(woken.elapsed() < PATIENCE);
    }
    let gap = load.end().longest_gap(begin);
    println!("frozen: {gap:?} without an answer");
    assert!(gap < Duration::from_secs(1) + SLACK, "{gap:?}");
}

#[test]
fn a_partitioned_owner_is_followed_and_one_remains_afterwards() {
    let (bed, owner) = served();
    let load = load(&bed);
    let segment = bed.lab.host(Host::Segment).unwrap();
    let port = format!("node-{owner}");
    let begin = Instant::now();
    Rt::open_in(&segment).unwrap().set_down(&port).unwrap();
    until_moved(&bed, owner);
    let cut = load.end();
    let gap = cut.longest_gap(begin);
    println!("partitioned: {gap:?} without an answer");
    assert!(gap < Duration::from_secs(1) + SLACK, "{gap:?}");
    Rt::open_in(&segment).unwrap().set_up(&port).unwrap();
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
}

#[test]
fn a_drained_and_a_stopped_owner_hand_over_without_a_gap() {
    let (bed, owner) = served();
    let client = load(&bed);
    let begin = Instant::now();
    bed.run(&["drain", &format!("node-{owner}"), "--ignore-daemonsets", "--force"]);
    until_moved(&bed, owner);
    let seen = client.end();
    let gap = seen.longest_gap(begin);
    println!("drained: {gap:?} without an answer, {} of {} connects failed", seen.failures(), seen.count());
    assert!(gap < Duration::from_millis(500), "{gap:?}");
    bed.run(&["uncordon", &format!("node-{owner}")]);
    while self::owner(&bed) != owner {
        assert!(begin.elapsed() < PATIENCE);
    }
    let client = load(&bed);
    let begin = Instant::now();
    signal(&bed.lab, owner, Signal::TERM);
    until_moved(&bed, owner);
    let seen = client.end();
    let gap = seen.longest_gap(begin);
    println!("stopped: {gap:?} without an answer, {} of {} connects failed", seen.failures(), seen.count());
    assert!(gap < Duration::from_millis(500), "{gap:?}");
}

#[test]
fn with_policy_local_the_address_is_where_a_ready_pod_is_and_sources_are_kept() {
    let bed = announced(2);
    bed.apply(&SERVICE.replace("spec:\n", "spec:\n  externalTrafficPolicy: Local\n"));
    let pods = [1, 2].map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&pods.concat());
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    let first = owner(&bed);
    let answer = bed.http("client", vip());
    assert_eq!((who(&answer), peer(&answer)), (format!("web-{first}"), Host::Client.ip()));
    bed.post("node-1", at(bed.pod_ip(&format!("web-{first}")), 80), "/ready?value=false");
    until_moved(&bed, first);
    let second = 3 - first;
    settles(
        || bed.http("client", vip()),
        |answer| matches!(answer, Answer::Text(_)) && who(answer) == format!("web-{second}"),
    );
}

#[test]
fn another_host_with_the_address_is_named_and_not_fought() {
    let bed = Bed::up(2);
    let server = bed.lab.host(Host::Server).unwrap();
    let mut rt = Rt::open_in(&server).unwrap();
    let net = "10.0.0.240/24".parse().unwrap();
    rt.add_address("eth0", net).unwrap();
    let mac = rt.link("eth0").unwrap().mac.unwrap();
    bed.apply(&format!("{POOL}---{SERVICE}"));
    let said = "{.items[?(@.reason==\"AddressConflict\")].message}";
    let message = bed.until_field("events", said, |message| message.contains("10.0.0.240"));
    assert!(
        message.contains(&mac.to_string()) && message.contains("take 10.0.0.240 out of its"),
        "{message}"
    );
    let neighbours = || {
        let _ = bed.http("client", vip());
        let client = bed.lab.host(Host::Client).unwrap();
        let all = Rt::open_in(&client).unwrap().neighbours().unwrap();
        all.into_iter().find(|n| n.address == ADDRESS).and_then(|n| n.mac)
    };
    assert_eq!(neighbours(), Some(mac), "the stranger keeps it");
    rt.delete_address("eth0", net).unwrap();
    owner(&bed);
}

#[test]
fn pools_say_what_is_wrong_with_them_and_with_what_is_asked_of_them() {
    let bed = Bed::up(1);
    let refused = |spec: &str| {
        let pool = POOL.replace("{addresses: [10.0.0.240-10.0.0.250]}", spec);
        bed.kubectl().apply(&yaml(&pool)).unwrap_err().to_string()
    };
    let error = refused("{addresses: [10.0.0.250-10.0.0.240]}");
    assert!(error.contains("spec.addresses[0]") && error.contains("write 10.0.0.240-10.0.0.250"), "{error}");
    let error = refused("{addresses: [10.0.0.240/28, 10.0.0.250/32]}");
    assert!(error.contains("must not overlap spec.addresses[0]"), "{error}");
    let condition = |service: &str| {
        bed.until_field(
            &format!("service {service}"),
            "{.status.conditions[?(@.type==\"portolan.dev/AddressAssigned\")].message}",
            |message| !message.is_empty(),
        )
    };
    bed.apply(SERVICE);
    assert!(condition("web").contains("there is no LoadBalancerPool: create one"));
    bed.apply(&POOL.replace("10.0.0.240-10.0.0.250", "10.0.0.240/32"));
    bed.until_field("service web", "{.status.loadBalancer.ingress[0].ip}", |ip| ip == "10.0.0.240");
    let second = SERVICE.replace("name: web}", "name: second}");
    bed.apply(&second);
    assert!(condition("second").contains("no IPv4 address is left in main"));
    let third = SERVICE
        .replace("name: web}", "name: third}")
        .replace("spec:\n", "spec:\n  loadBalancerIP: 10.9.9.9\n");
    bed.apply(&third);
    assert!(condition("third").contains("no pool offers 10.9.9.9 (pools: main)"), "{}", condition("third"));
    bed.run(&["delete", "lbpool", "main"]);
    let outside = "{.status.conditions[?(@.reason==\"OutsidePools\")].message}";
    let message = bed.until_field("service web", outside, |message| !message.is_empty());
    assert!(message.contains("keeps 10.0.0.240, although no pool offers it any more"), "{message}");
}

#[test]
fn the_crd_says_what_the_declaration_says() {
    let text = include_str!("../../../../../deploy/loadbalancerpool-crd.yaml");
    let crd: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    same_fields("", portolan_api::portolan::v1alpha1::LoadBalancerPool::schema(), root);
}

fn same_fields(path: &str, schema: &Schema, crd: &serde_json::Value) {
    let declared: std::collections::BTreeSet<&str> = schema.fields.iter().map(|field| field.name).collect();
    let written: std::collections::BTreeSet<&str> =
        crd["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(declared, written, "{path}");
    for field in schema.fields.iter().filter(|field| field.name != "metadata") {
        let here = format!("{path}.{}", field.name);
        let property = &crd["properties"][field.name];
        let kind = match field.ty {
            Type::Bool => "boolean",
            Type::Int32 | Type::Int64 => "integer",
            Type::List(_) => "array",
            Type::Object(_) | Type::StringMap | Type::Map(_) => "object",
            _ => "string",
        };
        assert_eq!(property["type"], kind, "{here}");
        let inner = if kind == "array" { &property["items"] } else { property };
        if let Some(schema) = field.ty.schema() {
            same_fields(&here, schema, inner);
        }
    }
}

/// The verb for clusters whose nodes are not ours: beside whatever forwards there.
#[test]
fn the_verb_lb_announces_from_a_node_with_any_api_server() {
    let bed = announced(1);
    bed.apply(&web_pod("web-1", "app: web", Some("node-1")));
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    let node = bed.lab.place("node-1").unwrap();
    // What is left is the kernel, which goes on forwarding.
    node.netns.kill_processes(PATIENCE).unwrap();
    let client = bed.lab.host(Host::Client).unwrap();
    let mut rt = Rt::open_in(&client).unwrap();
    rt.delete_neighbour("eth0", ADDRESS).unwrap();
    assert!(bed.http("client", vip()).text().is_none(), "nobody answers for the address");
    let mut command = node.command(crate::bed::exe().to_str().unwrap());
    command.args(["lb", "--node-name", "node-1", "--kubeconfig"]).arg(bed.lab.layout.kubeconfig());
    let mut lb = node.spawn(&mut command).unwrap();
    assert_eq!(owner(&bed), 1);
    settles(|| bed.http("client", vip()), |answer| matches!(answer, Answer::Text(_) | Answer::Refused));
    bed.until_field("lease -n kube-system portolan-loadbalancer", "{.spec.holderIdentity}", |holder| {
        holder.starts_with("node-1_")
    });
    kill_process(Pid::from_child(&lb), Signal::TERM).unwrap();
    assert!(lb.wait().unwrap().success());
    assert_eq!(bed.field("leases -n kube-system -l portolan.dev/announcer", "{.items[*].metadata.name}"), "");
}
