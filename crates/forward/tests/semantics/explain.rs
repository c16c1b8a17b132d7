//! The explanation gives the reasons, and agrees with the trace about what happens.

use std::collections::BTreeSet;

use portolan_forward::explain::{Explanation, Fate, Out, Source};
use portolan_forward::select::{Exclusion, Topology};
use portolan_forward::trace::Backend;
use portolan_forward::{
    EndpointView, LocalTraffic, NodeView, Outcome, Packet, Policy, Protocol, ServiceView, Table, compile,
    explain,
};
use proptest::prelude::*;

use crate::build::*;
use crate::properties::{endpoints, services};

fn packet(node: &NodeView, source: &str, destination: &str, port: u16) -> Packet {
    Packet {
        source: ip(source),
        destination: ip(destination),
        protocol: Protocol::Tcp,
        port,
        interface: Some("eth0".into()),
        from_node: node.addresses.contains(&ip(source)),
        to_node: node.addresses.contains(&ip(destination)),
    }
}

fn explained(
    service: &ServiceView,
    endpoints: &[EndpointView],
    from: &str,
    to: &str,
    port: u16,
) -> Explanation {
    let world = one(service, endpoints);
    explain(&world.table, service, endpoints, &packet(world.table.node(), from, to, port)).unwrap()
}

fn reasons(explanation: &Explanation) -> Vec<Option<Out>> {
    explanation.endpoints.iter().map(|fate| fate.out.clone()).collect()
}

#[test]
fn every_endpoint_has_its_reason() {
    let mut other_port = local();
    other_port.ports =
        [portolan_forward::EndpointPort { name: "admin".into(), protocol: Protocol::Tcp, port: 9000 }].into();
    let v6 = endpoint("fd44::5", NODE);
    let all = [remote(), not_ready(endpoint("10.244.2.6", "node-2")), other_port, v6, remote()];
    let explanation = explained(&service(), &all, POD, CLUSTER_IP, 80);
    assert!(explanation.is_forwarded());
    let has = all[2].ports.clone();
    assert_eq!(
        reasons(&explanation),
        [
            None,
            Some(Out::Excluded(Exclusion::NotReady)),
            Some(Out::NoSuchPort { has }),
            Some(Out::OtherFamily),
            Some(Out::Duplicate)
        ]
    );
}

#[test]
fn policy_local_leaves_out_other_nodes_unless_nothing_is_usable_at_all() {
    let mut service = service();
    service.internal_policy = Policy::Local;
    let elsewhere = Some(Out::Excluded(Exclusion::OnOtherNode));
    let explanation = explained(&service, &[local(), remote()], POD, CLUSTER_IP, 80);
    assert_eq!(reasons(&explanation), [None, elsewhere.clone()]);
    let explanation = explained(&service, &[remote()], POD, CLUSTER_IP, 80);
    assert_eq!(explanation.trace.outcome, Outcome::Drop);
    assert_eq!(reasons(&explanation), [elsewhere]);
    let explanation = explained(&service, &[not_ready(remote())], POD, CLUSTER_IP, 80);
    assert_eq!(explanation.trace.outcome, Outcome::Reject);
    assert_eq!(reasons(&explanation), [Some(Out::Excluded(Exclusion::NotReady))]);
}

#[test]
fn inside_traffic_to_an_external_frontend_is_short_circuited() {
    let mut service = load_balancer();
    service.external_policy = Policy::Local;
    let all = [local(), remote()];
    let explain = |from| explained(&service, &all, from, LB_IP, 80);
    for (from, short_circuit, source) in [
        (POD, true, Source::PodToExternal),
        (NODE_IP, true, Source::NodeToExternal),
        (OUTSIDE, false, Source::ExternalLocal),
    ] {
        let explanation = explain(from);
        assert!(explanation.policy.external);
        assert_eq!((explanation.policy.short_circuit, explanation.source), (short_circuit, source), "{from}");
        assert_eq!(reasons(&explanation)[1].is_none(), short_circuit, "{from}");
    }
}

#[test]
fn hints_and_hairpins_and_source_ranges_are_told() {
    let all = [hinted(local(), "zone-a"), hinted(remote(), "zone-b")];
    let explanation = explained(&service(), &all, LOCAL, CLUSTER_IP, 80);
    assert_eq!(explanation.topology, Topology::SameZone);
    assert_eq!(reasons(&explanation), [None, Some(Out::Excluded(Exclusion::HintedForOtherZone))]);
    assert!(explanation.endpoints[0].hairpin && !explanation.source.is_masqueraded());
    let mut guarded = load_balancer();
    guarded.source_ranges = vec![range("192.0.2.0/24")];
    let explanation = explained(&guarded, &all, OUTSIDE, LB_IP, 80);
    assert!(explanation.source_ranges.is_some_and(|ranges| !ranges.admitted));
    assert_eq!(explanation.trace.outcome, Outcome::Drop);
}

#[test]
fn a_packet_for_somebody_else_is_not_explained() {
    let world = one(&service(), &[local()]);
    let packet = packet(world.table.node(), POD, "10.96.0.99", 80);
    assert_eq!(explain(&world.table, &service(), &[local()], &packet), None);
}

fn nodes() -> impl Strategy<Value = NodeView> {
    (any::<bool>(), any::<bool>()).prop_map(|(detects, all)| NodeView {
        local_traffic: if detects { node().local_traffic } else { LocalTraffic::Unknown },
        masquerade_all: all,
        ..node()
    })
}

proptest! {
    #[test]
    fn the_explanation_agrees_with_the_trace(
        node in nodes(), service in services(), endpoints in endpoints(), from in 0..4usize, to in 0..4usize
    ) {
        let mut service = service;
        service.external_ips = vec![ip("203.0.113.2")];
        let from = [POD, "10.244.1.1", NODE_IP, "198.51.100.7"][from];
        let cluster_ip = service.cluster_ips[0].to_string();
        let (to, port) =
            [(&*cluster_ip, 80), ("203.0.113.1", 80), ("203.0.113.2", 80), (NODE_IP, 30001)][to];
        let mut table = Table::new(node.clone());
        let compiled = compile(&service, &endpoints, &node).0;
        table.update([(service.key.clone(), Some(compiled))]);
        let Some(explanation) = explain(&table, &service, &endpoints, &packet(&node, from, to, port)) else {
            return Ok(());
        };
        let inside = |fate: &&Fate| fate.out.is_none();
        let used: BTreeSet<Backend> = explanation.endpoints.iter().filter(inside).map(|fate| Backend {
            endpoint: fate.endpoint.unwrap(),
            masquerade: explanation.source.is_masqueraded() || fate.hairpin,
        }).collect();
        match &explanation.trace.outcome {
            Outcome::Forward { backends, .. } => prop_assert_eq!(used, backends.iter().copied().collect()),
            Outcome::Reject => prop_assert!(used.is_empty()),
            Outcome::Drop => prop_assert!(
                used.is_empty() || explanation.source_ranges.is_some_and(|ranges| !ranges.admitted)
            ),
            Outcome::Pass => prop_assert!(false, "a frontend of the Service matched"),
        }
    }
}
