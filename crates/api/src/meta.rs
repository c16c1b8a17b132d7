//! `meta/v1`: what every object carries, and the objects that are about other objects.

pub mod v1 {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};
    use serde_json::Value;

    use crate::Time;

    objects! {
        /// Name, labels and everything else that all stored objects have.
        struct ObjectMeta("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
            /// Unique within a namespace; cannot be changed.
            "name" name: String,
            /// Prefix of a name that the server completes when no name is given.
            "generateName" generate_name: String,
            /// The space within which the name is unique; empty for cluster-scoped objects.
            "namespace" namespace: String,
            /// Deprecated and no longer set.
            "selfLink" self_link: String,
            /// Unique in time and space; set by the server.
            "uid" uid: String [.go("types.UID")],
            /// Opaque version of the stored object, for watches and optimistic locking.
            "resourceVersion" resource_version: String,
            /// Counts the changes of the desired state, for kinds that count them.
            "generation" generation: i64,
            /// When the server created the object.
            "creationTimestamp" creation_timestamp: Option<Time>,
            /// When deletion was asked for; the object stays while it has finalizers.
            "deletionTimestamp" deletion_timestamp: Option<Time>,
            /// Seconds the object is given to end by itself once it is being deleted.
            "deletionGracePeriodSeconds" deletion_grace_period_seconds: Option<i64>,
            /// Keys and values by which selectors find the object.
            "labels" labels: BTreeMap<String, String>,
            /// Keys and values for tools; not selectable.
            "annotations" annotations: BTreeMap<String, String>,
            /// Objects this one depends on; it is collected once all of them are gone.
            "ownerReferences" owner_references: Vec<OwnerReference> [.map(&["uid"]).merge("uid")],
            /// Names of those who must act before the object may go.
            "finalizers" finalizers: Vec<String> [.set().merge_set()],
            /// Which manager owns which field; kept by the server.
            "managedFields" managed_fields: Vec<ManagedFieldsEntry> [.keep()],
        }

        /// A reference to an owner in the same namespace or the cluster.
        struct OwnerReference("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference") {
            /// API version of the owner.
            "apiVersion" api_version: String [.required()],
            /// Kind of the owner.
            "kind" kind: String [.required()],
            /// Name of the owner.
            "name" name: String [.required()],
            /// UID of the owner.
            "uid" uid: String [.required().go("types.UID")],
            /// The owner is the managing controller; at most one is.
            "controller" controller: Option<bool>,
            /// Foreground deletion of the owner waits for this object.
            "blockOwnerDeletion" block_owner_deletion: Option<bool>,
        }

        /// The fields one manager set, and when.
        struct ManagedFieldsEntry("io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry") {
            /// Who manages these fields.
            "manager" manager: String,
            /// `Apply` or `Update`.
            "operation" operation: String [.go("v1.ManagedFieldsOperationType")],
            /// Version of the schema in which the fields are named.
            "apiVersion" api_version: String,
            /// When the entry last changed.
            "time" time: Option<Time>,
            /// Format of the fields; `FieldsV1` is the only one.
            "fieldsType" fields_type: String,
            /// The fields as a tree of keys.
            "fieldsV1" fields_v1: Value,
            /// Subresource through which they were set.
            "subresource" subresource: String,
        }

        /// What a list carries about itself.
        struct ListMeta("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta") {
            /// Deprecated and no longer set.
            "selfLink" self_link: String,
            /// Version of the store that the list shows.
            "resourceVersion" resource_version: String,
            /// Token with which the next page is asked for.
            "continue" continue_: String,
            /// How many items are left after this page, if known.
            "remainingItemCount" remaining_item_count: Option<i64>,
            /// Which part of a sharded list this is.
            "shardInfo" shard_info: Value,
        }

        /// One aspect of the present state of an object.
        struct Condition("io.k8s.apimachinery.pkg.apis.meta.v1.Condition") {
            /// Name of the aspect in CamelCase.
            "type" type_: String [.required()],
            /// `True`, `False` or `Unknown`.
            "status" status: String [.required().go("v1.ConditionStatus")],
            /// Generation of the object that the condition was set from.
            "observedGeneration" observed_generation: i64,
            /// When the status last changed.
            "lastTransitionTime" last_transition_time: Option<Time> [.required()],
            /// Why, as one CamelCase word.
            "reason" reason: String [.required().keep()],
            /// Why, for people.
            "message" message: String [.required().keep()],
        }

        /// A choice of objects by labels; an absent one chooses none, an empty one all.
        struct LabelSelector("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector") {
            /// Labels that must have exactly these values.
            "matchLabels" match_labels: BTreeMap<String, String>,
            /// Further requirements, all of which must hold.
            "matchExpressions" match_expressions: Vec<LabelSelectorRequirement>,
        }

        /// One requirement on a label.
        struct LabelSelectorRequirement("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelectorRequirement") {
            /// The label.
            "key" key: String [.required()],
            /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
            "operator" operator: String [.required().go("v1.LabelSelectorOperator")],
            /// The values of `In` and `NotIn`.
            "values" values: Vec<String>,
        }

        /// The outcome of a request that returns no other object.
        struct Status("io.k8s.apimachinery.pkg.apis.meta.v1.Status") gvk(crate::schema::Gvk { group: "", version: "v1", kind: "Status" }) {
            /// Version of the schema of this object.
            "apiVersion" api_version: String,
            /// What kind of object this is.
            "kind" kind: String,
            /// Always empty but for a continue token.
            "metadata" metadata: ListMeta,
            /// `Success` or `Failure`.
            "status" status: String,
            /// What happened, for people.
            "message" message: String,
            /// What happened, as one CamelCase word.
            "reason" reason: String,
            /// More about it, for programs.
            "details" details: Option<StatusDetails>,
            /// The HTTP status code.
            "code" code: i32,
        }

        /// What a status is about.
        struct StatusDetails("io.k8s.apimachinery.pkg.apis.meta.v1.StatusDetails") {
            /// Name of the object.
            "name" name: String,
            /// Its API group.
            "group" group: String,
            /// Its kind, or its resource name.
            "kind" kind: String,
            /// Its UID.
            "uid" uid: String [.go("types.UID")],
            /// The single causes.
            "causes" causes: Vec<StatusCause>,
            /// After how many seconds to try again.
            "retryAfterSeconds" retry_after_seconds: i32,
        }

        /// One cause of a failure.
        struct StatusCause("io.k8s.apimachinery.pkg.apis.meta.v1.StatusCause") {
            /// The cause as one CamelCase word.
            "reason" reason: String,
            /// The cause for people.
            "message" message: String,
            /// The field at fault.
            "field" field: String,
        }

        /// How to delete.
        struct DeleteOptions("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions") gvk(crate::schema::Gvk { group: "", version: "v1", kind: "DeleteOptions" }) {
            /// Version of the schema of this object.
            "apiVersion" api_version: String,
            /// What kind of object this is.
            "kind" kind: String,
            /// Seconds until the object is ended by force.
            "gracePeriodSeconds" grace_period_seconds: Option<i64>,
            /// What must hold for the deletion to happen.
            "preconditions" preconditions: Option<Preconditions>,
            /// Deprecated; see `propagationPolicy`.
            "orphanDependents" orphan_dependents: Option<bool>,
            /// `Orphan`, `Background` or `Foreground`.
            "propagationPolicy" propagation_policy: Option<String> [.go("v1.DeletionPropagation")],
            /// `All`: do everything but store the result.
            "dryRun" dry_run: Vec<String>,
            /// Delete even what cannot be read back.
            "ignoreStoreReadErrorWithClusterBreakingPotential" ignore_store_read_error: Option<bool>,
        }

        /// What must hold for a write to happen.
        struct Preconditions("io.k8s.apimachinery.pkg.apis.meta.v1.Preconditions") {
            /// The UID the object must have.
            "uid" uid: Option<String> [.go("types.UID")],
            /// The resource version the object must have.
            "resourceVersion" resource_version: Option<String>,
        }
    }

    /// A list of objects, as list requests return it.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub struct List<T> {
        #[serde(default)]
        pub api_version: String,
        #[serde(default)]
        pub kind: String,
        #[serde(default)]
        pub metadata: ListMeta,
        #[serde(default = "Vec::new", deserialize_with = "crate::schema::null_is_absent")]
        #[serde(bound(deserialize = "T: Deserialize<'de>"))]
        pub items: Vec<T>,
    }
}
