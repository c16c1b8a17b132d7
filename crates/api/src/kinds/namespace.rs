//! Namespaces.

use serde_json::{Value, json};

use super::{child, created, keep, set_default, updated};
use crate::field::FieldErrors;
use crate::strategy::Strategy;
use crate::validate::name::dns1123_label;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";

#[derive(Debug)]
pub struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn default(&self, object: &mut Value) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !name.is_empty() && child(object, "metadata").is_some() {
            // Policies select namespaces by this label, so it is always there and always right.
            object["metadata"]["labels"][NAME_LABEL] = name.into();
        }
        child(object, "spec");
        if let Some(status) = child(object, "status") {
            set_default(status, "phase", "Active");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        object["spec"] = json!({"finalizers": ["kubernetes"]});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "spec");
        keep(new, old, "status");
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        created(object, false, dns1123_label)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_labelled_with_its_name_and_starts_active() {
        let mut object =
            json!({"metadata": {"name": "shop", "labels": {"a": "b"}}, "status": {"phase": "X"}});
        NamespaceStrategy.default(&mut object);
        NamespaceStrategy.prepare_create(&mut object);
        assert_eq!(object["metadata"]["labels"], json!({"a": "b", NAME_LABEL: "shop"}));
        assert_eq!(object["status"]["phase"], "Active");
        assert!(NamespaceStrategy.validate_create(&object).is_empty());
    }
}
