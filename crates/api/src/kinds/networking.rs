//! `ServiceCIDR` and `IPAddress`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{child, created, differ, keep, read, updated};
use crate::field::{FieldError, FieldErrors};
use crate::networking::v1::{IPAddress, ServiceCIDR};
use crate::service::families::Family;
use crate::strategy::Strategy;
use crate::validate::invalid_each;
use crate::validate::ip::{parse_sloppy, strict_cidr};
use crate::validate::name::dns1123_subdomain;

#[derive(Debug)]
pub struct ServiceCIDRStrategy;

impl Strategy for ServiceCIDRStrategy {
    fn default(&self, object: &mut Value) {
        child(object, "spec");
        child(object, "status");
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep(new, old, "status");
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, false, dns1123_subdomain);
        match read::<ServiceCIDR>(object) {
            Ok(cidr) => ranges(&mut errors, &cidr.spec.cidrs),
            Err(more) => errors.extend(more),
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, false);
        let (new, old) = match (read::<ServiceCIDR>(new), read::<ServiceCIDR>(old)) {
            (Ok(new), Ok(old)) => (new.spec.cidrs, old.spec.cidrs),
            (Err(more), _) | (_, Err(more)) => return more,
        };
        // One range may gain a second of the other family; nothing else changes.
        if old.len() == 1 && new.len() == 2 && new[0] == old[0] {
            ranges(&mut errors, &new);
        } else if new != old {
            errors.push(FieldError::invalid("spec.cidrs", json!(new), "field is immutable"));
        }
        errors
    }
}

fn ranges(errors: &mut FieldErrors, ranges: &[String]) {
    let path = "spec.cidrs";
    if ranges.is_empty() {
        errors.push(FieldError::required(path, "at least one CIDR required"));
        return;
    }
    if ranges.len() > 2 {
        errors.push(FieldError::invalid(path, json!(ranges), "may only hold up to 2 values"));
        return;
    }
    let before = errors.len();
    for (i, range) in ranges.iter().enumerate() {
        strict_cidr(errors, &format!("{path}[{i}]"), range);
    }
    let families: HashSet<Option<Family>> =
        ranges.iter().map(|r| Family::of_text(r.split('/').next().unwrap_or_default())).collect();
    if errors.len() == before && families.len() < ranges.len() {
        let detail =
            "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(FieldError::invalid(path, json!(ranges), detail));
    }
}

#[derive(Debug)]
pub struct IPAddressStrategy;

impl Strategy for IPAddressStrategy {
    fn default(&self, object: &mut Value) {
        child(object, "spec");
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, false, canonical_ip);
        parent(&mut errors, object);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, false);
        parent(&mut errors, new);
        if differ(&new["spec"], &old["spec"], "parentRef") {
            let reference = new["spec"]["parentRef"].clone();
            errors.push(FieldError::invalid("spec.parentRef", reference, "field is immutable"));
        }
        errors
    }
}

/// The name of an `IPAddress` is the address itself, in its one canonical form.
fn canonical_ip(name: &str) -> Vec<String> {
    match parse_sloppy(name) {
        None => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
        Some(ip) if ip.to_string() != name => vec![format!("must be in canonical form (\"{ip}\")")],
        Some(_) => Vec::new(),
    }
}

fn parent(errors: &mut FieldErrors, object: &Value) {
    let reference = match read::<IPAddress>(object) {
        Ok(address) => address.spec.parent_ref,
        Err(more) => return errors.extend(more),
    };
    let path = "spec.parentRef";
    let Some(reference) = reference else {
        errors.push(FieldError::required(path, ""));
        return;
    };
    if !reference.group.is_empty() {
        invalid_each(errors, &format!("{path}.group"), &reference.group, dns1123_subdomain(&reference.group));
    }
    for (field, value) in [("resource", &reference.resource), ("name", &reference.name)] {
        if value.is_empty() {
            errors.push(FieldError::required(format!("{path}.{field}"), ""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;

    fn cidr(ranges: &Value) -> Value {
        json!({"metadata": {"name": "a"}, "spec": {"cidrs": ranges}})
    }

    #[test]
    fn ranges_are_refused_in_kubernetes_words() {
        let refused = |ranges| texts(&ServiceCIDRStrategy.validate_create(&cidr(&ranges)));
        assert!(refused(json!(["10.96.0.0/12", "fd00::/112"])).is_empty());
        assert_eq!(refused(json!([])), ["spec.cidrs: Required value: at least one CIDR required"]);
        assert_eq!(
            refused(json!(["10.0.0.0/24", "10.0.1.0/24"])),
            [
                "spec.cidrs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one IP for each \
             IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            ]
        );
    }

    #[test]
    fn a_range_may_only_gain_the_other_family() {
        let one = cidr(&json!(["10.96.0.0/12"]));
        let update = |ranges| texts(&ServiceCIDRStrategy.validate_update(&cidr(&ranges), &one));
        assert!(update(json!(["10.96.0.0/12", "fd00::/112"])).is_empty());
        assert_eq!(
            update(json!(["10.97.0.0/16"])),
            ["spec.cidrs: Invalid value: [\"10.97.0.0/16\"]: field is immutable"]
        );
    }

    #[test]
    fn an_address_is_named_canonically_and_has_a_parent() {
        let object = json!({"metadata": {"name": "FD00::1"}, "spec": {}});
        assert_eq!(
            texts(&IPAddressStrategy.validate_create(&object)),
            [
                "metadata.name: Invalid value: \"FD00::1\": must be in canonical form (\"fd00::1\")",
                "spec.parentRef: Required value",
            ]
        );
    }
}
