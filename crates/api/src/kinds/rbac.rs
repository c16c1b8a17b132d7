//! Roles and bindings.

use serde_json::Value;

use super::{created, set_default, updated};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::name::path_segment;

/// The group of roles, users and groups.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// `Role` and `ClusterRole`.
#[derive(Debug)]
pub struct RoleStrategy {
    pub namespaced: bool,
}

impl Strategy for RoleStrategy {
    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, self.namespaced, path_segment);
        rules(&mut errors, object, self.namespaced);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, self.namespaced);
        rules(&mut errors, new, self.namespaced);
        errors
    }
}

/// `RoleBinding` and `ClusterRoleBinding`.
#[derive(Debug)]
pub struct BindingStrategy {
    pub namespaced: bool,
}

impl Strategy for BindingStrategy {
    fn default(&self, object: &mut Value) {
        if let Some(reference) = object.get_mut("roleRef").and_then(Value::as_object_mut) {
            set_default(reference, "apiGroup", GROUP);
        }
        let Some(object) = object.as_object_mut() else { return };
        for subject in super::items_mut(object, "subjects") {
            if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
                set_default(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, self.namespaced, path_segment);
        binding(&mut errors, object, self.namespaced);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, self.namespaced);
        binding(&mut errors, new, self.namespaced);
        if new["roleRef"] != old["roleRef"] {
            errors.push(FieldError::invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef"));
        }
        errors
    }
}

fn empty(value: &Value) -> bool {
    value.as_array().is_none_or(Vec::is_empty)
}

fn rules(errors: &mut FieldErrors, object: &Value, namespaced: bool) {
    for (i, rule) in object["rules"].as_array().into_iter().flatten().enumerate() {
        let path = |field: &str| format!("rules[{i}].{field}");
        if empty(&rule["verbs"]) {
            errors.push(FieldError::required(path("verbs"), "verbs must contain at least one value"));
        }
        let urls = &rule["nonResourceURLs"];
        if empty(urls) {
            if empty(&rule["apiGroups"]) {
                errors.push(FieldError::required(
                    path("apiGroups"),
                    "resource rules must supply at least one api group",
                ));
            }
            if empty(&rule["resources"]) {
                errors.push(FieldError::required(
                    path("resources"),
                    "resource rules must supply at least one resource",
                ));
            }
        } else if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(path("nonResourceURLs"), urls.clone(), detail));
        } else if !empty(&rule["apiGroups"]) || !empty(&rule["resources"]) || !empty(&rule["resourceNames"]) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(path("nonResourceURLs"), urls.clone(), detail));
        }
    }
}

fn binding(errors: &mut FieldErrors, object: &Value, namespaced: bool) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reference = &object["roleRef"];
    if text(&reference["apiGroup"]) != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &text(&reference["apiGroup"]), &[GROUP]));
    }
    let allowed: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !allowed.contains(&text(&reference["kind"]).as_str()) {
        errors.push(FieldError::not_supported("roleRef.kind", &text(&reference["kind"]), allowed));
    }
    if text(&reference["name"]).is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (i, subject) in object["subjects"].as_array().into_iter().flatten().enumerate() {
        let path = |field: &str| format!("subjects[{i}].{field}");
        if text(&subject["name"]).is_empty() {
            errors.push(FieldError::required(path("name"), ""));
        }
        let (group, wanted) = (
            text(&subject["apiGroup"]),
            match subject["kind"].as_str() {
                Some("User" | "Group") => GROUP,
                Some("ServiceAccount") => "",
                _ => {
                    let kinds = &["ServiceAccount", "User", "Group"];
                    errors.push(FieldError::not_supported(path("kind"), &text(&subject["kind"]), kinds));
                    continue;
                }
            },
        );
        if group != wanted {
            errors.push(FieldError::not_supported(path("apiGroup"), &group, &[wanted]));
        }
        if wanted.is_empty() && !namespaced && text(&subject["namespace"]).is_empty() {
            errors.push(FieldError::required(path("namespace"), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;
    use serde_json::json;

    #[test]
    fn roles_say_what_may_be_done_to_what() {
        let role = json!({"metadata": {"name": "system:a", "namespace": "d"}, "rules": [
            {"verbs": [], "apiGroups": [""], "resources": ["pods"]}, {"verbs": ["get"]}, {"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
        assert_eq!(
            texts(&RoleStrategy { namespaced: true }.validate_create(&role)),
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[1].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[1].resources: Required value: resource rules must supply at least one resource",
                "rules[2].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let rules = BindingStrategy { namespaced: false };
        let mut old = json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "d"}]});
        rules.default(&mut old);
        assert_eq!(texts(&rules.validate_create(&old)), [""; 0]);
        assert_eq!(old["subjects"][0]["apiGroup"], GROUP);
        let mut new = old.clone();
        new["roleRef"]["name"] = "edit".into();
        assert!(texts(&rules.validate_update(&new, &old))[0].ends_with("cannot change roleRef"));
        new["subjects"] = json!([{"kind": "Robot", "name": "x"}, {"kind": "ServiceAccount", "name": "s"}]);
        new["roleRef"] = json!({"kind": "Role", "name": "", "apiGroup": GROUP});
        assert_eq!(rules.validate_create(&new).len(), 4);
    }
}
