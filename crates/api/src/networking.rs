//! `networking.k8s.io`: the ranges of Service addresses, and each address given out.

pub mod v1 {
    use crate::meta::v1::Condition;

    kind! {
        /// A range from which ClusterIPs are given out.
        ServiceCIDR("io.k8s.api.networking.v1.ServiceCIDR", "networking.k8s.io", "v1") {
            /// The ranges.
            "spec" spec: ServiceCIDRSpec,
            /// Whether they may be used.
            "status" status: ServiceCIDRStatus,
        }
    }

    kind! {
        /// One address in use; its name is the address.
        IPAddress("io.k8s.api.networking.v1.IPAddress", "networking.k8s.io", "v1") {
            /// Whose address it is.
            "spec" spec: IPAddressSpec,
        }
    }

    objects! {
        /// The ranges of a ServiceCIDR.
        struct ServiceCIDRSpec("io.k8s.api.networking.v1.ServiceCIDRSpec") {
            /// One range, or one of each family.
            "cidrs" cidrs: Vec<String>,
        }

        /// The state of a ServiceCIDR.
        struct ServiceCIDRStatus("io.k8s.api.networking.v1.ServiceCIDRStatus") {
            /// Aspects of the state; `Ready` says whether addresses are given out.
            "conditions" conditions: Vec<Condition> [.map(&["type"]).merge("type")],
        }

        /// Whose address it is.
        struct IPAddressSpec("io.k8s.api.networking.v1.IPAddressSpec") {
            /// The object that holds the address.
            "parentRef" parent_ref: Option<ParentReference> [.required()],
        }

        /// The object that holds an address.
        struct ParentReference("io.k8s.api.networking.v1.ParentReference") {
            /// API group of the object.
            "group" group: String,
            /// Resource name of the object.
            "resource" resource: String [.required()],
            /// Namespace of the object.
            "namespace" namespace: String,
            /// Name of the object.
            "name" name: String [.required()],
        }
    }
}
