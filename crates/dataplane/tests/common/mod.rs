//! Tables for tests: a node, Services in the words of the model's input, compiled as the proxy would.

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "each test file includes this one and uses its own part"
)]

pub mod kernels;
pub mod planes;

use std::net::IpAddr;
use std::sync::Arc;

use portolan_forward::{
    Affinity, Delta, EndpointPort, EndpointView, LocalTraffic, NodePortAddresses, NodeView, Policy, Protocol,
    ServiceKey, ServicePortView, ServiceView, Table, compile,
};

pub const NODE: &str = "node-1";

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn node() -> NodeView {
    NodeView {
        name: NODE.into(),
        zone: None,
        addresses: vec![ip("192.0.2.1"), ip("2001:db8:2::1")],
        local_traffic: LocalTraffic::Cidrs(vec![
            "10.1.0.0/16".parse().unwrap(),
            "fd00:10:1::/48".parse().unwrap(),
        ]),
        node_port_addresses: NodePortAddresses::Addresses(vec![ip("192.0.2.1"), ip("2001:db8:2::1")]),
        masquerade_all: false,
        service_cidrs: vec!["172.30.0.0/16".parse().unwrap(), "fd00:30::/112".parse().unwrap()],
    }
}

/// A Service and its endpoints, to be changed by a test before it is compiled.
#[derive(Debug, Clone)]
pub struct Case {
    pub service: ServiceView,
    pub endpoints: Vec<EndpointView>,
}

impl Case {
    pub fn new(name: &str, cluster_ips: &[&str]) -> Self {
        let port = ServicePortView { name: "".into(), protocol: Protocol::Tcp, port: 80, node_port: None };
        Self {
            service: ServiceView {
                key: ServiceKey::new("test", name),
                external_name: false,
                other_proxy: false,
                cluster_ips: cluster_ips.iter().map(|text| ip(text)).collect(),
                external_ips: Vec::new(),
                load_balancer_ips: Vec::new(),
                source_ranges: Vec::new(),
                ports: vec![port],
                internal_policy: Policy::Cluster,
                external_policy: Policy::Cluster,
                affinity: None,
                algorithm: None,
                health_check_node_port: None,
            },
            endpoints: Vec::new(),
        }
    }

    pub fn port(mut self, protocol: Protocol, port: u16) -> Self {
        self.service.ports[0].protocol = protocol;
        self.service.ports[0].port = port;
        self
    }

    pub fn node_port(mut self, port: u16) -> Self {
        self.service.ports[0].node_port = Some(port);
        self
    }

    pub fn load_balancer(mut self, address: &str) -> Self {
        self.service.load_balancer_ips.push(ip(address));
        self
    }

    pub fn sources(mut self, ranges: &[&str]) -> Self {
        self.service.source_ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        self
    }

    pub fn external_local(mut self) -> Self {
        self.service.external_policy = Policy::Local;
        self
    }

    pub fn internal_local(mut self) -> Self {
        self.service.internal_policy = Policy::Local;
        self
    }

    pub fn affinity(mut self, timeout_seconds: u32) -> Self {
        self.service.affinity = Some(Affinity { timeout_seconds });
        self
    }

    /// An endpoint on another node.
    pub fn endpoint(self, address: &str, port: u16) -> Self {
        self.endpoint_on(address, port, "another-node")
    }

    pub fn local_endpoint(self, address: &str, port: u16) -> Self {
        self.endpoint_on(address, port, NODE)
    }

    pub fn endpoint_on(mut self, address: &str, port: u16, node: &str) -> Self {
        let service_port = &self.service.ports[0];
        let ports = [EndpointPort { name: service_port.name.clone(), protocol: service_port.protocol, port }];
        self.endpoints.push(EndpointView {
            address: ip(address),
            ready: true,
            serving: true,
            terminating: false,
            node_name: Some(node.into()),
            for_zones: Vec::new(),
            for_nodes: Vec::new(),
            ports: Arc::new(ports),
        });
        self
    }

    pub fn without(mut self, address: &str) -> Self {
        self.endpoints.retain(|endpoint| endpoint.address != ip(address));
        self
    }

    pub fn without_endpoint(mut self, index: usize) -> Self {
        self.endpoints.remove(index);
        self
    }

