//! Short words to set up a Service, its endpoints and a node, and to send a packet.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_forward::trace::Backend;
use portolan_forward::{
    EndpointPort, EndpointView, LocalTraffic, NodePortAddresses, NodeView, Note, Outcome, Packet, Policy,
    Protocol, ServiceKey, ServicePortView, ServiceView, Table, compile, lint, trace,
};

pub(crate) const NODE: &str = "node-1";
pub(crate) const CLUSTER_IP: &str = "10.96.0.10";
pub(crate) const NODE_IP: &str = "192.168.0.1";
pub(crate) const NODE_PORT: u16 = 30080;
pub(crate) const LB_IP: &str = "203.0.113.10";
pub(crate) const POD: &str = "10.244.1.99";
pub(crate) const OUTSIDE: &str = "198.51.100.7";
pub(crate) const LOCAL: &str = "10.244.1.5";
pub(crate) const REMOTE: &str = "10.244.2.5";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn node() -> NodeView {
    NodeView {
        name: NODE.into(),
        zone: Some("zone-a".into()),
        addresses: vec![ip(NODE_IP), ip("fd00::1")],
        local_traffic: LocalTraffic::Cidrs(vec![
            "10.244.0.0/16".parse().unwrap(),
            "fd44::/48".parse().unwrap(),
        ]),
        node_port_addresses: NodePortAddresses::Addresses(vec![ip(NODE_IP), ip("fd00::1")]),
        masquerade_all: false,
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
    }
}

/// Port 80, ClusterIP only.
pub(crate) fn service() -> ServiceView {
    ServiceView {
        key: ServiceKey::new("default", "web"),
        external_name: false,
        other_proxy: false,
        cluster_ips: vec![ip(CLUSTER_IP)],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        ports: vec![port("http", Protocol::Tcp, 80)],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        algorithm: None,
        health_check_node_port: None,
    }
}

/// The same with a node port and a load-balancer address.
pub(crate) fn load_balancer() -> ServiceView {
    let mut service = service();
    service.load_balancer_ips = vec![ip(LB_IP)];
    service.ports[0].node_port = Some(NODE_PORT);
    service
}

pub(crate) fn port(name: &str, protocol: Protocol, port: u16) -> ServicePortView {
    ServicePortView { name: name.into(), protocol, port, node_port: None }
}

pub(crate) fn endpoint(address: &str, node: &str) -> EndpointView {
    EndpointView {
        address: ip(address),
        ready: true,
        serving: true,
        terminating: false,
        node_name: Some(node.into()),
        for_zones: vec![],
        for_nodes: vec![],
        ports: Arc::from([EndpointPort { name: "http".into(), protocol: Protocol::Tcp, port: 8080 }]),
    }
}

pub(crate) fn local() -> EndpointView {
    endpoint(LOCAL, NODE)
}

pub(crate) fn remote() -> EndpointView {
    endpoint(REMOTE, "node-2")
}

pub(crate) fn not_ready(mut endpoint: EndpointView) -> EndpointView {
    endpoint.ready = false;
    endpoint.serving = false;
    endpoint
}

pub(crate) fn terminating(mut endpoint: EndpointView) -> EndpointView {
    endpoint.ready = false;
    endpoint.serving = true;
    endpoint.terminating = true;
    endpoint
}

pub(crate) fn hinted(mut endpoint: EndpointView, zone: &str) -> EndpointView {
    endpoint.for_zones = vec![zone.into()];
    endpoint
}

pub(crate) fn range(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A table of these Services; lint holds for every table a test makes.
pub(crate) struct World {
    pub(crate) table: Table,
    pub(crate) notes: Vec<Note>,
}

pub(crate) fn world(node: NodeView, services: &[(ServiceView, Vec<EndpointView>)]) -> World {
    let mut table = Table::new(node);
    let mut notes = Vec::new();
    for (service, endpoints) in services {
        let (compiled, odd) = compile(service, endpoints, table.node());
        notes.extend(odd);
        notes.extend(table.update([(service.key.clone(), Some(compiled))]).1);
    }
    assert_eq!(lint::lint(&table), vec![]);
    World { table, notes }
}

pub(crate) fn one(service: &ServiceView, endpoints: &[EndpointView]) -> World {
    world(node(), &[(service.clone(), endpoints.to_vec())])
}

impl World {
    /// A TCP packet that came in on an interface.
    pub(crate) fn send(&self, source: &str, destination: &str, port: u16) -> Outcome {
        self.send_protocol(Protocol::Tcp, source, destination, port)
    }

    pub(crate) fn send_protocol(
        &self,
        protocol: Protocol,
        source: &str,
        destination: &str,
        port: u16,
    ) -> Outcome {
        let addresses = &self.table.node().addresses;
        let packet = Packet {
            source: ip(source),
            destination: ip(destination),
            protocol,
            port,
            interface: Some("eth0".into()),
            from_node: addresses.contains(&ip(source)),
            to_node: addresses.contains(&ip(destination)),
        };
        trace(&self.table, &packet).outcome
    }
}

/// The endpoints' addresses, and whether the source is masqueraded (the same for all of them).
pub(crate) fn forwards(outcome: &Outcome) -> (Vec<String>, bool) {
    let Outcome::Forward { backends, .. } = outcome else { panic!("forwarded nowhere: {outcome:?}") };
    let masquerade = backends[0].masquerade;
    assert!(backends.iter().all(|b: &Backend| b.masquerade == masquerade), "{backends:?}");
    (backends.iter().map(|backend| backend.endpoint.address.to_string()).collect(), masquerade)
}

pub(crate) fn goes_to(outcome: &Outcome, addresses: &[&str]) {
    assert_eq!(forwards(outcome).0, addresses, "{outcome:?}");
}
