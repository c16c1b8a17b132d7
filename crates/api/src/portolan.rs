//! `portolan.dev`: what Portolan adds to Kubernetes' own kinds.

pub mod v1alpha1 {
    use crate::meta::v1::{Condition, LabelSelector};

    kind! {
        /// Addresses that Services of type LoadBalancer may get, and where they are announced.
        LoadBalancerPool("dev.portolan.v1alpha1.LoadBalancerPool", "portolan.dev", "v1alpha1") {
            /// What the pool offers, and to whom.
            "spec" spec: LoadBalancerPoolSpec,
            /// How much of it is in use.
            "status" status: LoadBalancerPoolStatus,
        }
    }

    objects! {
        /// What a pool offers, and to whom.
        struct LoadBalancerPoolSpec("dev.portolan.v1alpha1.LoadBalancerPoolSpec") {
            /// CIDRs (`192.0.2.0/28`) and ranges (`192.0.2.10-192.0.2.20`), of either family.
            "addresses" addresses: Vec<String> [.required()],
            /// Services that ask for nothing get addresses of this pool; true where it is not said.
            "autoAssign" auto_assign: Option<bool>,
            /// Leave out IPv4 addresses that end in .0 and .255, which some old clients take for broadcasts.
            "avoidBuggyIPs" avoid_buggy_ips: bool,
            /// Only Services of namespaces with these labels; absent is all.
            "namespaceSelector" namespace_selector: Option<LabelSelector>,
            /// Only Services with these labels; absent is all.
            "serviceSelector" service_selector: Option<LabelSelector>,
            /// Names of the links on which nodes announce the addresses; absent is the links of the addresses' network.
            "interfaces" interfaces: Vec<String> [.set()],
            /// Only nodes with these labels announce the addresses; absent is all.
            "nodeSelector" node_selector: Option<LabelSelector>,
            /// Pools with a lower number are used first; 0, or absent, comes last.
            "priority" priority: i32,
        }

        /// How much of a pool is in use.
        struct LoadBalancerPoolStatus("dev.portolan.v1alpha1.LoadBalancerPoolStatus") {
            /// IPv4 addresses that Services hold.
            "assignedIPv4" assigned_ipv4: i64 [.keep()],
            /// IPv6 addresses that Services hold.
            "assignedIPv6" assigned_ipv6: i64 [.keep()],
            /// IPv4 addresses that are left.
            "availableIPv4" available_ipv4: i64 [.keep()],
            /// IPv6 addresses that are left, as far as a number of 64 bits can say.
            "availableIPv6" available_ipv6: i64 [.keep()],
            /// Aspects of the state; `Overlapping` says whether another pool offers some of the addresses too.
            "conditions" conditions: Vec<Condition> [.map(&["type"]).merge("type")],
        }
    }
}
