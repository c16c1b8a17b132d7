//! What of a Service may change, and what its status may hold.

use serde_json::json;

use super::ServiceSpec;
use super::validate::{body, load_balancer_class};
use crate::core::v1::{LoadBalancerIngress, Service};
use crate::field::{FieldError, FieldErrors};
use crate::validate::ip::{legacy_ip, parse_sloppy};
use crate::validate::{invalid_each, meta, name};

/// A changed Service.
pub fn update(new: &Service, old: &Service) -> FieldErrors {
    let mut errors = meta::object_meta_update(&new.metadata, &old.metadata);
    cluster_ips_update(&mut errors, &new.spec, &old.spec);
    families_update(&mut errors, &new.spec, &old.spec);
    if old.spec.is_load_balancer()
        && new.spec.is_load_balancer()
        && new.spec.load_balancer_class != old.spec.load_balancer_class
    {
        let class = json!(new.spec.load_balancer_class);
        errors.push(FieldError::invalid("spec.loadBalancerClass", class, "may not change once set"));
    }
    load_balancer_class(&mut errors, &new.spec);
    if old.spec.needs_health_check_node_port()
        && new.spec.needs_health_check_node_port()
        && new.spec.health_check_node_port != old.spec.health_check_node_port
    {
        errors.push(FieldError::forbidden("spec.healthCheckNodePort", "field is immutable"));
    }
    // The name cannot have changed, and an old name stays valid whatever the rules say now.
    errors.extend(meta::object_meta(&new.metadata, true, |_| Vec::new()));
    body(&mut errors, new, Some(old));
    errors
}

/// A changed status.
pub fn status_update(new: &Service, old: &Service) -> FieldErrors {
    let mut errors = meta::object_meta_update(&new.metadata, &old.metadata);
    let ingress = &new.status.load_balancer.ingress;
    if !new.spec.is_load_balancer() && !ingress.is_empty() {
        errors.push(FieldError::forbidden(
            "status.loadBalancer.ingress",
            "may only be used when `spec.type` is 'LoadBalancer'",
        ));
        return errors;
    }
    let known: Vec<String> = old.status.load_balancer.ingress.iter().map(|i| i.ip.clone()).collect();
    for (i, entry) in ingress.iter().enumerate() {
        ingress_entry(&mut errors, &format!("status.loadBalancer.ingress[{i}]"), entry, &known);
    }
    errors
}

fn ingress_entry(errors: &mut FieldErrors, path: &str, entry: &LoadBalancerIngress, known: &[String]) {
    if !entry.ip.is_empty() {
        legacy_ip(errors, &format!("{path}.ip"), &entry.ip, known);
    }
    let mode = format!("{path}.ipMode");
    match &entry.ip_mode {
        None if !entry.ip.is_empty() => {
            errors.push(FieldError::required(mode, "must be specified when `ip` is set"));
        }
        Some(_) if entry.ip.is_empty() => {
            errors.push(FieldError::forbidden(mode, "may not be specified when `ip` is not set"));
        }
        Some(value) if !["Proxy", "VIP"].contains(&value.as_str()) => {
            errors.push(FieldError::not_supported(mode, value, &["Proxy", "VIP"]));
        }
        _ => {}
    }
    if !entry.hostname.is_empty() {
        let path = format!("{path}.hostname");
        invalid_each(errors, &path, &entry.hostname, name::dns1123_subdomain(&entry.hostname));
        if parse_sloppy(&entry.hostname).is_some() {
            let detail = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(path, entry.hostname.as_str(), detail));
        }
    }
}

fn cluster_ips_update(errors: &mut FieldErrors, new: &ServiceSpec, old: &ServiceSpec) {
    if new.is_external_name() || old.is_external_name() || (new.is_headless() && old.is_headless()) {
        return;
    }
    let (is, was) = (&new.cluster_ips, &old.cluster_ips);
    let frozen =
        |i: usize| FieldError::invalid(format!("spec.clusterIPs[{i}]"), json!(is), "may not change once set");
    if is.len() == was.len() {
        errors.extend((0..is.len()).filter(|i| is[*i] != was[*i]).map(frozen));
        return;
    }
    match (is.first(), was.first()) {
        (None, _) => {
            let detail = "primary clusterIP can not be unset";
            errors.push(FieldError::invalid("spec.clusterIPs[0]", json!(is), detail));
        }
        (Some(a), Some(b)) if a != b => errors.push(frozen(0)),
        _ => {}
    }
    if is.len() == 1 && was.len() > 1 && new.ip_family_policy.as_deref() != Some("SingleStack") {
        let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", json!(new.ip_family_policy), detail));
    }
}

fn families_update(errors: &mut FieldErrors, new: &ServiceSpec, old: &ServiceSpec) {
    if new.is_external_name() || old.is_external_name() || new.is_headless() || old.is_headless() {
        return;
    }
    let (is, was) = (&new.ip_families, &old.ip_families);
    let invalid = |value, detail: &str| FieldError::invalid("spec.ipFamilies[0]", value, detail);
    let frozen = "may not change once set";
    if is.len() == was.len() {
        errors.extend(is.iter().zip(was).filter(|(a, b)| a != b).map(|_| invalid(json!(is), frozen)));
        return;
    }
    // Where the lists differ in length, Kubernetes looks at and shows the addresses.
    if is.len() < was.len() && new.cluster_ips.is_empty() {
        errors.push(invalid(json!(is), "primary ipFamily can not be unset"));
    }
    if let (Some(a), Some(b)) = (is.first(), was.first())
        && a != b
    {
        errors.push(invalid(json!(new.cluster_ips), frozen));
    }
    if is.len() == 1 && was.len() > 1 && new.ip_family_policy.as_deref() != Some("SingleStack") {
        let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", json!(new.ip_family_policy), detail));
    }
}
