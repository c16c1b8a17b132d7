//! The node's place in the cluster, and pods that talk to each other.

use std::net::IpAddr;

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_netlink::netns::Netns;
use portolan_netlink::nft::{
    self, Base, Batch, Chain, ChainKind, Expr, Family, Hook, NatFlags, NfTables as _, Op, Policy, Reg, Rule,
    Table, priority,
};
use portolan_netlink::rt::{Route, RouteKind, Rt, Veth, VethPeer};
use serde_json::{Value, json};

use crate::node::{Namespace, Node, eventually, http, until};

fn echo() -> Value {
    json!({"containers": [{"name": "c", "image": "portolan.dev/echo", "args": ["--http", "80"],
                           "readinessProbe": {"tcpSocket": {"port": 80}}}]})
}

/// Two nodes on one wire.
fn two_nodes() -> (Node, Node) {
    let (a, b) = (Namespace::new(), Namespace::new());
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(&b.netns) };
    let mut rt = Rt::open_in(&a.netns).unwrap();
    rt.add_veth(&Veth { name: "eth0", mac: None, mtu: None, peer }).unwrap();
    rt.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
    let mut rt = Rt::open_in(&b.netns).unwrap();
    rt.add_address("eth0", "192.0.2.2/24".parse().unwrap()).unwrap();
    rt.set_up("eth0").unwrap();
    // The strictest setting that a distribution may have.
    for ns in [&a, &b] {
        ns.netns.set_sysctl("net/ipv4/conf/all/rp_filter", "1").unwrap();
        ns.netns.set_sysctl("net/ipv4/conf/default/rp_filter", "1").unwrap();
    }
    let api = FakeApi::new();
    (Node::start_with(api.clone(), a, "node-a", 1), Node::start_with(api, b, "node-b", 2))
}

fn inside(node: &Node, pod: &str) -> Netns {
    Netns::open(&node.pod_dir(pod).join("netns")).unwrap()
}

fn peer_of(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["peer"].as_str().unwrap().rsplit_once(':').unwrap().0.to_owned()
}

fn routes(node: &Node) -> Vec<Route> {
    Rt::open_in(&node.ns.netns).unwrap().routes().unwrap()
}

#[test]
fn pods_reach_each_other_on_one_node_and_across() {
    let (a, b) = two_nodes();
    a.run("a1", echo());
    a.run("a2", echo());
    b.run("b1", echo());
    let (a1, a2, b1) = (a.wait_ready("a1"), a.wait_ready("a2"), b.wait_ready("b1"));
    for (from, own, to) in [("a1", &a1, &a2), ("a1", &a1, &b1), ("a1", &a1, &a1)] {
        let netns = inside(&a, from);
        let (code, body) = eventually(to, || http(&netns, "GET", to, 80, "/").ok());
        assert_eq!(code, 200);
        assert_eq!(peer_of(&body), **own, "no translation between pods");
    }
    let (_, body) = http(&inside(&b, "b1"), "GET", &a1, 80, "/").unwrap();
    assert_eq!(peer_of(&body), b1);
    let (_, body) = http(&a.ns.netns, "GET", &b1, 80, "/").unwrap();
    assert_eq!(peer_of(&body), "192.0.2.1", "from node to pod of another node");

    // A node that goes takes its route along.
    let via_b = |routes: &[Route]| routes.iter().any(|r| r.destination.to_string() == "10.88.2.0/24");
    assert!(via_b(&routes(&a)));
    a.api.remove(&paths::NODES, "", "node-b");
    until("the route is gone", || !via_b(&routes(&a)));
}

