//! What decoding says about text that is wrong, and what it leaves of text that is right.

use super::*;
use crate::core::v1::{Pod, Service};
use proptest::prelude::*;
use serde_json::json;

fn problems(text: &str) -> Vec<String> {
    let decoded = decode(text.as_bytes(), Service::schema()).unwrap();
    decoded.problems.iter().map(ToString::to_string).collect()
}

fn error(text: &str) -> String {
    decode(text.as_bytes(), Service::schema()).unwrap_err().to_string()
}

#[test]
fn unknown_fields_are_named_with_their_path_and_likely_intent() {
    assert_eq!(
        problems(r#"{"spec":{"foo":1,"ports":[{"port":1},{"prot":2}]}}"#),
        [r#"unknown field "spec.foo""#, r#"unknown field "spec.ports[1].prot" (did you mean "port"?)"#,]
    );
    assert_eq!(
        problems(r#"{"spec":{"pubishNotReadyAddresses":true}}"#),
        [r#"unknown field "spec.pubishNotReadyAddresses" (did you mean "publishNotReadyAddresses"?)"#,]
    );
    assert_eq!(problems(r#"{"Spec":{}}"#), [r#"unknown field "Spec" (did you mean "spec"?)"#]);
}

#[test]
fn duplicate_fields_are_named_with_their_path() {
    assert_eq!(
        problems(
            r#"{"spec":{"type":"A","type":"B","ports":[{"port":1,"port":2}]},"metadata":{"labels":{"a":"1","a":"2"}},"kind":"a","kind":"b"}"#
        ),
        [
            r#"duplicate field "spec.type""#,
            r#"duplicate field "spec.ports[0].port""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"duplicate field "kind""#,
        ]
    );
    let decoded = decode(br#"{"spec":{"type":"A","type":"B"}}"#, Service::schema()).unwrap();
    assert_eq!(decoded.value, json!({"spec": {"type": "B"}}));
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let cases = [
        (
            r#"{"spec":{"ports":[{"port":"http"}]}}"#,
            "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"spec":{"ports":[{"port":"80"}]}}"#,
            "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32 \
          (did you mean 80, without quotes?)",
        ),
        (
            r#"{"spec":{"ports":[{"port":1.5}]}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"spec":{"ports":[{"port":9999999999}]}}"#,
            "json: cannot unmarshal number 9999999999 into Go struct field ServicePort.spec.ports.port of type int32",
        ),
        (
            r#"{"spec":{"ports":{}}}"#,
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
        ),
        (
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string \
          (did you mean \"1\", in quotes?)",
        ),
        (
            r#"{"spec":{"type":{}}}"#,
            "json: cannot unmarshal object into Go struct field ServiceSpec.spec.type of type v1.ServiceType",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Service"),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn bad_syntax_wins_over_wrong_types() {
    assert!(matches!(decode(br#"{"spec":[],"#, Service::schema()), Err(DecodeError::Syntax(_))));
    assert!(matches!(decode(br"{} x", Service::schema()), Err(DecodeError::Syntax(_))));
}

#[test]
fn what_an_encoder_would_leave_out_is_gone() {
    let text = r#"{"metadata":{"creationTimestamp":null,"labels":{}},"spec":{"clusterIP":"","selector":{},
        "ports":[{"port":80,"nodePort":0,"targetPort":0}],"allocateLoadBalancerNodePorts":false,
        "publishNotReadyAddresses":false,"ipFamilyPolicy":""},"status":{"loadBalancer":{}}}"#;
    let decoded = decode(text.as_bytes(), Service::schema()).unwrap();
    assert_eq!(
        decoded.value,
        json!({"metadata": {}, "spec": {"ports": [{"port": 80, "targetPort": 0}],
        "allocateLoadBalancerNodePorts": false, "ipFamilyPolicy": ""}, "status": {"loadBalancer": {}}})
    );
}

#[test]
fn free_form_parts_are_kept_as_they_are() {
    let text = r#"{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1}}}],
        "securityContext":{"x":null,"y":[{"z":0}]}}}"#;
    let decoded = decode(text.as_bytes(), Pod::schema()).unwrap();
    assert!(decoded.problems.is_empty());
    assert_eq!(decoded.value["spec"]["securityContext"], json!({"x": null, "y": [{"z": 0}]}));
    assert_eq!(decoded.value["spec"]["containers"][0]["resources"]["limits"]["cpu"], json!("1"));
}

#[test]
fn hostile_bodies_end_early() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode(deep.as_bytes(), Service::schema()).is_err());
    let deep = format!(r#"{{"spec":{{"x":{}}}}}"#, "{\"a\":".repeat(5000));
    assert!(decode(deep.as_bytes(), Service::schema()).is_err());
    let many: Vec<String> = (0..5000).map(|i| format!("\"x{i}\":1")).collect();
    let decoded = decode(format!("{{{}}}", many.join(",")).as_bytes(), Service::schema()).unwrap();
    assert_eq!(decoded.problems.len(), PROBLEMS_MAX);
    assert_eq!(decode(&vec![b' '; BODY_BYTES_MAX + 1], Service::schema()), Err(DecodeError::TooLarge));
}

#[test]
fn a_parsed_value_is_checked_the_same_way() {
    let decoded = check(&json!({"spec": {"foo": 1, "clusterIP": ""}}), Service::schema()).unwrap();
    assert_eq!(decoded.value, json!({"spec": {}}));
    assert_eq!(strict_error(&decoded.problems), r#"strict decoding error: unknown field "spec.foo""#);
}

/// Words that make random JSON look like a Service now and then.
const NAMES: &[&str] =
    &["spec", "metadata", "ports", "port", "labels", "type", "status", "targetPort", "x", ""];

fn json_like() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| serde_json::json!(f)),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((proptest::sample::select(NAMES), inner), 0..6)
                .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    /// Whatever comes in, what comes out decodes to itself without a problem.
    #[test]
    fn what_was_decoded_decodes_to_itself(value in json_like()) {
        let schema = Service::schema();
        if let Ok(once) = decode(value.to_string().as_bytes(), schema) {
            let twice = decode(once.value.to_string().as_bytes(), schema).unwrap();
            prop_assert_eq!(&twice.value, &once.value);
            prop_assert!(twice.problems.is_empty());
            prop_assert_eq!(check(&once.value, schema).unwrap().value, once.value);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        _ = decode(&bytes, Service::schema());
    }
}

#[test]
fn what_kubernetes_always_writes_is_there() {
    let pod = br#"{"status":{"containerStatuses":[{"name":"c"}]}}"#;
    let pod = decode(pod, Pod::schema()).unwrap().value;
    assert_eq!(
        pod["status"]["containerStatuses"][0],
        json!({ "name": "c", "ready": false, "restartCount": 0, "image": "", "imageID": "" })
    );
}
