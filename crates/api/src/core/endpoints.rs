//! Endpoints, the older form of endpoint slices.

use super::common::ObjectReference;

kind! {
    /// The addresses behind a Service; deprecated in favour of `EndpointSlice`.
    Endpoints("io.k8s.api.core.v1.Endpoints", "", "v1") {
        /// Groups of addresses that share the same ports.
        "subsets" subsets: Vec<EndpointSubset>,
    }
}

objects! {
    /// Addresses that share the same ports.
    struct EndpointSubset("io.k8s.api.core.v1.EndpointSubset") {
        /// Addresses that take traffic.
        "addresses" addresses: Vec<EndpointAddress>,
        /// Addresses that do not take traffic now.
        "notReadyAddresses" not_ready_addresses: Vec<EndpointAddress>,
        /// The ports.
        "ports" ports: Vec<EndpointPort>,
    }

    /// One address.
    struct EndpointAddress("io.k8s.api.core.v1.EndpointAddress") {
        /// The address.
        "ip" ip: String [.required()],
        /// Its host name, for DNS.
        "hostname" hostname: String,
        /// The node it runs on.
        "nodeName" node_name: Option<String>,
        /// The object behind it.
        "targetRef" target_ref: Option<ObjectReference>,
    }

    /// One port.
    struct EndpointPort("io.k8s.api.core.v1.EndpointPort") {
        /// Name of the Service port it belongs to.
        "name" name: String,
        /// The number.
        "port" port: i32 [.required()],
        /// `TCP`, `UDP` or `SCTP`.
        "protocol" protocol: String [.go("v1.Protocol")],
        /// Hint at the protocol spoken over it.
        "appProtocol" app_protocol: Option<String>,
    }
}
