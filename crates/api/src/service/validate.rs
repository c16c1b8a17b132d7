//! Validation of Services, in Kubernetes' words and order. What may change afterwards is in `validate_update`.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{CLUSTER_IP_NONE, ServiceSpec};
use crate::IntOrString;
use crate::core::v1::{Service, ServicePort, SessionAffinityConfig};
use crate::field::{FieldError, FieldErrors};
use crate::service::families::Family;
use crate::validate::ip::{endpoint_ip, legacy_cidr, legacy_ip};
use crate::validate::{invalid_each, meta, name, port as check_port, protocol};

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
pub(super) const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
const AFFINITY_TIMEOUT_SECONDS_MAX: i32 = 86_400;

const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const ONLY_LOAD_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";

/// A new Service, after defaulting and allocation.
pub fn create(service: &Service) -> FieldErrors {
    let mut errors = meta::object_meta(&service.metadata, true, name::dns1123_label);
    body(&mut errors, service, None);
    errors
}

/// Everything but the metadata; `stored` is the Service as it was, whose odd values stay valid.
pub(super) fn body(errors: &mut FieldErrors, service: &Service, stored: Option<&Service>) {
    let spec = &service.spec;
    let old = stored.map(|service| &service.spec);
    topology_annotations(errors, service);
    if spec.ports.is_empty() && !spec.is_headless() && !spec.is_external_name() {
        errors.push(FieldError::required("spec.ports", ""));
    }
    by_type(errors, spec);
    ports(errors, spec);
    meta::labels(errors, "spec.selector", &spec.selector);
    affinity(errors, spec);
    errors.extend(cluster_ips_and_families(spec, old));
    external_ips(errors, spec, old);
    if spec.type_.is_empty() {
        errors.push(FieldError::required("spec.type", ""));
    } else if !TYPES.contains(&spec.type_.as_str()) {
        errors.push(FieldError::not_supported("spec.type", &spec.type_, TYPES));
    }
    node_ports(errors, spec);
    duplicate_ports(errors, spec);
    source_ranges(errors, service, stored);
    load_balancer(errors, spec);
    traffic_policies(errors, spec);
}

fn topology_annotations(errors: &mut FieldErrors, service: &Service) {
    let annotations = &service.metadata.annotations;
    if let (Some(hints), Some(mode)) = (annotations.get(HINTS), annotations.get(MODE))
        && hints != mode
    {
        errors.push(FieldError::invalid(
            format!("metadata.annotations[{MODE}]"),
            mode.as_str(),
            format!("must match annotations[{HINTS}] when both are specified"),
        ));
    }
}

fn by_type(errors: &mut FieldErrors, spec: &ServiceSpec) {
    match spec.type_.as_str() {
        "LoadBalancer" | "NodePort" if spec.is_headless() => {
            let detail = format!("may not be set to 'None' for {} services", spec.type_);
            errors.push(FieldError::invalid("spec.clusterIPs[0]", CLUSTER_IP_NONE, detail));
        }
        "ExternalName" => external_name(errors, spec),
        _ => {}
    }
}

fn external_name(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let mut forbid = |set: bool, path: &str| {
        if set {
            errors.push(FieldError::forbidden(path, "may not be set for ExternalName services"));
        }
    };
    forbid(!spec.cluster_ips.is_empty(), "spec.clusterIPs");
    forbid(!spec.ip_families.is_empty(), "spec.ipFamilies");
    forbid(spec.ip_family_policy.is_some(), "spec.ipFamilyPolicy");
    let target = spec.external_name.strip_suffix('.').unwrap_or(&spec.external_name);
    if target.is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    } else {
        invalid_each(errors, "spec.externalName", target, name::dns1123_subdomain(target));
    }
}

fn ports(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let mut names: HashSet<&str> = HashSet::new();
    for (i, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        if port.name.is_empty() {
            if spec.ports.len() > 1 {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            }
        } else {
            let path = format!("{path}.name");
            invalid_each(errors, &path, &port.name, name::dns1123_label(&port.name));
            if !names.insert(&port.name) {
                errors.push(FieldError::duplicate(path, port.name.as_str()));
            }
        }
        check_port(errors, format!("{path}.port"), port.port);
        protocol(errors, format!("{path}.protocol"), &port.protocol);
        target_port(errors, &format!("{path}.targetPort"), port);
        if let Some(app) = &port.app_protocol {
            invalid_each(errors, &format!("{path}.appProtocol"), app, name::qualified(app));
        }
    }
}

fn target_port(errors: &mut FieldErrors, path: &str, port: &ServicePort) {
    match &port.target_port {
        Some(IntOrString::String(text)) => invalid_each(errors, path, text, name::port_name(text)),
        Some(IntOrString::Int(number)) => check_port(errors, path, *number),
        None => check_port(errors, path, 0),
    }
}

