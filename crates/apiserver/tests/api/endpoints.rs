//! Endpoints and slices as users write them: what is checked, filled in and warned about.

use http::Method;
use serde_json::{Value, json};

use crate::common::{Reply, Server, text};
use crate::service_validation::SUBDOMAIN;

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
const DEPRECATED: &str =
    "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"";

/// The message of a 422, without what stands before the errors.
#[track_caller]
fn errors(reply: &Reply, kind: &str) -> String {
    let (code, reason, message) = reply.refusal();
    assert_eq!((code, &*reason), (422, "Invalid"), "{message}");
    let start = format!("{kind} \"x\" is invalid: ");
    message.strip_prefix(&start).unwrap_or_else(|| panic!("{message}")).to_owned()
}

fn slice(kind: &str, endpoints: &Value, ports: &Value) -> Value {
    json!({ "metadata": { "name": "x" }, "addressType": kind, "endpoints": endpoints, "ports": ports })
}

fn of_address(kind: &str, address: &str) -> Value {
    slice(kind, &json!([{ "addresses": [address] }]), &json!([]))
}

#[tokio::test]
async fn every_request_about_endpoints_is_warned_about() {
    let server = Server::start().await;
    let (one, object) = (format!("{ENDPOINTS}/x"), json!({ "metadata": { "name": "x" } }));
    let merge = json!({ "metadata": { "labels": { "a": "b" } } });
    for reply in [
        server.post(ENDPOINTS, &object).await,
        server.put(&one, &object).await,
        server.patch(&one, "merge", &merge).await,
        server.get(&one).await,
        server.get(ENDPOINTS).await,
        server.get("/api/v1/endpoints").await,
        server.send(Method::DELETE, &one, &[], "").await,
        server.send(Method::DELETE, ENDPOINTS, &[], "").await,
    ] {
        assert!(reply.code.is_success(), "{}", String::from_utf8_lossy(&reply.body));
        assert_eq!(reply.warnings(), [DEPRECATED]);
    }
    // Also those that come to nothing; other warnings follow.
    assert_eq!(server.get(&one).await.warnings(), [DEPRECATED]);
    let typo = json!({ "metadata": { "name": "x" }, "foo": 1 });
    assert_eq!(
        server.post(ENDPOINTS, &typo).await.warnings(),
        [DEPRECATED, "299 - \"unknown field \\\"foo\\\"\""]
    );
}

#[tokio::test]
async fn what_endpoints_must_be() {
    let server = Server::start().await;
    let subset = |addresses: Value, ports: Value| json!([{ "addresses": addresses, "ports": ports }]);
    let ip = |ip: &str| subset(json!([{ "ip": ip }]), json!([]));
    let cases = [
        (
            json!([{ "ports": [{ "port": 1 }] }]),
            "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`".to_owned(),
        ),
        (
            ip("x"),
            "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                .into(),
        ),
        (
            ip("010.0.0.1"),
            "subsets[0].addresses[0].ip: Invalid value: \"010.0.0.1\": must not have leading 0s".into(),
        ),
        (
            json!([{ "notReadyAddresses": [{ "ip": "169.254.0.1" }] }]),
            "subsets[0].notReadyAddresses[0].ip: Invalid value: \"169.254.0.1\": may not be in the link-local range \
             (169.254.0.0/16, fe80::/10)"
                .into(),
        ),
        (
            subset(json!([{ "ip": "10.0.0.1", "hostname": "a.b" }]), json!([])),
            "subsets[0].addresses[0].hostname: Invalid value: \"a.b\": must not contain dots".into(),
        ),
        (
            subset(json!([{ "ip": "10.0.0.1", "nodeName": "a/b" }]), json!([])),
            format!("subsets[0].addresses[0].nodeName: Invalid value: \"a/b\": {SUBDOMAIN}"),
        ),
        (
            subset(json!([{ "ip": "10.0.0.1", "nodeName": "" }]), json!([])),
            format!("subsets[0].addresses[0].nodeName: Invalid value: \"\": {SUBDOMAIN}"),
        ),
        (
            subset(json!([{ "ip": "10.0.0.1" }]), json!([{ "port": 0 }])),
            "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive".into(),
        ),
        (
            subset(json!([{ "ip": "10.0.0.1" }]), json!([{ "port": 1 }, { "port": 2 }])),
            "[subsets[0].ports[0].name: Required value, subsets[0].ports[1].name: Required value]".into(),
        ),
    ];
    for (subsets, wanted) in cases {
        let reply = server.post(ENDPOINTS, &json!({ "metadata": { "name": "x" }, "subsets": subsets })).await;
        assert_eq!(errors(&reply, "Endpoints"), wanted, "{subsets}");
    }
    // A PUT makes Endpoints, and ports are TCP unless they say otherwise.
    let good = subset(json!([{ "ip": "10.0.0.1" }]), json!([{ "port": 80 }]));
    let object = json!({ "metadata": { "name": "x" }, "subsets": good });
    let made = server.put(&format!("{ENDPOINTS}/x"), &object).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.json()["subsets"][0]["ports"], json!([{ "port": 80, "protocol": "TCP" }]));
}

