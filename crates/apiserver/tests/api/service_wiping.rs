//! What a change of a Service's type takes away, and what it leaves alone because the user changed it as well.

use serde_json::{Value, json};

use crate::common::{SERVICES, Server, service_with};
use crate::service_validation::difference;

const PATH: &str = "/api/v1/namespaces/default/services/x";

fn node_port() -> Value {
    json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 32000 }] })
}

fn balancer() -> Value {
    json!({
        "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 32000 }], "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32001, "loadBalancerClass": "a/b", "allocateLoadBalancerNodePorts": true,
    })
}

fn name() -> Value {
    json!({ "type": "ExternalName", "externalName": "a.b" })
}

/// A value of the spec by its pointer; null if it is not there.
fn at<'a>(service: &'a Value, pointer: &str) -> &'a Value {
    service["spec"].pointer(pointer).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn what_the_new_type_has_not_goes() {
    let server = Server::start().await;
    let external = json!({ "externalIPs": ["198.51.100.7"] });
    // Of the spec before, the patch, and what is gone afterwards.
    let cases = [
        (node_port(), json!({ "type": "ClusterIP" }), vec!["/ports/0/nodePort", "/externalTrafficPolicy"]),
        (
            node_port(),
            name(),
            vec![
                "/ports/0/nodePort",
                "/externalTrafficPolicy",
                "/internalTrafficPolicy",
                "/clusterIP",
                "/clusterIPs",
                "/ipFamilies",
                "/ipFamilyPolicy",
            ],
        ),
        (
            balancer(),
            json!({ "type": "NodePort" }),
            vec!["/healthCheckNodePort", "/loadBalancerClass", "/allocateLoadBalancerNodePorts"],
        ),
        (
            balancer(),
            json!({ "type": "ClusterIP" }),
            vec![
                "/ports/0/nodePort",
                "/externalTrafficPolicy",
                "/healthCheckNodePort",
                "/loadBalancerClass",
                "/allocateLoadBalancerNodePorts",
            ],
        ),
        (balancer(), json!({ "externalTrafficPolicy": "Cluster" }), vec!["/healthCheckNodePort"]),
        (external, json!({ "externalIPs": null }), vec!["/externalTrafficPolicy"]),
        // Without node ports of its own accord, a balancer still may have them.
        (
            {
                let mut balancer = balancer();
                balancer["allocateLoadBalancerNodePorts"] = false.into();
                balancer
            },
            json!({ "type": "ClusterIP" }),
            vec!["/ports/0/nodePort"],
        ),
    ];
    for (spec, patch, gone) in cases {
        let before = server.post(SERVICES, &service_with("x", &spec)).await.ok();
        let after = server.patch(PATH, "merge", &json!({ "spec": patch })).await.ok();
        for pointer in gone {
            assert_ne!(at(&before, pointer), &Value::Null, "{spec}: {pointer} was never there");
            assert_eq!(at(&after, pointer), &Value::Null, "{spec} {patch}: {pointer}");
        }
        if after["spec"]["type"] == "NodePort" || after["spec"]["type"] == "LoadBalancer" {
            assert_eq!(at(&after, "/ports"), at(&before, "/ports"), "{patch}");
        }
        // What was taken away is free again.
        server.delete(PATH).await.ok();
    }
}

