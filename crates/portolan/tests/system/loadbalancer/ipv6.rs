//! The same for an IPv6 address: found by Neighbour Discovery, and followed by it.
//!
//! Pods have no IPv6 addresses, so the Service leads to a host outside of the cluster.

use std::net::IpAddr;
use std::time::Instant;

use portolan_lab::Host;
use portolan_lab::load::{Manner, Repeats};
use portolan_netlink::rt::Rt;

use super::{AIM, SLACK, end_load, lost_nothing, start_load, until_moved, until_settled};
use crate::bed::{Bed, at, settles, who};

const ADDRESS: &str = "fd00::240";
const MANIFEST: &str = "
apiVersion: portolan.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: six}
spec: {addresses: ['fd00::240-fd00::24f']}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ipFamilyPolicy: SingleStack
  ipFamilies: [IPv6]
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-outside, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: ['fd00::ce']}]
";

#[test]
fn an_outside_client_finds_an_ipv6_address_by_neighbour_discovery_and_follows_it() {
    let bed = Bed::up_with_ipv6(2);
    let address: IpAddr = ADDRESS.parse().unwrap();
    let server = bed.lab.place("server").unwrap();
    let mut command = server.command(crate::bed::exe().to_str().unwrap());
    command.args(["echo", "--http", "8080"]).env("POD_NAME", "outside");
    let mut outside = server.spawn(&mut command).unwrap();
    bed.apply(MANIFEST);
    bed.until_field("service web", "{.status.loadBalancer.ingress[0].ip}", |ip| ip == ADDRESS);
    until_settled(&bed, address);
    let ask = || bed.http("client", at(address, 80));
    settles(ask, |answer| answer.text().is_some());
    assert_eq!(who(&ask()), "outside");
    bed.until_field("lbpool six", "{.status.assignedIPv6}", |count| count == "1");

    let first = until_settled(&bed, address);
    let client = bed.lab.host(Host::Client).unwrap();
    let load = start_load(&bed, address, Manner::Hasty);
    let begin = Instant::now();
    let mut segment = Rt::open_in(&bed.lab.host(Host::Segment).unwrap()).unwrap();
    segment.set_down(&format!("node-{first}")).unwrap();
    until_moved(&bed, address, first);
    let gap = end_load(load).longest_gap(begin);
    println!("partitioned, IPv6: {gap:?} without an answer");
    assert!(gap < AIM + SLACK, "{gap:?}");
    segment.set_up(&format!("node-{first}")).unwrap();

    // A planned move: the address is drained away from where it is.
    let from = until_settled(&bed, address);
    settles(ask, |answer| answer.text().is_some());
    let load = start_load(&bed, address, Manner::Patient);
    let before = Repeats::of(&client).unwrap();
    bed.run(&["cordon", &format!("node-{from}")]);
    until_moved(&bed, address, from);
    let seen = end_load(load);
    lost_nothing(&seen, &client, before);
    outside.kill().unwrap();
    outside.wait().unwrap();
}
