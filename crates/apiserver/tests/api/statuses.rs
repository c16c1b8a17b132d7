//! Refusals as a whole: every field of the Status that answers them.

use http::Method;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, Reply, SERVICES, Server, config_map, service, service_with, text};

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// The answer is this failure and nothing else. `details` may be null.
#[track_caller]
fn is_failure(reply: &Reply, code: u16, reason: &str, message: &str, details: &Value) {
    let mut wanted = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code,
    });
    if !reason.is_empty() {
        wanted["reason"] = reason.into();
    }
    if !details.is_null() {
        wanted["details"] = details.clone();
    }
    assert_eq!(reply.json(), wanted);
    assert_eq!(reply.code, code);
}

#[tokio::test]
async fn what_is_not_there_or_there_already() {
    let server = Server::start().await;
    let missing = server.get(&format!("{SERVICES}/x")).await;
    is_failure(
        &missing,
        404,
        "NotFound",
        "services \"x\" not found",
        &json!({ "name": "x", "kind": "services" }),
    );
    let missing = server.delete(&format!("{SLICES}/x")).await;
    let details = json!({ "name": "x", "group": "discovery.k8s.io", "kind": "endpointslices" });
    is_failure(&missing, 404, "NotFound", "endpointslices.discovery.k8s.io \"x\" not found", &details);

    server.post(SERVICES, &service("x")).await.ok();
    let again = server.post(SERVICES, &service("x")).await;
    let details = json!({ "name": "x", "kind": "services" });
    is_failure(&again, 409, "AlreadyExists", "services \"x\" already exists", &details);
    let hold = json!({ "metadata": { "finalizers": ["a/b"] } });
    server.patch(&format!("{SERVICES}/x"), "merge", &hold).await.ok();
    server.delete(&format!("{SERVICES}/x")).await.ok();
    let again = server.post(SERVICES, &service("x")).await;
    let message = "object is being deleted: services \"x\" already exists";
    is_failure(&again, 409, "AlreadyExists", message, &details);
}

#[tokio::test]
async fn what_is_not_the_object_that_was_meant() {
    let server = Server::start().await;
    let first = server.post(SERVICES, &service("x")).await.ok();
    let path = format!("{SERVICES}/x");
    server.patch(&path, "merge", &json!({ "metadata": { "labels": { "a": "b" } } })).await.ok();
    let details = json!({ "name": "x", "kind": "services" });
    is_failure(
        &server.put(&path, &first).await,
        409,
        "Conflict",
        "Operation cannot be fulfilled on services \"x\": the object has been modified; please apply your changes to the \
         latest version and try again",
        &details,
    );
    let mut other = first.clone();
    other["metadata"] = json!({ "name": "x", "uid": "other" });
    let uid = text(&first["metadata"]["uid"]);
    is_failure(
        &server.put(&path, &other).await,
        409,
        "Conflict",
        &format!(
            "Operation cannot be fulfilled on services \"x\": StorageError: invalid object, Code: 4, Key: \
             /registry/services/specs/default/x, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in \
             precondition: other, UID in object meta: {uid}"
        ),
        &details,
    );
    other["metadata"] = json!({ "name": "x", "namespace": "kube-system" });
    let message = "the namespace of the provided object does not match the namespace sent on the request";
    is_failure(&server.post(SERVICES, &other).await, 400, "BadRequest", message, &Value::Null);

    let lease = json!({ "metadata": { "name": "x" }, "spec": {} });
    server.post(LEASES, &lease).await.ok();
    let detail = "Invalid value: 0: must be specified for an update";
    is_failure(
        &server.put(&format!("{LEASES}/x"), &lease).await,
        422,
        "Invalid",
        &format!("Lease.coordination.k8s.io \"x\" is invalid: metadata.resourceVersion: {detail}"),
        &json!({ "name": "x", "group": "coordination.k8s.io", "kind": "Lease", "causes": [
            { "reason": "FieldValueInvalid", "message": detail, "field": "metadata.resourceVersion" },
        ] }),
    );
    let nameless = server.post(CONFIG_MAPS, &json!({})).await;
    let detail = "Required value: name or generateName is required";
    is_failure(
        &nameless,
        422,
        "Invalid",
        &format!("ConfigMap \"\" is invalid: metadata.name: {detail}"),
        &json!({ "kind": "ConfigMap", "causes": [
            { "reason": "FieldValueRequired", "message": detail, "field": "metadata.name" },
        ] }),
    );
    let made = server.post(CONFIG_MAPS, &config_map("x", &json!({}))).await.ok();
    // When it was made is known better here; that it goes is not for an update to say.
    let path = format!("{CONFIG_MAPS}/x");
    let mut other = made.clone();
    other["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
    assert_eq!(server.put(&path, &other).await.ok(), made);
    other["metadata"]["deletionTimestamp"] = "2020-01-01T00:00:00Z".into();
    let (code, _, message) = server.put(&path, &other).await.refusal();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "ConfigMap \"x\" is invalid: metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable"
    );
    // The registry looks at metadata, and so does the kind; each of them looks twice at labels.
    let odd = json!({ "metadata": { "name": "x", "labels": { "a": "b c" }, "finalizers": ["x"] } });
    let causes = server.put(&path, &odd).await.json()["details"]["causes"].clone();
    let fields: Vec<String> = causes.as_array().unwrap().iter().map(|cause| text(&cause["field"])).collect();
    let (labels, finalizer) = ("metadata.labels", "metadata.finalizers[0]");
    assert_eq!(fields, [labels, labels, labels, labels, finalizer]);
}

