//! `rbac.authorization.k8s.io`: who may do what.

pub mod v1 {
    use crate::meta::v1::LabelSelector;

    kind! {
        /// Rules for the objects of one namespace.
        Role("io.k8s.api.rbac.v1.Role", "rbac.authorization.k8s.io", "v1") {
            /// What those may do who have the role.
            "rules" rules: Vec<PolicyRule> [.required()],
        }
    }

    kind! {
        /// Rules for the objects of all namespaces, or of the one of a binding, and for the cluster's own.
        ClusterRole("io.k8s.api.rbac.v1.ClusterRole", "rbac.authorization.k8s.io", "v1") {
            /// What those may do who have the role.
            "rules" rules: Vec<PolicyRule> [.required()],
            /// Roles whose rules are put together as this one's; the rules of this one are then kept by the server.
            "aggregationRule" aggregation_rule: Option<AggregationRule>,
        }
    }

    kind! {
        /// Gives a role to users, groups and service accounts, in one namespace.
        RoleBinding("io.k8s.api.rbac.v1.RoleBinding", "rbac.authorization.k8s.io", "v1") {
            /// Who gets the role.
            "subjects" subjects: Vec<Subject>,
            /// The role, or a cluster role; cannot be changed.
            "roleRef" role_ref: RoleRef [.required()],
        }
    }

    kind! {
        /// Gives a cluster role to users, groups and service accounts, everywhere.
        ClusterRoleBinding("io.k8s.api.rbac.v1.ClusterRoleBinding", "rbac.authorization.k8s.io", "v1") {
            /// Who gets the role.
            "subjects" subjects: Vec<Subject>,
            /// The cluster role; cannot be changed.
            "roleRef" role_ref: RoleRef [.required()],
        }
    }

    objects! {
        /// One thing that may be done.
        struct PolicyRule("io.k8s.api.rbac.v1.PolicyRule") {
            /// Verbs; `*` is all of them.
            "verbs" verbs: Vec<String> [.required()],
            /// Groups of the resources; an empty string is the core group, `*` all of them.
            "apiGroups" api_groups: Vec<String>,
            /// Resources, as `RESOURCE`, `RESOURCE/SUBRESOURCE`, `*/SUBRESOURCE` or `*`.
            "resources" resources: Vec<String>,
            /// Names of objects; none means all.
            "resourceNames" resource_names: Vec<String>,
            /// Paths that are no objects; a `*` at the end stands for anything.
            "nonResourceURLs" non_resource_urls: Vec<String>,
        }

        /// How a cluster role is put together.
        struct AggregationRule("io.k8s.api.rbac.v1.AggregationRule") {
            /// Cluster roles that any of these chooses by labels.
            "clusterRoleSelectors" cluster_role_selectors: Vec<LabelSelector>,
        }

        /// Who gets a role.
        struct Subject("io.k8s.api.rbac.v1.Subject") {
            /// `User`, `Group` or `ServiceAccount`.
            "kind" kind: String [.required()],
            /// Group of that kind.
            "apiGroup" api_group: String,
            /// Name of the user, group or service account.
            "name" name: String [.required()],
            /// Namespace of a service account.
            "namespace" namespace: String,
        }

        /// The role of a binding.
        struct RoleRef("io.k8s.api.rbac.v1.RoleRef") {
            /// Group of the role's kind.
            "apiGroup" api_group: String [.required()],
            /// `Role` or `ClusterRole`.
            "kind" kind: String [.required()],
            /// Its name.
            "name" name: String [.required()],
        }
    }
}