    pub fn key(&self) -> ServiceKey {
        self.service.key.clone()
    }
}

/// A table under test, changed Service by Service.
pub struct World {
    pub table: Table,
}

impl World {
    pub fn new(node: NodeView) -> Self {
        Self { table: Table::new(node) }
    }

    pub fn with(cases: impl IntoIterator<Item = Case>) -> Self {
        let mut world = Self::new(node());
        world.put(cases);
        world
    }

    /// Compiles the cases and puts them into the table.
    pub fn put(&mut self, cases: impl IntoIterator<Item = Case>) -> Delta {
        let node = self.table.node().clone();
        let compiled: Vec<_> = cases
            .into_iter()
            .map(|case| (case.key(), Some(compile(&case.service, &case.endpoints, &node).0)))
            .collect();
        Delta { node: None, services: self.table.update(compiled).0 }
    }

    pub fn remove(&mut self, keys: impl IntoIterator<Item = ServiceKey>) -> Delta {
        Delta { node: None, services: self.table.update(keys.into_iter().map(|key| (key, None))).0 }
    }

    /// Replaces the node; `cases` are all Services.
    pub fn set_node(&mut self, node: NodeView, cases: impl IntoIterator<Item = Case>) -> Delta {
        let changed = self.table.set_node(node);
        Delta { node: changed, ..self.put(cases) }
    }
}

/// The `n`th Service of a synthetic cluster.
pub fn synthetic(n: u32, endpoints: u32) -> Case {
    let cluster_ip = format!("172.{}.{}.{}", 16 + (n >> 16), (n >> 8) & 255, n & 255);
    let mut case = Case::new(&format!("service-{n}"), &[&cluster_ip]);
    for endpoint in 0..endpoints {
        let number = n * endpoints + endpoint;
        let address = format!("10.{}.{}.{}", (number >> 16) & 255, (number >> 8) & 255, number & 255);
        case = case.endpoint(&address, 8080);
    }
    case
}

/// Makes each test once per data plane: a module per data plane, with a test per function.
#[allow(unused_macros, reason = "benchmarks include this file too")]
macro_rules! on_every_plane {
    ($($test:ident),* $(,)?) => {
        $crate::common::on_plane!(nftables, Nftables, $($test),*);
        $crate::common::on_plane!(iptables, Iptables, $($test),*);
        $crate::common::on_plane!(ipvs_behind_nftables, IpvsBehindNftables, $($test),*);
        $crate::common::on_plane!(ipvs_behind_iptables, IpvsBehindIptables, $($test),*);
    };
}

/// The same for tests that send packets. IPVS is not in every kernel: see [`kernels`].
#[allow(unused_macros, reason = "benchmarks include this file too")]
macro_rules! on_every_kernel {
    ($($test:ident),* $(,)?) => {
        $crate::common::on_plane!(nftables, Nftables, $($test),*);
        $crate::common::on_plane!(iptables, Iptables, $($test),*);
        mod ipvs {
            $($crate::common::in_kernel!(with_ipvs, $test, super::$test::<crate::common::planes::IpvsBehindIptables>);)*
        }
        mod behind_nftables {
            $($crate::common::in_kernel!(
                with_ipvs_and_nftables,
                $test,
                super::$test::<crate::common::planes::IpvsBehindNftables>
            );)*
        }
    };
}

/// A test of this name that runs in another kernel if it must.
#[allow(unused_macros, reason = "benchmarks include this file too")]
macro_rules! in_kernel {
    ($with:ident, $name:ident, $test:expr) => {
        #[test]
        fn $name() {
            $crate::common::kernels::$with(concat!(module_path!(), "::", stringify!($name)), $test);
        }
    };
}

#[allow(unused_macros, reason = "benchmarks include this file too")]
macro_rules! on_plane {
    ($name:ident, $plane:ty, $($test:ident),* $(,)?) => {
        mod $name {
            #[allow(unused_imports, reason = "each test uses one")]
            use crate::common::planes::*;
            $(
                #[test]
                fn $test() {
                    super::$test::<$plane>();
                }
            )*
        }
    };
}
#[allow(unused_imports, reason = "benchmarks include this file too")]
pub(crate) use {in_kernel, on_every_kernel, on_every_plane, on_plane};
