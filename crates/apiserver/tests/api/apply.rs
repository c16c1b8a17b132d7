//! Server-side apply and the record of who owns which field, through the API.

use http::Method;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Reply, SERVICES, Server, service};

fn web(spec: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" }, "spec": spec })
}

async fn apply(server: &Server, query: &str, object: &Value) -> Reply {
    server.patch(&format!("{SERVICES}/web?{query}"), "apply", object).await
}

/// `MANAGER OPERATION SUBRESOURCE` of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    entries
        .iter()
        .map(|e| format!("{} {} {}", text(&e["manager"]), text(&e["operation"]), text(&e["subresource"])))
        .collect()
}

#[tokio::test]
async fn every_write_says_who_made_it() {
    let server = Server::start().await;
    let headers = [("content-type", "application/json"), ("user-agent", "kubectl/v1.36 (linux)")];
    let made = server.send(Method::POST, SERVICES, &headers, service("web").to_string()).await.ok();
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {
            "f:internalTrafficPolicy": {}, "f:selector": {}, "f:sessionAffinity": {}, "f:type": {},
            "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}":
                {".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {}}},
        }})
    );
    assert_eq!(managers(&made), ["kubectl Update -"]);
    assert_eq!(entry["time"], made["metadata"]["creationTimestamp"]);
    let path = format!("{SERVICES}/web");
    let labels = json!({ "metadata": { "labels": { "a": "1" } } });
    let got = server.patch(&format!("{path}?fieldManager=labeller"), "merge", &labels).await.ok();
    assert_eq!(managers(&got), ["kubectl Update -", "labeller Update -"]);
    let fields = json!({ "f:metadata": { "f:labels": { ".": {}, "f:a": {} } } });
    assert_eq!(got["metadata"]["managedFields"][1]["fieldsV1"], fields);
    let ingress = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } });
    server.patch(&path, "merge", &json!({ "spec": { "type": "LoadBalancer" } })).await.ok();
    let got = server.patch(&format!("{path}/status?fieldManager=lb"), "merge", &ingress).await.ok();
    assert!(managers(&got).contains(&"lb Update status".to_owned()), "{:?}", managers(&got));
    // A write that changes nothing leaves version and times alone.
    let same = server.patch(&format!("{path}?fieldManager=other"), "merge", &labels).await.ok();
    assert_eq!(same["metadata"], got["metadata"]);
}

#[tokio::test]
async fn what_is_applied_is_made_changed_and_taken_back() {
    let server = Server::start().await;
    let object =
        web(&json!({ "ports": [{ "port": 80 }, { "port": 81, "name": "b" }], "selector": { "a": "b" } }));
    let (code, _, message) = apply(&server, "", &object).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("fieldManager: Required value: is required for apply patch"), "{message}");
    let object = web(
        &json!({ "ports": [{ "port": 80, "name": "a" }, { "port": 81, "name": "b" }], "selector": { "a": "b" } }),
    );
    let dry = apply(&server, "fieldManager=me&dryRun=All", &object).await;
    assert_eq!(dry.code, 201);
    assert_eq!(server.get(&format!("{SERVICES}/web")).await.code, 404);
    let made = apply(&server, "fieldManager=me", &object).await;
    assert_eq!(made.code, 201);
    let made = made.ok();
    assert_eq!(managers(&made), ["me Apply -"]);
    let again = apply(&server, "fieldManager=me", &object).await;
    assert_eq!(again.code, 200);
    assert_eq!(again.ok()["metadata"], made["metadata"]);
    let less = web(&json!({ "ports": [{ "port": 80, "name": "a" }] }));
    let got = apply(&server, "fieldManager=me", &less).await.ok();
    assert_eq!(
        got["spec"]["ports"],
        json!([{ "name": "a", "port": 80, "protocol": "TCP", "targetPort": 80 }])
    );
    assert_eq!(got["spec"].get("selector"), None);
    assert_eq!(got["spec"]["clusterIP"], made["spec"]["clusterIP"]);
}

