//! Fields of roles, bindings, reviews and token requests, which kubectl sends in protobuf. All of each kind are here.

use super::{Field, Kind, LABEL_SELECTOR, META, SELECTOR_REQUIREMENT, many, one};

const RULE: &[Field] = &[
    many(1, "verbs", Kind::Text),
    many(2, "apiGroups", Kind::Text),
    many(3, "resources", Kind::Text),
    many(4, "resourceNames", Kind::Text),
    many(5, "nonResourceURLs", Kind::Text),
];

/// `Role` has no aggregation, and never sends it.
const ROLE: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    many(2, "rules", Kind::Object(RULE)),
    one(3, "aggregationRule", Kind::Object(&[many(1, "clusterRoleSelectors", Kind::Object(LABEL_SELECTOR))])),
];

const SUBJECT: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiGroup", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "namespace", Kind::Text),
];

const ROLE_REF: &[Field] =
    &[one(1, "apiGroup", Kind::Text), one(2, "kind", Kind::Text), one(3, "name", Kind::Text)];

const BINDING: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    many(2, "subjects", Kind::Object(SUBJECT)),
    one(3, "roleRef", Kind::Object(ROLE_REF)),
];

const SELECTOR: &[Field] =
    &[one(1, "rawSelector", Kind::Text), many(2, "requirements", Kind::Object(SELECTOR_REQUIREMENT))];

const RESOURCE_ATTRIBUTES: &[Field] = &[
    one(1, "namespace", Kind::Text),
    one(2, "verb", Kind::Text),
    one(3, "group", Kind::Text),
    one(4, "version", Kind::Text),
    one(5, "resource", Kind::Text),
    one(6, "subresource", Kind::Text),
    one(7, "name", Kind::Text),
    one(8, "fieldSelector", Kind::Object(SELECTOR)),
    one(9, "labelSelector", Kind::Object(SELECTOR)),
];

/// Of the caller's own question the first two. Answers are not read.
const ACCESS_SPEC: &[Field] = &[
    one(1, "resourceAttributes", Kind::Object(RESOURCE_ATTRIBUTES)),
    one(2, "nonResourceAttributes", Kind::Object(&[one(1, "path", Kind::Text), one(2, "verb", Kind::Text)])),
    one(3, "user", Kind::Text),
    many(4, "groups", Kind::Text),
    one(5, "extra", Kind::ListMap),
    one(6, "uid", Kind::Text),
];

const ACCESS: &[Field] = &[one(1, "metadata", Kind::Object(META)), one(2, "spec", Kind::Object(ACCESS_SPEC))];

const RULES: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "spec", Kind::Object(&[one(1, "namespace", Kind::Text)])),
];

const TOKEN_REVIEW: &[Field] = &[
    one(1, "metadata", Kind::Object(META)),
    one(2, "spec", Kind::Object(&[one(1, "token", Kind::Text), many(2, "audiences", Kind::Text)])),
];

const BOUND: &[Field] = &[
    one(1, "kind", Kind::Text),
    one(2, "apiVersion", Kind::Text),
    one(3, "name", Kind::Text),
    one(4, "uid", Kind::Text),
];

const TOKEN_REQUEST_SPEC: &[Field] = &[
    many(1, "audiences", Kind::Text),
    one(3, "boundObjectRef", Kind::Object(BOUND)),
    one(4, "expirationSeconds", Kind::Int),
];

const TOKEN_REQUEST: &[Field] =
    &[one(1, "metadata", Kind::Object(META)), one(2, "spec", Kind::Object(TOKEN_REQUEST_SPEC))];

const SELF: &[Field] = &[one(1, "metadata", Kind::Object(META))];

pub(super) fn table(api_version: &str, kind: &str) -> Option<&'static [Field]> {
    Some(match (api_version, kind) {
        ("rbac.authorization.k8s.io/v1", "Role" | "ClusterRole") => ROLE,
        ("rbac.authorization.k8s.io/v1", "RoleBinding" | "ClusterRoleBinding") => BINDING,
        (
            "authorization.k8s.io/v1",
            "SubjectAccessReview" | "SelfSubjectAccessReview" | "LocalSubjectAccessReview",
        ) => ACCESS,
        ("authorization.k8s.io/v1", "SelfSubjectRulesReview") => RULES,
        ("authentication.k8s.io/v1", "TokenReview") => TOKEN_REVIEW,
        ("authentication.k8s.io/v1", "TokenRequest") => TOKEN_REQUEST,
        ("authentication.k8s.io/v1", "SelfSubjectReview") => SELF,
        _ => return None,
    })
}
