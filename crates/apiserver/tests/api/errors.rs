//! Refusals: codes, reasons and words.

use bytes::Bytes;
use http::{Method, Request};
use portolan_apiserver::User;
use serde_json::json;

use crate::common::{CONFIG_MAPS, SERVICES, Server, config_map, reply, service};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn unknown_things_are_404() {
    let server = Server::start().await;
    let nowhere = server.get("/nowhere").await;
    assert_eq!((nowhere.code.as_u16(), &nowhere.body[..]), (404, &b"404 page not found\n"[..]));
    assert_eq!(server.get("/apis/example.com/v1").await.body, "404 page not found\n");
    let (code, reason, message) = server.get("/api/v1/gadgets").await.refusal();
    assert_eq!((code, reason.as_str()), (404, "NotFound"));
    assert_eq!(message, "the server could not find the requested resource");
    assert_eq!(server.get("/api/v1/namespaces/default/nodes/a").await.code, 404);
    let missing = server.get(&format!("{SERVICES}/a")).await;
    assert_eq!(missing.refusal().2, "services \"a\" not found");
    assert_eq!(missing.json()["details"], json!({ "name": "a", "kind": "services" }));
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/a";
    assert_eq!(server.get(slices).await.refusal().2, "endpointslices.discovery.k8s.io \"a\" not found");
    let nowhere = server.post("/api/v1/namespaces/void/services", &service("a")).await;
    assert_eq!(nowhere.refusal(), (404, "NotFound".into(), "namespaces \"void\" not found".into()));
}

#[tokio::test]
async fn methods_and_media_types_that_do_not_fit() {
    let server = Server::start().await;
    assert_eq!(server.send(Method::POST, &format!("{SERVICES}/a"), &[JSON], "{}").await.code, 405);
    assert_eq!(server.send(Method::PUT, SERVICES, &[JSON], "{}").await.refusal().0, 405);
    assert_eq!(server.send(Method::POST, "/api/v1/services", &[JSON], "{}").await.refusal().0, 405);
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    assert_eq!(server.send(Method::POST, SERVICES, &protobuf, "x").await.refusal().0, 400);
    let job = &b"k8s\0\x0a\x0f\x0a\x08batch/v1\x12\x03Job"[..];
    let (code, reason, message) =
        server.send(Method::POST, crate::common::PODS, &protobuf, job).await.refusal();
    assert_eq!((code, reason.as_str()), (415, "UnsupportedMediaType"));
    assert!(message.contains("send it as application/json"), "{message}");
    let plain = [("content-type", "text/plain")];
    let (code, reason, _) = server.send(Method::POST, SERVICES, &plain, "x").await.refusal();
    assert_eq!((code, reason.as_str()), (415, "UnsupportedMediaType"));
    let (code, reason, message) = server
        .send(Method::GET, SERVICES, &[("accept", "application/vnd.kubernetes.protobuf")], "")
        .await
        .refusal();
    assert_eq!((code, reason.as_str()), (406, "NotAcceptable"));
    assert!(message.starts_with("only the following media types are accepted: "), "{message}");
    let both = [("accept", "application/vnd.kubernetes.protobuf, application/json")];
    assert_eq!(server.send(Method::GET, SERVICES, &both, "").await.ok()["kind"], "ServiceList");
    let patch = server.send(Method::PATCH, &format!("{SERVICES}/kubernetes"), &[JSON], "{}").await;
    assert_eq!(patch.refusal().0, 415);
}

