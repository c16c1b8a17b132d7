//! What the allocators do and how full they are, and what repair found, under Kubernetes' names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use ipnet::IpNet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

type Count = Gauge<i64, AtomicI64>;

/// Upper bounds in seconds: the usual ones, as Kubernetes has them.
const DURATIONS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Whether a client asked for this very address or port, or for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Static,
    Dynamic,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Dynamic => "dynamic",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Range {
    cidr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RangeScope {
    cidr: String,
    scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortScope {
    scope: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Type {
    r#type: &'static str,
}

/// How much of a range is given out, and how much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fullness {
    pub(crate) allocated: u128,
    pub(crate) available: u128,
}

/// All of them. Clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct AllocMetrics {
    addresses: Family<Range, Count>,
    addresses_left: Family<Range, Count>,
    address_allocations: Family<RangeScope, Counter>,
    address_errors: Family<RangeScope, Counter>,
    address_durations: Family<Range, Histogram>,
    ports: Count,
    ports_left: Count,
    port_allocations: Family<PortScope, Counter>,
    port_errors: Family<PortScope, Counter>,
    repaired_addresses: Family<Type, Counter>,
    repaired_ports: Family<Type, Counter>,
    address_repair_failures: Counter,
    port_repair_failures: Counter,
}

impl Default for AllocMetrics {
    fn default() -> Self {
        Self {
            addresses: Family::default(),
            addresses_left: Family::default(),
            address_allocations: Family::default(),
            address_errors: Family::default(),
            address_durations: Family::new_with_constructor(|| Histogram::new(DURATIONS)),
            ports: Count::default(),
            ports_left: Count::default(),
            port_allocations: Family::default(),
            port_errors: Family::default(),
            repaired_addresses: Family::default(),
            repaired_ports: Family::default(),
            address_repair_failures: Counter::default(),
            port_repair_failures: Counter::default(),
        }
    }
}

impl AllocMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let addresses = registry.sub_registry_with_prefix("kube_apiserver_clusterip_allocator");
        let gauge = "Gauge measuring the number of allocated IPs for Services";
        addresses.register("allocated_ips", gauge, self.addresses.clone());
        let gauge = "Gauge measuring the number of available IPs for Services";
        addresses.register("available_ips", gauge, self.addresses_left.clone());
        let total = "Number of Cluster IPs allocations";
        addresses.register("allocation", total, self.address_allocations.clone());
        let errors = "Number of errors trying to allocate Cluster IPs";
        addresses.register("allocation_errors", errors, self.address_errors.clone());
        let duration = "Duration in seconds to allocate a Cluster IP by ServiceCIDR";
        addresses.register("allocation_duration_seconds", duration, self.address_durations.clone());

        let ports = registry.sub_registry_with_prefix("kube_apiserver_nodeport_allocator");
        let gauge = "Gauge measuring the number of allocated NodePorts for Services";
        ports.register("allocated_ports", gauge, self.ports.clone());
        let gauge = "Gauge measuring the number of available NodePorts for Services";
        ports.register("available_ports", gauge, self.ports_left.clone());
        ports.register("allocation", "Number of NodePort allocations", self.port_allocations.clone());
        let errors = "Number of errors trying to allocate NodePort";
        ports.register("allocation_errors", errors, self.port_errors.clone());

        let repair = registry.sub_registry_with_prefix("apiserver_clusterip_repair");
        let found = "Number of errors detected on clusterips by the repair loop broken down by type of error: leak, \
                     repair, full, outOfRange, duplicate, unknown, invalid";
        repair.register("ip_errors", found, self.repaired_addresses.clone());
        let failures = "Number of reconciliation failures on the clusterip repair reconcile loop";
        repair.register("reconcile_errors", failures, self.address_repair_failures.clone());
        let repair = registry.sub_registry_with_prefix("apiserver_nodeport_repair");
        let found = "Number of errors detected on ports by the repair loop broken down by type of error: leak, repair, \
                     full, outOfRange, duplicate, unknown";
        repair.register("port_errors", found, self.repaired_ports.clone());
        let failures = "Number of reconciliation failures on the nodeport repair reconcile loop";
        repair.register("reconcile_errors", failures, self.port_repair_failures.clone());
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

    /// An address of the range is a Service's now.
    pub(crate) fn gave_address(&self, range: IpNet, scope: Scope, took: Duration) {
        let cidr = range.to_string();
        self.address_allocations.get_or_create(&RangeScope { cidr: cidr.clone(), scope: scope.name() }).inc();
        self.address_durations.get_or_create(&Range { cidr }).observe(took.as_secs_f64());
    }

    pub(crate) fn refused_address(&self, range: IpNet, scope: Scope) {
        let labels = RangeScope { cidr: range.to_string(), scope: scope.name() };
        self.address_errors.get_or_create(&labels).inc();
    }

    pub(crate) fn gave_port(&self, scope: Scope) {
        self.port_allocations.get_or_create(&PortScope { scope: scope.name() }).inc();
    }

    pub(crate) fn refused_port(&self, scope: Scope) {
        self.port_errors.get_or_create(&PortScope { scope: scope.name() }).inc();
    }

    /// Repair found something wrong with an address.
    pub(crate) fn found_address(&self, kind: &'static str) {
        self.repaired_addresses.get_or_create(&Type { r#type: kind }).inc();
    }

    /// Repair found something wrong with a node port.
    pub(crate) fn found_port(&self, kind: &'static str) {
        self.repaired_ports.get_or_create(&Type { r#type: kind }).inc();
    }

    /// A run of repair, which is about both, ended early.
    pub(crate) fn repair_failed(&self) {
        self.address_repair_failures.inc();
        self.port_repair_failures.inc();
    }
}

/// An IPv6 range has more addresses than a gauge can say.
fn count(number: u128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
