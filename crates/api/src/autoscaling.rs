//! `autoscaling`: the one object by which clients scale any kind.

pub mod v1 {
    kind! {
        /// How many replicas something has: the `scale` subresource of what has any.
        Scale("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "v1") {
            /// What is wanted.
            "spec" spec: ScaleSpec,
            /// What is there.
            "status" status: ScaleStatus,
        }
    }

    objects! {
        /// How many replicas are wanted.
        struct ScaleSpec("io.k8s.api.autoscaling.v1.ScaleSpec") {
            /// Their number.
            "replicas" replicas: i32,
        }

        /// How many replicas there are.
        struct ScaleStatus("io.k8s.api.autoscaling.v1.ScaleStatus") {
            /// Their number.
            "replicas" replicas: i32 [.required().keep()],
            /// The label selector of their pods, as text.
            "selector" selector: String,
        }
    }
}
