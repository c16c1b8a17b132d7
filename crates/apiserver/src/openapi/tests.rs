//! The documents as clients read them.

use super::*;

fn document(path: &str) -> Value {
    serde_json::from_slice(&OpenApi::new().get(path, "application/json").unwrap().body).unwrap()
}

/// Every reference of a document, to check that it leads somewhere.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_leads_to_a_definition() {
    for path in [
        "/openapi/v2",
        "/openapi/v3/api/v1",
        "/openapi/v3/apis/discovery.k8s.io/v1",
        "/openapi/v3/apis/networking.k8s.io/v1",
    ] {
        let document = document(path);
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 20, "{path}");
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{path}: {reference}");
        }
    }
}

#[test]
fn the_index_names_every_document_by_its_hash() {
    let openapi = OpenApi::new();
    let index: Value = serde_json::from_slice(&openapi.get("/openapi/v3", "*/*").unwrap().body).unwrap();
    let paths = index["paths"].as_object().unwrap();
    assert!(paths.contains_key("api/v1") && paths.contains_key("apis/discovery.k8s.io/v1"));
    for entry in paths.values() {
        let (path, hash) = entry["serverRelativeURL"].as_str().unwrap().split_once("?hash=").unwrap();
        assert_eq!(openapi.get(path, "").unwrap().etag, format!("\"{hash}\""));
    }
    assert!(openapi.get("/openapi/v3/apis/none/v1", "").is_none());
}

#[test]
fn kubectl_finds_field_validation_at_the_patch_of_a_kind() {
    for path in ["/openapi/v2", "/openapi/v3/api/v1"] {
        let document = document(path);
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "", "kind": "Service", "version": "v1"})
        );
        let parameters = patch["parameters"].as_array().unwrap();
        for name in ["fieldValidation", "dryRun"] {
            assert!(
                parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "query"),
                "{path}"
            );
        }
    }
}

#[test]
fn merge_keys_and_list_types_are_stated() {
    let document = document("/openapi/v3/api/v1");
    let schemas = &document["components"]["schemas"];
    let ports = &schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]["ports"];
    assert_eq!(ports["x-kubernetes-patch-merge-key"], "port");
    assert_eq!(ports["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(ports["x-kubernetes-list-type"], "map");
    assert_eq!(ports["x-kubernetes-list-map-keys"], json!(["port", "protocol"]));
    assert_eq!(ports["items"]["allOf"][0]["$ref"], "#/components/schemas/io.k8s.api.core.v1.ServicePort");
    let service = &schemas["io.k8s.api.core.v1.Service"];
    assert_eq!(
        service["x-kubernetes-group-version-kind"],
        json!([{"group": "", "kind": "Service", "version": "v1"}])
    );
    assert_eq!(schemas["io.k8s.api.core.v1.ServicePort"]["required"], json!(["port"]));
}

#[test]
fn older_clients_get_protobuf() {
    let openapi = OpenApi::new();
    for accept in [
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
        "application/com.github.proto-openapi.spec.v2.v1.0+protobuf, application/json",
    ] {
        let document = openapi.get("/openapi/v2", accept).unwrap();
        assert_eq!(document.content_type, V2_PROTOBUF);
        assert_eq!(document.body[..5], *b"\x0a\x032.0");
    }
    let json_first = "application/json, application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    assert_eq!(openapi.get("/openapi/v2", json_first).unwrap().content_type, "application/json");
}

/// A reader of the wire form, just enough to see that what was written can be read: field number and content.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return number;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let content = if tag & 7 == 2 {
            let length = varint(&mut bytes) as usize;
            let (content, rest) = bytes.split_at(length);
            bytes = rest;
            content.to_vec()
        } else {
            vec![varint(&mut bytes) as u8]
        };
        found.push((tag >> 3, content));
    }
    found
}

fn field(bytes: &[u8], number: u64) -> Vec<Vec<u8>> {
    fields(bytes).into_iter().filter(|(found, _)| *found == number).map(|(_, content)| content).collect()
}

/// The value of an entry of a map of named messages.
fn entry(messages: &[Vec<u8>], name: &str) -> Vec<u8> {
    let found = messages.iter().find(|message| field(message, 1)[0] == name.as_bytes()).unwrap();
    field(found, 2).remove(0)
}

#[test]
fn the_protobuf_form_says_the_same() {
    let body = v2_proto::encode(&v2());
    let definitions = field(&field(&body, 9)[0], 1);
    assert_eq!(definitions.len(), v2()["definitions"].as_object().unwrap().len());
    let service = entry(&definitions, "io.k8s.api.core.v1.Service");
    let gvk = entry(&field(&service, 31), "x-kubernetes-group-version-kind");
    assert_eq!(field(&gvk, 2)[0], br#"[{"group":"","kind":"Service","version":"v1"}]"#);
    let spec = entry(&definitions, "io.k8s.api.core.v1.ServiceSpec");
    let ports = entry(&field(&field(&spec, 25)[0], 1), "ports");
    assert_eq!(field(&field(&ports, 22)[0], 1)[0], b"array");
    let item = &field(&field(&ports, 23)[0], 1)[0];
    assert_eq!(field(item, 1)[0], b"#/definitions/io.k8s.api.core.v1.ServicePort");
    let paths = field(&field(&body, 8)[0], 2);
    assert_eq!(paths.len(), v2()["paths"].as_object().unwrap().len());
    let patch = field(&entry(&paths, "/api/v1/nodes/{name}"), 8).remove(0);
    let names: Vec<Vec<u8>> = field(&patch, 8)
        .iter()
        .filter_map(|item| field(&field(item, 1)[0], 2).into_iter().next())
        .map(|non_body| field(&field(&non_body, 3)[0], 4).remove(0))
        .collect();
    assert!(names.contains(&b"dryRun".to_vec()), "{names:?}");
}

#[test]
fn requests_that_are_handed_through_are_of_every_method() {
    for (path, kind, id) in [
        ("/api/v1/namespaces/{namespace}/services/{name}", "Service", "NamespacedServiceProxy"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "Pod", "NamespacedPodProxy"),
        ("/api/v1/nodes/{name}", "Node", "NodeProxy"),
    ] {
        for document in [document("/openapi/v2"), document("/openapi/v3/api/v1")] {
            for (suffix, named) in [("/proxy", ""), ("/proxy/{path}", "WithPath")] {
                let item = &document["paths"][format!("{path}{suffix}")];
                let methods: Vec<&str> = item
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(String::as_str)
                    .filter(|k| *k != "parameters")
                    .collect();
                assert_eq!(methods.len(), 7, "{methods:?}");
                let post = &item["post"];
                assert_eq!(post["operationId"], format!("connectCoreV1Post{id}{named}"));
                assert_eq!(post["x-kubernetes-action"], "connect");
                assert_eq!(
                    post["x-kubernetes-group-version-kind"],
                    json!({"group": "", "kind": format!("{kind}ProxyOptions"), "version": "v1"})
                );
            }
        }
    }
}