#[tokio::test]
async fn what_goes_wrong_inside() {
    let server = Server::start().await;
    let local = |name: &str, port: u16| {
        let ports = json!([{ "port": 80, "nodePort": port }]);
        let spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
            "ports": ports });
        service_with(name, &spec)
    };
    server.post(SERVICES, &local("x", 31001)).await.ok();
    let inner = "failed to allocate requested HealthCheck NodePort 31000: provided port is already allocated";
    is_failure(
        &server.post(SERVICES, &local("y", 31002)).await,
        500,
        "InternalError",
        &format!("Internal error occurred: {inner}"),
        &json!({ "causes": [{ "message": inner }] }),
    );
    let outside =
        json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 80 });
    let (code, _, message) = server.post(SERVICES, &service_with("y", &outside)).await.refusal();
    assert_eq!(code, 500);
    assert_eq!(
        message,
        "Internal error occurred: failed to allocate requested HealthCheck NodePort 80: provided port is not in the valid \
         range. The range of valid ports is 30000-32767"
    );
    // On an update one number twice is an error that Kubernetes gives no type.
    let ports = json!([
        { "name": "a", "port": 80, "nodePort": 32080 }, { "name": "b", "port": 81, "nodePort": 32080 },
    ]);
    let spec = json!({ "spec": { "type": "NodePort", "ports": ports } });
    server.post(SERVICES, &service("z")).await.ok();
    let reply = server.patch(&format!("{SERVICES}/z"), "merge", &spec).await;
    is_failure(&reply, 500, "", "duplicate nodePort: {TCP 32080}", &Value::Null);
}

