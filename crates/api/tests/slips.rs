//! Manifests as people paste them from the web, with the slips they contain, through the same steps as in the server:
//! decode, default, (allocate,) validate.

#![allow(clippy::unwrap_used)] // Helpers of tests are tests too.

use portolan_api::decode::{decode, strict_error};
use portolan_api::field::FieldError;
use portolan_api::resource::{ENDPOINTS, Resource, SERVICES};
use portolan_api::status;
use serde_json::{Value, json};

/// Strict problems, and the refusal after allocation.
fn submit(resource: &Resource, manifest: &Value) -> (Vec<String>, Vec<FieldError>) {
    let decoded = decode(manifest.to_string().as_bytes(), (resource.schema)()).unwrap();
    let problems = decoded.problems.iter().map(ToString::to_string).collect();
    let mut object = decoded.value;
    object["metadata"]["namespace"] = json!("default");
    resource.strategy.default(&mut object);
    if resource.kind == "Service" {
        object["spec"]["clusterIP"] = json!("10.96.0.10");
        object["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
        object["spec"]["ipFamilyPolicy"] = json!("SingleStack");
    }
    resource.strategy.prepare_create(&mut object);
    (problems, resource.strategy.validate_create(&object))
}

fn session_service(patch: &Value) -> Value {
    let mut manifest = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "session-svc"},
        "spec": {
            "type": "NodePort", "selector": {"role": "web"},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
        },
    });
    for (key, value) in patch.as_object().unwrap() {
        manifest["spec"][key] = value.clone();
    }
    manifest
}

#[test]
fn a_misspelt_affinity_is_refused_with_the_likely_intent() {
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    for extra in [json!({}), json!({"externalTrafficPolicy": "Local"})] {
        let mut patch = extra;
        patch["sessionAffinity"] = json!("ClientIp");
        patch["sessionAffinityConfig"] = config.clone();
        let (problems, errors) = submit(&SERVICES, &session_service(&patch));
        assert!(problems.is_empty());
        assert_eq!(
            status::invalid(&SERVICES, "session-svc", &errors).message,
            "Service \"session-svc\" is invalid: spec.sessionAffinity: Unsupported value: \"ClientIp\": supported \
             values: \"ClientIP\", \"None\" (did you mean \"ClientIP\"?)"
        );
        patch["sessionAffinity"] = json!("ClientIP");
        assert!(submit(&SERVICES, &session_service(&patch)).1.is_empty());
    }
}

#[test]
fn a_local_policy_is_taken() {
    let (problems, errors) = submit(&SERVICES, &session_service(&json!({"internalTrafficPolicy": "Local"})));
    assert!(problems.is_empty() && errors.is_empty());
}

#[test]
fn a_misspelt_field_is_a_problem_with_the_likely_intent() {
    let manifest = session_service(&json!({"pubishNotReadyAddresses": true}));
    let decoded = decode(manifest.to_string().as_bytes(), (SERVICES.schema)()).unwrap();
    assert_eq!(
        strict_error(&decoded.problems),
        "strict decoding error: unknown field \"spec.pubishNotReadyAddresses\" (did you mean \
         \"publishNotReadyAddresses\"?)"
    );
    let (_, errors) = submit(&SERVICES, &manifest);
    assert!(errors.is_empty(), "without strict decoding the Service is served: {errors:?}");
}

#[test]
fn a_service_with_its_own_endpoints_is_taken() {
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "mysql-external"},
        "subsets": [{"addresses": [{"ip": "10.0.0.206"}], "ports": [{"protocol": "TCP", "port": 3306}]}],
    });
    let (problems, errors) = submit(&ENDPOINTS, &endpoints);
    assert!(problems.is_empty() && errors.is_empty());
}
