use super::*;
use portolan_api::core::v1::{Node, Pod, Service};
use proptest::prelude::*;
use serde_json::json;

fn service(current: Value, patch: Value) -> Result<Value, PatchError> {
    apply(Service::schema(), &current, patch.to_string().as_bytes())
}

fn pod(current: Value, patch: Value) -> Result<Value, PatchError> {
    apply(Pod::schema(), &current, patch.to_string().as_bytes())
}

#[test]
fn objects_merge_and_null_deletes() {
    let current = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"type": "ClusterIP"}});
    let patch =
        json!({"metadata": {"labels": {"a": null, "c": "3"}}, "spec": {"sessionAffinity": "ClientIP"}});
    assert_eq!(
        service(current, patch).unwrap(),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": {"type": "ClusterIP", "sessionAffinity": "ClientIP"}})
    );
}

#[test]
fn a_null_for_what_is_absent_leaves_no_trace() {
    assert_eq!(
        service(json!({}), json!({"spec": {"clusterIP": null, "selector": {"a": null}}})).unwrap(),
        json!({"spec": {"selector": {}}})
    );
}

#[test]
fn ports_merge_by_port_and_new_ones_come_first() {
    let current = json!({"spec": {"ports": [{"port": 80, "name": "http", "nodePort": 30080}, {"port": 443, "name": "https"}]}});
    let patch = json!({"spec": {"ports": [{"port": 443, "targetPort": 8443}, {"port": 53, "name": "dns"}]}});
    assert_eq!(
        service(current, patch).unwrap(),
        json!({"spec": {"ports": [
            {"port": 80, "name": "http", "nodePort": 30080},
            {"port": 443, "name": "https", "targetPort": 8443},
            {"port": 53, "name": "dns"},
        ]}})
    );
    let current = json!({"spec": {"ports": [{"port": 80}, {"port": 443}]}});
    let patch = json!({"spec": {"ports": [{"port": 53}]}});
    assert_eq!(
        service(current, patch).unwrap(),
        json!({"spec": {"ports": [{"port": 53}, {"port": 80}, {"port": 443}]}})
    );
}

#[test]
fn a_list_without_merge_key_is_replaced() {
    let current = json!({"spec": {"externalIPs": ["192.0.2.1"]}});
    let patch = json!({"spec": {"externalIPs": ["192.0.2.2"]}});
    assert_eq!(service(current, patch.clone()).unwrap(), patch);
}

#[test]
fn elements_are_deleted_and_lists_replaced_by_directive() {
    let current = json!({"spec": {"ports": [{"port": 80}, {"port": 443}]}});
    let delete = json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}]}});
    assert_eq!(service(current.clone(), delete).unwrap(), json!({"spec": {"ports": [{"port": 443}]}}));
    let replace = json!({"spec": {"ports": [{"port": 53}, {"$patch": "replace"}]}});
    assert_eq!(service(current.clone(), replace).unwrap(), json!({"spec": {"ports": [{"port": 53}]}}));
    let replace = json!({"spec": {"$patch": "replace", "type": "ExternalName"}});
    assert_eq!(service(current.clone(), replace).unwrap(), json!({"spec": {"type": "ExternalName"}}));
    let delete = json!({"spec": {"$patch": "delete"}});
    assert_eq!(service(current.clone(), delete).unwrap(), json!({"spec": {}}));
    let unknown = service(current, json!({"spec": {"$patch": "frob"}})).unwrap_err();
    assert_eq!(unknown.code(), 500);
    assert!(unknown.to_string().starts_with("unknown patch type"), "{unknown}");
}

#[test]
fn directives_never_reach_the_object() {
    let patched =
        service(json!({}), json!({"spec": {"ports": [{"port": 80, "$patch": "delete"}, {"port": 81}]}}))
            .unwrap();
    assert_eq!(patched, json!({"spec": {"ports": [{"port": 81}]}}));
    let patched = pod(json!({}), json!({"spec": {"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "$setElementOrder/env": [{"name": "x"}]}]}})).unwrap();
    assert_eq!(patched, json!({"spec": {"containers": [{"name": "a"}]}}));
}

#[test]
fn finalizers_are_a_set() {
    let current = json!({"metadata": {"finalizers": ["a", "b"]}});
    let add = json!({"metadata": {"finalizers": ["c", "a"]}});
    assert_eq!(service(current.clone(), add).unwrap(), json!({"metadata": {"finalizers": ["c", "a", "b"]}}));
    let remove = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}});
    assert_eq!(service(current.clone(), remove).unwrap(), json!({"metadata": {"finalizers": ["b"]}}));
    let both = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"], "finalizers": ["c"]}});
    assert_eq!(service(current, both).unwrap(), json!({"metadata": {"finalizers": ["c", "b"]}}));
}

/// What `kubectl apply` sends when the manifest changes a target port, drops one port and adds another, while the
/// server has defaulted fields of its own.
#[test]
fn the_patch_of_kubectl_apply() {
    let current = json!({
        "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "old"}},
        "spec": {"clusterIP": "10.0.0.7", "type": "NodePort", "ports": [
            {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080},
            {"name": "admin", "port": 81, "protocol": "TCP", "targetPort": 81, "nodePort": 30081},
        ]}
    });
    let patch = json!({
        "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
        "spec": {
            "$setElementOrder/ports": [{"port": 443}, {"port": 80}],
            "ports": [
                {"name": "https", "port": 443, "targetPort": 8443},
                {"port": 80, "targetPort": 9090},
                {"$patch": "delete", "port": 81},
            ]
        }
    });
    assert_eq!(
        service(current, patch).unwrap(),
        json!({
            "metadata": {"name": "web", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "new"}},
            "spec": {"clusterIP": "10.0.0.7", "type": "NodePort", "ports": [
                {"name": "https", "port": 443, "targetPort": 8443},
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9090, "nodePort": 30080},
            ]}
        })
    );
}

