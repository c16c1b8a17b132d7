//! The fields of a Service: what each type has, what may be changed, and what is whose.

use serde_json::json;

use crate::common::{SERVICES, Server, service_with, text};

const PATH: &str = "/api/v1/namespaces/default/services/x";

#[tokio::test]
async fn each_type_has_its_own_fields() {
    let server = Server::start().await;
    let ip = json!({ "clusterIP": "10.96.0.40" });
    let cases = [
        (json!({}), json!({})),
        (
            json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 32000 }] }),
            json!({ "type": "NodePort", "externalTrafficPolicy": "Cluster",
                    "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 32000 }] }),
        ),
        (
            json!({ "type": "LoadBalancer", "ports": [{ "port": 80, "nodePort": 32000 }] }),
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
                    "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 32000 }] }),
        ),
        (
            json!({ "externalIPs": ["198.51.100.7"] }),
            json!({ "externalIPs": ["198.51.100.7"], "externalTrafficPolicy": "Cluster" }),
        ),
        (
            json!({ "externalIPs": ["198.51.100.7"], "externalTrafficPolicy": "Local" }),
            json!({ "externalIPs": ["198.51.100.7"], "externalTrafficPolicy": "Local" }),
        ),
        (
            json!({ "sessionAffinity": "ClientIP" }),
            json!({ "sessionAffinity": "ClientIP",
                    "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 10800 } } }),
        ),
    ];
    for (spec, more) in cases {
        let mut sent = service_with("x", &spec);
        sent["spec"]["clusterIP"] = ip["clusterIP"].clone();
        let made = server.post(SERVICES, &sent).await.ok();
        let mut wanted = json!({
            "type": "ClusterIP", "selector": { "app": "x" }, "clusterIP": "10.96.0.40", "clusterIPs": ["10.96.0.40"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster", "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }],
        });
        wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(made["spec"], wanted, "{spec}");
        assert_eq!(made["metadata"].get("generation"), None);
        server.delete(PATH).await.ok();
    }
    let name = json!({ "type": "ExternalName", "externalName": "a.b", "ports": null, "selector": null });
    let made = server.post(SERVICES, &service_with("x", &name)).await.ok();
    assert_eq!(
        made["spec"],
        json!({ "type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None" })
    );
    server.delete(PATH).await.ok();
    // What is chosen by nothing is chosen by nobody.
    let made = server.post(SERVICES, &service_with("x", &json!({ "selector": {} }))).await.ok();
    assert_eq!(made["spec"].get("selector"), None);
}

#[tokio::test]
async fn a_local_balancer_has_a_port_for_health_checks() {
    let server = Server::start().await;
    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local" });
    let made = server.post(SERVICES, &service_with("x", &local)).await.ok();
    let number = made["spec"]["healthCheckNodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&number) && made["spec"]["ports"][0]["nodePort"] != number, "{made}");
    let change = async |policy: &str| {
        server.patch(PATH, "merge", &json!({ "spec": { "externalTrafficPolicy": policy } })).await.ok()
    };
    assert_eq!(change("Cluster").await["spec"].get("healthCheckNodePort"), None);
    // It is free for others by now.
    let other = json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": number }] });
    assert_eq!(server.post(SERVICES, &service_with("y", &other)).await.code, 201);
    let again = change("Local").await["spec"]["healthCheckNodePort"].as_u64().unwrap();
    assert!((30000..=32767).contains(&again) && again != number);
    // A balancer without node ports has one nevertheless.
    let bare = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "allocateLoadBalancerNodePorts": false });
    let made = server.post(SERVICES, &service_with("z", &bare)).await.ok();
    assert!(
        made["spec"]["healthCheckNodePort"].is_u64() && made["spec"]["ports"][0].get("nodePort").is_none()
    );
}