#[tokio::test]
async fn conflicts_name_the_others_and_can_be_forced() {
    let server = Server::start().await;
    apply(
        &server,
        "fieldManager=one",
        &web(&json!({ "ports": [{ "port": 80 }], "sessionAffinity": "None" })),
    )
    .await
    .ok();
    let path = format!("{SERVICES}/web?fieldManager=kubectl-edit");
    server.patch(&path, "merge", &json!({ "spec": { "type": "NodePort" } })).await.ok();
    let wanted = web(&json!({ "type": "ClusterIP", "sessionAffinity": "ClientIP" }));
    let refused = apply(&server, "fieldManager=two", &wanted).await;
    let details = refused.json()["details"].clone();
    assert_eq!(
        refused.refusal(),
        (
            409,
            "Conflict".into(),
            "Apply failed with 2 conflicts: conflicts with \"kubectl-edit\" using v1:\n- .spec.type\n\
            conflicts with \"one\":\n- .spec.sessionAffinity"
                .into()
        )
    );
    assert_eq!(
        details,
        json!({"causes": [
            {"reason": "FieldManagerConflict", "message": "conflict with \"kubectl-edit\" using v1", "field": ".spec.type"},
            {"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".spec.sessionAffinity"},
        ]})
    );
    let forced = apply(&server, "fieldManager=two&force=true", &wanted).await.ok();
    assert_eq!(forced["spec"]["sessionAffinity"], "ClientIP");
    let one = forced["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["manager"] == "one")
        .unwrap()
        .clone();
    assert_eq!(one["fieldsV1"]["f:spec"].get("f:sessionAffinity"), None);
}

#[tokio::test]
async fn bodies_that_cannot_be_applied() {
    let server = Server::start().await;
    let mut object = web(&json!({ "ports": [{ "port": 80 }] }));
    object["metadata"]["managedFields"] = json!([{}]);
    let refused = apply(&server, "fieldManager=me", &object).await.refusal();
    assert_eq!(refused, (400, "BadRequest".into(), "metadata.managedFields must be nil".into()));
    let (code, _, message) = apply(&server, "fieldManager=me", &web(&json!({ "prots": [] }))).await.refusal();
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "failed to create typed patch object (default/web; /v1, Kind=Service): .spec.prots: field not declared in schema"
    );
    let (code, _, message) =
        apply(&server, "fieldManager=me", &json!({ "apiVersion": "v2", "kind": "Service" })).await.refusal();
    assert_eq!(code, 400);
    assert!(message.contains("Specified patch version: v2, expected: v1"), "{message}");
    let wrong = web(&json!({ "ports": [{ "port": 0 }] }));
    assert_eq!(apply(&server, "fieldManager=me", &wrong).await.refusal().0, 422);
    let path = format!("{SERVICES}/web/status?fieldManager=me");
    assert_eq!(server.patch(&path, "apply", &web(&json!({}))).await.refusal().0, 404);
}

#[tokio::test]
async fn the_record_can_be_reset_and_edited() {
    let server = Server::start().await;
    let object =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "x": "1" } });
    let path = format!("{CONFIG_MAPS}/a");
    server.patch(&format!("{path}?fieldManager=me"), "apply", &object).await.ok();
    let rename = json!([{ "op": "replace", "path": "/metadata/managedFields/0/manager", "value": "you" }]);
    let got = server.patch(&path, "json", &rename).await.ok();
    assert_eq!(managers(&got), ["you Apply -"]);
    let got = server.patch(&path, "merge", &json!({ "metadata": { "managedFields": [{}] } })).await.ok();
    assert_eq!(managers(&got), [""; 0]);
    let got = server
        .patch(
            &format!("{path}?fieldManager=me"),
            "apply",
            &json!({ "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "a" }, "data": { "y": "2" } }),
        )
        .await
        .ok();
    assert_eq!(managers(&got), ["me Apply -", "before-first-apply Update -"]);
    let got = server.patch(&path, "merge", &json!({ "metadata": { "managedFields": [] } })).await.ok();
    assert_eq!(managers(&got), [""; 0]);
}