fn affinity(errors: &mut FieldErrors, spec: &ServiceSpec) {
    match spec.session_affinity.as_str() {
        "" => errors.push(FieldError::required("spec.sessionAffinity", "")),
        "ClientIP" => affinity_config(errors, spec.session_affinity_config.as_ref()),
        "None" => {
            if spec.session_affinity_config.is_some() {
                let detail = "must not be set when session affinity is None";
                errors.push(FieldError::forbidden("spec.sessionAffinityConfig", detail));
            }
        }
        other => errors.push(FieldError::not_supported("spec.sessionAffinity", other, AFFINITIES)),
    }
}

fn affinity_config(errors: &mut FieldErrors, config: Option<&SessionAffinityConfig>) {
    let path = "spec.sessionAffinityConfig";
    let mut required = |path: String| {
        errors.push(FieldError::required(path, "when session affinity type is ClientIP"));
    };
    let Some(config) = config else { return required(path.to_owned()) };
    let Some(client) = &config.client_ip else { return required(format!("{path}.clientIP")) };
    let path = format!("{path}.clientIP.timeoutSeconds");
    let Some(seconds) = client.timeout_seconds else { return required(path) };
    if !(1..=AFFINITY_TIMEOUT_SECONDS_MAX).contains(&seconds) {
        let detail = format!("must be greater than 0 and less than {AFFINITY_TIMEOUT_SECONDS_MAX}");
        errors.push(FieldError::invalid(path, seconds, detail));
    }
}

/// What `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` mean to each other. The allocator checks this too,
/// before it allocates.
pub fn cluster_ips_and_families(spec: &ServiceSpec, old: Option<&ServiceSpec>) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if spec.is_external_name() {
        return errors;
    }
    let path = "spec.clusterIPs";
    let ips = &spec.cluster_ips;
    let whole = || -> Value { json!(ips) };
    match (spec.cluster_ip.is_empty(), ips.first()) {
        (false, None) => errors.push(FieldError::required(path, "")),
        (false, Some(first)) if *first != spec.cluster_ip => {
            errors.push(FieldError::invalid(path, whole(), "first value must match `clusterIP`"));
        }
        (true, Some(_)) => {
            errors.push(FieldError::invalid(
                path,
                whole(),
                "must be empty when `clusterIP` is not specified",
            ));
        }
        _ => {}
    }
    family_names(&mut errors, spec);
    if !ips_are_valid(&mut errors, spec, old) {
        return errors;
    }
    let families: Vec<Option<Family>> = ips.iter().map(|ip| Family::of_text(ip)).collect();
    if ips.len() > 1 && families.iter().collect::<HashSet<_>>().len() < 2 {
        errors.push(FieldError::invalid(path, whole(), "may specify no more than one IP for each IP family"));
    }
    if !spec.is_headless() {
        for (i, (ip, wanted)) in ips.iter().zip(&spec.ip_families).enumerate() {
            if let (Some(found), Some(wanted)) = (families[i], Family::parse(wanted))
                && found != wanted
            {
                let detail = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
                errors.push(FieldError::invalid(format!("{path}[{i}]"), ip.as_str(), detail));
            }
        }
    }
    errors
}

fn family_names(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (i, family) in spec.ip_families.iter().enumerate() {
        let path = format!("spec.ipFamilies[{i}]");
        if !FAMILIES.contains(&family.as_str()) {
            errors.push(FieldError::not_supported(path.clone(), family, FAMILIES));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(path, family.as_str()));
        }
    }
    if let Some(policy) = &spec.ip_family_policy
        && !FAMILY_POLICIES.contains(&policy.as_str())
    {
        errors.push(FieldError::not_supported("spec.ipFamilyPolicy", policy, FAMILY_POLICIES));
    }
}

/// Each address by itself. A bad one would only confuse the checks that follow.
fn ips_are_valid(errors: &mut FieldErrors, spec: &ServiceSpec, old: Option<&ServiceSpec>) -> bool {
    let path = "spec.clusterIPs";
    let ips = &spec.cluster_ips;
    let known = old.map(|o| o.cluster_ips.as_slice()).unwrap_or_default();
    let mut valid = true;
    for (i, ip) in ips.iter().enumerate() {
        if i == 0 && ip == CLUSTER_IP_NONE {
            if ips.len() > 1 {
                valid = false;
                errors.push(FieldError::invalid(path, json!(ips), "'None' must be the first and only value"));
            }
            continue;
        }
        let before = errors.len();
        legacy_ip(errors, &format!("{path}[{i}]"), ip, known);
        valid &= errors.len() == before;
    }
    if ips.len() > 2 {
        errors.push(FieldError::invalid(path, json!(ips), "may only hold up to 2 values"));
    }
    valid
}

fn external_ips(errors: &mut FieldErrors, spec: &ServiceSpec, old: Option<&ServiceSpec>) {
    let known = old.map(|o| o.external_ips.as_slice()).unwrap_or_default();
    for (i, ip) in spec.external_ips.iter().enumerate() {
        let path = format!("spec.externalIPs[{i}]");
        let before = errors.len();
        legacy_ip(errors, &path, ip, known);
        if errors.len() == before {
            endpoint_ip(errors, &path, ip);
        }
    }
}

