//! What Kubernetes fills in when it reads a Service.

use serde_json::{Map, Value, json};

const AFFINITY_TIMEOUT_SECONDS: i32 = 10_800;

/// Fills in the defaults. Doing it twice changes nothing.
pub fn apply(object: &mut Value) {
    let Some(object) = object.as_object_mut() else { return };
    let spec = object.entry("spec").or_insert_with(|| json!({}));
    if let Some(spec) = spec.as_object_mut() {
        affinity(spec);
        set(spec, "type", "ClusterIP");
        ports(spec);
        policies(spec);
    }
    let balanced = object["spec"]["type"] == "LoadBalancer";
    let status = object.entry("status").or_insert_with(|| json!({}));
    if let Some(status) = status.as_object_mut() {
        let balancer = status.entry("loadBalancer").or_insert_with(|| json!({}));
        if balanced {
            ip_modes(balancer);
        }
    }
}

fn text<'a>(map: &'a Map<String, Value>, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// Sets a string that is absent or empty.
fn set(map: &mut Map<String, Value>, name: &str, value: &str) {
    if text(map, name).is_empty() {
        map.insert(name.to_owned(), value.into());
    }
}

fn affinity(spec: &mut Map<String, Value>) {
    set(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => {
            spec.remove("sessionAffinityConfig");
        }
        "ClientIP" => {
            let config = spec.entry("sessionAffinityConfig").or_insert_with(|| json!({}));
            if config["clientIP"]["timeoutSeconds"].is_null() {
                config["clientIP"]["timeoutSeconds"] = AFFINITY_TIMEOUT_SECONDS.into();
            }
        }
        _ => {}
    }
}

fn ports(spec: &mut Map<String, Value>) {
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    for port in ports.iter_mut().filter_map(Value::as_object_mut) {
        set(port, "protocol", "TCP");
        let target_is_unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(Value::String(name)) => name.is_empty(),
            Some(number) => number.as_i64() == Some(0),
        };
        if target_is_unset {
            let number = port.get("port").cloned().unwrap_or_else(|| 0.into());
            port.insert("targetPort".to_owned(), number);
        }
    }
}

fn policies(spec: &mut Map<String, Value>) {
    let kind = text(spec, "type").to_owned();
    let external_ips = spec.get("externalIPs").and_then(Value::as_array).is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips) {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer")
        && spec.get("internalTrafficPolicy").is_none_or(Value::is_null)
    {
        spec.insert("internalTrafficPolicy".to_owned(), "Cluster".into());
    }
    if kind == "LoadBalancer" && spec.get("allocateLoadBalancerNodePorts").is_none_or(Value::is_null) {
        spec.insert("allocateLoadBalancerNodePorts".to_owned(), true.into());
    }
}

fn ip_modes(balancer: &mut Value) {
    let Some(ingress) = balancer.get_mut("ingress").and_then(Value::as_array_mut) else { return };
    for entry in ingress.iter_mut().filter_map(Value::as_object_mut) {
        if !text(entry, "ip").is_empty() && entry.get("ipMode").is_none_or(Value::is_null) {
            entry.insert("ipMode".to_owned(), "VIP".into());
        }
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // Tables of json! values read better unborrowed.
mod tests {
    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut object = json!({ "spec": spec });
        apply(&mut object);
        let once = object.clone();
        apply(&mut object);
        assert_eq!(object, once, "defaulting twice changes something");
        object["spec"].take()
    }

    #[test]
    fn a_plain_service_gets_every_default() {
        assert_eq!(
            defaulted(json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]})),
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80},
                          {"port": 53, "protocol": "UDP", "targetPort": "dns"}],
            })
        );
    }

    #[test]
    fn external_types_get_an_external_policy() {
        assert_eq!(defaulted(json!({"type": "NodePort"}))["externalTrafficPolicy"], "Cluster");
        let balancer = defaulted(json!({"type": "LoadBalancer"}));
        assert_eq!(balancer["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["externalTrafficPolicy"], "Cluster");
        assert_eq!(defaulted(json!({"externalIPs": ["1.2.3.4"]}))["externalTrafficPolicy"], "Cluster");
        let name = defaulted(json!({"type": "ExternalName", "externalName": "a.b"}));
        assert!(name.get("internalTrafficPolicy").is_none());
        assert!(name.get("externalTrafficPolicy").is_none());
    }

    #[test]
    fn affinity_gets_its_timeout_or_loses_its_config() {
        let kept = defaulted(json!({"sessionAffinity": "ClientIP"}));
        assert_eq!(kept["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
        let own = json!({"clientIP": {"timeoutSeconds": 60}});
        let kept = defaulted(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": own}));
        assert_eq!(kept["sessionAffinityConfig"], own);
        let none = defaulted(json!({"sessionAffinityConfig": own}));
        assert!(none.get("sessionAffinityConfig").is_none());
    }

    #[test]
    fn a_balancers_address_gets_a_mode() {
        let mut object = json!({"spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "a.b"}]}}});
        apply(&mut object);
        assert_eq!(object["status"]["loadBalancer"]["ingress"][0]["ipMode"], "VIP");
        assert!(object["status"]["loadBalancer"]["ingress"][1].get("ipMode").is_none());
    }
}
