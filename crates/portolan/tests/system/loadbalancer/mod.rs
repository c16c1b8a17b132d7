//! Load-balancer addresses: given, announced on the segment, and there again after whatever happens to their node.

mod haproxy;
mod ipv6;
mod kubectl;
mod nginx;
mod verb;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use portolan_lab::load::{Load, Manner, Repeats, Seen};
use portolan_lab::probe::{self, Answer};
use portolan_lab::{Host, Lab};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;
use rustix::process::{Pid, Signal, kill_process};

use crate::bed::{Bed, PATIENCE, at, peer, settles, web_pod, who, yaml};

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
    owner_of(bed, ADDRESS)
}

fn owner_of(bed: &Bed, address: IpAddr) -> u8 {
    let begin = Instant::now();
    loop {
        let _ = bed.http("client", at(address, 80));
        let client = bed.lab.host(Host::Client).unwrap();
        let neighbours = Rt::open_in(&client).unwrap().neighbours().unwrap();
        let mac = neighbours.iter().find(|n| n.address == address).and_then(|n| n.mac);
        for node in 1..=bed.lab.layout.nodes {
            let link = Rt::open_in(&bed.lab.host(Host::Node(node)).unwrap()).unwrap().link("eth0").unwrap();
            if mac.is_some() && link.mac == mac {
                return node;
            }
        }
        assert!(begin.elapsed() < PATIENCE, "nobody answers for {address}: {neighbours:?}");
    }
}

/// The node that answers for the address when everybody who lives has joined: nothing moves by itself then.
fn until_settled(bed: &Bed, address: IpAddr) -> u8 {
    let begin = Instant::now();
    let mut since = (owner_of(bed, address), Instant::now());
    while since.1.elapsed() < SETTLED_AFTER {
        let now = owner_of(bed, address);
        if now != since.0 {
            since = (now, Instant::now());
        }
        assert!(begin.elapsed() < PATIENCE, "{address} does not come to rest");
    }
    since.0
}

/// Until a client finds nobody there.
fn until_unanswered(bed: &Bed) {
    let gone = probe::until(|| Ok(bed.http("client", vip())), |answer| answer.text().is_none(), PATIENCE);
    assert!(gone.unwrap().0.text().is_none(), "{ADDRESS} still leads somewhere");
}

/// The configuration of the documentation, with the lab's addresses in it already.
fn documented(balancer: &str) -> &'static str {
    let text = include_str!("../../../../../docs/external-load-balancer.md");
    let fence = format!("```{balancer}\n");
    let begin = text.find(&fence).unwrap() + fence.len();
    let length = text[begin..].find("```").unwrap();
    &text[begin..begin + length]
}

/// An outside balancer's process.
struct Balancer(Child);

/// Three nodes, `service` with pods on the first two, and a balancer beside them, started as `command` says with the
/// documented configuration in the file that it is given.
fn balanced(
    balancer: &str,
    service: &str,
    command: impl FnOnce(&Path) -> Command,
) -> (Bed, Balancer, SocketAddr) {
    let bed = Bed::up(3);
    let pods = [1, 2].map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&format!("{}---{service}", pods.concat()));
    bed.wait_ready("app=web");
    let file = bed.lab.layout.dir().join(format!("{balancer}.conf"));
    std::fs::write(&file, documented(balancer)).unwrap();
    let place = bed.lab.place("server").unwrap();
    let running = Balancer(place.spawn(&mut command(&file)).unwrap());
    (bed, running, at(Host::Server.ip(), 80))
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three nodes; pods on those that do not answer for the address, so that only the address is at stake.
fn served() -> (Bed, u8) {
    let bed = announced(3);
    let owner = until_settled(&bed, ADDRESS);
    let others = (1..=3).filter(|node| *node != owner);
    let pods = others.map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&pods.collect::<String>());
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    (bed, owner)
}

fn load(bed: &Bed) -> Load {
    start_load(bed, ADDRESS, Manner::Hasty)
}

/// A client that has been there already when something happens.
fn start_load(bed: &Bed, address: IpAddr, manner: Manner) -> Load {
    let load = Load::start(bed.lab.host(Host::Client).unwrap(), at(address, 80), manner);
    assert!(load.more(AROUND, PATIENCE), "nobody answers at {address}");
    load
}

/// What it saw when it has been there for some time afterwards.
fn end_load(load: Load) -> Seen {
    assert!(load.more(AROUND, PATIENCE), "nobody answers any more");
    load.end().unwrap()
}

/// For a planned move. A first packet that meets nobody is sent again after a second, and the client's kernel counts it:
/// whatever the machine's load, there must have been none since `before`. Only the one connect that was under way at the moment of the move may be
/// reset, when its answer came by the old node and its second packet goes to the new one.
#[track_caller]
fn lost_nothing(seen: &Seen, client: &Netns, before: Repeats) {
    let failures = seen.failures();
    let reset = failures.iter().all(|failure| failure.kind() == ErrorKind::ConnectionReset);
    assert!(failures.len() <= 1 && reset, "{failures:?} of {}", seen.count());
    let unanswered = Repeats::of(client).unwrap().unanswered_since(before);
    assert_eq!(unanswered, 0, "of {} connects", seen.count());
}

