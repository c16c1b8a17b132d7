//! Pods: binding and graceful deletion.

use http::Method;
use serde_json::{Value, json};

use crate::common::{PODS, Server, text};

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name },
        "spec": { "containers": [{ "name": "c", "image": "portolan.dev/echo" }], "terminationGracePeriodSeconds": 7 },
    })
}

fn binding(node: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "a" }, "target": { "kind": "Node", "name": node } })
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    server.post(PODS, &pod("a")).await.ok();
    let bound = server.post(&format!("{PODS}/a/binding"), &binding("n1")).await;
    assert_eq!((bound.code.as_u16(), text(&bound.json()["status"])), (201, "Success".into()));
    let got = server.get(&format!("{PODS}/a")).await.ok();
    assert_eq!(got["spec"]["nodeName"], "n1");
    assert_eq!(got["status"]["conditions"][0]["type"], "PodScheduled");
    let (code, reason, message) = server.post(&format!("{PODS}/a/binding"), &binding("n2")).await.refusal();
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    assert!(message.ends_with("pod a is already assigned to node \"n1\""), "{message}");
    let on_node = server.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.ok();
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_pod_on_a_node_gets_time_to_stop() {
    let server = Server::start().await;
    server.post(PODS, &pod("free")).await.ok();
    server.delete(&format!("{PODS}/free")).await.ok();
    assert_eq!(server.get(&format!("{PODS}/free")).await.code, 404);

    server.post(PODS, &pod("a")).await.ok();
    server.post(&format!("{PODS}/a/binding"), &binding("n1")).await.ok();
    let going = server.delete(&format!("{PODS}/a")).await.ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 7);
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 200);
    let now = json!({ "gracePeriodSeconds": 0 }).to_string();
    let gone = server.send(Method::DELETE, &format!("{PODS}/a"), &[], now).await.ok();
    assert_eq!(gone["kind"], "Pod");
    assert_eq!(server.get(&format!("{PODS}/a")).await.code, 404);
}