fn node_ports(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let given = || spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0);
    let path = |i: usize| format!("spec.ports[{i}].nodePort");
    if spec.type_ == "ClusterIP" {
        let detail = "may not be used when `type` is 'ClusterIP'";
        errors.extend(given().map(|(i, _)| FieldError::forbidden(path(i), detail)));
    }
    let mut seen: HashSet<(&str, i32)> = HashSet::new();
    for (i, port) in given() {
        if !seen.insert((&port.protocol, port.node_port)) {
            errors.push(FieldError::duplicate(path(i), port.node_port));
        }
    }
}

fn duplicate_ports(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let mut seen: HashSet<(&str, i32)> = HashSet::new();
    for (i, port) in spec.ports.iter().enumerate() {
        if seen.insert((&port.protocol, port.port)) {
            continue;
        }
        let mut error = FieldError::duplicate(format!("spec.ports[{i}]"), Value::Null);
        error.value = crate::field::raw_json(format!(
            "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
            json!(port.protocol),
            port.port
        ));
        errors.push(error);
    }
}

fn source_ranges(errors: &mut FieldErrors, service: &Service, stored: Option<&Service>) {
    let spec = &service.spec;
    if !spec.load_balancer_source_ranges.is_empty() {
        // The capital letter is Kubernetes' own.
        let path = "spec.LoadBalancerSourceRanges";
        if !spec.is_load_balancer() {
            errors.push(FieldError::forbidden(path, ONLY_LOAD_BALANCER));
        }
        let known = stored.map(|old| old.spec.load_balancer_source_ranges.as_slice()).unwrap_or_default();
        let known: Vec<String> = known.iter().map(|range| range.trim().to_owned()).collect();
        for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
            legacy_cidr(errors, &format!("{path}[{i}]"), range.trim(), &known);
        }
        return;
    }
    let Some(ranges) = service.metadata.annotations.get(SOURCE_RANGES) else { return };
    let path = format!("metadata.annotations[{SOURCE_RANGES}]");
    if !spec.is_load_balancer() {
        errors.push(FieldError::forbidden(path.clone(), ONLY_LOAD_BALANCER));
    }
    if stored.and_then(|old| old.metadata.annotations.get(SOURCE_RANGES)) == Some(ranges) {
        return;
    }
    for range in ranges.split(',').map(str::trim).filter(|_| !ranges.trim().is_empty()) {
        legacy_cidr(errors, &path, range, &[]);
    }
}

fn load_balancer(errors: &mut FieldErrors, spec: &ServiceSpec) {
    match (spec.is_load_balancer(), spec.allocate_load_balancer_node_ports) {
        (false, Some(_)) => {
            errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", ONLY_LOAD_BALANCER));
        }
        (true, None) => errors.push(FieldError::required("allocateLoadBalancerNodePorts", "")),
        _ => {}
    }
    load_balancer_class(errors, spec);
}

/// An update says this twice, as Kubernetes does: when it looks at the change, and with everything else.
pub(super) fn load_balancer_class(errors: &mut FieldErrors, spec: &ServiceSpec) {
    match &spec.load_balancer_class {
        Some(class) if spec.is_load_balancer() => {
            invalid_each(errors, "spec.loadBalancerClass", class, name::qualified(class));
        }
        Some(_) => errors.push(FieldError::forbidden("spec.loadBalancerClass", ONLY_LOAD_BALANCER)),
        None => {}
    }
}

fn traffic_policies(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let policy = spec.external_traffic_policy.as_str();
    let path = "spec.externalTrafficPolicy";
    match (spec.is_externally_accessible(), policy) {
        (false, "") => {}
        (false, _) => {
            let detail = "may only be set for externally-accessible services";
            errors.push(FieldError::invalid(path, policy, detail));
        }
        (true, "") => errors.push(FieldError::required(path, "")),
        (true, _) if !TRAFFIC_POLICIES.contains(&policy) => {
            errors.push(FieldError::not_supported(path, policy, TRAFFIC_POLICIES));
        }
        (true, _) => {}
    }
    health_check_node_port(errors, spec);
    match &spec.internal_traffic_policy {
        None if spec.needs_cluster_ip() => {
            errors.push(FieldError::required("spec.internalTrafficPolicy", ""));
        }
        Some(policy) if !TRAFFIC_POLICIES.contains(&policy.as_str()) => {
            errors.push(FieldError::not_supported("spec.internalTrafficPolicy", policy, TRAFFIC_POLICIES));
        }
        _ => {}
    }
    if let Some(distribution) = &spec.traffic_distribution
        && !DISTRIBUTIONS.contains(&distribution.as_str())
    {
        errors.push(FieldError::not_supported("spec.trafficDistribution", distribution, DISTRIBUTIONS));
    }
}

fn health_check_node_port(errors: &mut FieldErrors, spec: &ServiceSpec) {
    let path = "spec.healthCheckNodePort";
    let number = spec.health_check_node_port;
    match (spec.needs_health_check_node_port(), number) {
        (true, 0) => errors.push(FieldError::required(path, "")),
        (true, _) => check_port(errors, path, number),
        (false, 0) => {}
        (false, _) => errors.push(FieldError::invalid(
            path,
            number,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        )),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
