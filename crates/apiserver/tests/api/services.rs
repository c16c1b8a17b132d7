//! Services: addresses and node ports through the API.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::common::{SERVICES, Server, service, text};

fn node_port(name: &str, port: Option<u16>) -> Value {
    let mut object = service(name);
    object["spec"]["type"] = "NodePort".into();
    if let Some(port) = port {
        object["spec"]["ports"][0]["nodePort"] = port.into();
    }
    object
}

#[tokio::test]
async fn a_service_gets_an_address_in_the_same_answer() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await.ok();
    let address: std::net::Ipv4Addr = text(&made["spec"]["clusterIP"]).parse().unwrap();
    assert!(address > std::net::Ipv4Addr::new(10, 96, 1, 0), "{address} is not from the upper band");
    assert_eq!(made["spec"]["clusterIPs"], json!([address]));
    assert_eq!(made["spec"]["ports"][0], json!({ "port": 80, "protocol": "TCP", "targetPort": 80 }));
    assert_eq!(made["status"], json!({ "loadBalancer": {} }));
}

#[tokio::test]
async fn an_address_is_given_once() {
    let server = Server::start().await;
    let mut fixed = service("one");
    fixed["spec"]["clusterIP"] = "10.96.0.10".into();
    server.post(SERVICES, &fixed).await.ok();
    fixed["metadata"]["name"] = "two".into();
    let (code, _, message) = server.post(SERVICES, &fixed).await.refusal();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "Service \"two\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
    server.delete(&format!("{SERVICES}/one")).await.ok();
    assert_eq!(server.post(SERVICES, &fixed).await.code, 201);
}

#[tokio::test]
async fn node_ports_are_given_once_and_come_back() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &node_port("one", Some(32001))).await.ok();
    assert_eq!(made["spec"]["ports"][0]["nodePort"], 32001);
    let (code, _, message) = server.post(SERVICES, &node_port("two", Some(32001))).await.refusal();
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.ports[0].nodePort: Invalid value: 32001: provided port is already allocated"),
        "{message}"
    );
    let (_, _, message) = server.post(SERVICES, &node_port("two", Some(80))).await.refusal();
    assert!(message.contains("The range of valid ports is 30000-32767"), "{message}");
    let free = server.post(SERVICES, &node_port("two", None)).await.ok();
    let port = free["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30086..=32767).contains(&port), "{port}");
    server.delete(&format!("{SERVICES}/one")).await.ok();
    assert_eq!(server.post(SERVICES, &node_port("three", Some(32001))).await.code, 201);
}

#[tokio::test]
async fn a_refused_service_leaks_nothing() {
    let server = Server::start().await;
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let before = server.get(addresses).await.ok()["items"].as_array().unwrap().len();
    let mut bad = node_port("bad", Some(32002));
    bad["spec"]["sessionAffinity"] = "Sticky".into();
    assert_eq!(server.post(SERVICES, &bad).await.refusal().0, 422);
    assert_eq!(server.get(addresses).await.ok()["items"].as_array().unwrap().len(), before);
    assert_eq!(server.post(SERVICES, &node_port("good", Some(32002))).await.code, 201);
}

#[tokio::test]
async fn a_refused_change_takes_nothing_and_gives_nothing_away() {
    let server = Server::start_dual_stack().await;
    let made = server.post(SERVICES, &node_port("web", Some(32004))).await.ok();
    let path = format!("{SERVICES}/web");
    let addresses = "/apis/networking.k8s.io/v1/ipaddresses";
    let count = async || server.get(addresses).await.ok()["items"].as_array().unwrap().len();
    let before = count().await;
    for spec in [
        // A second address and another port.
        json!({ "ipFamilyPolicy": "RequireDualStack", "ports": [{ "port": 80, "nodePort": 32005 }] }),
        // Neither port nor address.
        json!({ "type": "ExternalName", "externalName": "a.b" }),
    ] {
        let mut spec = json!({ "spec": spec });
        spec["spec"]["sessionAffinity"] = "Sticky".into();
        assert_eq!(server.patch(&path, "merge", &spec).await.refusal().0, 422);
        assert_eq!(count().await, before, "{spec}");
        assert_eq!(server.get(&path).await.ok(), made);
        let (code, _, message) = server.post(SERVICES, &node_port("other", Some(32004))).await.refusal();
        assert_eq!(code, 422);
        assert!(message.contains("spec.ports[0].nodePort"), "{message}");
        assert_eq!(server.post(SERVICES, &node_port("other", Some(32005))).await.code, 201);
        server.delete(&format!("{SERVICES}/other")).await.ok();
    }
    // So does a name that is taken.
    assert_eq!(server.post(SERVICES, &node_port("web", Some(32006))).await.refusal().1, "AlreadyExists");
    assert_eq!(server.post(SERVICES, &node_port("other", Some(32006))).await.code, 201);
    assert_eq!(count().await, before + 1);
}