#[tokio::test]
async fn what_cannot_be_read() {
    let server = Server::start().await;
    let post = async |query: &str, kind: &str, body: &str| {
        let headers = [("content-type", kind)];
        server.send(Method::POST, &format!("{SERVICES}?{query}"), &headers, body.to_owned()).await
    };
    let twice = r#"{"metadata":{"name":"x"},"spec":{"foo":1,"type":"NodePort","type":"ClusterIP","ports":[{"port":80,"foo":2}]}}"#;
    is_failure(
        &post("fieldValidation=Strict", "application/json", twice).await,
        400,
        "BadRequest",
        "Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown field \"spec.foo\", \
         duplicate field \"spec.type\", unknown field \"spec.ports[0].foo\"",
        &Value::Null,
    );
    let warned = post("", "application/json", twice).await;
    assert_eq!(
        warned.warnings(),
        [
            "299 - \"unknown field \\\"spec.foo\\\"\"",
            "299 - \"duplicate field \\\"spec.type\\\"\"",
            "299 - \"unknown field \\\"spec.ports[0].foo\\\"\"",
        ]
    );
    assert_eq!(warned.ok()["spec"]["type"], "ClusterIP", "the last one counts");
    // The wrong type of a value is wrong in any mode.
    for mode in ["Ignore", "Warn", "Strict"] {
        let body = r#"{"metadata":{"name":"y"},"spec":{"ports":[{"port":"http"}]}}"#;
        is_failure(
            &post(&format!("fieldValidation={mode}"), "application/json", body).await,
            400,
            "BadRequest",
            "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field \
             ServicePort.spec.ports.port of type int32",
            &Value::Null,
        );
    }
    let yaml = "metadata:\n  name: y\nspec:\n  type: NodePort\n  type: ClusterIP\n  ports:\n  - port: 80\n";
    let strict = post("fieldValidation=Strict", "application/yaml", yaml).await;
    is_failure(
        &strict,
        400,
        "BadRequest",
        "Service in version \"v1\" cannot be handled as a Service: strict decoding error: yaml: unmarshal errors:\n  line \
         5: key \"type\" already set in map",
        &Value::Null,
    );
    let warned = post("", "application/yaml", yaml).await;
    assert_eq!(warned.warnings(), ["299 - \"line 5: key \\\"type\\\" already set in map\""]);
    assert_eq!(warned.ok()["spec"]["type"], "ClusterIP");
    let path = format!("{SERVICES}/y");
    server.delete(&path).await.ok();
    let ignored = post("fieldValidation=Ignore", "application/yaml", yaml).await;
    assert_eq!((ignored.code.as_u16(), ignored.warnings().len()), (201, 0));
}

/// What was dropped of a request is told also to who gets a refusal for something else.
#[tokio::test]
async fn refusals_carry_the_warnings_before_them() {
    let server = Server::start().await;
    let path = format!("{SERVICES}/x");
    let warning = ["299 - \"unknown field \\\"spec.foo\\\"\""];
    let wrong = service_with("x", &json!({ "foo": 1, "sessionAffinity": "Sticky" }));
    let (code, headers) = {
        let reply = server.post(SERVICES, &wrong).await;
        (reply.code.as_u16(), reply.warnings())
    };
    assert_eq!((code, headers), (422, warning.map(str::to_owned).to_vec()));
    server.post(SERVICES, &service("x")).await.ok();
    let patch = json!({ "spec": { "foo": 1, "sessionAffinity": "Sticky" } });
    for reply in [
        server.put(&path, &wrong).await,
        server.patch(&path, "merge", &patch).await,
        server.patch(&path, "strategic", &patch).await,
    ] {
        assert_eq!((reply.code.as_u16(), reply.warnings()), (422, warning.map(str::to_owned).to_vec()));
    }
}

