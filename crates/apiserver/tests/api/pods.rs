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

#[tokio::test]
async fn pods_say_how_long_they_stay_on_a_node_that_is_gone() {
    let server = Server::start().await;
    let pod = |name: &str, tolerations: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": { "containers": [{ "name": "c", "image": "i" }], "tolerations": tolerations },
        })
    };
    let given = |key: &str| json!({ "key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 });
    let (not_ready, unreachable) = (given("not-ready"), given("unreachable"));
    let own =
        json!({ "key": "node.kubernetes.io/unreachable", "operator": "Exists", "tolerationSeconds": 5 });
    let other = json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" });
    let all = json!({ "operator": "Exists" });
    let schedules = json!({ "operator": "Exists", "effect": "NoSchedule" });
    for (name, sent, want) in [
        ("none", Value::Null, json!([not_ready, unreachable])),
        ("own", json!([own]), json!([own, not_ready])),
        ("other", json!([other]), json!([other, not_ready, unreachable])),
        ("all", json!([all]), json!([all])),
        ("schedules", json!([schedules]), json!([schedules, not_ready, unreachable])),
    ] {
        let made = server.post(PODS, &pod(name, &sent)).await.ok();
        assert_eq!(made["spec"]["tolerations"], want, "{name}");
        // Nobody asked for them, so nobody owns them.
        let owned = made["metadata"]["managedFields"].to_string();
        assert_eq!(owned.contains("f:tolerations"), !sent.is_null(), "{owned}");
    }
    // The same manifest again takes none away.
    let again = server.get(&format!("{PODS}/none")).await.ok();
    let mut again =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": again["metadata"], "spec": again["spec"] });
    again["spec"].as_object_mut().unwrap().remove("tolerations");
    again["metadata"]["labels"] = json!({ "a": "b" });
    let put = server.put(&format!("{PODS}/none"), &again).await.ok();
    assert_eq!(put["spec"]["tolerations"], json!([not_ready, unreachable]));
}
