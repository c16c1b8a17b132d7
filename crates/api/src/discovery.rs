//! `discovery.k8s.io`: endpoint slices.

pub mod v1 {
    use std::collections::BTreeMap;

    use crate::core::v1::ObjectReference;

    kind! {
        /// A part of the endpoints of a Service: addresses of one family that share the same ports.
        EndpointSlice("io.k8s.api.discovery.v1.EndpointSlice", "discovery.k8s.io", "v1") {
            /// `IPv4`, `IPv6` or `FQDN`; cannot be changed.
            "addressType" address_type: String [.required().go("v1.AddressType")],
            /// The endpoints of this slice, at most 1000.
            "endpoints" endpoints: Vec<Endpoint> [.keep()],
            /// The ports that every endpoint of the slice serves.
            "ports" ports: Vec<EndpointPort> [.keep()],
        }
    }

    objects! {
        /// One backend.
        struct Endpoint("io.k8s.api.discovery.v1.Endpoint") {
            /// Its addresses; users take the first.
            "addresses" addresses: Vec<String> [.required().set()],
            /// Whether it takes traffic.
            "conditions" conditions: EndpointConditions,
            /// Its host name, for DNS.
            "hostname" hostname: Option<String>,
            /// The object behind it.
            "targetRef" target_ref: Option<ObjectReference>,
            /// Deprecated topology of the v1beta1 API.
            "deprecatedTopology" deprecated_topology: BTreeMap<String, String>,
            /// The node it runs on.
            "nodeName" node_name: Option<String>,
            /// The zone it runs in.
            "zone" zone: Option<String>,
            /// Who should use it.
            "hints" hints: Option<EndpointHints>,
        }

        /// Whether an endpoint takes traffic; an absent condition counts as true, absent `terminating` as false.
        struct EndpointConditions("io.k8s.api.discovery.v1.EndpointConditions") {
            /// Ready, and not being deleted.
            "ready" ready: Option<bool>,
            /// Ready, whether or not it is being deleted.
            "serving" serving: Option<bool>,
            /// Being deleted.
            "terminating" terminating: Option<bool>,
        }

        /// For whom an endpoint is meant.
        struct EndpointHints("io.k8s.api.discovery.v1.EndpointHints") {
            /// Zones that should use it.
            "forZones" for_zones: Vec<ForZone>,
            /// Nodes that should use it.
            "forNodes" for_nodes: Vec<ForNode>,
        }

        /// A zone that should use an endpoint.
        struct ForZone("io.k8s.api.discovery.v1.ForZone") {
            /// Name of the zone.
            "name" name: String [.required()],
        }

        /// A node that should use an endpoint.
        struct ForNode("io.k8s.api.discovery.v1.ForNode") {
            /// Name of the node.
            "name" name: String [.required()],
        }

        /// One port of a slice.
        struct EndpointPort("io.k8s.api.discovery.v1.EndpointPort") {
            /// Name of the Service port it belongs to.
            "name" name: Option<String>,
            /// `TCP`, `UDP` or `SCTP`.
            "protocol" protocol: Option<String> [.go("v1.Protocol")],
            /// The number; absent means every port.
            "port" port: Option<i32>,
            /// Hint at the protocol spoken over it.
            "appProtocol" app_protocol: Option<String>,
        }
    }
}