/// As a proxy does it: one address stands for the pod, and the pod's own traffic to it is masqueraded.
fn stand_in(node: &Node, vip: IpAddr, pod: IpAddr) {
    let (table, reg) = (Table::new(Family::Ip, "pt-test"), Reg::new(0));
    let base = |hook, priority| Base { kind: ChainKind::Nat, hook, priority, policy: Policy::Accept };
    let from_itself = vec![
        Expr::saddr(Family::Ip, reg),
        Expr::eq(reg, pod),
        Expr::daddr(Family::Ip, reg),
        Expr::eq(reg, pod),
        Expr::Masquerade { flags: NatFlags::default() },
    ];
    let to_vip = vec![
        Expr::daddr(Family::Ip, reg),
        Expr::eq(reg, vip),
        Expr::Immediate { dreg: reg, data: nft::Value::from(pod) },
        Expr::Dnat { family: Family::Ip, addr: Some(reg), port: None, flags: NatFlags::default() },
    ];
    let batch = Batch {
        ops: vec![
            Op::AddTable { table: table.clone(), comment: None },
            Op::AddChain(Chain::base(&table, "pre", base(Hook::Prerouting, priority::DSTNAT))),
            Op::AddChain(Chain::base(&table, "post", base(Hook::Postrouting, priority::SRCNAT))),
            Op::AddRule(Rule::new(&table, "pre", to_vip)),
            Op::AddRule(Rule::new(&table, "post", from_itself)),
        ],
    };
    let commit = || nft::Socket::open().unwrap().commit(&batch).unwrap();
    node.ns.netns.run(commit).unwrap();
}

#[test]
fn masq_2_a_pod_reaches_itself_through_another_address() {
    let (a, _b) = two_nodes();
    a.run("a1", echo());
    a.run("a2", echo());
    let (a1, a2) = (a.wait_ready("a1"), a.wait_ready("a2"));
    stand_in(&a, "10.96.0.1".parse().unwrap(), a1.parse().unwrap());
    let ask = |from| http(&inside(&a, from), "GET", "10.96.0.1", 80, "/").map(|(_, body)| peer_of(&body));
    assert_eq!(ask("a1").unwrap(), "192.0.2.1", "by way of the node, under the node's address");
    assert_eq!(ask("a2").unwrap(), a2, "the node sees what its pods send each other");
}

#[test]
fn an_address_nobody_has_is_told_to_be_unreachable() {
    let node = Node::start();
    node.run("web", echo());
    node.wait_ready("web");
    let own = |r: &Route| r.kind == RouteKind::Unreachable && r.destination.to_string() == "10.88.1.0/24";
    until("the route", || routes(&node).iter().any(own));
    let error = http(&inside(&node, "web"), "GET", "10.88.1.200", 80, "/").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable, "{error}");
}

#[test]
fn many_pods_have_many_addresses() {
    let node = Node::start();
    let names: Vec<String> = (0..20).map(|n| format!("web-{n}")).collect();
    for name in &names {
        node.run(name, echo());
    }
    let ips: std::collections::BTreeSet<String> = names.iter().map(|name| node.wait_ready(name)).collect();
    assert_eq!(ips.len(), 20);
    assert_eq!(node.links().len(), 20);
}

#[test]
fn the_node_registers_and_renews_its_lease() {
    let node = Node::start();
    let object = eventually("it is ready", || {
        let object = node.api.get(&paths::NODES, "", "node-a")?;
        let conditions = object["status"]["conditions"].as_array()?;
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(object.clone())
    });
    let labels = &object["metadata"]["labels"];
    assert_eq!(
        (&labels["kubernetes.io/hostname"], &labels["kubernetes.io/os"]),
        (&json!("node-a"), &json!("linux"))
    );
    let addresses =
        json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "Hostname", "address": "node-a"}]);
    assert_eq!(object["status"]["addresses"], addresses);
    assert!(object["status"]["nodeInfo"]["kernelVersion"].is_string());
    let lease = eventually("a lease", || node.api.get(&paths::LEASES, "kube-node-lease", "node-a"));
    assert_eq!(lease["spec"]["holderIdentity"], "node-a");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
}

#[test]
fn a_node_waits_for_its_range() {
    let ns = Namespace::new().with_address("192.0.2.1/24");
    let node = Node::start_without_range(FakeApi::new(), ns, "node-a", 1);
    node.run("web", echo());
    let ready = || {
        let object = node.api.get(&paths::NODES, "", "node-a").unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().find(|c| c["type"] == "Ready").map(|c| c["status"] == "True")
    };
    until("it says that it is not ready", || ready() == Some(false));
    until("the pod waits", || node.container("web")["state"]["waiting"]["reason"] == "ContainerCreating");
    Node::give_range(&node.api, "node-a", 1);
    node.wait_ready("web");
    until("it says that it is ready", || ready() == Some(true));
}
