//! Life and end of namespaces.

use serde_json::json;

use crate::common::{Server, config_map, service};

#[tokio::test]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let server = Server::start().await;
    server.post("/api/v1/namespaces", &json!({ "metadata": { "name": "shop" } })).await.ok();
    let made = server.post("/api/v1/namespaces/shop/services", &service("web")).await.ok();
    for index in 0..50 {
        let map = config_map(&format!("m{index}"), &json!({}));
        server.post("/api/v1/namespaces/shop/configmaps", &map).await.ok();
    }
    let mut held = config_map("held", &json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.post("/api/v1/namespaces/shop/configmaps", &held).await.ok();

    let going = server.delete("/api/v1/namespaces/shop").await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, reason, message) =
        server.post("/api/v1/namespaces/shop/services", &service("late")).await.refusal();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "services \"late\" is forbidden: unable to create new content in namespace shop because it is being terminated"
    );
    let address =
        format!("/apis/networking.k8s.io/v1/ipaddresses/{}", made["spec"]["clusterIP"].as_str().unwrap());
    server.eventually(&address, |reply| reply.code == 404).await;
    assert_eq!(server.get("/api/v1/namespaces/shop").await.code, 200);

    let free = json!({ "metadata": { "finalizers": null } });
    server.patch("/api/v1/namespaces/shop/configmaps/held", "merge", &free).await.ok();
    server.eventually("/api/v1/namespaces/shop", |reply| reply.code == 404).await;
    let left = server.get("/api/v1/configmaps").await.ok();
    assert_eq!(left["items"], json!([]));
}

#[tokio::test]
async fn some_namespaces_stay() {
    let server = Server::start().await;
    let (code, _, message) = server.delete("/api/v1/namespaces/default").await.refusal();
    assert_eq!(code, 403);
    assert_eq!(message, "namespaces \"default\" is forbidden: this namespace may not be deleted");
}
