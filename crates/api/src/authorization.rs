//! `authorization.k8s.io`: questions about who may do what. They are answered, not stored.

pub mod v1 {
    use std::collections::BTreeMap;

    question! {
        /// Whether someone may do something.
        SubjectAccessReview("io.k8s.api.authorization.v1.SubjectAccessReview", "authorization.k8s.io"):
            SubjectAccessReviewSpec => SubjectAccessReviewStatus
    }

    question! {
        /// Whether the caller may do something.
        SelfSubjectAccessReview("io.k8s.api.authorization.v1.SelfSubjectAccessReview", "authorization.k8s.io"):
            SelfSubjectAccessReviewSpec => SubjectAccessReviewStatus
    }

    question! {
        /// Whether someone may do something in one namespace.
        LocalSubjectAccessReview("io.k8s.api.authorization.v1.LocalSubjectAccessReview", "authorization.k8s.io"):
            SubjectAccessReviewSpec => SubjectAccessReviewStatus
    }

    question! {
        /// What the caller may do in a namespace.
        SelfSubjectRulesReview("io.k8s.api.authorization.v1.SelfSubjectRulesReview", "authorization.k8s.io"):
            SelfSubjectRulesReviewSpec => SubjectRulesReviewStatus
    }

    objects! {
        /// Who would do what.
        struct SubjectAccessReviewSpec("io.k8s.api.authorization.v1.SubjectAccessReviewSpec") {
            /// What is done to objects.
            "resourceAttributes" resource_attributes: Option<ResourceAttributes>,
            /// What is done at another path.
            "nonResourceAttributes" non_resource_attributes: Option<NonResourceAttributes>,
            /// Who; with groups alone it may be empty.
            "user" user: String,
            /// The groups they are in.
            "groups" groups: Vec<String>,
            /// What else is known of them.
            "extra" extra: BTreeMap<String, Vec<String>>,
            /// What tells users of the same name apart.
            "uid" uid: String,
        }

        /// What the caller would do.
        struct SelfSubjectAccessReviewSpec("io.k8s.api.authorization.v1.SelfSubjectAccessReviewSpec") {
            /// What is done to objects.
            "resourceAttributes" resource_attributes: Option<ResourceAttributes>,
            /// What is done at another path.
            "nonResourceAttributes" non_resource_attributes: Option<NonResourceAttributes>,
        }

        /// What is done to objects.
        struct ResourceAttributes("io.k8s.api.authorization.v1.ResourceAttributes") {
            /// In which namespace; empty is all of them, or none.
            "namespace" namespace: String,
            /// The verb.
            "verb" verb: String,
            /// The API group.
            "group" group: String,
            /// The API version.
            "version" version: String,
            /// The resource.
            "resource" resource: String,
            /// The subresource.
            "subresource" subresource: String,
            /// The object; empty is all of them.
            "name" name: String,
            /// What a field selector leaves.
            "fieldSelector" field_selector: Option<FieldSelectorAttributes>,
            /// What a label selector leaves.
            "labelSelector" label_selector: Option<LabelSelectorAttributes>,
        }

        /// A field selector, as text or taken apart.
        struct FieldSelectorAttributes("io.k8s.api.authorization.v1.FieldSelectorAttributes") {
            /// As it stands in a request.
            "rawSelector" raw_selector: String,
            /// Taken apart.
            "requirements" requirements: Vec<SelectorRequirement>,
        }

        /// A label selector, as text or taken apart.
        struct LabelSelectorAttributes("io.k8s.api.authorization.v1.LabelSelectorAttributes") {
            /// As it stands in a request.
            "rawSelector" raw_selector: String,
            /// Taken apart.
            "requirements" requirements: Vec<SelectorRequirement>,
        }

        /// One condition of a selector.
        struct SelectorRequirement("io.k8s.apimachinery.pkg.apis.meta.v1.FieldSelectorRequirement") {
            /// The field or label.
            "key" key: String [.required()],
            /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
            "operator" operator: String [.required()],
            /// The values.
            "values" values: Vec<String>,
        }

        /// What is done at a path that is no object's.
        struct NonResourceAttributes("io.k8s.api.authorization.v1.NonResourceAttributes") {
            /// The path.
            "path" path: String,
            /// The verb.
            "verb" verb: String,
        }

        /// Whether it is allowed.
        struct SubjectAccessReviewStatus("io.k8s.api.authorization.v1.SubjectAccessReviewStatus") {
            /// It is.
            "allowed" allowed: bool [.required().keep()],
            /// It is not, whatever others say.
            "denied" denied: bool,
            /// Why.
            "reason" reason: String,
            /// What went wrong on the way to the answer.
            "evaluationError" evaluation_error: String,
        }

        /// Where.
        struct SelfSubjectRulesReviewSpec("io.k8s.api.authorization.v1.SelfSubjectRulesReviewSpec") {
            /// The namespace.
            "namespace" namespace: String,
        }

        /// What is allowed.
        struct SubjectRulesReviewStatus("io.k8s.api.authorization.v1.SubjectRulesReviewStatus") {
            /// With objects.
            "resourceRules" resource_rules: Vec<ResourceRule> [.required().keep()],
            /// At other paths.
            "nonResourceRules" non_resource_rules: Vec<NonResourceRule> [.required().keep()],
            /// There may be more.
            "incomplete" incomplete: bool [.required().keep()],
            /// What went wrong on the way to the answer.
            "evaluationError" evaluation_error: String,
        }

        /// What may be done to which objects.
        struct ResourceRule("io.k8s.api.authorization.v1.ResourceRule") {
            /// The verbs.
            "verbs" verbs: Vec<String> [.required()],
            /// The groups.
            "apiGroups" api_groups: Vec<String>,
            /// The resources.
            "resources" resources: Vec<String>,
            /// The objects; none means all.
            "resourceNames" resource_names: Vec<String>,
        }

        /// What may be done at which paths.
        struct NonResourceRule("io.k8s.api.authorization.v1.NonResourceRule") {
            /// The verbs.
            "verbs" verbs: Vec<String> [.required()],
            /// The paths.
            "nonResourceURLs" non_resource_urls: Vec<String>,
        }
    }
}
