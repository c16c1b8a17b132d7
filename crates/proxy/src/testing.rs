//! Small builders for tests.

use std::net::IpAddr;
use std::sync::Arc;

use portolan_forward::{
    EndpointPort, EndpointView, LocalTraffic, NodePortAddresses, NodeView, Policy, Protocol, ServiceKey,
    ServicePortView, ServiceView,
};

use crate::endpoints::Endpoints;
use crate::views::{ServiceObject, SliceObject};

pub(crate) fn node_view() -> NodeView {
    NodeView {
        name: "n1".into(),
        zone: None,
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        local_traffic: LocalTraffic::Unknown,
        node_port_addresses: NodePortAddresses::Addresses(vec![IpAddr::from([192, 0, 2, 1])]),
        masquerade_all: false,
        service_cidrs: Vec::new(),
    }
}

/// One port, 80, with node port 30080 for UDP.
pub(crate) fn service_object(name: &str, cluster_ip: &str, protocol: &str) -> ServiceObject {
    let protocol: Protocol = protocol.parse().unwrap();
    let port = ServicePortView {
        name: "".into(),
        protocol,
        port: 80,
        node_port: (protocol == Protocol::Udp).then_some(30080),
    };
    let view = ServiceView {
        key: ServiceKey::new("default", name),
        external_name: false,
        other_proxy: false,
        cluster_ips: vec![cluster_ip.parse().unwrap()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![port],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity: None,
        algorithm: None,
        health_check_node_port: None,
    };
    ServiceObject { view, uid: format!("uid-{name}"), notes: Vec::new() }
}

/// Ready endpoints on port 8080 of node `n1`.
pub(crate) fn slice_object(service: &str, addresses: &[&str], protocol: &str) -> SliceObject {
    slice_on("n1", service, addresses, protocol)
}

pub(crate) fn slice_on(node: &str, service: &str, addresses: &[&str], protocol: &str) -> SliceObject {
    let port = EndpointPort { name: "".into(), protocol: protocol.parse().unwrap(), port: 8080 };
    let ports: Arc<[EndpointPort]> = Arc::from([port]);
    let endpoints = addresses.iter().map(|address| EndpointView {
        address: address.parse().unwrap(),
        ready: true,
        serving: true,
        terminating: false,
        node_name: Some(node.into()),
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
        ports: Arc::clone(&ports),
    });
    SliceObject {
        service: Some(ServiceKey::new("default", service)),
        endpoints: Endpoints::new(Arc::clone(&ports), endpoints),
        trigger_ns: None,
        notes: Vec::new(),
    }
}
