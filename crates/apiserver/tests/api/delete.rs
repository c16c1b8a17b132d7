//! Delete and deletecollection.

use http::Method;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, SERVICES, Server, config_map, service, text};

#[tokio::test]
async fn what_a_deletion_answers_depends_on_the_kind() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.ok();
    let map = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let service = server.delete(&format!("{SERVICES}/web")).await.ok();
    assert_eq!(service["kind"], "Service");
    let status = server.delete(&format!("{CONFIG_MAPS}/a")).await.ok();
    assert_eq!((text(&status["kind"]), text(&status["status"])), ("Status".into(), "Success".into()));
    assert_eq!(status["details"]["uid"], map["metadata"]["uid"]);
    assert_eq!(status["details"]["kind"], "configmaps");
    assert_eq!(server.delete(&format!("{CONFIG_MAPS}/a")).await.refusal().2, "configmaps \"a\" not found");
}

#[tokio::test]
async fn preconditions_are_kept() {
    let server = Server::start().await;
    let map = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let with = |preconditions: Value| json!({ "preconditions": preconditions }).to_string();
    let wrong = server.send(Method::DELETE, &path, &[], with(json!({ "uid": "other" }))).await;
    let (code, _, message) = wrong.refusal();
    assert_eq!(code, 409);
    let uid = text(&map["metadata"]["uid"]);
    assert_eq!(
        message,
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )
    );
    let wrong = server.send(Method::DELETE, &path, &[], with(json!({ "resourceVersion": "1" }))).await;
    assert_eq!(wrong.refusal().0, 409);
    let right = server.send(Method::DELETE, &path, &[], with(json!({ "uid": uid }))).await;
    assert_eq!(right.code, 200);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_they_are_gone() {
    let server = Server::start().await;
    let mut object = config_map("a", &json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = server.delete(&path).await.ok();
    assert_eq!(marked["kind"], "ConfigMap");
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = server.delete(&path).await.ok();
    assert_eq!(again["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    let (_, _, message) = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.refusal();
    assert_eq!(message, "object is being deleted: configmaps \"a\" already exists");
    let patch = json!({ "metadata": { "finalizers": null } });
    assert_eq!(server.patch(&path, "merge", &patch).await.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_collection_goes_as_its_selector_says() {
    let server = Server::start().await;
    for index in 0..40 {
        let labels = json!({ "parity": if index % 2 == 0 { "even" } else { "odd" } });
        server.post(CONFIG_MAPS, &config_map(&format!("m{index}"), &labels)).await.ok();
    }
    let gone = server.delete(&format!("{CONFIG_MAPS}?labelSelector=parity%3Deven")).await.ok();
    assert_eq!(gone["items"].as_array().unwrap().len(), 20);
    let left = server.get(CONFIG_MAPS).await.ok();
    let left = left["items"].as_array().unwrap();
    assert_eq!(left.len(), 20);
    assert!(left.iter().all(|m| m["metadata"]["labels"]["parity"] == "odd"));
}

#[tokio::test]
async fn a_service_takes_its_endpoints_and_address_along() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await.ok();
    let endpoints = "/api/v1/namespaces/default/endpoints";
    server.post(endpoints, &json!({ "metadata": { "name": "web" } })).await.ok();
    let address = format!("/apis/networking.k8s.io/v1/ipaddresses/{}", text(&made["spec"]["clusterIP"]));
    assert_eq!(server.get(&address).await.code, 200);
    server.delete(&format!("{SERVICES}/web")).await.ok();
    assert_eq!(server.get(&address).await.code, 404);
    assert_eq!(server.get(&format!("{endpoints}/web")).await.code, 404);
}

/// A config map that `owner` owns.
async fn owned(server: &Server, name: &str, owner: &Value, finalizer: bool) -> Value {
    let mut object = config_map(name, &json!({}));
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": true,
    }]);
    if finalizer {
        object["metadata"]["finalizers"] = json!(["test/hold"]);
    }
    server.post(CONFIG_MAPS, &object).await.ok()
}

#[tokio::test]
async fn in_the_foreground_dependents_go_first() {
    let server = Server::start().await;
    let owner = server.post(CONFIG_MAPS, &config_map("owner", &json!({}))).await.ok();
    let child = owned(&server, "child", &owner, false).await;
    owned(&server, "grandchild", &child, true).await;
    let path = format!("{CONFIG_MAPS}/owner?propagationPolicy=Foreground");
    let going = server.delete(&path).await.ok();
    assert_eq!(going["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let marked = |reply: &crate::common::Reply| reply.json()["metadata"].get("deletionTimestamp").is_some();
    server.eventually(&format!("{CONFIG_MAPS}/grandchild"), marked).await;
    for name in ["owner", "child"] {
        assert_eq!(server.get(&format!("{CONFIG_MAPS}/{name}")).await.code, 200, "{name} went first");
    }
    let free = json!({ "metadata": { "finalizers": null } });
    server.patch(&format!("{CONFIG_MAPS}/grandchild"), "merge", &free).await.ok();
    server.eventually(&format!("{CONFIG_MAPS}/owner"), |reply| reply.code == 404).await;
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/child")).await.code, 404);
}

#[tokio::test]
async fn orphans_stay_without_their_owner() {
    let server = Server::start().await;
    let owner = server.post(CONFIG_MAPS, &config_map("owner", &json!({}))).await.ok();
    owned(&server, "child", &owner, false).await;
    server.delete(&format!("{CONFIG_MAPS}/owner?propagationPolicy=Orphan")).await.ok();
    server.eventually(&format!("{CONFIG_MAPS}/owner"), |reply| reply.code == 404).await;
    let child = server.get(&format!("{CONFIG_MAPS}/child")).await.ok();
    assert_eq!(child["metadata"].get("ownerReferences"), None);
}

#[tokio::test]
async fn a_new_server_goes_on_where_the_last_one_stopped() {
    let Server { api, dir } = Server::start().await;
    let server = Server { api, dir };
    let owner = server.post(CONFIG_MAPS, &config_map("owner", &json!({}))).await.ok();
    owned(&server, "child", &owner, true).await;
    server.delete(&format!("{CONFIG_MAPS}/owner?propagationPolicy=Foreground")).await.ok();
    server.api.stop();
    let Server { api, dir } = server;
    drop(api);
    let server = Server { api: crate::common::reopen(dir.path()).await, dir };
    let free = json!({ "metadata": { "finalizers": null } });
    server.patch(&format!("{CONFIG_MAPS}/child"), "merge", &free).await.ok();
    server.eventually(&format!("{CONFIG_MAPS}/owner"), |reply| reply.code == 404).await;
}

#[tokio::test]
async fn pods_can_be_evicted() {
    let server = Server::start().await;
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
        "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    server.post(crate::common::PODS, &pod).await.ok();
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p" } });
    let path = format!("{}/p/eviction", crate::common::PODS);
    assert_eq!(server.post(&path, &eviction).await.code, 201);
    assert_eq!(server.get(&format!("{}/p", crate::common::PODS)).await.code, 404);
    assert_eq!(server.get(&path).await.code, 405);
}
