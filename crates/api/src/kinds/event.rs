//! Events.

use serde_json::Value;

use super::{created, set_default, updated};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::name::{dns1123_subdomain, qualified};

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

/// The rules of `events.k8s.io`, which are stricter.
#[derive(Debug)]
pub struct ViewStrategy;

/// Kubernetes' own bounds.
const TEXT_MAX: usize = 128;
const NOTE_MAX: usize = 1024;

impl Strategy for ViewStrategy {
    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = EventStrategy.validate_create(&crate::events::core(object));
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        if text("eventTime").is_empty() {
            errors.push(FieldError::required("eventTime", ""));
        }
        for field in ["reportingController", "reportingInstance", "action", "reason"] {
            if text(field).is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if text(field).len() > TEXT_MAX {
                errors.push(FieldError::invalid(
                    field,
                    "",
                    format!("can have at most {TEXT_MAX} characters"),
                ));
            }
        }
        if !text("reportingController").is_empty() {
            let wrong = qualified(text("reportingController"));
            let invalid = |why| FieldError::invalid("reportingController", text("reportingController"), why);
            errors.extend(wrong.into_iter().map(invalid));
        }
        if text("note").len() > NOTE_MAX {
            errors.push(FieldError::invalid("note", "", format!("can have at most {NOTE_MAX} characters")));
        }
        if !["Normal", "Warning"].contains(&text("type")) {
            errors.push(FieldError::invalid("type", "", format!("has invalid value: {}", text("type"))));
        }
        for (field, core) in [
            ("deprecatedFirstTimestamp", "firstTimestamp"),
            ("deprecatedLastTimestamp", "lastTimestamp"),
            ("deprecatedCount", "count"),
            ("deprecatedSource", "source"),
        ] {
            let set = match &object[field] {
                Value::Null => false,
                Value::Object(fields) => !fields.is_empty(),
                value => *value != 0,
            };
            if set {
                errors.push(FieldError::invalid(core, "", "needs to be unset"));
            }
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, true)
    }
}
