//! Events.

use serde_json::Value;

use super::{created, set_default, updated};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::name::dns1123_subdomain;

#[derive(Debug)]
pub struct EventStrategy;

impl Strategy for EventStrategy {
    fn default(&self, object: &mut Value) {
        super::child(object, "involvedObject");
        super::child(object, "source");
        if let Some(object) = object.as_object_mut() {
            for field in ["reportingComponent", "reportingInstance"] {
                set_default(object, field, "");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let involved = object["involvedObject"]["namespace"].as_str().unwrap_or_default();
        // Events of cluster-scoped objects live in one of two namespaces.
        let fits = if involved.is_empty() {
            ["default", "kube-system"].contains(&namespace)
        } else {
            involved == namespace
        };
        if !fits {
            let detail = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", involved, detail));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, true)
    }
}
