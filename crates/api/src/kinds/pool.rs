//! `LoadBalancerPool`.

use serde_json::{Value, json};

use super::{child, created, differ, keep, read, set_default, set_generation, updated};
use crate::field::{FieldError, FieldErrors};
use crate::meta::v1::LabelSelector;
use crate::portolan::v1alpha1::{LoadBalancerPool, LoadBalancerPoolSpec};
use crate::range::AddressRange;
use crate::selector::LabelQuery;
use crate::strategy::Strategy;
use crate::validate::name::dns1123_subdomain;

/// The kernel's longest name of a link.
const LINK_NAME_BYTES_MAX: usize = 15;

#[derive(Debug)]
pub struct LoadBalancerPoolStrategy;

impl Strategy for LoadBalancerPoolStrategy {
    fn default(&self, object: &mut Value) {
        child(object, "status");
        if let Some(spec) = child(object, "spec") {
            set_default(spec, "autoAssign", true);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
        set_generation(object, None, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
        let changed = differ(new, old, "spec");
        set_generation(new, Some(old), changed);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, false, dns1123_subdomain);
        checked(&mut errors, object);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, false);
        checked(&mut errors, new);
        errors
    }
}

fn checked(errors: &mut FieldErrors, object: &Value) {
    match read::<LoadBalancerPool>(object) {
        Ok(pool) => spec(errors, &pool.spec),
        Err(more) => errors.extend(more),
    }
}

fn spec(errors: &mut FieldErrors, spec: &LoadBalancerPoolSpec) {
    addresses(errors, &spec.addresses);
    for (i, name) in spec.interfaces.iter().enumerate() {
        let fits = !name.is_empty() && name.len() <= LINK_NAME_BYTES_MAX && !name.contains(['/', ' ', '*']);
        if !fits {
            let detail = "must be the name of a link as `ip link` shows it, of at most 15 bytes";
            errors.push(FieldError::invalid(format!("spec.interfaces[{i}]"), name.as_str(), detail));
        }
    }
    if spec.priority < 0 {
        let detail = "must be 0 (last) or a positive number, lower first";
        errors.push(FieldError::invalid("spec.priority", spec.priority, detail));
    }
    selector(errors, "spec.namespaceSelector", spec.namespace_selector.as_ref());
    selector(errors, "spec.serviceSelector", spec.service_selector.as_ref());
    selector(errors, "spec.nodeSelector", spec.node_selector.as_ref());
}

fn addresses(errors: &mut FieldErrors, entries: &[String]) {
    let path = "spec.addresses";
    if entries.is_empty() {
        let detail = "at least one CIDR (e.g. 192.0.2.0/28) or range (e.g. 192.0.2.10-192.0.2.20)";
        errors.push(FieldError::required(path, detail));
    }
    let mut ranges: Vec<(usize, AddressRange)> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        let here = format!("{path}[{i}]");
        match AddressRange::parse(entry) {
            Err(error) => errors.push(FieldError::invalid(here, entry.as_str(), error.to_string())),
            Ok(range) => {
                if let Some((other, _)) = ranges.iter().find(|(_, known)| known.overlaps(&range)) {
                    let detail = format!(
                        "must not overlap {path}[{other}] ({}): take the common addresses out of one of them",
                        entries[*other]
                    );
                    errors.push(FieldError::invalid(here, entry.as_str(), detail));
                }
                ranges.push((i, range));
            }
        }
    }
}

fn selector(errors: &mut FieldErrors, path: &str, selector: Option<&LabelSelector>) {
    if let Some(selector) = selector
        && let Err(error) = LabelQuery::of_selector(selector)
    {
        errors.push(FieldError::invalid(path, json!(selector), error.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "a"}, "spec": spec});
        LoadBalancerPoolStrategy.default(&mut object);
        texts(&LoadBalancerPoolStrategy.validate_create(&object))
    }

    #[test]
    fn a_good_pool_is_taken_and_gets_its_default() {
        let spec = json!({"addresses": ["192.0.2.0/28", "192.0.2.20-192.0.2.30", "fd00::/120"],
            "interfaces": ["eth0.100"], "priority": 5,
            "serviceSelector": {"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}]}});
        assert_eq!(errors(&spec), [""; 0]);
        let mut object = json!({"metadata": {"name": "a"}, "spec": {"addresses": []}});
        LoadBalancerPoolStrategy.default(&mut object);
        assert_eq!(object["spec"]["autoAssign"], true);
        let mut object = json!({"spec": {"autoAssign": false}});
        LoadBalancerPoolStrategy.default(&mut object);
        assert_eq!(object["spec"]["autoAssign"], false);
    }

    #[test]
    fn what_is_wrong_is_named_with_field_value_and_way_out() {
        assert!(errors(&json!({"addresses": []}))[0].starts_with("spec.addresses: Required value: at least"));
        assert_eq!(
            errors(&json!({"addresses": ["192.0.2.0/28", "192.0.2.15-192.0.2.20"]})),
            [
                "spec.addresses[1]: Invalid value: \"192.0.2.15-192.0.2.20\": must not overlap spec.addresses[0] \
              (192.0.2.0/28): take the common addresses out of one of them"
            ]
        );
        assert_eq!(
            errors(&json!({"addresses": ["192.0.2.9-192.0.2.1"]})),
            [
                "spec.addresses[0]: Invalid value: \"192.0.2.9-192.0.2.1\": must not begin after it ends: write \
              192.0.2.1-192.0.2.9"
            ]
        );
        let wrong = errors(&json!({"addresses": ["192.0.2.0/28"], "priority": -1, "interfaces": ["eth*"],
            "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Has"}]}}));
        assert!(wrong[0].starts_with("spec.interfaces[0]: Invalid value: \"eth*\""), "{wrong:?}");
        assert!(wrong[1].starts_with("spec.priority: Invalid value: -1"), "{wrong:?}");
        assert!(wrong[2].starts_with("spec.nodeSelector: Invalid value"), "{wrong:?}");
    }
}