#[tokio::test]
async fn bodies_that_cannot_be_read() {
    let server = Server::start().await;
    let message = |body: &'static str| {
        let server = &server;
        async move { server.send(Method::POST, SERVICES, &[JSON], body).await.refusal() }
    };
    let (code, reason, text) = message("{\"kind\": x}").await;
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    assert!(text.contains("invalid character 'x' looking for beginning of value"), "{text}");
    let (code, _, text) = message(r#"{"spec": {"ports": [{"port": "80"}]}}"#).await;
    assert_eq!(code, 400);
    assert!(
        text.starts_with("Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"),
        "{text}"
    );
    assert_eq!(message(r#"{"kind": "Pod", "apiVersion": "v1"}"#).await.0, 400);
    assert_eq!(message(r#"{"kind": "Service", "apiVersion": "apps/v1"}"#).await.0, 400);
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_about_or_dropped() {
    let server = Server::start().await;
    let mut object = service("web");
    object["spec"]["pubishNotReadyAddresses"] = true.into();
    let strict = server.post(&format!("{SERVICES}?fieldValidation=Strict"), &object).await;
    let (code, reason, message) = strict.refusal();
    assert_eq!((code, reason.as_str()), (400, "BadRequest"));
    assert!(
        message.starts_with(
            "Service in version \"v1\" cannot be handled as a Service: strict decoding error: unknown field \"spec.pubishNotReadyAddresses\""
        ) && message.contains("publishNotReadyAddresses"),
        "{message}"
    );
    let warned = server.post(SERVICES, &object).await;
    assert_eq!(warned.code, 201);
    assert!(warned.warnings()[0].starts_with("299 - \"unknown field \\\"spec.pubishNotReadyAddresses\\\""));
    assert_eq!(warned.json()["spec"].get("pubishNotReadyAddresses"), None);
    object["metadata"]["name"] = "other".into();
    let ignored = server.post(&format!("{SERVICES}?fieldValidation=Ignore"), &object).await;
    assert_eq!((ignored.code.as_u16(), ignored.warnings().len()), (201, 0));
    let (code, _, message) =
        server.post(&format!("{SERVICES}?fieldValidation=Hard"), &object).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("fieldValidation: Unsupported value: \"Hard\""), "{message}");
}

#[tokio::test]
async fn a_wrong_value_names_field_value_and_choice() {
    let server = Server::start().await;
    let mut object = service("session-svc");
    object["spec"]["sessionAffinity"] = "ClientIp".into();
    let refused = server.post(SERVICES, &object).await;
    let (code, reason, message) = refused.refusal();
    assert_eq!((code, reason.as_str()), (422, "Invalid"));
    assert!(
        message.contains(
            "spec.sessionAffinity: Unsupported value: \"ClientIp\": supported values: \"ClientIP\", \"None\""
        ),
        "{message}"
    );
    let causes = &refused.json()["details"]["causes"];
    assert_eq!(causes[0]["field"], "spec.sessionAffinity");
    assert_eq!(causes[0]["reason"], "FieldValueNotSupported");
}

#[tokio::test]
async fn names_must_be_given_and_fit_the_path() {
    let server = Server::start().await;
    let (code, _, message) =
        server.post(SERVICES, &json!({ "spec": { "ports": [{ "port": 80 }] } })).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("metadata.name: Required value: name or generateName is required"), "{message}");
    server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.ok();
    let (code, reason, message) = server.post(CONFIG_MAPS, &config_map("a", &json!({}))).await.refusal();
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );
    let (code, _, message) =
        server.put(&format!("{CONFIG_MAPS}/a"), &config_map("b", &json!({}))).await.refusal();
    assert_eq!(code, 400);
    assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
    let mut elsewhere = config_map("c", &json!({}));
    elsewhere["metadata"]["namespace"] = "kube-system".into();
    let (code, _, message) = server.post(CONFIG_MAPS, &elsewhere).await.refusal();
    assert_eq!(code, 400);
    assert_eq!(
        message,
        "the namespace of the provided object does not match the namespace sent on the request"
    );
}

#[tokio::test]
async fn strangers_are_told_what_they_may_not_do() {
    let server = Server::start().await;
    let ask = |user: Option<User>, path: &'static str| {
        let api = server.api.clone();
        async move {
            let mut request = Request::get(path).body(Bytes::new()).unwrap();
            if let Some(user) = user {
                request.extensions_mut().insert(user);
            }
            reply(api.handle(request).await).await
        }
    };
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(ask(None, path).await.body, "ok");
    }
    assert_eq!(ask(None, "/version").await.ok()["minor"], "36");
    let (code, reason, message) = ask(None, "/api/v1/nodes").await.refusal();
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"
    );
    assert_eq!(ask(None, "/api").await.refusal().0, 403);
    let proxy = User::new("system:kube-proxy", [""; 0]);
    assert_eq!(ask(Some(proxy.clone()), "/api/v1/services").await.code, 200);
    assert_eq!(ask(Some(proxy), "/api/v1/secrets").await.refusal().0, 403);
}

#[tokio::test]
async fn requests_are_counted() {
    let server = Server::start().await;
    server.get(&format!("{SERVICES}/a")).await;
    let text = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
    let line = r#"apiserver_request_total{verb="GET",group="",version="v1",resource="services",subresource="",code="404"} 1"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("apiserver_request_duration_seconds_count"), "{text}");
}
