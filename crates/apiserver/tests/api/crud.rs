//! Create, get, update.

use http::Method;
use serde_json::json;

use crate::common::{CONFIG_MAPS, SERVICES, Server, config_map, open, service, text};

#[tokio::test]
async fn a_new_object_has_an_identity_and_can_be_read_back() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await;
    assert_eq!(made.code, 201);
    let made = made.ok();
    assert_eq!(text(&made["metadata"]["uid"]).len(), 36);
    assert!(text(&made["metadata"]["creationTimestamp"]).ends_with('Z'));
    assert_eq!(made["metadata"]["namespace"], "default");
    let read = server.get(&format!("{SERVICES}/web")).await.ok();
    assert_eq!(read, made);
    assert_ne!(text(&made["metadata"]["resourceVersion"]), "");
}

#[tokio::test]
async fn objects_survive_a_restart() {
    let mut server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await.ok();
    server.api.stop();
    let path = server.dir.path().to_path_buf();
    // The store closes when its last user is gone.
    let weak = std::sync::Arc::downgrade(&server.api);
    let Server { api, dir } = server;
    drop(api);
    let deadline = tokio::time::Instant::now() + crate::common::PATIENCE;
    while weak.strong_count() > 0 {
        assert!(tokio::time::Instant::now() < deadline, "the server is still in use");
        tokio::task::yield_now().await;
    }
    server = Server { api: open(&path).await, dir };
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.ok(), made);
}

#[tokio::test]
async fn generated_names_differ() {
    let server = Server::start().await;
    let object = json!({ "metadata": { "generateName": "job-" } });
    let one = server.post(CONFIG_MAPS, &object).await.ok();
    let two = server.post(CONFIG_MAPS, &object).await.ok();
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    assert!(text(&one["metadata"]["name"]).starts_with("job-"));
    assert_eq!(one["kind"], "ConfigMap");
}

#[tokio::test]
async fn yaml_is_taken_and_given() {
    let server = Server::start().await;
    let yaml = "metadata:\n  name: y\ndata:\n  key: value\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let made = server.send(Method::POST, CONFIG_MAPS, &headers, yaml).await;
    assert_eq!(made.code, 201, "{}", String::from_utf8_lossy(&made.body));
    assert_eq!(made.headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&made.body).contains("key: value"));
}

#[tokio::test]
async fn an_update_needs_the_newest_version() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut first = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    first["data"]["a"] = "c".into();
    let second = server.put(&path, &first).await.ok();
    assert_eq!(second["data"]["a"], "c");
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (code, reason, message) = server.put(&path, &first).await.refusal();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );
    // Without a version the last writer wins.
    first["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(server.put(&path, &first).await.code, 200);
}

#[tokio::test]
async fn an_update_that_changes_nothing_keeps_the_version() {
    let server = Server::start().await;
    let made = server.post(SERVICES, &service("web")).await.ok();
    let same = server.put(&format!("{SERVICES}/web"), &made).await.ok();
    assert_eq!(same, made);
}

#[tokio::test]
async fn put_creates_where_the_kind_allows_it() {
    let server = Server::start().await;
    assert_eq!(server.put(&format!("{SERVICES}/web"), &service("web")).await.code, 201);
    let missing = server.put(&format!("{CONFIG_MAPS}/a"), &config_map("a", &json!({}))).await;
    assert_eq!(missing.refusal().0, 404);
}

#[tokio::test]
async fn the_status_is_its_own_part() {
    let server = Server::start().await;
    let path = "/api/v1/nodes/n1";
    let node = json!({ "metadata": { "name": "n1" }, "status": { "nodeInfo": { "kubeletVersion": "v0" } } });
    let mut node = server.post("/api/v1/nodes", &node).await.ok();
    node["status"] = json!({ "addresses": [{ "type": "InternalIP", "address": "192.0.2.7" }] });
    node["spec"] = json!({ "unschedulable": true });
    let after = server.put(&format!("{path}/status"), &node).await.ok();
    assert_eq!(after["status"]["addresses"][0]["address"], "192.0.2.7");
    assert_eq!(after["spec"].get("unschedulable"), None);
    let mut main = after.clone();
    main["status"] = json!({});
    main["spec"] = json!({ "unschedulable": true });
    let after = server.put(path, &main).await.ok();
    assert_eq!(after["spec"]["unschedulable"], true);
    assert_eq!(after["status"]["addresses"][0]["address"], "192.0.2.7");
}

#[tokio::test]
async fn a_dry_run_stores_nothing() {
    let server = Server::start().await;
    let made = server.post(&format!("{SERVICES}?dryRun=All"), &service("web")).await.ok();
    assert_eq!(made["metadata"].get("resourceVersion"), None);
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.code, 404);
    let real = server.post(SERVICES, &service("web")).await.ok();
    let mut changed = real.clone();
    changed["metadata"]["labels"] = json!({ "a": "b" });
    let dry = server.put(&format!("{SERVICES}/web?dryRun=All"), &changed).await.ok();
    assert_eq!(dry["metadata"]["labels"]["a"], "b");
    assert_eq!(server.delete(&format!("{SERVICES}/web?dryRun=All")).await.code, 200);
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.ok(), real);
}

#[tokio::test]
async fn every_cluster_has_its_first_objects() {
    let server = Server::start().await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let object = server.get(&format!("/api/v1/namespaces/{namespace}")).await.ok();
        assert_eq!(object["status"]["phase"], "Active", "{object}");
        assert_eq!(object["spec"]["finalizers"], json!(["kubernetes"]), "{object}");
    }
    let kubernetes = server.get(&format!("{SERVICES}/kubernetes")).await.ok();
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = server.get("/api/v1/namespaces/default/endpoints/kubernetes").await.ok();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.1");
    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    assert_eq!(server.get(slice).await.ok()["ports"][0]["port"], 6443);
    let cidr = server.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.ok();
    assert_eq!(cidr["spec"]["cidrs"], json!(["10.96.0.0/12"]));
    let held = server.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.0.1").await.ok();
    assert_eq!(held["spec"]["parentRef"]["name"], "kubernetes");
}