#[tokio::test]
async fn patches_that_lead_to_nonsense() {
    let server = Server::start().await;
    server.post(SERVICES, &service("x")).await.ok();
    let path = format!("{SERVICES}/x");
    let send = async |kind: &str, query: &str, body: &str| {
        let headers = [("content-type", format!("application/{kind}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        server.send(Method::PATCH, &format!("{path}?{query}"), &headers, body.to_owned()).await
    };
    // The end of the refusal of a patch: the patched object, or the patch as Go prints it, stands before.
    let refusal = |reply: &Reply| {
        let status = reply.json();
        assert_eq!((reply.code.as_u16(), text(&status["reason"])), (422, "Invalid".into()), "{status}");
        let cause = &status["details"]["causes"][0];
        assert_eq!(
            (text(&cause["field"]), text(&cause["reason"])),
            ("patch".into(), "FieldValueInvalid".into())
        );
        let message = text(&status["message"]);
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: \""), "{message}");
        message
    };
    let strategic = "strategic-merge-patch+json";
    let unknown = r#"{"spec":{"foo":[1,"a",null,{"b":true}]}}"#;
    assert_eq!(
        refusal(&send(strategic, "fieldValidation=Strict", unknown).await),
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[foo:[1 a <nil> map[b:true]]]]\": strict decoding error: unknown \
         field \"spec.foo\""
    );
    for (kind, body, problems) in [
        ("merge-patch+json", r#"{"spec":{"foo":1}}"#, vec!["unknown field \"spec.foo\""]),
        (
            "merge-patch+json",
            r#"{"spec":{"type":"NodePort","type":"ClusterIP","foo":1}}"#,
            vec!["duplicate field \"spec.type\"", "unknown field \"spec.foo\""],
        ),
        (
            strategic,
            r#"{"spec":{"type":"NodePort","type":"ClusterIP"}}"#,
            vec!["duplicate field \"spec.type\""],
        ),
        (
            "json-patch+json",
            r#"[{"op":"add","path":"/spec/foo","path":"/spec/foo","value":1,"bar":2}]"#,
            vec![
                "json patch duplicate field \"[0].path\"",
                "json patch unknown field \"[0].bar\"",
                "unknown field \"spec.foo\"",
            ],
        ),
    ] {
        let message = refusal(&send(kind, "fieldValidation=Strict", body).await);
        let end = format!("\": strict decoding error: {}", problems.join(", "));
        assert!(message.ends_with(&end), "{body}: {message}");
        let warned = send(kind, "", body).await;
        assert_eq!(warned.code, 200);
        let wanted: Vec<String> =
            problems.iter().map(|p| format!("299 - \"{}\"", p.replace('"', "\\\""))).collect();
        assert_eq!(warned.warnings(), wanted, "{body}");
        assert_eq!(send(kind, "fieldValidation=Ignore", body).await.warnings(), [""; 0]);
    }
    assert_eq!(
        refusal(&send(strategic, "", r#"{"spec":{"ports":[{"port":"http"}]}}"#).await),
        " \"\" is invalid: patch: Invalid value: \"map[spec:map[ports:[map[port:http]]]]\": unrecognized type: int32"
    );
    let wrong = r#"{"spec":{"sessionAffinity":{}}}"#;
    let message = refusal(&send("merge-patch+json", "fieldValidation=Ignore", wrong).await);
    let end = "json: cannot unmarshal object into Go struct field ServiceSpec.spec.sessionAffinity of type \
               v1.ServiceAffinity";
    assert!(message.ends_with(end), "{message}");
    assert!(message.contains("\\\"sessionAffinity\\\":{}"), "the patched object is not shown: {message}");
}

#[tokio::test]
async fn patches_that_cannot_be_read_or_do_not_apply() {
    let server = Server::start().await;
    server.post(SERVICES, &service("x")).await.ok();
    let send = async |kind: &str, body: &str| {
        let kind = format!("application/{kind}");
        server
            .send(Method::PATCH, &format!("{SERVICES}/x"), &[("content-type", &kind)], body.to_owned())
            .await
    };
    let strategic = "strategic-merge-patch+json";
    let eof = "unexpected end of JSON input";
    let map = "json: cannot unmarshal array into Go value of type map[string]interface {}";
    let operations = "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp";
    for (kind, body, message) in [
        ("merge-patch+json", "{", format!("error decoding patch: {eof}")),
        (strategic, "{", eof.to_owned()),
        ("json-patch+json", "[", format!("error decoding patch: {eof}")),
        ("merge-patch+json", "[]", format!("error decoding patch: {map}")),
        (strategic, "[]", map.to_owned()),
        ("json-patch+json", "{}", format!("error decoding patch: {operations}")),
    ] {
        is_failure(&send(kind, body).await, 400, "BadRequest", &message, &Value::Null);
    }
    let reply = send("json-patch+json", r#"[{"op":"remove","path":"/spec/foo"}]"#).await;
    let message = "the server rejected our request due to an error in our request";
    is_failure(&reply, 422, "Invalid", message, &json!({}));
    let reply = send(strategic, r#"{"spec":{"ports":[1]}}"#).await;
    let lists = "[[map[port:80 protocol:TCP targetPort:80]] [1]]";
    is_failure(&reply, 500, "", &format!("list element types are not identical: {lists}"), &Value::Null);
}
