//! The stored objects behind ClusterIPs: IPAddress and ServiceCIDR, built and read as JSON. Pure but for the clock and
//! the random uid of new objects.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use portolan_api::service::families::Family;
use serde_json::{Value, json};

use crate::metadata::uid;

pub(super) const ADDRESSES: &str = "/registry/ipaddresses/";
pub(super) const CIDRS: &str = "/registry/servicecidrs/";

pub(super) const LABEL_FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
pub(super) const LABEL_MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(super) const MANAGER: &str = "ipallocator.k8s.io";

/// The key that is the lock on an address.
pub(super) fn address_key(address: IpAddr) -> String {
    format!("{ADDRESSES}{address}")
}

/// The address a key locks.
pub(super) fn address_of_key(key: &str) -> Option<IpAddr> {
    key.strip_prefix(ADDRESSES)?.parse().ok()
}

/// The IPAddress of a Service.
pub(super) fn ip_address(address: IpAddr, namespace: &str, name: &str, now: Timestamp) -> Value {
    json!({
        "kind": "IPAddress",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "name": address.to_string(),
            "uid": uid(),
            "creationTimestamp": seconds(now),
            "labels": {
                LABEL_FAMILY: Family::of(address).as_str(),
                LABEL_MANAGED_BY: MANAGER,
            },
        },
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    })
}

/// The Service (namespace, name) that a stored IPAddress belongs to.
pub(super) fn parent_service(object: &Value) -> Option<(&str, &str)> {
    let parent = &object["spec"]["parentRef"];
    let core = parent["group"].as_str().unwrap_or_default().is_empty();
    if !core || parent["resource"] != "services" {
        return None;
    }
    Some((parent["namespace"].as_str()?, parent["name"].as_str()?))
}

/// Whether addresses of a stored ServiceCIDR may be given out: unless it is on its way out or not ready. One without a
/// Ready condition counts as ready.
pub(super) fn is_usable(object: &Value) -> bool {
    let deleting = object["metadata"]["deletionTimestamp"].is_string();
    !deleting && ready_condition(object).is_none_or(|ready| ready["status"] == "True")
}

pub(crate) fn ready_condition(service_cidr: &Value) -> Option<&Value> {
    let conditions = service_cidr["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == "Ready")
}

/// The ranges of a stored ServiceCIDR.
pub(super) fn cidrs(object: &Value) -> impl Iterator<Item = IpNet> + '_ {
    let texts = object["spec"]["cidrs"].as_array().into_iter().flatten();
    texts.filter_map(|cidr| cidr.as_str()?.parse().ok())
}

fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_its_service() {
        let object = ip_address("fd00::1".parse().unwrap(), "ns", "web", Timestamp::UNIX_EPOCH);
        assert_eq!(object["metadata"]["name"], "fd00::1");
        assert_eq!(object["metadata"]["labels"][LABEL_FAMILY], "IPv6");
        assert_eq!(object["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(parent_service(&object), Some(("ns", "web")));
        let mut other = object.clone();
        other["spec"]["parentRef"]["group"] = "example.org".into();
        assert_eq!(parent_service(&other), None);
    }

    #[test]
    fn ranges_are_used_while_they_are_ready() {
        let mut object = json!({"metadata": {}, "spec": {"cidrs": ["10.96.0.0/12"]}});
        assert!(is_usable(&object));
        object["status"] = json!({"conditions": [{"type": "Other", "status": "False"}]});
        assert!(is_usable(&object));
        for (status, usable) in [("True", true), ("False", false), ("Unknown", false)] {
            object["status"]["conditions"][0] = json!({"type": "Ready", "status": status});
            assert_eq!(is_usable(&object), usable, "{status}");
        }
        object["status"] = Value::Null;
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert!(!is_usable(&object));
    }
}
