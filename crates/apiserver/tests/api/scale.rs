//! The `scale` subresource of what has replicas.

use http::Method;
use serde_json::{Value, json};

use crate::common::Server;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web" },
        "spec": {
            "replicas": 2, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "portolan.dev/echo" }] },
            },
        },
    })
}

#[tokio::test]
async fn it_is_read_patched_and_replaced() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, &deployment()).await.ok();
    let (object, path) = (format!("{DEPLOYMENTS}/web"), format!("{DEPLOYMENTS}/web/scale"));
    let scale = server.get(&path).await.ok();
    assert_eq!((&scale["kind"], &scale["apiVersion"]), (&json!("Scale"), &json!("autoscaling/v1")));
    assert_eq!(scale["spec"]["replicas"], 2);
    assert_eq!(scale["status"], json!({ "replicas": 0, "selector": "app=web" }));

    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = server.send(Method::GET, &path, &accept, "").await.ok();
    let columns: Vec<&Value> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| &column["name"]).collect();
    assert_eq!(columns, ["Name", "Desired", "Available", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("web"), json!(2), json!(0)]);

    // What `kubectl scale` sends.
    let patched = server.patch(&path, "merge", &json!({ "spec": { "replicas": 5 } })).await.ok();
    assert_eq!(patched["spec"]["replicas"], 5);
    let now = server.get(&object).await.ok();
    assert_eq!(now["spec"]["replicas"], 5);
    assert_eq!(now["metadata"]["generation"], 2);
    assert_eq!(now["spec"]["template"]["metadata"]["labels"]["app"], "web");

    let mut replacement = patched.clone();
    replacement["spec"]["replicas"] = 0.into();
    let put = server.send(Method::PUT, &path, &[], replacement.to_string()).await.ok();
    assert_eq!(put["spec"]["replicas"], 0);
    let old = server.send(Method::PUT, &path, &[], patched.to_string()).await;
    assert_eq!(old.refusal().0, 409, "the version it names is an old one");
}

#[tokio::test]
async fn nonsense_is_refused() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, &deployment()).await.ok();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let (code, _, message) =
        server.patch(&path, "merge", &json!({ "spec": { "replicas": -1 } })).await.refusal();
    assert_eq!(code, 422);
    assert!(
        message.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{message}"
    );
    let text = server.patch(&path, "merge", &json!({ "spec": { "replicas": "many" } })).await;
    assert_eq!(text.refusal().0, 400);
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/none/scale")).await.refusal().0, 404);
    assert_eq!(server.get(&format!("{DEPLOYMENTS}/web/other")).await.refusal().0, 404);
    assert_eq!(server.send(Method::DELETE, &path, &[], "").await.refusal().0, 405);
}

#[tokio::test]
async fn discovery_says_whose_kind_it_is() {
    let server = Server::start().await;
    let list = server.get("/apis/apps/v1").await.ok();
    let entry =
        list["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!(
        (&entry["group"], &entry["version"], &entry["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
}
