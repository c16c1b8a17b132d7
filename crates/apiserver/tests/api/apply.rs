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
async fn values_of_other_types_are_refused_first() {
    let server = Server::start().await;
    apply(&server, "fieldManager=one", &web(&json!({ "ports": [{ "port": 80 }], "type": "ClusterIP" })))
        .await
        .ok();
    let about = "failed to create typed patch object (default/web; /v1, Kind=Service)";
    for (spec, what) in [
        // Somebody else's field, but that is not what is wrong.
        (json!({ "type": 1 }), ".spec.type: expected string, got &value.valueUnstructured{Value:1}"),
        (
            json!({ "ports": ["a"] }),
            ".spec.ports: element 0: associative list with keys may not have non-map elements",
        ),
        (json!("a"), ".spec: expected map, got &{a}"),
    ] {
        let refused = apply(&server, "fieldManager=two", &web(&spec)).await.refusal();
        assert_eq!(refused, (500, String::new(), format!("{about}: {what}")));
    }
    let (code, _, message) = apply(&server, "fieldManager=two", &json!([])).await.refusal();
    assert_eq!(code, 400);
    assert_eq!(
        message,
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of \
         type map[string]interface {}"
    );
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

#[tokio::test]
async fn a_conflict_names_the_subresource() {
    let server = Server::start().await;
    apply(&server, "fieldManager=me", &web(&json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] })))
        .await
        .ok();
    let path = format!("{SERVICES}/web/status");
    let status = |address: &str| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } })
    };
    server.patch(&format!("{path}?fieldManager=lb"), "merge", &status("192.0.2.1")).await.ok();
    let refused = server.patch(&format!("{path}?fieldManager=other"), "apply", &status("192.0.2.2")).await;
    let cause = "conflict with \"lb\" with subresource \"status\" using v1";
    let field = ".status.loadBalancer.ingress";
    assert_eq!(
        refused.json(),
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
            "message": format!("Apply failed with 1 conflict: {cause}: {field}"),
            "details": { "causes": [{ "reason": "FieldManagerConflict", "message": cause, "field": field }] } })
    );
    let path = format!("{path}?fieldManager=other&force=true");
    let forced = server.patch(&path, "apply", &status("192.0.2.2")).await.ok();
    assert_eq!(managers(&forced), ["me Apply -", "other Apply status"]);
}

#[tokio::test]
async fn of_many_writers_the_oldest_become_one() {
    let server = Server::start().await;
    // What nobody was recorded for from the beginning is not tracked later either.
    let made = json!({ "metadata": { "name": "a" }, "data": { "x": "y" } });
    server.post(&format!("{CONFIG_MAPS}?fieldManager=first"), &made).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    for index in 0..12 {
        let patch = json!({ "data": { format!("k{index:02}"): "v" } });
        server.patch(&format!("{path}?fieldManager=m{index:02}"), "merge", &patch).await.ok();
    }
    let got = server.get(&path).await.ok();
    let found = managers(&got);
    assert_eq!(found.len(), 10, "{found:?}");
    let ancient = got["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["manager"] == "ancient-changes")
        .unwrap();
    // Everybody's fields are somebody's still.
    let owned: usize =
        ancient["fieldsV1"]["f:data"].as_object().unwrap().keys().filter(|key| *key != ".").count();
    assert_eq!(owned, 4, "{ancient}");
}

/// Of a selector a part means nothing, so one owner has it as a whole; older patches merge it key by key nevertheless.
#[tokio::test]
async fn a_selector_has_one_owner() {
    let server = Server::start().await;
    let ports = json!([{ "port": 80 }]);
    apply(&server, "fieldManager=one", &web(&json!({ "ports": ports, "selector": { "a": "1" } }))).await.ok();
    let refused =
        apply(&server, "fieldManager=two", &web(&json!({ "selector": { "b": "2" } }))).await.refusal();
    assert_eq!(
        refused,
        (
            409,
            "Conflict".into(),
            "Apply failed with 1 conflict: conflict with \"one\": .spec.selector".into()
        )
    );
    for (kind, key) in [("strategic", "b"), ("merge", "c")] {
        let patch = json!({ "spec": { "selector": { key: "2" } } });
        let got = server.patch(&format!("{SERVICES}/web"), kind, &patch).await.ok();
        assert_eq!(
            (&got["spec"]["selector"]["a"], &got["spec"]["selector"][key]),
            (&json!("1"), &json!("2"))
        );
    }
    // Port and protocol tell ports apart; a strategic patch knows the port alone.
    let both = json!([{ "port": 80, "name": "a" }, { "port": 80, "protocol": "UDP", "name": "b" }]);
    let both = web(&json!({ "ports": both, "selector": { "a": "1" } }));
    let got = apply(&server, "fieldManager=one&force=true", &both).await.ok();
    assert_eq!(got["spec"]["ports"].as_array().unwrap().len(), 2);
    let twice = json!([{ "port": 80, "name": "a" }, { "port": 80, "protocol": "TCP", "name": "b" }]);
    let (code, _, message) =
        apply(&server, "fieldManager=one", &web(&json!({ "ports": twice }))).await.refusal();
    assert_eq!(code, 500);
    assert!(
        message.starts_with("failed to create typed patch object (default/web; /v1, Kind=Service): "),
        "{message}"
    );
    assert!(
        message.contains(".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]"),
        "{message}"
    );
}

#[tokio::test]
async fn keys_twice_are_refused_or_warned_about() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  x: \"1\"\n  x: \"2\"\n";
    let headers = [("content-type", "application/apply-patch+yaml")];
    let send = async |mode: &str| {
        let path = format!("{CONFIG_MAPS}/a?fieldManager=me&fieldValidation={mode}");
        server.send(Method::PATCH, &path, &headers, yaml).await
    };
    assert_eq!(
        send("Strict").await.refusal(),
        (
            400,
            "BadRequest".into(),
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"x\" already \
             set in map"
                .into()
        )
    );
    let warned = send("Warn").await;
    assert_eq!(warned.warnings(), ["299 - \"line 7: key \\\"x\\\" already set in map\""]);
    assert_eq!(warned.ok()["data"], json!({ "x": "2" }));
    assert_eq!(send("Ignore").await.warnings(), [""; 0]);
}