#[tokio::test]
async fn a_dry_run_asks_for_what_is_free_and_takes_nothing() {
    let server = Server::start().await;
    let with = |name: &str, address: &str, port: u16| {
        let mut object = node_port(name, Some(port));
        object["spec"]["clusterIP"] = address.into();
        object
    };
    server.post(SERVICES, &with("web", "10.96.0.10", 32001)).await.ok();
    let dry = format!("{SERVICES}?dryRun=All");
    // An address is looked for in the ranges only, a port among those that are taken.
    let taken = server.post(&dry, &with("other", "10.96.0.10", 32002)).await.ok();
    assert_eq!(taken["spec"]["clusterIP"], "10.96.0.10");
    let (code, _, message) = server.post(&dry, &with("other", "192.0.2.1", 32002)).await.refusal();
    assert_eq!(code, 422);
    assert!(message.ends_with("The range of valid IPs is 10.96.0.0/12"), "{message}");
    let (code, _, message) = server.post(&dry, &with("other", "10.96.0.11", 32001)).await.refusal();
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.ports[0].nodePort: Invalid value: 32001: provided port is already allocated")
    );
    let path = format!("{SERVICES}/web?dryRun=All");
    let name = json!({ "spec": { "type": "ExternalName", "externalName": "a.b" } });
    assert_eq!(server.patch(&path, "merge", &name).await.ok()["spec"].get("clusterIP"), None);
    assert_eq!(server.post(SERVICES, &with("other", "10.96.0.10", 32002)).await.refusal().0, 422);
    assert_eq!(server.post(SERVICES, &with("other", "10.96.0.11", 32001)).await.refusal().0, 422);
    assert_eq!(server.post(SERVICES, &with("other", "10.96.0.11", 32002)).await.code, 201);
}

#[tokio::test]
async fn a_change_of_type_keeps_the_address_and_frees_the_port() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &node_port("web", Some(32003))).await.ok();
    let path = format!("{SERVICES}/web");
    let changed = server.patch(&path, "merge", &json!({ "spec": { "type": "ClusterIP" } })).await.ok();
    assert_eq!(changed["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!(changed["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(server.post(SERVICES, &node_port("other", Some(32003))).await.code, 201);
    let external = json!({ "spec": { "type": "ExternalName", "externalName": "example.com" } });
    let changed = server.patch(&path, "merge", &external).await.ok();
    assert_eq!(changed["spec"].get("clusterIP"), None);
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", text(&made["spec"]["clusterIP"]));
    assert_eq!(server.get(&address).await.code, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_get_addresses_of_their_own() {
    let server = Server::start().await;
    let creates = (0..100).map(|i| {
        let (api, object) = (server.api.clone(), node_port(&format!("s{i}"), None));
        tokio::spawn(async move {
            let mut request = http::Request::post(SERVICES).body(object.to_string().into()).unwrap();
            request.extensions_mut().insert(crate::common::admin());
            crate::common::reply(api.handle(request).await).await.ok()
        })
    });
    let made: Vec<Value> =
        futures_util::future::join_all(creates).await.into_iter().map(|result| result.unwrap()).collect();
    let addresses: HashSet<String> = made.iter().map(|s| text(&s["spec"]["clusterIP"])).collect();
    let ports: HashSet<u64> =
        made.iter().map(|s| s["spec"]["ports"][0]["nodePort"].as_u64().unwrap()).collect();
    assert_eq!((addresses.len(), ports.len()), (100, 100));
}
