//! Patches through the API.

use http::Method;
use serde_json::json;

use crate::common::{CONFIG_MAPS, SERVICES, Server, config_map, service};

#[tokio::test]
async fn the_three_old_formats() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.ok();
    let path = format!("{SERVICES}/web");
    let got = server.patch(&path, "merge", &json!({ "metadata": { "labels": { "a": "1" } } })).await.ok();
    assert_eq!(got["metadata"]["labels"]["a"], "1");
    let got = server
        .patch(&path, "json", &json!([{ "op": "add", "path": "/metadata/labels/b", "value": "2" }]))
        .await;
    assert_eq!(got.ok()["metadata"]["labels"], json!({ "a": "1", "b": "2" }));
    let ports =
        json!({ "spec": { "ports": [{ "name": "https", "port": 443 }, { "name": "http", "port": 80 }] } });
    let got = server.patch(&path, "strategic", &ports).await.ok();
    assert_eq!(got["spec"]["ports"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_patch_that_names_a_version_conflicts_when_it_is_old() {
    let server = Server::start().await;
    let made = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    server.patch(&path, "merge", &json!({ "data": { "a": "c" } })).await.ok();
    let old = json!({ "metadata": { "resourceVersion": made["metadata"]["resourceVersion"] }, "data": { "a": "d" } });
    assert_eq!(server.patch(&path, "merge", &old).await.refusal().1, "Conflict");
    let missing = server.patch(&format!("{CONFIG_MAPS}/b"), "merge", &json!({})).await;
    assert_eq!(missing.refusal().0, 404);
}

#[tokio::test]
async fn patches_at_the_same_time_all_count() {
    let server = Server::start().await;
    server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..8).map(|i| {
        let (server, path) = (&server, &path);
        async move { server.patch(path, "merge", &json!({ "data": { format!("k{i}"): "v" } })).await.ok() }
    });
    futures_util::future::join_all(patches).await;
    let data = server.get(&path).await.ok()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 9, "{data}");
}

#[tokio::test]
async fn unknown_fields_in_patches() {
    let server = Server::start().await;
    server.post(SERVICES, &service("web")).await.ok();
    let patch = json!({ "spec": { "sesionAffinity": "None" } });
    let warned = server.patch(&format!("{SERVICES}/web"), "merge", &patch).await;
    assert_eq!(warned.code, 200);
    assert!(
        warned.warnings()[0].contains("unknown field \\\"spec.sesionAffinity\\\""),
        "{:?}",
        warned.warnings()
    );
    let strict = server.patch(&format!("{SERVICES}/web?fieldValidation=Strict"), "merge", &patch).await;
    let (code, _, message) = strict.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("strict decoding error: unknown field \"spec.sesionAffinity\""), "{message}");
    let headers = [("content-type", "application/merge-patch+json")];
    assert_eq!(server.send(Method::PATCH, &format!("{SERVICES}/web"), &headers, "{").await.refusal().0, 400);
}