#[tokio::test]
async fn what_may_be_changed_is() {
    let server = Server::start().await;
    server.post(SERVICES, &service_with("x", &json!({ "type": "LoadBalancer" }))).await.ok();
    for (field, value) in [
        (
            "ports",
            json!([{ "name": "a", "port": 81, "protocol": "UDP", "targetPort": "web", "appProtocol": "b/c",
                           "nodePort": 32005 }]),
        ),
        ("selector", json!({ "app": "other" })),
        ("externalIPs", json!(["198.51.100.7"])),
        ("sessionAffinity", json!("ClientIP")),
        ("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": 60 } })),
        ("loadBalancerIP", json!("192.0.2.9")),
        ("loadBalancerSourceRanges", json!(["10.0.0.0/8"])),
        ("externalTrafficPolicy", json!("Local")),
        ("internalTrafficPolicy", json!("Local")),
        ("publishNotReadyAddresses", json!(true)),
        ("allocateLoadBalancerNodePorts", json!(false)),
        ("trafficDistribution", json!("PreferSameNode")),
        ("externalName", json!("ignored")),
    ] {
        // A selector is merged key by key, so it is taken away first.
        let nothing = json!({ "spec": { "selector": null } });
        server.patch(PATH, "merge", &nothing).await.ok();
        let changed = server.patch(PATH, "merge", &json!({ "spec": { field: value } })).await.ok();
        assert_eq!(changed["spec"][field], value, "{field}");
        assert_eq!(server.get(PATH).await.ok(), changed, "{field}");
        assert_eq!(changed["metadata"].get("generation"), None);
    }
    let without = server.patch(PATH, "merge", &json!({ "spec": { "sessionAffinity": "None" } })).await.ok();
    assert_eq!(without["spec"].get("sessionAffinityConfig"), None);
}

#[tokio::test]
async fn the_status_is_the_controllers() {
    let server = Server::start().await;
    let ingress = json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } });
    let mut sent = service_with("x", &json!({ "type": "LoadBalancer" }));
    sent["status"] = ingress.clone();
    let made = server.post(SERVICES, &sent).await.ok();
    assert_eq!(made["status"], json!({ "loadBalancer": {} }));
    let status = json!({
        "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "VIP",
            "ports": [{ "port": 80, "protocol": "TCP", "error": "a/B" }] }] },
        "conditions": [{ "type": "a/Ready", "status": "True", "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }],
    });
    let mut with = made.clone();
    with["status"] = status.clone();
    with["spec"]["sessionAffinity"] = "ClientIP".into();
    let after = server.put(&format!("{PATH}/status"), &with).await.ok();
    assert_eq!(after["status"], status);
    assert_eq!(after["spec"], made["spec"], "a status changed the spec");
    let mut main = after.clone();
    main["status"] = json!({});
    main["spec"]["publishNotReadyAddresses"] = true.into();
    let after = server.put(PATH, &main).await.ok();
    assert_eq!(after["status"], status, "the object changed the status");
    assert_eq!(after["spec"]["publishNotReadyAddresses"], true);
    // Conditions are of the Service, and stay when the balancer goes.
    let plain = server.patch(PATH, "merge", &json!({ "spec": { "type": "NodePort" } })).await.ok();
    assert_eq!(plain["status"], json!({ "loadBalancer": {}, "conditions": status["conditions"] }));
}

#[tokio::test]
async fn services_are_found_by_type_and_address() {
    let server = Server::start().await;
    server.post(SERVICES, &service_with("x", &json!({ "clusterIP": "10.96.0.40" }))).await.ok();
    server.post(SERVICES, &service_with("y", &json!({ "type": "NodePort" }))).await.ok();
    server.post(SERVICES, &service_with("z", &json!({ "clusterIP": "None" }))).await.ok();
    for (selector, wanted) in [
        ("spec.type%3DNodePort", vec!["y"]),
        ("spec.clusterIP%3DNone", vec!["z"]),
        ("spec.clusterIP%3D10.96.0.40,spec.type!%3DNodePort", vec!["x"]),
        ("metadata.name%3Dx,metadata.namespace%3Ddefault", vec!["x"]),
        ("metadata.namespace!%3Ddefault", vec![]),
    ] {
        let list = server.get(&format!("{SERVICES}?fieldSelector={selector}")).await.ok();
        let names: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|s| text(&s["metadata"]["name"])).collect();
        assert_eq!(names, wanted, "{selector}");
    }
    let (code, _, message) =
        server.get(&format!("{SERVICES}?fieldSelector=spec.clusterIPs%3Da")).await.refusal();
    assert_eq!((code, &*message), (400, "field label not supported: spec.clusterIPs"));
}
