//! Nodes.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{Quantity, Time};

kind! {
    /// A machine that runs pods.
    Node("io.k8s.api.core.v1.Node", "", "v1") {
        /// What is wanted.
        "spec" spec: NodeSpec,
        /// What is there.
        "status" status: NodeStatus,
    }
}

objects! {
    /// What is wanted of a node.
    struct NodeSpec("io.k8s.api.core.v1.NodeSpec") {
        /// The range of its pods' addresses.
        "podCIDR" pod_cidr: String,
        /// The same, one per family.
        "podCIDRs" pod_cidrs: Vec<String> [.set().merge_set()],
        /// Its identity at the cloud provider.
        "providerID" provider_id: String,
        /// No new pods are put on it.
        "unschedulable" unschedulable: bool,
        /// What keeps pods away that do not tolerate it.
        "taints" taints: Vec<Taint>,
        /// Deprecated source of the configuration.
        "configSource" config_source: Option<Value>,
        /// Deprecated and ignored.
        "externalID" external_id: String,
    }

    /// What keeps pods away that do not tolerate it.
    struct Taint("io.k8s.api.core.v1.Taint") {
        /// Its key.
        "key" key: String [.required()],
        /// Its value.
        "value" value: String,
        /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
        "effect" effect: String [.required().go("v1.TaintEffect")],
        /// When it was put on.
        "timeAdded" time_added: Option<Time>,
    }

    /// What there is of a node.
    struct NodeStatus("io.k8s.api.core.v1.NodeStatus") {
        /// Everything it has.
        "capacity" capacity: BTreeMap<String, Quantity>,
        /// What pods may use of it.
        "allocatable" allocatable: BTreeMap<String, Quantity>,
        /// Deprecated stage of its life.
        "phase" phase: String [.go("v1.NodePhase")],
        /// Aspects of its state.
        "conditions" conditions: Vec<NodeCondition> [.map(&["type"]).merge("type")],
        /// Where it is reached.
        "addresses" addresses: Vec<NodeAddress> [.map(&["type"]).merge("type")],
        /// Ports of its daemons.
        "daemonEndpoints" daemon_endpoints: NodeDaemonEndpoints,
        /// What it is made of.
        "nodeInfo" node_info: NodeSystemInfo,
        /// Images it holds.
        "images" images: Vec<ContainerImage>,
        /// Volumes in use.
        "volumesInUse" volumes_in_use: Vec<String>,
        /// Volumes attached.
        "volumesAttached" volumes_attached: Vec<Value>,
        /// The configuration in use.
        "config" config: Option<Value>,
        /// Container runtimes it offers.
        "runtimeHandlers" runtime_handlers: Vec<Value>,
        /// What its software can do.
        "features" features: Option<Value>,
        /// Named features its software declares.
        "declaredFeatures" declared_features: Vec<String>,
    }

    /// One aspect of a node.
    struct NodeCondition("io.k8s.api.core.v1.NodeCondition") {
        /// Name of the aspect, such as `Ready`.
        "type" type_: String [.required().go("v1.NodeConditionType")],
        /// `True`, `False` or `Unknown`.
        "status" status: String [.required().go("v1.ConditionStatus")],
        /// When it was last reported.
        "lastHeartbeatTime" last_heartbeat_time: Option<Time>,
        /// When the status last changed.
        "lastTransitionTime" last_transition_time: Option<Time>,
        /// Why, as one word.
        "reason" reason: String,
        /// Why, for people.
        "message" message: String,
    }

    /// One address of a node.
    struct NodeAddress("io.k8s.api.core.v1.NodeAddress") {
        /// `Hostname`, `InternalIP`, `ExternalIP`, `InternalDNS` or `ExternalDNS`.
        "type" type_: String [.required().go("v1.NodeAddressType")],
        /// The address.
        "address" address: String [.required()],
    }

    /// Ports of a node's daemons.
    struct NodeDaemonEndpoints("io.k8s.api.core.v1.NodeDaemonEndpoints") {
        /// The node agent's port.
        "kubeletEndpoint" kubelet_endpoint: DaemonEndpoint,
    }

    /// The port of a daemon.
    struct DaemonEndpoint("io.k8s.api.core.v1.DaemonEndpoint") {
        /// Its number; the capital letter is Kubernetes' own.
        "Port" port: i32 [.required()],
    }

    /// What a node is made of.
    struct NodeSystemInfo("io.k8s.api.core.v1.NodeSystemInfo") {
        /// Identity from the operating system.
        "machineID" machine_id: String [.required().keep()],
        /// Identity from the hardware.
        "systemUUID" system_uuid: String [.required().keep()],
        /// Identity of this boot.
        "bootID" boot_id: String [.required().keep()],
        /// Release of the kernel.
        "kernelVersion" kernel_version: String [.required().keep()],
        /// Name of the operating system's release.
        "osImage" os_image: String [.required().keep()],
        /// What runs the containers.
        "containerRuntimeVersion" container_runtime_version: String [.required().keep()],
        /// Version of the node agent.
        "kubeletVersion" kubelet_version: String [.required().keep()],
        /// Deprecated version of the proxy.
        "kubeProxyVersion" kube_proxy_version: String [.required().keep()],
        /// `linux`.
        "operatingSystem" operating_system: String [.required().keep()],
        /// `amd64`, `arm64` ...
        "architecture" architecture: String [.required().keep()],
        /// Its swap.
        "swap" swap: Option<Value>,
    }

    /// An image that a node holds.
    struct ContainerImage("io.k8s.api.core.v1.ContainerImage") {
        /// The names it goes by.
        "names" names: Vec<String>,
        /// Its size.
        "sizeBytes" size_bytes: i64,
    }
}
