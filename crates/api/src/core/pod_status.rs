//! Pods: what is there.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pod::ResourceRequirements;
use crate::{Quantity, Time};

objects! {
    /// What there is of a pod.
    struct PodStatus("io.k8s.api.core.v1.PodStatus") {
        /// The generation this status is about.
        "observedGeneration" observed_generation: i64,
        /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
        "phase" phase: String [.go("v1.PodPhase")],
        /// Aspects of its state, such as `Ready`.
        "conditions" conditions: Vec<PodCondition> [.map(&["type"]).merge("type")],
        /// Its state, for people.
        "message" message: String,
        /// Its state, as one word.
        "reason" reason: String,
        /// The node it waits for.
        "nominatedNodeName" nominated_node_name: String,
        /// First address of its node.
        "hostIP" host_ip: String,
        /// Addresses of its node.
        "hostIPs" host_ips: Vec<HostIP> [.merge("ip")],
        /// Its first address.
        "podIP" pod_ip: String,
        /// Its addresses, at most one per family.
        "podIPs" pod_ips: Vec<PodIP> [.map(&["ip"]).merge("ip")],
        /// When its node took it on.
        "startTime" start_time: Option<Time>,
        /// State of its init containers.
        "initContainerStatuses" init_container_statuses: Vec<ContainerStatus>,
        /// State of its containers.
        "containerStatuses" container_statuses: Vec<ContainerStatus>,
        /// Class of its quality of service.
        "qosClass" qos_class: String [.go("v1.PodQOSClass")],
        /// State of its ephemeral containers.
        "ephemeralContainerStatuses" ephemeral_container_statuses: Vec<ContainerStatus>,
        /// State of a change of its resources.
        "resize" resize: String [.go("v1.PodResizeStatus")],
        /// State of its claims.
        "resourceClaimStatuses" resource_claim_statuses: Vec<Value> [.map(&["name"]).merge_retain("name")],
        /// Claims made for its extended resources.
        "extendedResourceClaimStatus" extended_resource_claim_status: Option<Value>,
        /// Resources given to the pod as a whole.
        "allocatedResources" allocated_resources: BTreeMap<String, Quantity>,
        /// Resources in force for the pod as a whole.
        "resources" resources: Option<ResourceRequirements>,
        /// Claims for what its node can allocate by itself.
        "nodeAllocatableResourceClaimStatuses" node_allocatable_resource_claim_statuses: Vec<Value>,
    }

    /// One aspect of a pod.
    struct PodCondition("io.k8s.api.core.v1.PodCondition") {
        /// Name of the aspect.
        "type" type_: String [.required().go("v1.PodConditionType")],
        /// The generation this is about.
        "observedGeneration" observed_generation: i64,
        /// `True`, `False` or `Unknown`.
        "status" status: String [.required().go("v1.ConditionStatus")],
        /// When it was last checked.
        "lastProbeTime" last_probe_time: Option<Time>,
        /// When the status last changed.
        "lastTransitionTime" last_transition_time: Option<Time>,
        /// Why, as one word.
        "reason" reason: String,
        /// Why, for people.
        "message" message: String,
    }

    /// One address of a pod.
    struct PodIP("io.k8s.api.core.v1.PodIP") {
        /// The address.
        "ip" ip: String [.required()],
    }

    /// One address of a node.
    struct HostIP("io.k8s.api.core.v1.HostIP") {
        /// The address.
        "ip" ip: String [.required()],
    }

    /// State of one container.
    struct ContainerStatus("io.k8s.api.core.v1.ContainerStatus") {
        /// Its name.
        "name" name: String [.required()],
        /// What it does now.
        "state" state: ContainerState,
        /// How it ended the last time.
        "lastState" last_state: ContainerState,
        /// Whether it is ready.
        "ready" ready: bool [.required().keep()],
        /// How often it was restarted.
        "restartCount" restart_count: i32 [.required().keep()],
        /// Its image.
        "image" image: String [.required().keep()],
        /// The image, by content.
        "imageID" image_id: String [.required().keep()],
        /// Its identity at the runtime.
        "containerID" container_id: String,
        /// Whether it passed its startup probe.
        "started" started: Option<bool>,
        /// Resources given to it.
        "allocatedResources" allocated_resources: BTreeMap<String, Quantity>,
        /// Resources in force.
        "resources" resources: Option<ResourceRequirements>,
        /// State of its mounts.
        "volumeMounts" volume_mounts: Vec<Value> [.map(&["mountPath"]).merge("mountPath")],
        /// The user it runs as.
        "user" user: Option<Value>,
        /// State of its devices.
        "allocatedResourcesStatus" allocated_resources_status: Vec<Value> [.map(&["name"]).merge("name")],
        /// The signal that stops it.
        "stopSignal" stop_signal: Option<String>,
    }

    /// What a container does; one of the three.
    struct ContainerState("io.k8s.api.core.v1.ContainerState") {
        /// It has not started.
        "waiting" waiting: Option<ContainerStateWaiting>,
        /// It runs.
        "running" running: Option<ContainerStateRunning>,
        /// It has ended.
        "terminated" terminated: Option<ContainerStateTerminated>,
    }

    /// A container that has not started.
    struct ContainerStateWaiting("io.k8s.api.core.v1.ContainerStateWaiting") {
        /// Why, as one word.
        "reason" reason: String,
        /// Why, for people.
        "message" message: String,
    }

    /// A container that runs.
    struct ContainerStateRunning("io.k8s.api.core.v1.ContainerStateRunning") {
        /// Since when.
        "startedAt" started_at: Option<Time>,
    }

    /// A container that has ended.
    struct ContainerStateTerminated("io.k8s.api.core.v1.ContainerStateTerminated") {
        /// Its exit code.
        "exitCode" exit_code: i32 [.required().keep()],
        /// The signal that ended it.
        "signal" signal: i32,
        /// Why, as one word.
        "reason" reason: String,
        /// Why, for people.
        "message" message: String,
        /// When it started.
        "startedAt" started_at: Option<Time>,
        /// When it ended.
        "finishedAt" finished_at: Option<Time>,
        /// Its identity at the runtime.
        "containerID" container_id: String,
    }
}

impl PodStatus {
    /// The condition of this type, if reported.
    pub fn condition(&self, type_: &str) -> Option<&PodCondition> {
        self.conditions.iter().find(|c| c.type_ == type_)
    }

    /// Whether the `Ready` condition is true.
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|c| c.status == "True")
    }
}
