//! `apps`: what makes pods and keeps them at a number.

pub mod v1 {
    use crate::core::v1::PodTemplateSpec;
    use crate::meta::v1::LabelSelector;
    use crate::{IntOrString, Time};

    kind! {
        /// Pods of one template, replaced step by step when the template changes.
        Deployment("io.k8s.api.apps.v1.Deployment", "apps", "v1") {
            /// What is wanted.
            "spec" spec: DeploymentSpec,
            /// What is there.
            "status" status: DeploymentStatus,
        }
    }

    kind! {
        /// A number of pods of one template.
        ReplicaSet("io.k8s.api.apps.v1.ReplicaSet", "apps", "v1") {
            /// What is wanted.
            "spec" spec: ReplicaSetSpec,
            /// What is there.
            "status" status: ReplicaSetStatus,
        }
    }

    objects! {
        /// What is wanted of a Deployment.
        struct DeploymentSpec("io.k8s.api.apps.v1.DeploymentSpec") {
            /// How many pods; absent is one.
            "replicas" replicas: Option<i32>,
            /// Which pods are its own; cannot be changed.
            "selector" selector: Option<LabelSelector> [.required()],
            /// The pattern of its pods.
            "template" template: PodTemplateSpec [.required()],
            /// How pods are replaced.
            "strategy" strategy: DeploymentStrategy [.retain_keys()],
            /// Seconds a pod must be ready to count as available.
            "minReadySeconds" min_ready_seconds: i32,
            /// How many old `ReplicaSet`s are kept.
            "revisionHistoryLimit" revision_history_limit: Option<i32>,
            /// Changes of the template wait.
            "paused" paused: bool,
            /// Seconds without progress that count as failure.
            "progressDeadlineSeconds" progress_deadline_seconds: Option<i32>,
        }

        /// How pods are replaced.
        struct DeploymentStrategy("io.k8s.api.apps.v1.DeploymentStrategy") {
            /// `RollingUpdate` or `Recreate`.
            "type" type_: String [.go("v1.DeploymentStrategyType")],
            /// The steps of a rolling update.
            "rollingUpdate" rolling_update: Option<RollingUpdateDeployment>,
        }

        /// The steps of a rolling update.
        struct RollingUpdateDeployment("io.k8s.api.apps.v1.RollingUpdateDeployment") {
            /// How many pods may be missing meanwhile, as a number or a percentage.
            "maxUnavailable" max_unavailable: Option<IntOrString>,
            /// How many pods there may be too many meanwhile.
            "maxSurge" max_surge: Option<IntOrString>,
        }

        /// What there is of a Deployment.
        struct DeploymentStatus("io.k8s.api.apps.v1.DeploymentStatus") {
            /// The generation this status is about.
            "observedGeneration" observed_generation: i64,
            /// Pods there are.
            "replicas" replicas: i32,
            /// Pods of the present template.
            "updatedReplicas" updated_replicas: i32,
            /// Pods that are ready.
            "readyReplicas" ready_replicas: i32,
            /// Pods that have been ready for long enough.
            "availableReplicas" available_replicas: i32,
            /// Pods that are missing.
            "unavailableReplicas" unavailable_replicas: i32,
            /// Pods on their way out.
            "terminatingReplicas" terminating_replicas: Option<i32>,
            /// Aspects of the state.
            "conditions" conditions: Vec<DeploymentCondition> [.map(&["type"]).merge("type")],
            /// How often a name for a `ReplicaSet` was taken.
            "collisionCount" collision_count: Option<i32>,
        }

        /// One aspect of a Deployment.
        struct DeploymentCondition("io.k8s.api.apps.v1.DeploymentCondition") {
            /// Name of the aspect.
            "type" type_: String [.required().go("v1.DeploymentConditionType")],
            /// `True`, `False` or `Unknown`.
            "status" status: String [.required().go("v1.ConditionStatus")],
            /// When it was last updated.
            "lastUpdateTime" last_update_time: Option<Time>,
            /// When the status last changed.
            "lastTransitionTime" last_transition_time: Option<Time>,
            /// Why, as one word.
            "reason" reason: String,
            /// Why, for people.
            "message" message: String,
        }

        /// What is wanted of a `ReplicaSet`.
        struct ReplicaSetSpec("io.k8s.api.apps.v1.ReplicaSetSpec") {
            /// How many pods; absent is one.
            "replicas" replicas: Option<i32>,
            /// Seconds a pod must be ready to count as available.
            "minReadySeconds" min_ready_seconds: i32,
            /// Which pods are its own; cannot be changed.
            "selector" selector: Option<LabelSelector> [.required()],
            /// The pattern of its pods.
            "template" template: PodTemplateSpec,
        }

        /// What there is of a `ReplicaSet`.
        struct ReplicaSetStatus("io.k8s.api.apps.v1.ReplicaSetStatus") {
            /// Pods there are.
            "replicas" replicas: i32 [.required().keep()],
            /// Pods with all the labels of the template.
            "fullyLabeledReplicas" fully_labeled_replicas: i32,
            /// Pods that are ready.
            "readyReplicas" ready_replicas: i32,
            /// Pods that have been ready for long enough.
            "availableReplicas" available_replicas: i32,
            /// Pods on their way out.
            "terminatingReplicas" terminating_replicas: Option<i32>,
            /// The generation this status is about.
            "observedGeneration" observed_generation: i64,
            /// Aspects of the state.
            "conditions" conditions: Vec<ReplicaSetCondition> [.map(&["type"]).merge("type")],
        }

        /// One aspect of a `ReplicaSet`.
        struct ReplicaSetCondition("io.k8s.api.apps.v1.ReplicaSetCondition") {
            /// Name of the aspect.
            "type" type_: String [.required().go("v1.ReplicaSetConditionType")],
            /// `True`, `False` or `Unknown`.
            "status" status: String [.required().go("v1.ConditionStatus")],
            /// When the status last changed.
            "lastTransitionTime" last_transition_time: Option<Time>,
            /// Why, as one word.
            "reason" reason: String,
            /// Why, for people.
            "message" message: String,
        }
    }
}
