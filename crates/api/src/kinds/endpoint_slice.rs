//! Endpoint slices.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{child, created, differ, items_mut, read, set_default, set_generation, updated};
use crate::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::ip::{endpoint_ip, ip_warnings, legacy_ip, parse_sloppy, strict_ip};
use crate::validate::name::{dns1123_label, dns1123_subdomain, label_value, qualified};
use crate::validate::{invalid_each, protocol};

const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

#[derive(Debug)]
pub struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        // Kubernetes always writes both lists, and the conditions of every endpoint.
        set_default(object, "endpoints", json!([]));
        set_default(object, "ports", json!([]));
        for endpoint in items_mut(object, "endpoints") {
            set_default(endpoint, "conditions", json!({}));
        }
        for port in items_mut(object, "ports") {
            if port.get("name").is_none_or(Value::is_null) {
                port.insert("name".to_owned(), "".into());
            }
            set_default(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        drop_topology(object);
        set_generation(object, None, true);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        drop_topology(new);
        let changed = ["addressType", "endpoints", "ports"].iter().any(|f| differ(new, old, f))
            || differ(&new["metadata"], &old["metadata"], "labels");
        set_generation(new, Some(old), changed);
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        errors.extend(body(object, None));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        errors.extend(body(new, Some(old)));
        if differ(new, old, "addressType") {
            errors.push(FieldError::invalid("addressType", new["addressType"].clone(), "field is immutable"));
        }
        errors
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let Ok(slice) = read::<EndpointSlice>(new) else { return Vec::new() };
        if slice.address_type == "FQDN" {
            return vec!["spec.addressType: FQDN endpoints are deprecated".to_owned()];
        }
        let mut warnings = Vec::new();
        for (i, endpoint) in slice.endpoints.iter().enumerate() {
            for (j, address) in endpoint.addresses.iter().enumerate() {
                warnings.extend(ip_warnings(&format!("endpoints[{i}].addresses[{j}]"), address));
            }
        }
        warnings
    }
}

/// The topology of v1beta1 cannot be written through v1.
fn drop_topology(object: &mut Value) {
    if let Some(object) = object.as_object_mut() {
        items_mut(object, "endpoints").for_each(|endpoint| {
            endpoint.remove("deprecatedTopology");
        });
    }
    child(object, "metadata");
}

fn body(object: &Value, old: Option<&Value>) -> FieldErrors {
    let slice = match read::<EndpointSlice>(object) {
        Ok(slice) => slice,
        Err(errors) => return errors,
    };
    let mut errors = FieldErrors::new();
    if slice.address_type.is_empty() {
        errors.push(FieldError::required("addressType", ""));
    } else if !TYPES.contains(&slice.address_type.as_str()) {
        errors.push(FieldError::not_supported("addressType", &slice.address_type, TYPES));
    }
    if slice.endpoints.len() > ENDPOINTS_MAX {
        errors.push(FieldError::too_many("endpoints", slice.endpoints.len(), ENDPOINTS_MAX));
        return errors;
    }
    let known: Vec<String> = old
        .and_then(|o| read::<EndpointSlice>(o).ok())
        .map(|o| o.endpoints.into_iter().flat_map(|e| e.addresses).collect())
        .unwrap_or_default();
    for (i, item) in slice.endpoints.iter().enumerate() {
        endpoint(&mut errors, &format!("endpoints[{i}]"), item, &slice.address_type, &known);
    }
    ports(&mut errors, &slice.ports);
    errors
}

fn endpoint(errors: &mut FieldErrors, path: &str, endpoint: &Endpoint, kind: &str, known: &[String]) {
    let list = format!("{path}.addresses");
    if endpoint.addresses.is_empty() {
        errors.push(FieldError::required(list.clone(), "must contain at least 1 address"));
    } else if endpoint.addresses.len() > ADDRESSES_MAX {
        errors.push(FieldError::too_many(list.clone(), endpoint.addresses.len(), ADDRESSES_MAX));
    }
    for (i, text) in endpoint.addresses.iter().enumerate() {
        address(errors, &format!("{list}[{i}]"), text, kind, known);
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        invalid_each(errors, &format!("{path}.nodeName"), node, dns1123_subdomain(node));
    }
    if let Some(zone) = endpoint.zone.as_deref() {
        invalid_each(errors, &format!("{path}.zone"), zone, label_value(zone));
    }
    if let Some(host) = endpoint.hostname.as_deref() {
        invalid_each(errors, &format!("{path}.hostname"), host, dns1123_label(host));
    }
    if let Some(hints) = &endpoint.hints {
        check_hints(errors, &format!("{path}.hints"), hints);
    }
}

fn address(errors: &mut FieldErrors, path: &str, text: &str, kind: &str, known: &[String]) {
    let before = errors.len();
    match kind {
        "IPv4" => {
            legacy_ip(errors, path, text, known);
            if errors.len() == before && !parse_sloppy(text).is_some_and(|ip| ip.is_ipv4()) {
                errors.push(FieldError::invalid(path, text, "must be an IPv4 address"));
            }
        }
        "IPv6" => {
            if !known.iter().any(|k| k == text) {
                strict_ip(errors, path, text);
            }
            if errors.len() == before && !parse_sloppy(text).is_some_and(|ip| ip.is_ipv6()) {
                errors.push(FieldError::invalid(path, text, "must be an IPv6 address"));
            }
        }
        "FQDN" => return full_name(errors, path, text),
        _ => return,
    }
    if errors.len() == before {
        endpoint_ip(errors, path, text);
    }
}