/// Until another node answers for the address.
fn until_moved(bed: &Bed, address: IpAddr, from: u8) {
    let begin = Instant::now();
    while owner_of(bed, address) == from {
        assert!(begin.elapsed() < PATIENCE, "node-{from} still answers");
    }
}

fn signal(lab: &Lab, node: u8, signal: Signal) {
    for pid in lab.host(Host::Node(node)).unwrap().processes() {
        kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
    }
}

/// From a node's death to traffic.
const AIM: Duration = Duration::from_secs(1);
/// What a machine with two busy cores may add to what was measured: figures are in docs/benchmarks/loadbalancer.md.
const SLACK: Duration = Duration::from_secs(4);
/// Connects before and after what happens.
const AROUND: usize = 20;
/// Longer than a node that was frozen once is in doubt.
const SETTLED_AFTER: Duration = Duration::from_millis(1500);

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
    until_unanswered(&bed);
}

#[test]
fn a_killed_owner_is_followed_by_another_node() {
    let (bed, owner) = served();
    let load = load(&bed);
    let begin = Instant::now();
    bed.lab.host(Host::Node(owner)).unwrap().kill_processes(PATIENCE).unwrap();
    until_moved(&bed, ADDRESS, owner);
    let gap = end_load(load).longest_gap(begin);
    println!("killed: {gap:?} without an answer");
    // The dead node's kernel still forwards what it gets: only the address moves, when the others miss its beats.
    assert!(gap < AIM + SLACK, "{gap:?}");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
}

#[test]
fn a_frozen_owner_is_followed_and_answers_nothing_when_it_wakes() {
    let (bed, owner) = served();
    let load = load(&bed);
    let begin = Instant::now();
    signal(&bed.lab, owner, Signal::STOP);
    until_moved(&bed, ADDRESS, owner);
    signal(&bed.lab, owner, Signal::CONT);
    // It gets its address back when it has shown to be alive.
    let woken = Instant::now();
    while self::owner(&bed) != owner {
        assert!(woken.elapsed() < PATIENCE);
    }
    let gap = end_load(load).longest_gap(begin);
    println!("frozen: {gap:?} without an answer");
    assert!(gap < AIM + SLACK, "{gap:?}");
}

#[test]
fn a_partitioned_owner_is_followed_and_one_remains_afterwards() {
    let (bed, owner) = served();
    let load = load(&bed);
    let segment = bed.lab.host(Host::Segment).unwrap();
    let port = format!("node-{owner}");
    let begin = Instant::now();
    Rt::open_in(&segment).unwrap().set_down(&port).unwrap();
    until_moved(&bed, ADDRESS, owner);
    let cut = end_load(load);
    let gap = cut.longest_gap(begin);
    println!("partitioned: {gap:?} without an answer");
    assert!(gap < AIM + SLACK, "{gap:?}");
    Rt::open_in(&segment).unwrap().set_up(&port).unwrap();
    // It may move once more, and take with it what is under way.
    until_settled(&bed, ADDRESS);
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
}

#[test]
fn a_drained_and_a_stopped_owner_hand_over_without_a_lost_packet() {
    let (bed, owner) = served();
    let host = bed.lab.host(Host::Client).unwrap();
    let node = format!("node-{owner}");
    let drain = || _ = bed.run(&["drain", &node, "--ignore-daemonsets", "--force"]);
    let stop = || signal(&bed.lab, owner, Signal::TERM);
    let ways: [(&str, &dyn Fn()); 2] = [("drained", &drain), ("stopped", &stop)];
    for (way, leave) in ways {
        let begin = Instant::now();
        while until_settled(&bed, ADDRESS) != owner {
            assert!(begin.elapsed() < PATIENCE, "{node} does not get the address back");
        }
        let client = start_load(&bed, ADDRESS, Manner::Patient);
        let before = Repeats::of(&host).unwrap();
        let begin = Instant::now();
        leave();
        until_moved(&bed, ADDRESS, owner);
        let seen = end_load(client);
        println!("{way}: {:?} without an answer, {} connects", seen.longest_gap(begin), seen.count());
        lost_nothing(&seen, &host, before);
        bed.run(&["uncordon", &node]);
    }
}

#[test]
fn with_policy_local_the_address_is_where_a_ready_pod_is_and_sources_are_kept() {
    let bed = announced(2);
    bed.apply(&SERVICE.replace("spec:\n", "spec:\n  externalTrafficPolicy: Local\n"));
    let pods = [1, 2].map(|node| web_pod(&format!("web-{node}"), "app: web", Some(&format!("node-{node}"))));
    bed.apply(&pods.concat());
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    let first = until_settled(&bed, ADDRESS);
    let answer = bed.http("client", vip());
    assert_eq!((who(&answer), peer(&answer)), (format!("web-{first}"), Host::Client.ip()));
    bed.post("node-1", at(bed.pod_ip(&format!("web-{first}")), 80), "/ready?value=false");
    until_moved(&bed, ADDRESS, first);
    assert_eq!(until_settled(&bed, ADDRESS), 3 - first);
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
