//! Services.

use std::collections::BTreeMap;

use crate::IntOrString;
use crate::meta::v1::Condition;

kind! {
    /// A name and addresses that stay while the pods behind them change.
    Service("io.k8s.api.core.v1.Service", "", "v1") {
        /// What is wanted.
        "spec" spec: ServiceSpec,
        /// What is there.
        "status" status: ServiceStatus,
    }
}

objects! {
    /// What is wanted of a Service. An empty selector is read as none: JSON writers drop empty maps.
    struct ServiceSpec("io.k8s.api.core.v1.ServiceSpec") {
        /// The ports it listens on.
        "ports" ports: Vec<ServicePort> [.map(&["port", "protocol"]).merge("port")],
        /// Labels of the pods behind it; without one, endpoints are up to the user.
        "selector" selector: BTreeMap<String, String> [.atomic()],
        /// Its first address, or `None` for a headless Service.
        "clusterIP" cluster_ip: String,
        /// Its addresses, one per family.
        "clusterIPs" cluster_ips: Vec<String>,
        /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
        "type" type_: String [.go("v1.ServiceType")],
        /// Addresses from outside that are routed to the cluster's nodes.
        "externalIPs" external_ips: Vec<String>,
        /// `None`, or `ClientIP` to keep a client on one endpoint.
        "sessionAffinity" session_affinity: String [.go("v1.ServiceAffinity")],
        /// Deprecated way to ask for a load-balancer address.
        "loadBalancerIP" load_balancer_ip: String,
        /// Sources that may use the load-balancer addresses.
        "loadBalancerSourceRanges" load_balancer_source_ranges: Vec<String>,
        /// The DNS name an `ExternalName` Service stands for.
        "externalName" external_name: String,
        /// `Cluster`, or `Local` to keep traffic from outside on the node it reached.
        "externalTrafficPolicy" external_traffic_policy: String [.go("v1.ServiceExternalTrafficPolicy")],
        /// Port on which nodes tell a balancer whether they have local endpoints.
        "healthCheckNodePort" health_check_node_port: i32,
        /// Endpoints count as ready before their pods do.
        "publishNotReadyAddresses" publish_not_ready_addresses: bool,
        /// How sessions are kept.
        "sessionAffinityConfig" session_affinity_config: Option<SessionAffinityConfig>,
        /// Its address families, primary first.
        "ipFamilies" ip_families: Vec<String>,
        /// `SingleStack`, `PreferDualStack` or `RequireDualStack`.
        "ipFamilyPolicy" ip_family_policy: Option<String> [.go("v1.IPFamilyPolicy")],
        /// Whether a `LoadBalancer` Service gets node ports.
        "allocateLoadBalancerNodePorts" allocate_load_balancer_node_ports: Option<bool>,
        /// Which load balancer serves it; absent is the default one.
        "loadBalancerClass" load_balancer_class: Option<String>,
        /// `Cluster`, or `Local` to keep traffic from inside on its own node.
        "internalTrafficPolicy" internal_traffic_policy: Option<String> [.go("v1.ServiceInternalTrafficPolicy")],
        /// Preference for near endpoints: `PreferSameZone` or `PreferSameNode`.
        "trafficDistribution" traffic_distribution: Option<String>,
    }

    /// One port of a Service.
    struct ServicePort("io.k8s.api.core.v1.ServicePort") {
        /// Its name; needed where there are several.
        "name" name: String,
        /// `TCP`, `UDP` or `SCTP`.
        "protocol" protocol: String [.or("\"TCP\"").go("v1.Protocol")],
        /// Hint at the protocol spoken over it.
        "appProtocol" app_protocol: Option<String>,
        /// The port clients use.
        "port" port: i32 [.required()],
        /// The port of the pods, by number or name; absent is the same as `port`.
        "targetPort" target_port: Option<IntOrString>,
        /// The port on every node, for types that have one.
        "nodePort" node_port: i32,
    }

    /// How sessions are kept.
    struct SessionAffinityConfig("io.k8s.api.core.v1.SessionAffinityConfig") {
        /// Settings of `ClientIP` affinity.
        "clientIP" client_ip: Option<ClientIPConfig>,
    }

    /// Settings of `ClientIP` affinity.
    struct ClientIPConfig("io.k8s.api.core.v1.ClientIPConfig") {
        /// How long a client is remembered after its last new connection.
        "timeoutSeconds" timeout_seconds: Option<i32>,
    }

    /// What there is of a Service.
    struct ServiceStatus("io.k8s.api.core.v1.ServiceStatus") {
        /// What the load balancer provides.
        "loadBalancer" load_balancer: LoadBalancerStatus,
        /// Aspects of the state.
        "conditions" conditions: Vec<Condition> [.map(&["type"]).merge("type")],
    }

    /// What a load balancer provides.
    struct LoadBalancerStatus("io.k8s.api.core.v1.LoadBalancerStatus") {
        /// Its addresses.
        "ingress" ingress: Vec<LoadBalancerIngress>,
    }

    /// One address of a load balancer.
    struct LoadBalancerIngress("io.k8s.api.core.v1.LoadBalancerIngress") {
        /// The address, for balancers that have addresses.
        "ip" ip: String,
        /// The name, for balancers that have names.
        "hostname" hostname: String,
        /// `VIP`, or `Proxy` where packets reach nodes with the node's address.
        "ipMode" ip_mode: Option<String> [.go("v1.LoadBalancerIPMode")],
        /// The state of its ports.
        "ports" ports: Vec<PortStatus>,
    }

    /// The state of one port of a load balancer.
    struct PortStatus("io.k8s.api.core.v1.PortStatus") {
        /// The port.
        "port" port: i32 [.required()],
        /// Its protocol.
        "protocol" protocol: String [.required().go("v1.Protocol")],
        /// What is wrong with it.
        "error" error: Option<String>,
    }
}

impl ServiceSpec {
    /// The session affinity timeout, where affinity is on.
    pub fn affinity_timeout_seconds(&self) -> Option<i32> {
        if self.session_affinity != "ClientIP" {
            return None;
        }
        self.session_affinity_config.as_ref()?.client_ip.as_ref()?.timeout_seconds
    }
}
