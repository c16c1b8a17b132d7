//! Nodes.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{child, created, keep, read, updated};
use crate::core::v1::{Node, NodeSpec};
use crate::field::{FieldError, FieldErrors};
use crate::service::families::Family;
use crate::strategy::Strategy;
use crate::validate::name::{dns1123_subdomain, qualified};
use crate::validate::{invalid_each, ip::legacy_cidr};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

#[derive(Debug)]
pub struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        // The singular and the plural name the same range.
        let first = spec.get("podCIDRs").and_then(|c| c.get(0)).cloned();
        match (spec.get("podCIDR").cloned(), first) {
            (None, Some(first)) => spec.insert("podCIDR".to_owned(), first),
            (Some(one), None) => spec.insert("podCIDRs".to_owned(), json!([one])),
            _ => None,
        };
        child(object, "status");
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, false, dns1123_subdomain);
        match read::<Node>(object) {
            Ok(node) => body(&mut errors, &node),
            Err(more) => errors.extend(more),
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, false);
        match (read::<Node>(new), read::<Node>(old)) {
            (Ok(new), Ok(old)) => {
                body(&mut errors, &new);
                frozen(&mut errors, &new.spec, &old.spec);
            }
            (Err(more), _) | (_, Err(more)) => errors.extend(more),
        }
        errors
    }
}

fn body(errors: &mut FieldErrors, node: &Node) {
    let ranges = &node.spec.pod_cidrs;
    for (i, range) in ranges.iter().enumerate() {
        legacy_cidr(errors, &format!("spec.podCIDRs[{i}]"), range, &[]);
    }
    if ranges.len() > 2 {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(FieldError::invalid("spec.podCIDRs", json!(ranges), detail));
    } else if ranges.len() == 2 {
        let family = |i: usize| Family::of_text(ranges[i].split('/').next().unwrap_or_default());
        if family(0) == family(1) {
            let detail = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid("spec.podCIDRs", json!(ranges), detail));
        }
    }
    if ranges.first().is_some_and(|first| *first != node.spec.pod_cidr) {
        let detail = "must match `podCIDR`";
        errors.push(FieldError::invalid("spec.podCIDRs[0]", json!(ranges[0]), detail));
    }
    taints(errors, &node.spec);
    let mut seen = HashSet::new();
    for (i, address) in node.status.addresses.iter().enumerate() {
        if !seen.insert((&address.type_, &address.address)) {
            errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), json!(address)));
        }
    }
}

fn taints(errors: &mut FieldErrors, spec: &NodeSpec) {
    let mut seen = HashSet::new();
    for (i, taint) in spec.taints.iter().enumerate() {
        let path = format!("spec.taints[{i}]");
        invalid_each(errors, &format!("{path}.key"), &taint.key, qualified(&taint.key));
        if taint.effect.is_empty() {
            errors.push(FieldError::required(format!("{path}.effect"), ""));
        } else if !EFFECTS.contains(&taint.effect.as_str()) {
            errors.push(FieldError::not_supported(format!("{path}.effect"), &taint.effect, EFFECTS));
        }
        if !seen.insert((&taint.key, &taint.effect)) {
            let mut error = FieldError::duplicate(path, json!(taint));
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            errors.push(error);
        }
    }
}

/// What is set once for a node's life.
fn frozen(errors: &mut FieldErrors, new: &NodeSpec, old: &NodeSpec) {
    if !old.pod_cidrs.is_empty() && new.pod_cidrs != old.pod_cidrs {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.podCIDRs", detail));
    }
    if !old.provider_id.is_empty() && new.provider_id != old.provider_id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(FieldError::forbidden("spec.providerID", detail));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;

    fn node(spec: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "n1"}, "spec": spec});
        NodeStrategy.default(&mut object);
        object
    }

    #[test]
    fn a_pod_range_is_set_once() {
        let (bare, first) = (node(&json!({})), node(&json!({"podCIDR": "10.1.0.0/24"})));
        assert_eq!(first["spec"]["podCIDRs"], json!(["10.1.0.0/24"]));
        assert!(NodeStrategy.validate_create(&first).is_empty());
        assert!(NodeStrategy.validate_update(&first, &bare).is_empty());
        let other = node(&json!({"podCIDR": "10.2.0.0/24"}));
        assert_eq!(
            texts(&NodeStrategy.validate_update(&other, &first)),
            ["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"]
        );
    }

    #[test]
    fn taints_have_a_known_effect() {
        let errors =
            NodeStrategy.validate_create(&node(&json!({"taints": [{"key": "a", "effect": "NoScheduel"}]})));
        assert_eq!(
            texts(&errors),
            ["spec.taints[0].effect: Unsupported value: \"NoScheduel\": supported values: \"NoSchedule\", \
             \"PreferNoSchedule\", \"NoExecute\" (did you mean \"NoSchedule\"?)"]
        );
    }
}
