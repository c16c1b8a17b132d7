//! References and namespaces.

use crate::Time;

kind! {
    /// A scope for names.
    Namespace("io.k8s.api.core.v1.Namespace", "", "v1") {
        /// What must happen before it may go.
        "spec" spec: NamespaceSpec,
        /// Where it is in its life.
        "status" status: NamespaceStatus,
    }
}

objects! {
    /// What must happen before a namespace may go.
    struct NamespaceSpec("io.k8s.api.core.v1.NamespaceSpec") {
        /// Those who must act before the namespace may go.
        "finalizers" finalizers: Vec<String>,
    }

    /// Where a namespace is in its life.
    struct NamespaceStatus("io.k8s.api.core.v1.NamespaceStatus") {
        /// `Active` or `Terminating`.
        "phase" phase: String [.go("v1.NamespacePhase")],
        /// What holds up a deletion.
        "conditions" conditions: Vec<NamespaceCondition> [.map(&["type"]).merge("type")],
    }

    /// One aspect of a namespace.
    struct NamespaceCondition("io.k8s.api.core.v1.NamespaceCondition") {
        /// Name of the aspect.
        "type" type_: String [.required().go("v1.NamespaceConditionType")],
        /// `True`, `False` or `Unknown`.
        "status" status: String [.required().go("v1.ConditionStatus")],
        /// When the status last changed.
        "lastTransitionTime" last_transition_time: Option<Time>,
        /// Why, as one word.
        "reason" reason: String,
        /// Why, for people.
        "message" message: String,
    }

    /// A reference to any object.
    struct ObjectReference("io.k8s.api.core.v1.ObjectReference") {
        /// Kind of the object.
        "kind" kind: String,
        /// Its namespace.
        "namespace" namespace: String,
        /// Its name.
        "name" name: String,
        /// Its UID.
        "uid" uid: String [.go("types.UID")],
        /// Its API version.
        "apiVersion" api_version: String,
        /// The version of it that was seen.
        "resourceVersion" resource_version: String,
        /// A part of it, such as `spec.containers{web}`.
        "fieldPath" field_path: String,
    }

    /// A reference to an object of the same namespace.
    struct LocalObjectReference("io.k8s.api.core.v1.LocalObjectReference") {
        /// Its name.
        "name" name: String [.or("\"\"")],
    }
}