/// A name of two parts at least; one dot may end it.
fn full_name(errors: &mut FieldErrors, path: &str, text: &str) {
    if text.is_empty() {
        return errors.push(FieldError::required(path, ""));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels = || name.split('.').map(|label| (label, dns1123_label(label)));
    let whole = dns1123_subdomain(name);
    let (part, wrong) = if !whole.is_empty() {
        (name, whole.join(","))
    } else if !name.contains('.') {
        (name, "should be a domain with at least two segments separated by dots".to_owned())
    } else if let Some((label, wrong)) = labels().find(|(_, wrong)| !wrong.is_empty()) {
        (label, wrong.join(","))
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, part, wrong));
}

fn check_hints(errors: &mut FieldErrors, path: &str, hints: &EndpointHints) {
    let zones: Vec<&str> = hints.for_zones.iter().map(|z| z.name.as_str()).collect();
    let nodes: Vec<&str> = hints.for_nodes.iter().map(|n| n.name.as_str()).collect();
    for (list, names) in [("forZones", zones), ("forNodes", nodes)] {
        let path = format!("{path}.{list}");
        if names.len() > HINTS_MAX {
            errors.push(FieldError::too_many(path, names.len(), HINTS_MAX));
            continue;
        }
        let mut seen = HashSet::new();
        for (i, name) in names.into_iter().enumerate() {
            let path = format!("{path}[{i}].name");
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(path.clone(), name));
            }
            let wrong = if list == "forZones" { qualified(name) } else { dns1123_subdomain(name) };
            invalid_each(errors, &path, name, wrong);
        }
    }
}

fn ports(errors: &mut FieldErrors, ports: &[EndpointPort]) {
    if ports.len() > PORTS_MAX {
        errors.push(FieldError::too_many("ports", ports.len(), PORTS_MAX));
        return;
    }
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = format!("ports[{i}]");
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            invalid_each(errors, &format!("{path}.name"), name, dns1123_label(name));
        }
        if !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), name));
        }
        // Numbers are not looked at: Kubernetes leaves them to those who use them.
        protocol(errors, format!("{path}.protocol"), port.protocol.as_deref().unwrap_or_default());
        if let Some(app) = &port.app_protocol {
            invalid_each(errors, &format!("{path}.appProtocol"), app, qualified(app));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;

    fn slice(kind: &str, endpoint: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "a", "namespace": "d"}, "addressType": kind,
            "endpoints": [endpoint], "ports": [{"port": 80}]});
        EndpointSliceStrategy.default(&mut object);
        object
    }

    #[test]
    fn slices_are_refused_in_kubernetes_words() {
        let refused = |kind, endpoint| texts(&EndpointSliceStrategy.validate_create(&slice(kind, &endpoint)));
        assert!(refused("IPv4", json!({"addresses": ["10.0.0.1"]})).is_empty());
        assert_eq!(
            refused("IPv4", json!({})),
            ["endpoints[0].addresses: Required value: must contain at least 1 address"]
        );
        assert_eq!(
            refused("IPv4", json!({"addresses": ["fd00::1"]})),
            ["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be an IPv4 address"]
        );
        assert_eq!(
            refused("IPv6", json!({"addresses": ["10.0.0.1"]})),
            ["endpoints[0].addresses[0]: Invalid value: \"10.0.0.1\": must be an IPv6 address"]
        );
        assert_eq!(
            refused("IPv5", json!({"addresses": ["10.0.0.1"]}))[0],
            "addressType: Unsupported value: \"IPv5\": supported values: \"FQDN\", \"IPv4\", \"IPv6\" (did you mean \
             \"IPv4\"?)"
        );
    }

    #[test]
    fn generation_counts_changes_of_content_and_labels() {
        let mut first = slice("IPv4", &json!({"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}));
        EndpointSliceStrategy.prepare_create(&mut first);
        assert_eq!(first["metadata"]["generation"], 1);
        assert!(first["endpoints"][0].get("deprecatedTopology").is_none());
        let step = |mut new: Value| {
            EndpointSliceStrategy.prepare_update(&mut new, &first);
            new["metadata"]["generation"].as_i64().unwrap()
        };
        let mut same = first.clone();
        same["metadata"]["annotations"] = json!({"a": "b"});
        same["metadata"]["generation"] = json!(9);
        assert_eq!(step(same), 1);
        let mut labelled = first.clone();
        labelled["metadata"]["labels"] = json!({"a": "b"});
        assert_eq!(step(labelled), 2);
        let mut moved = first.clone();
        moved["endpoints"][0]["addresses"] = json!(["10.0.0.2"]);
        assert_eq!(step(moved), 2);
    }
}
