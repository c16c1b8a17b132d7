//! Pods: what is wanted. Containers are in `pod_container`, the state in `pod_status`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::common::LocalObjectReference;
use super::pod_container::Container;
use super::pod_status::PodStatus;
use crate::Quantity;
use crate::meta::v1::ObjectMeta;

kind! {
    /// Containers that share an address and live and end together.
    Pod("io.k8s.api.core.v1.Pod", "", "v1") {
        /// What is wanted.
        "spec" spec: PodSpec,
        /// What is there.
        "status" status: PodStatus,
    }
}

objects! {
    /// The pattern from which pods are made.
    struct PodTemplateSpec("io.k8s.api.core.v1.PodTemplateSpec") {
        /// Labels and annotations of the pods.
        "metadata" metadata: ObjectMeta,
        /// What is wanted of them.
        "spec" spec: PodSpec,
    }

    /// What is wanted of a pod.
    struct PodSpec("io.k8s.api.core.v1.PodSpec") {
        /// Storage its containers may mount.
        "volumes" volumes: Vec<Volume> [.map(&["name"]).merge_retain("name")],
        /// Containers that run before the others; with restartPolicy Always, beside them.
        "initContainers" init_containers: Vec<Container> [.map(&["name"]).merge("name")],
        /// Its containers, at least one.
        "containers" containers: Vec<Container> [.required().map(&["name"]).merge("name")],
        /// Containers added later, for debugging.
        "ephemeralContainers" ephemeral_containers: Vec<Container> [.map(&["name"]).merge("name")],
        /// `Always`, `OnFailure` or `Never`.
        "restartPolicy" restart_policy: String [.go("v1.RestartPolicy")],
        /// Seconds between the request to stop and the kill.
        "terminationGracePeriodSeconds" termination_grace_period_seconds: Option<i64>,
        /// Seconds the pod may run.
        "activeDeadlineSeconds" active_deadline_seconds: Option<i64>,
        /// `ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`.
        "dnsPolicy" dns_policy: String [.go("v1.DNSPolicy")],
        /// Labels that its node must have.
        "nodeSelector" node_selector: BTreeMap<String, String> [.atomic()],
        /// The identity it runs under.
        "serviceAccountName" service_account_name: String,
        /// Deprecated alias of `serviceAccountName`.
        "serviceAccount" service_account: String,
        /// Whether it gets a token of that identity.
        "automountServiceAccountToken" automount_service_account_token: Option<bool>,
        /// The node it runs on.
        "nodeName" node_name: String,
        /// It shares the node's network.
        "hostNetwork" host_network: bool,
        /// It shares the node's process ids.
        "hostPID" host_pid: bool,
        /// It shares the node's IPC.
        "hostIPC" host_ipc: bool,
        /// Its containers share process ids.
        "shareProcessNamespace" share_process_namespace: Option<bool>,
        /// Rights of all its containers.
        "securityContext" security_context: Option<Value>,
        /// Secrets for pulling images.
        "imagePullSecrets" image_pull_secrets: Vec<LocalObjectReference> [.map(&["name"]).merge("name")],
        /// Its host name; absent is the pod's name.
        "hostname" hostname: String,
        /// The headless Service whose DNS name it has.
        "subdomain" subdomain: String,
        /// Wishes about nodes and neighbours.
        "affinity" affinity: Option<Value>,
        /// Who picks its node.
        "schedulerName" scheduler_name: String,
        /// Taints it puts up with.
        "tolerations" tolerations: Vec<Toleration>,
        /// Lines for its hosts file.
        "hostAliases" host_aliases: Vec<HostAlias> [.map(&["ip"]).merge("ip")],
        /// Name of its priority.
        "priorityClassName" priority_class_name: String,
        /// Its priority.
        "priority" priority: Option<i32>,
        /// Its own DNS settings.
        "dnsConfig" dns_config: Option<PodDNSConfig>,
        /// Conditions that must be true for it to be ready.
        "readinessGates" readiness_gates: Vec<PodReadinessGate>,
        /// Which runtime runs it.
        "runtimeClassName" runtime_class_name: Option<String>,
        /// Its environment has variables about Services.
        "enableServiceLinks" enable_service_links: Option<bool>,
        /// Whether it may push others out.
        "preemptionPolicy" preemption_policy: Option<String> [.go("v1.PreemptionPolicy")],
        /// What it costs besides its containers.
        "overhead" overhead: BTreeMap<String, Quantity>,
        /// How its kind is spread over the cluster.
        "topologySpreadConstraints" topology_spread_constraints: Vec<Value>
            [.map(&["topologyKey", "whenUnsatisfiable"]).merge("topologyKey")],
        /// Its host name is its full DNS name.
        "setHostnameAsFQDN" set_hostname_as_fqdn: Option<bool>,
        /// Its operating system.
        "os" os: Option<PodOS>,
        /// It has its own user ids.
        "hostUsers" host_users: Option<bool>,
        /// Those who hold back its scheduling.
        "schedulingGates" scheduling_gates: Vec<PodSchedulingGate> [.map(&["name"]).merge("name")],
        /// Devices it claims.
        "resourceClaims" resource_claims: Vec<Value> [.map(&["name"]).merge_retain("name")],
        /// What all its containers together need.
        "resources" resources: Option<ResourceRequirements>,
        /// Its host name, over all other settings.
        "hostnameOverride" hostname_override: Option<String>,
        /// The group it is scheduled with.
        "schedulingGroup" scheduling_group: Option<Value>,
    }

    /// Storage that containers may mount; the sources are kept as they are.
    struct Volume("io.k8s.api.core.v1.Volume") {
        /// Its name within the pod.
        "name" name: String [.required()],
        /// A file or directory of the node.
        "hostPath" host_path: Option<Value>,
        /// An empty directory of the pod's own.
        "emptyDir" empty_dir: Option<Value>,
        /// A disk of Google Compute Engine.
        "gcePersistentDisk" gce_persistent_disk: Option<Value>,
        /// A disk of Amazon's.
        "awsElasticBlockStore" aws_elastic_block_store: Option<Value>,
        /// A git repository.
        "gitRepo" git_repo: Option<Value>,
        /// A Secret as files.
        "secret" secret: Option<Value>,
        /// A network file system.
        "nfs" nfs: Option<Value>,
        /// An iSCSI disk.
        "iscsi" iscsi: Option<Value>,
        /// A Gluster volume.
        "glusterfs" glusterfs: Option<Value>,
        /// A claim of persistent storage.
        "persistentVolumeClaim" persistent_volume_claim: Option<Value>,
        /// A Ceph block device.
        "rbd" rbd: Option<Value>,
        /// A flexible volume.
        "flexVolume" flex_volume: Option<Value>,
        /// A Cinder disk.
        "cinder" cinder: Option<Value>,
        /// A Ceph file system.
        "cephfs" cephfs: Option<Value>,
        /// A Flocker volume.
        "flocker" flocker: Option<Value>,
        /// Facts about the pod as files.
        "downwardAPI" downward_api: Option<Value>,
        /// A fibre channel disk.
        "fc" fc: Option<Value>,
        /// An Azure file share.
        "azureFile" azure_file: Option<Value>,
        /// A `ConfigMap` as files.
        "configMap" config_map: Option<Value>,
        /// A vSphere disk.
        "vsphereVolume" vsphere_volume: Option<Value>,
        /// A Quobyte volume.
        "quobyte" quobyte: Option<Value>,
        /// An Azure disk.
        "azureDisk" azure_disk: Option<Value>,
        /// A Photon disk.
        "photonPersistentDisk" photon_persistent_disk: Option<Value>,
        /// Several sources in one directory.
        "projected" projected: Option<Value>,
        /// A Portworx volume.
        "portworxVolume" portworx_volume: Option<Value>,
        /// A `ScaleIO` volume.
        "scaleIO" scale_io: Option<Value>,
        /// A `StorageOS` volume.
        "storageos" storageos: Option<Value>,
        /// A volume of a CSI driver.
        "csi" csi: Option<Value>,
        /// A claim made for this pod.
        "ephemeral" ephemeral: Option<Value>,
        /// An OCI image as files.
        "image" image: Option<Value>,
    }

    /// A taint that a pod puts up with.
    struct Toleration("io.k8s.api.core.v1.Toleration") {
        /// Key of the taint; absent is every key.
        "key" key: String,
        /// `Exists` or `Equal`.
        "operator" operator: String [.go("v1.TolerationOperator")],
        /// Value of the taint.
        "value" value: String,
        /// Effect of the taint; absent is every effect.
        "effect" effect: String [.go("v1.TaintEffect")],
        /// For how long.
        "tolerationSeconds" toleration_seconds: Option<i64>,
    }

    /// A line of the hosts file.
    struct HostAlias("io.k8s.api.core.v1.HostAlias") {
        /// The address.
        "ip" ip: String [.required()],
        /// Its names.
        "hostnames" hostnames: Vec<String>,
    }

    /// DNS settings of a pod.
    struct PodDNSConfig("io.k8s.api.core.v1.PodDNSConfig") {
        /// Servers to ask.
        "nameservers" nameservers: Vec<String>,
        /// Domains to search.
        "searches" searches: Vec<String>,
        /// Options of the resolver.
        "options" options: Vec<PodDNSConfigOption>,
    }

    /// One option of the resolver.
    struct PodDNSConfigOption("io.k8s.api.core.v1.PodDNSConfigOption") {
        /// Its name.
        "name" name: String,
        /// Its value.
        "value" value: Option<String>,
    }

    /// A condition that must be true for a pod to be ready.
    struct PodReadinessGate("io.k8s.api.core.v1.PodReadinessGate") {
        /// Type of the condition.
        "conditionType" condition_type: String [.required().go("v1.PodConditionType")],
    }

    /// The operating system of a pod.
    struct PodOS("io.k8s.api.core.v1.PodOS") {
        /// `linux` or `windows`.
        "name" name: String [.required().go("v1.OSName")],
    }

    /// One who holds back scheduling.
    struct PodSchedulingGate("io.k8s.api.core.v1.PodSchedulingGate") {
        /// Its name.
        "name" name: String [.required()],
    }

    /// What containers need and may use at most.
    struct ResourceRequirements("io.k8s.api.core.v1.ResourceRequirements") {
        /// At most this.
        "limits" limits: BTreeMap<String, Quantity>,
        /// At least this.
        "requests" requests: BTreeMap<String, Quantity>,
        /// Claims of the pod that are used.
        "claims" claims: Vec<Value> [.map(&["name"])],
    }
}
