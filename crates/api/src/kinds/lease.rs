//! Leases.

use serde_json::Value;

use super::{created, updated};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::name::dns1123_subdomain;

#[derive(Debug)]
pub struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn default(&self, object: &mut Value) {
        super::child(object, "spec");
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        spec(&mut errors, &object["spec"]);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        spec(&mut errors, &new["spec"]);
        errors
    }
}

fn spec(errors: &mut FieldErrors, spec: &Value) {
    if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|s| *s <= 0) {
        errors.push(FieldError::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if let Some(count) = spec["leaseTransitions"].as_i64().filter(|c| *c < 0) {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.leaseTransitions", count, detail));
    }
}