#[tokio::test]
async fn what_was_changed_as_well_stays_and_is_judged() {
    let server = Server::start().await;
    let only_balancer = "Forbidden: may only be used when `type` is 'LoadBalancer'";
    let no_name = "Forbidden: may not be set for ExternalName services";
    let with = |mut spec: Value, more: Value| {
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let class = format!("spec.loadBalancerClass: {only_balancer}");
    let cases = [
        (
            node_port(),
            json!({ "type": "ClusterIP", "ports": [{ "port": 80, "nodePort": 32007 }] }),
            vec!["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".to_owned()],
        ),
        (
            node_port(),
            json!({ "type": "ClusterIP", "externalTrafficPolicy": "Local" }),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"
                    .into(),
            ],
        ),
        (
            balancer(),
            json!({ "type": "NodePort", "healthCheckNodePort": 32009 }),
            vec![
                "spec.healthCheckNodePort: Invalid value: 32009: may only be set when `type` is 'LoadBalancer' and \
                 `externalTrafficPolicy` is 'Local'"
                    .into(),
            ],
        ),
        (
            balancer(),
            json!({ "type": "NodePort", "loadBalancerClass": "a/c" }),
            vec![class.clone(), class],
        ),
        (
            balancer(),
            json!({ "type": "NodePort", "allocateLoadBalancerNodePorts": false }),
            vec![format!("spec.allocateLoadBalancerNodePorts: {only_balancer}")],
        ),
        (
            balancer(),
            with(name(), json!({ "clusterIP": "10.96.0.77" })),
            vec![format!("spec.clusterIPs: {no_name}")],
        ),
        (
            balancer(),
            with(name(), json!({ "ipFamilies": ["IPv6"] })),
            vec![format!("spec.ipFamilies: {no_name}")],
        ),
        (
            balancer(),
            with(name(), json!({ "ipFamilyPolicy": "PreferDualStack" })),
            vec![format!("spec.ipFamilyPolicy: {no_name}")],
        ),
        // Not every field of a balancer is wiped.
        (
            with(balancer(), json!({ "loadBalancerSourceRanges": ["10.0.0.0/8"] })),
            json!({ "type": "NodePort" }),
            vec![format!("spec.LoadBalancerSourceRanges: {only_balancer}")],
        ),
    ];
    for (spec, patch, errors) in cases {
        let before = server.post(SERVICES, &service_with("x", &spec)).await.ok();
        let reply = server.patch(PATH, "merge", &json!({ "spec": patch })).await;
        assert_eq!(difference(&reply, &errors), None, "{spec} {patch}");
        assert_eq!(server.get(PATH).await.ok(), before, "a refused change changed something");
        server.delete(PATH).await.ok();
    }
}

#[tokio::test]
async fn selectors_names_and_external_addresses_are_never_wiped() {
    let server = Server::start().await;
    let mut spec = node_port();
    spec["externalIPs"] = json!(["198.51.100.7"]);
    server.post(SERVICES, &service_with("x", &spec)).await.ok();
    let named = server.patch(PATH, "merge", &json!({ "spec": name() })).await.ok();
    assert_eq!(named["spec"]["externalIPs"], json!(["198.51.100.7"]));
    assert_eq!(named["spec"]["selector"], json!({ "app": "x" }));
    let back = server.patch(PATH, "merge", &json!({ "spec": { "type": "ClusterIP" } })).await.ok();
    assert_eq!(back["spec"]["externalName"], "a.b");
    assert_eq!(back["spec"]["externalTrafficPolicy"], "Cluster");
}

#[tokio::test]
async fn numbers_are_kept_for_those_who_do_not_repeat_them() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service_with("x", &balancer())).await.ok();
    // A user's own manifest knows of no numbers.
    let manifest =
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "loadBalancerClass": "a/b" });
    let put = server.put(PATH, &service_with("x", &manifest)).await.ok();
    assert_eq!(put["spec"], made["spec"]);
    // A number that the user now gives to another port is not kept by the first.
    let two = json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]);
    let spec = json!({ "type": "NodePort", "ports": two });
    let made = server.post(SERVICES, &service_with("y", &spec)).await.ok();
    let number = |service: &Value, index: usize| service["spec"]["ports"][index]["nodePort"].clone();
    let moved =
        json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81, "nodePort": number(&made, 0) }]);
    let spec = json!({ "type": "NodePort", "ports": moved });
    let put = server.put(&format!("{SERVICES}/y"), &service_with("y", &spec)).await.ok();
    assert_eq!(number(&put, 1), number(&made, 0));
    assert!(![number(&made, 0), number(&made, 1), Value::Null].contains(&number(&put, 0)), "{put}");
    // Node ports that a balancer no longer asks for stay until they are taken away.
    let patch = json!({ "spec": { "allocateLoadBalancerNodePorts": false } });
    let kept = server.patch(PATH, "merge", &patch).await.ok();
    assert_eq!(number(&kept, 0), 32000);
    let ports = json!({ "spec": { "ports": [{ "port": 80, "nodePort": null }] } });
    let without = server.patch(PATH, "merge", &ports).await.ok();
    assert_eq!(number(&without, 0), Value::Null);
}
