//! Endpoints.

use serde_json::Value;

use super::{created, items_mut, read, set_default, updated};
use crate::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::ip::{endpoint_ip, ip_warnings, legacy_ip};
use crate::validate::name::{dns1123_label, dns1123_subdomain, qualified};
use crate::validate::{invalid_each, port as check_port, protocol};

#[derive(Debug)]
pub struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else { return };
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        errors.extend(subsets(object, None));
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        errors.extend(subsets(new, Some(old)));
        errors
    }

    fn warnings(&self, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let Ok(endpoints) = read::<Endpoints>(new) else { return Vec::new() };
        let mut warnings = Vec::new();
        for (i, subset) in endpoints.subsets.iter().enumerate() {
            for (list, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                for (j, address) in addresses.iter().enumerate() {
                    warnings.extend(ip_warnings(&format!("subsets[{i}].{list}[{j}].ip"), &address.ip));
                }
            }
        }
        warnings
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }
}

fn subsets(object: &Value, old: Option<&Value>) -> FieldErrors {
    let endpoints = match read::<Endpoints>(object) {
        Ok(endpoints) => endpoints,
        Err(errors) => return errors,
    };
    let known = old.and_then(|o| read::<Endpoints>(o).ok()).map(|o| all_addresses(&o)).unwrap_or_default();
    let mut errors = FieldErrors::new();
    for (i, subset) in endpoints.subsets.iter().enumerate() {
        let path = format!("subsets[{i}]");
        if subset.addresses.is_empty() && subset.not_ready_addresses.is_empty() {
            let detail = "must specify `addresses` or `notReadyAddresses`";
            errors.push(FieldError::required(path.clone(), detail));
        }
        for (j, entry) in subset.addresses.iter().enumerate() {
            address(&mut errors, &format!("{path}.addresses[{j}]"), entry, &known);
        }
        for (j, entry) in subset.not_ready_addresses.iter().enumerate() {
            address(&mut errors, &format!("{path}.notReadyAddresses[{j}]"), entry, &known);
        }
        for (j, entry) in subset.ports.iter().enumerate() {
            port(&mut errors, &format!("{path}.ports[{j}]"), entry, subset.ports.len() > 1);
        }
    }
    errors
}

fn all_addresses(endpoints: &Endpoints) -> Vec<String> {
    let subsets = endpoints.subsets.iter();
    subsets.flat_map(|s| s.addresses.iter().chain(&s.not_ready_addresses)).map(|a| a.ip.clone()).collect()
}

fn address(errors: &mut FieldErrors, path: &str, address: &EndpointAddress, known: &[String]) {
    let ip = format!("{path}.ip");
    let before = errors.len();
    legacy_ip(errors, &ip, &address.ip, known);
    if errors.len() == before {
        endpoint_ip(errors, &ip, &address.ip);
    }
    if !address.hostname.is_empty() {
        invalid_each(
            errors,
            &format!("{path}.hostname"),
            &address.hostname,
            dns1123_label(&address.hostname),
        );
    }
    if let Some(node) = address.node_name.as_deref() {
        invalid_each(errors, &format!("{path}.nodeName"), node, dns1123_subdomain(node));
    }
}

fn port(errors: &mut FieldErrors, path: &str, port: &EndpointPort, name_required: bool) {
    if port.name.is_empty() {
        if name_required {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
    } else {
        invalid_each(errors, &format!("{path}.name"), &port.name, dns1123_label(&port.name));
    }
    check_port(errors, format!("{path}.port"), port.port);
    protocol(errors, format!("{path}.protocol"), &port.protocol);
    if let Some(app) = &port.app_protocol {
        invalid_each(errors, &format!("{path}.appProtocol"), app, qualified(app));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;
    use serde_json::json;

    fn refused(subset: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "a", "namespace": "d"}, "subsets": [subset]});
        EndpointsStrategy.default(&mut object);
        texts(&EndpointsStrategy.validate_create(&object))
    }

    #[test]
    fn subsets_are_refused_in_kubernetes_words() {
        assert!(refused(&json!({"addresses": [{"ip": "10.0.0.206"}], "ports": [{"port": 3306}]})).is_empty());
        assert_eq!(
            refused(&json!({"ports": [{"port": 1}]})),
            ["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]
        );
        assert_eq!(
            refused(&json!({"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 1}, {"port": 2}]})),
            [
                "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range \
             (127.0.0.0/8, ::1/128)",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].name: Required value",
            ]
        );
    }
}