#[test]
fn server_only_elements_keep_their_place_under_an_order() {
    let env = |names: &[&str]| json!({"spec": {"containers": [{"name": "c", "env": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}]}});
    let order = |names: &[&str]| json!({"spec": {"containers": [{"name": "c", "$setElementOrder/env": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()}]}});
    assert_eq!(pod(env(&["a", "s", "b"]), order(&["a", "b"])).unwrap(), env(&["a", "s", "b"]));
    assert_eq!(pod(env(&["a", "s", "b"]), order(&["b", "a"])).unwrap(), env(&["s", "b", "a"]));
}

#[test]
fn an_order_that_contradicts_the_patch_is_refused() {
    let patch = json!({"spec": {"$setElementOrder/ports": [{"port": 80}], "ports": [{"port": 81}]}});
    assert!(service(json!({"spec": {"ports": [{"port": 80}]}}), patch).is_err());
    let patch = json!({"spec": {"$setElementOrder/ports": {"port": 80}}});
    assert_eq!(service(json!({}), patch).unwrap_err().code(), 400);
    let patch = json!({"spec": {"ports": [{"name": "x"}]}});
    let error = service(json!({"spec": {"ports": [{"port": 80}]}}), patch).unwrap_err();
    assert!(error.to_string().contains("does not contain declared merge key: port"), "{error}");
}

#[test]
fn retain_keys_drops_the_others() {
    let current = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch = json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "m"}}]}});
    assert_eq!(
        pod(current.clone(), patch).unwrap(),
        json!({"spec": {"volumes": [{"name": "v", "configMap": {"name": "m"}}]}})
    );
    let patch =
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name"], "configMap": {"name": "m"}}]}});
    assert_eq!(pod(current, patch).unwrap_err().code(), 400);
}

#[test]
fn conditions_merge_by_type_as_the_node_agent_sends_them() {
    let current = json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "x"}, {"type": "Disk", "status": "True"}]}});
    let patch = json!({"status": {"$setElementOrder/conditions": [{"type": "Ready"}, {"type": "Disk"}], "conditions": [{"type": "Ready", "status": "True"}]}});
    let patched = apply(Node::schema(), &current, patch.to_string().as_bytes()).unwrap();
    assert_eq!(
        patched,
        json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "x"}, {"type": "Disk", "status": "True"}]}})
    );
}

fn ports() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::btree_map(1..8u16, "[ab]{1,2}", 0..6)
        .prop_map(|ports| {
            ports.into_iter().map(|(port, name)| json!({"port": port, "name": name})).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

fn with_ports(ports: &[Value]) -> Value {
    json!({"spec": {"ports": ports}})
}

proptest! {
    #[test]
    fn merging_twice_is_merging_once(live in ports(), patch in ports()) {
        let patch = with_ports(&patch);
        let once = service(with_ports(&live), patch.clone()).unwrap();
        let twice = service(once.clone(), patch).unwrap();
        let sorted = |value: &Value| {
            let mut ports = value["spec"]["ports"].as_array().cloned().unwrap_or_default();
            ports.sort_by_key(|port| port["port"].as_u64());
            ports
        };
        prop_assert_eq!(sorted(&once), sorted(&twice));
    }

    #[test]
    fn every_element_is_there_once_and_the_patch_wins(live in ports(), patch in ports()) {
        let merged = service(with_ports(&live), with_ports(&patch)).unwrap();
        let merged = merged["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let mut keys: Vec<_> = live.iter().chain(&patch).map(|port| port["port"].as_u64()).collect();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(merged.len(), keys.len());
        prop_assert!(patch.iter().all(|port| merged.contains(port)));
    }

    #[test]
    fn a_full_order_directive_decides_the_order(live in ports(), wanted in ports()) {
        let order: Vec<_> = wanted.iter().map(|port| json!({"port": port["port"]})).collect();
        let mut changes = wanted.clone();
        let gone = live.iter().filter(|port| !wanted.iter().any(|other| other["port"] == port["port"]));
        changes.extend(gone.map(|port| json!({"port": port["port"], "$patch": "delete"})));
        let patch = json!({"spec": {"$setElementOrder/ports": order, "ports": changes}});
        let merged = service(with_ports(&live), patch).unwrap();
        prop_assert_eq!(merged["spec"]["ports"].as_array().cloned().unwrap_or_default(), wanted);
    }
}
