//! Containers: what they run, their ports, environment and probes.

use serde_json::Value;

use super::pod::ResourceRequirements;
use crate::IntOrString;

objects! {
    /// One container. Ephemeral containers use the same struct, with `targetContainerName`.
    struct Container("io.k8s.api.core.v1.Container") {
        /// Its name within the pod.
        "name" name: String [.required()],
        /// Its image.
        "image" image: String,
        /// What to run, instead of the image's entry point.
        "command" command: Vec<String>,
        /// Arguments, instead of the image's.
        "args" args: Vec<String>,
        /// Where to run it.
        "workingDir" working_dir: String,
        /// Ports it listens on.
        "ports" ports: Vec<ContainerPort> [.map(&["containerPort", "protocol"]).merge("containerPort")],
        /// Objects whose keys become variables.
        "envFrom" env_from: Vec<Value>,
        /// Environment variables.
        "env" env: Vec<EnvVar> [.map(&["name"]).merge("name")],
        /// What it needs and may use.
        "resources" resources: ResourceRequirements,
        /// What a change of its resources means for it.
        "resizePolicy" resize_policy: Vec<Value>,
        /// Overrides the pod's restart policy.
        "restartPolicy" restart_policy: Option<String> [.go("v1.ContainerRestartPolicy")],
        /// Rules on when to restart.
        "restartPolicyRules" restart_policy_rules: Vec<Value>,
        /// Volumes it mounts.
        "volumeMounts" volume_mounts: Vec<VolumeMount> [.map(&["mountPath"]).merge("mountPath")],
        /// Block devices it uses.
        "volumeDevices" volume_devices: Vec<VolumeDevice> [.map(&["devicePath"]).merge("devicePath")],
        /// Restarts the container when it fails.
        "livenessProbe" liveness_probe: Option<Probe>,
        /// Takes the pod out of Services when it fails.
        "readinessProbe" readiness_probe: Option<Probe>,
        /// Holds back the other probes until it succeeds.
        "startupProbe" startup_probe: Option<Probe>,
        /// What to run after start and before stop.
        "lifecycle" lifecycle: Option<Lifecycle>,
        /// File from which the last message is read.
        "terminationMessagePath" termination_message_path: String,
        /// `File` or `FallbackToLogsOnError`.
        "terminationMessagePolicy" termination_message_policy: String [.go("v1.TerminationMessagePolicy")],
        /// `Always`, `IfNotPresent` or `Never`.
        "imagePullPolicy" image_pull_policy: String [.go("v1.PullPolicy")],
        /// Rights of this container.
        "securityContext" security_context: Option<Value>,
        /// It keeps a standard input.
        "stdin" stdin: bool,
        /// The input closes after the first use.
        "stdinOnce" stdin_once: bool,
        /// It has a terminal.
        "tty" tty: bool,
        /// The container an ephemeral one looks at.
        "targetContainerName" target_container_name: String,
    }

    /// A port that a container listens on.
    struct ContainerPort("io.k8s.api.core.v1.ContainerPort") {
        /// Its name, for Services.
        "name" name: String,
        /// The same port on the node.
        "hostPort" host_port: i32,
        /// The number.
        "containerPort" container_port: i32 [.required()],
        /// `TCP`, `UDP` or `SCTP`.
        "protocol" protocol: String [.or("\"TCP\"").go("v1.Protocol")],
        /// The node's address to use.
        "hostIP" host_ip: String,
    }

    /// One environment variable.
    struct EnvVar("io.k8s.api.core.v1.EnvVar") {
        /// Its name.
        "name" name: String [.required()],
        /// Its value.
        "value" value: String,
        /// Where its value comes from.
        "valueFrom" value_from: Option<EnvVarSource>,
    }

    /// Where a value comes from.
    struct EnvVarSource("io.k8s.api.core.v1.EnvVarSource") {
        /// A field of the pod.
        "fieldRef" field_ref: Option<ObjectFieldSelector>,
        /// A resource of the container.
        "resourceFieldRef" resource_field_ref: Option<Value>,
        /// A key of a `ConfigMap`.
        "configMapKeyRef" config_map_key_ref: Option<KeySelector>,
        /// A key of a Secret.
        "secretKeyRef" secret_key_ref: Option<KeySelector>,
        /// A key of a file.
        "fileKeyRef" file_key_ref: Option<Value>,
    }

    /// A field of a pod.
    struct ObjectFieldSelector("io.k8s.api.core.v1.ObjectFieldSelector") {
        /// Version in which the field is named.
        "apiVersion" api_version: String,
        /// The field, such as `status.podIP`.
        "fieldPath" field_path: String [.required()],
    }

    /// A key of a `ConfigMap` or Secret.
    struct KeySelector("io.k8s.api.core.v1.ConfigMapKeySelector") {
        /// Name of the object.
        "name" name: String [.or("\"\"")],
        /// The key.
        "key" key: String [.required()],
        /// It may be missing.
        "optional" optional: Option<bool>,
    }

    /// A volume in a container's file system.
    struct VolumeMount("io.k8s.api.core.v1.VolumeMount") {
        /// Name of the volume.
        "name" name: String [.required()],
        /// It cannot be written.
        "readOnly" read_only: bool,
        /// The same for mounts below it.
        "recursiveReadOnly" recursive_read_only: Option<String>,
        /// Where it appears.
        "mountPath" mount_path: String [.required()],
        /// A part of the volume.
        "subPath" sub_path: String,
        /// Whether mounts spread.
        "mountPropagation" mount_propagation: Option<String>,
        /// A part of the volume, with variables.
        "subPathExpr" sub_path_expr: String,
    }

    /// A block device in a container.
    struct VolumeDevice("io.k8s.api.core.v1.VolumeDevice") {
        /// Name of the volume.
        "name" name: String [.required()],
        /// Where it appears.
        "devicePath" device_path: String [.required()],
    }

    /// A question put to a container again and again.
    struct Probe("io.k8s.api.core.v1.Probe") {
        /// Run a command; exit 0 is success.
        "exec" exec: Option<ExecAction>,
        /// Fetch a page; 200 to 399 is success.
        "httpGet" http_get: Option<HTTPGetAction>,
        /// Connect; an open port is success.
        "tcpSocket" tcp_socket: Option<TCPSocketAction>,
        /// Ask the gRPC health service.
        "grpc" grpc: Option<GRPCAction>,
        /// Seconds before the first question.
        "initialDelaySeconds" initial_delay_seconds: i32,
        /// Seconds to wait for an answer.
        "timeoutSeconds" timeout_seconds: i32,
        /// Seconds between questions.
        "periodSeconds" period_seconds: i32,
        /// Successes in a row that count as success.
        "successThreshold" success_threshold: i32,
        /// Failures in a row that count as failure.
        "failureThreshold" failure_threshold: i32,
        /// Overrides the pod's grace period when this probe ends the container.
        "terminationGracePeriodSeconds" termination_grace_period_seconds: Option<i64>,
    }

    /// A command.
    struct ExecAction("io.k8s.api.core.v1.ExecAction") {
        /// The program and its arguments; no shell.
        "command" command: Vec<String>,
    }

    /// A page to fetch.
    struct HTTPGetAction("io.k8s.api.core.v1.HTTPGetAction") {
        /// Its path.
        "path" path: String,
        /// The port, by number or name.
        "port" port: IntOrString [.required()],
        /// The host; absent is the pod's address.
        "host" host: String,
        /// `HTTP` or `HTTPS`.
        "scheme" scheme: String [.go("v1.URIScheme")],
        /// Headers to send.
        "httpHeaders" http_headers: Vec<HTTPHeader>,
    }

    /// A header to send.
    struct HTTPHeader("io.k8s.api.core.v1.HTTPHeader") {
        /// Its name.
        "name" name: String [.required()],
        /// Its value.
        "value" value: String [.required().keep()],
    }

    /// A port to connect to.
    struct TCPSocketAction("io.k8s.api.core.v1.TCPSocketAction") {
        /// The port, by number or name.
        "port" port: IntOrString [.required()],
        /// The host; absent is the pod's address.
        "host" host: String,
    }

    /// A gRPC health service to ask.
    struct GRPCAction("io.k8s.api.core.v1.GRPCAction") {
        /// Its port.
        "port" port: i32 [.required()],
        /// The service to ask about.
        "service" service: Option<String> [.or("\"\"")],
    }

    /// What to run at the edges of a container's life.
    struct Lifecycle("io.k8s.api.core.v1.Lifecycle") {
        /// After it started.
        "postStart" post_start: Option<LifecycleHandler>,
        /// Before it is stopped.
        "preStop" pre_stop: Option<LifecycleHandler>,
        /// The signal that stops it.
        "stopSignal" stop_signal: Option<String>,
    }

    /// What to do at an edge of a container's life.
    struct LifecycleHandler("io.k8s.api.core.v1.LifecycleHandler") {
        /// Run a command.
        "exec" exec: Option<ExecAction>,
        /// Fetch a page.
        "httpGet" http_get: Option<HTTPGetAction>,
        /// Deprecated and without effect.
        "tcpSocket" tcp_socket: Option<TCPSocketAction>,
        /// Wait.
        "sleep" sleep: Option<SleepAction>,
    }

    /// Wait.
    struct SleepAction("io.k8s.api.core.v1.SleepAction") {
        /// For how long.
        "seconds" seconds: i64 [.required()],
    }
}