/// What nobody asked to be sorted stays as it was written.
#[tokio::test]
async fn subsets_are_stored_as_they_come() {
    let server = Server::start().await;
    let subset = |ips: &[&str]| {
        let addresses: Vec<Value> = ips.iter().map(|ip| json!({ "ip": ip })).collect();
        json!({ "addresses": addresses, "ports": [{ "port": 80, "protocol": "TCP" }] })
    };
    let subsets = json!([subset(&["10.0.0.9", "10.0.0.10"]), subset(&["10.0.0.2"])]);
    let made = server.post(ENDPOINTS, &json!({ "metadata": { "name": "x" }, "subsets": subsets })).await.ok();
    assert_eq!(made["subsets"], subsets);
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // A table, one row per text.
async fn what_slices_must_be() {
    let server = Server::start().await;
    let of = |endpoint: Value| slice("IPv4", &json!([endpoint]), &json!([]));
    let hinted = |list: &str, count: usize| {
        let names: Vec<Value> = (0..count).map(|n| json!({ "name": format!("n{n}") })).collect();
        of(json!({ "addresses": ["10.0.0.1"], "hints": { list: names } }))
    };
    let many = |count: usize| -> Vec<String> {
        (0..count).map(|n| format!("10.0.{}.{}", n / 250, n % 250 + 1)).collect()
    };
    let endpoints: Vec<Value> = many(1001).iter().map(|ip| json!({ "addresses": [ip] })).collect();
    let ports: Vec<Value> = (0..20_001).map(|n| json!({ "name": format!("p{n}"), "port": 80 })).collect();
    let first = "endpoints[0].addresses[0]: Invalid value:";
    let cases = [
        (
            slice("Mac", &json!([]), &json!([])),
            "addressType: Unsupported value: \"Mac\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""
                .to_owned(),
        ),
        (slice("", &json!([]), &json!([])), "addressType: Required value".into()),
        (of(json!({})), "endpoints[0].addresses: Required value: must contain at least 1 address".into()),
        (
            of(json!({ "addresses": many(101) })),
            "endpoints[0].addresses: Too many: 101: must have at most 100 items".into(),
        ),
        (
            slice("IPv4", &json!(endpoints), &json!([])),
            "endpoints: Too many: 1001: must have at most 1000 items".into(),
        ),
        (
            slice("IPv4", &json!([]), &json!(ports)),
            "ports: Too many: 20001: must have at most 20000 items".into(),
        ),
        (hinted("forZones", 9), "endpoints[0].hints.forZones: Too many: 9: must have at most 8 items".into()),
        (hinted("forNodes", 9), "endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items".into()),
        (of_address("IPv4", "fd00::1"), format!("{first} \"fd00::1\": must be an IPv4 address")),
        (of_address("IPv6", "10.0.0.1"), format!("{first} \"10.0.0.1\": must be an IPv6 address")),
        // IPv4 is read as it always was, IPv6 must be in its one form.
        (of_address("IPv4", "010.0.0.1"), format!("{first} \"010.0.0.1\": must not have leading 0s")),
        (
            of_address("IPv6", "FD00::1"),
            format!("{first} \"FD00::1\": must be in canonical form (\"fd00::1\")"),
        ),
        (
            of_address("IPv4", "127.0.0.1"),
            format!("{first} \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ),
        (of_address("FQDN", "a_b.c"), format!("{first} \"a_b.c\": {SUBDOMAIN}")),
        (
            of_address("FQDN", "a."),
            format!("{first} \"a\": should be a domain with at least two segments separated by dots"),
        ),
        (
            of_address("FQDN", &format!("{}.b", "a".repeat(64))),
            format!("{first} \"{}\": must be no more than 63 characters", "a".repeat(64)),
        ),
        (of_address("FQDN", ""), "endpoints[0].addresses[0]: Required value".into()),
        // One name for two protocols is one name twice.
        (
            slice(
                "IPv4",
                &json!([]),
                &json!([{ "name": "a", "port": 1 }, { "name": "a", "port": 2, "protocol": "UDP" }]),
            ),
            "ports[1].name: Duplicate value: \"a\"".into(),
        ),
        (
            slice("IPv4", &json!([]), &json!([{ "protocol": "HTTP", "port": 1 }])),
            "ports[0].protocol: Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\""
                .into(),
        ),
    ];
    for (object, wanted) in cases {
        let reply = server.post(SLICES, &object).await;
        let shown: String = object.to_string().chars().take(300).collect();
        assert_eq!(errors(&reply, "EndpointSlice.discovery.k8s.io"), wanted, "{shown}");
    }
}

#[tokio::test]
async fn what_a_slice_gets_loses_and_keeps() {
    let server = Server::start().await;
    let path = format!("{SLICES}/x");
    let object = slice(
        "IPv4",
        &json!([{ "addresses": ["10.0.0.1"], "deprecatedTopology": { "a": "b" } }]),
        &json!([{ "port": 80 }, { "name": "odd", "port": 70000 }]),
    );
    let missing = server.put(&path, &object).await;
    assert_eq!(missing.refusal().2, "endpointslices.discovery.k8s.io \"x\" not found");
    let made = server.post(SLICES, &object).await;
    assert_eq!(made.warnings(), [""; 0]);
    let made = made.ok();
    assert_eq!(made["endpoints"], json!([{ "addresses": ["10.0.0.1"], "conditions": {} }]));
    // Port numbers are the business of those who use them.
    assert_eq!(
        made["ports"],
        json!([{ "name": "", "port": 80, "protocol": "TCP" }, { "name": "odd", "port": 70000, "protocol": "TCP" }])
    );
    let mut other = made.clone();
    other["addressType"] = "IPv6".into();
    other["endpoints"] = json!([]);
    assert_eq!(
        errors(&server.put(&path, &other).await, "EndpointSlice.discovery.k8s.io"),
        "addressType: Invalid value: \"IPv6\": field is immutable"
    );
    let bare = json!({ "metadata": { "name": "bare" }, "addressType": "IPv4" });
    let bare = server.post(SLICES, &bare).await.ok();
    assert!(
        bare.get("endpoints").is_some() && bare.get("ports").is_some(),
        "both lists are always there: {bare}"
    );
    let names = server.post(SLICES, &of_address("FQDN", "a.example.com")).await;
    assert_eq!(names.refusal().1, "AlreadyExists");
    server.delete(&path).await.ok();
    let names = server.post(SLICES, &of_address("FQDN", "a.example.com")).await;
    assert_eq!(names.warnings(), ["299 - \"spec.addressType: FQDN endpoints are deprecated\""]);
    assert_eq!(text(&names.ok()["addressType"]), "FQDN");
}
