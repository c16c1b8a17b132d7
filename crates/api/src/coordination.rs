//! `coordination.k8s.io`: leases.

pub mod v1 {
    use crate::MicroTime;

    kind! {
        /// A claim that must be renewed: of a node to be alive, of a replica to lead.
        Lease("io.k8s.api.coordination.v1.Lease", "coordination.k8s.io", "v1") {
            /// Who holds it and until when.
            "spec" spec: LeaseSpec,
        }
    }

    objects! {
        /// Who holds a lease and until when.
        struct LeaseSpec("io.k8s.api.coordination.v1.LeaseSpec") {
            /// The holder.
            "holderIdentity" holder_identity: Option<String>,
            /// How long after the last renewal others may take it.
            "leaseDurationSeconds" lease_duration_seconds: Option<i32>,
            /// When the holder got it.
            "acquireTime" acquire_time: Option<MicroTime>,
            /// When the holder last renewed it.
            "renewTime" renew_time: Option<MicroTime>,
            /// How often it changed hands.
            "leaseTransitions" lease_transitions: Option<i32>,
            /// How a coordinated election picks the holder.
            "strategy" strategy: Option<String> [.go("v1.CoordinatedLeaseStrategy")],
            /// A better candidate to whom the holder should yield.
            "preferredHolder" preferred_holder: Option<String>,
        }
    }
}
