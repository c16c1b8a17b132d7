//! How full the allocators are, under Kubernetes' names.

use std::sync::atomic::AtomicI64;

use ipnet::IpNet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Count = Gauge<i64, AtomicI64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Range {
    cidr: String,
}

/// How much of a range is given out, and how much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fullness {
    pub(crate) allocated: u128,
    pub(crate) available: u128,
}

/// The gauges.
#[derive(Debug, Default)]
pub(crate) struct AllocMetrics {
    addresses: Family<Range, Count>,
    addresses_left: Family<Range, Count>,
    ports: Count,
    ports_left: Count,
}

impl AllocMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let addresses = registry.sub_registry_with_prefix("kube_apiserver_clusterip_allocator");
        addresses.register("allocated_ips", "Addresses given to Services, by range", self.addresses.clone());
        addresses.register("available_ips", "Addresses left, by range", self.addresses_left.clone());
        let ports = registry.sub_registry_with_prefix("kube_apiserver_nodeport_allocator");
        ports.register("allocated_ports", "Node ports given to Services", self.ports.clone());
        ports.register("available_ports", "Node ports left", self.ports_left.clone());
    }

    /// What is so at the moment. Ranges that are gone are not shown any more.
    pub(crate) fn show(&self, addresses: &[(IpNet, Fullness)], ports: Option<Fullness>) {
        self.addresses.clear();
        self.addresses_left.clear();
        for (cidr, fullness) in addresses {
            let range = Range { cidr: cidr.to_string() };
            self.addresses.get_or_create(&range).set(count(fullness.allocated));
            self.addresses_left.get_or_create(&range).set(count(fullness.available));
        }
        if let Some(fullness) = ports {
            self.ports.set(count(fullness.allocated));
            self.ports_left.set(count(fullness.available));
        }
    }
}

/// An IPv6 range has more addresses than a gauge can say.
fn count(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
