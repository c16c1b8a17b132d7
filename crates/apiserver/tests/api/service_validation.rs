//! What is wrong with a Service, in Kubernetes' words: code, message, and one cause for every field.

use serde_json::{Value, json};

use crate::common::{Reply, SERVICES, Server, service_with, text};

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
     and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
pub(crate) const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NOT_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const RANGE: &str = "must be between 1 and 65535, inclusive";
const ONLY_BALANCER: &str = "may only be used when `type` is 'LoadBalancer'";
const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The reason of a cause, by the first words of its message.
fn reason(body: &str) -> &'static str {
    match body.split(':').next().unwrap_or_default() {
        "Required value" => "FieldValueRequired",
        "Invalid value" => "FieldValueInvalid",
        "Unsupported value" => "FieldValueNotSupported",
        "Duplicate value" => "FieldValueDuplicate",
        "Forbidden" => "FieldValueForbidden",
        other => panic!("no such label: {other}"),
    }
}

/// What is not as it should be about the refusal of the Service `x` for these errors, given as `path: body`.
pub(crate) fn difference(reply: &Reply, errors: &[String]) -> Option<String> {
    let mut distinct: Vec<&String> = Vec::new();
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    let list = match distinct.as_slice() {
        [one] => (*one).clone(),
        many => format!("[{}]", many.iter().map(|e| e.as_str()).collect::<Vec<_>>().join(", ")),
    };
    let causes: Vec<Value> = errors
        .iter()
        .map(|error| {
            let (field, body) = error.split_once(": ").unwrap();
            json!({ "reason": reason(body), "message": body, "field": field })
        })
        .collect();
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422, "reason": "Invalid",
        "message": format!("Service \"x\" is invalid: {list}"),
        "details": { "name": "x", "kind": "Service", "causes": causes },
    });
    let got = reply.json();
    (got != expected || reply.code != 422).then(|| format!("got      {got}\nexpected {expected}"))
}

/// Creates the Service `x` with each spec and compares the refusal.
async fn refused(server: &Server, cases: Vec<(Value, Vec<String>)>) {
    let mut wrong = Vec::new();
    for (spec, errors) in cases {
        let reply = server.post(SERVICES, &service_with("x", &spec)).await;
        wrong.extend(difference(&reply, &errors).map(|difference| format!("{spec}\n{difference}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// One error.
fn one(path: &str, body: impl AsRef<str>) -> Vec<String> {
    vec![format!("{path}: {}", body.as_ref())]
}

fn invalid(value: impl Into<Value>, detail: &str) -> String {
    format!("Invalid value: {}: {detail}", value.into())
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // A table, one row per text.
async fn what_a_type_has_no_use_for() {
    let server = Server::start().await;
    let name = |more: Value| {
        let mut spec = json!({ "type": "ExternalName", "externalName": "a.example.com" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let no_name = "Forbidden: may not be set for ExternalName services";
    let ports = |port: u16| json!([{ "port": 80, "nodePort": port }]);
    refused(
        &server,
        vec![
            (json!({ "ports": null }), one("spec.ports", "Required value")),
            (json!({ "ports": [] }), one("spec.ports", "Required value")),
            (
                json!({ "type": "LoadBalancer", "clusterIP": "None" }),
                one("spec.clusterIPs[0]", invalid("None", "may not be set to 'None' for LoadBalancer services")),
            ),
            (
                json!({ "type": "NodePort", "clusterIP": "None" }),
                one("spec.clusterIPs[0]", invalid("None", "may not be set to 'None' for NodePort services")),
            ),
            (name(json!({ "clusterIP": "10.96.0.9" })), one("spec.clusterIPs", no_name)),
            (name(json!({ "ipFamilies": ["IPv4"] })), one("spec.ipFamilies", no_name)),
            (name(json!({ "ipFamilyPolicy": "SingleStack" })), one("spec.ipFamilyPolicy", no_name)),
            (name(json!({ "externalName": null })), one("spec.externalName", "Required value")),
            (name(json!({ "externalName": "." })), one("spec.externalName", "Required value")),
            (name(json!({ "externalName": "A_b" })), one("spec.externalName", invalid("A_b", SUBDOMAIN))),
            (
                name(json!({ "externalName": "a".repeat(254) })),
                one("spec.externalName", invalid("a".repeat(254), "must be no more than 253 characters")),
            ),
            (
                json!({ "ports": ports(30080) }),
                one("spec.ports[0].nodePort", "Forbidden: may not be used when `type` is 'ClusterIP'"),
            ),
            (
                json!({ "allocateLoadBalancerNodePorts": true }),
                one("spec.allocateLoadBalancerNodePorts", format!("Forbidden: {ONLY_BALANCER}")),
            ),
            (
                json!({ "type": "NodePort", "loadBalancerClass": "a/b" }),
                one("spec.loadBalancerClass", format!("Forbidden: {ONLY_BALANCER}")),
            ),
            (
                json!({ "loadBalancerSourceRanges": ["10.0.0.0/8"] }),
                one("spec.LoadBalancerSourceRanges", format!("Forbidden: {ONLY_BALANCER}")),
            ),
            (
                json!({ "externalTrafficPolicy": "Local" }),
                one(
                    "spec.externalTrafficPolicy",
                    invalid("Local", "may only be set for externally-accessible services"),
                ),
            ),
            (
                json!({ "type": "NodePort", "healthCheckNodePort": 31000 }),
                one(
                    "spec.healthCheckNodePort",
                    invalid(
                        31000,
                        "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
                    ),
                ),
            ),
        ],
    )
    .await;
    // One dot at the end says that the name is complete; without traffic of its own it needs no ports.
    let complete = name(json!({ "externalName": "a.example.com.", "ports": null }));
    let made = server.post(SERVICES, &service_with("x", &complete)).await.ok();
    assert_eq!(made["spec"]["externalName"], "a.example.com.");
    let headless = json!({ "clusterIP": "None", "ports": null });
    assert_eq!(server.post(SERVICES, &service_with("y", &headless)).await.code, 201);
    // The kubelet's own port is a port like any other.
    let kubelet = json!({ "type": "LoadBalancer", "ports": [{ "port": 10250 }] });
    assert_eq!(server.post(SERVICES, &service_with("z", &kubelet)).await.code, 201);
}

#[tokio::test]
#[allow(clippy::too_many_lines)] // A table, one row per text.
async fn what_ports_must_be() {
    let server = Server::start().await;
    let two = |first: Value, second: Value| json!({ "ports": [first, second] });
    let target = |target: &str| json!({ "ports": [{ "port": 80, "targetPort": target }] });
    let path = "spec.ports[0].targetPort";
    refused(
        &server,
        vec![
            (
                two(json!({ "port": 80 }), json!({ "port": 81 })),
                vec!["spec.ports[0].name: Required value".into(), "spec.ports[1].name: Required value".into()],
            ),
            (
                two(json!({ "port": 80, "name": "a" }), json!({ "port": 81, "name": "a" })),
                one("spec.ports[1].name", "Duplicate value: \"a\""),
            ),
            (
                json!({ "ports": [{ "port": 80, "name": "A" }] }),
                one("spec.ports[0].name", invalid("A", LABEL)),
            ),
            (
                json!({ "ports": [{ "port": 80, "name": "a.b" }] }),
                one("spec.ports[0].name", invalid("a.b", "must not contain dots")),
            ),
            // What has no port has no target either.
            (
                json!({ "ports": [{ "name": "a" }] }),
                vec![
                    format!("spec.ports[0].port: {}", invalid(0, RANGE)),
                    format!("{path}: {}", invalid(0, RANGE)),
                ],
            ),
            (
                json!({ "ports": [{ "port": 70000, "targetPort": 80 }] }),
                one("spec.ports[0].port", invalid(70000, RANGE)),
            ),
            (
                json!({ "ports": [{ "port": 80, "protocol": "HTTP" }] }),
                one(
                    "spec.ports[0].protocol",
                    "Unsupported value: \"HTTP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ),
            ),
            (json!({ "ports": [{ "port": 80, "targetPort": -1 }] }), one(path, invalid(-1, RANGE))),
            (
                target("abcdefghijklmnop"),
                one(path, invalid("abcdefghijklmnop", "must be no more than 15 characters")),
            ),
            (
                target("a_b"),
                one(
                    path,
                    invalid("a_b", "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
                ),
            ),
            (target("80"), one(path, invalid("80", "must contain at least one letter (a-z)"))),
            (target("a--b"), one(path, invalid("a--b", "must not contain consecutive hyphens"))),
            (target("a-"), one(path, invalid("a-", "must not begin or end with a hyphen"))),
            (
                json!({ "ports": [{ "port": 80, "appProtocol": "a/" }] }),
                vec![
                    format!("spec.ports[0].appProtocol: {}", invalid("a/", "name part must be non-empty")),
                    format!(
                        "spec.ports[0].appProtocol: {}",
                        invalid(
                            "a/",
                            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                             with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used \
                             for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                        )
                    ),
                ],
            ),
            (
                two(json!({ "port": 80, "name": "a" }), json!({ "port": 80, "name": "b", "targetPort": 81 })),
                one(
                    "spec.ports[1]",
                    "Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\
                     \"TargetPort\":0,\"NodePort\":0}",
                ),
            ),
            (
                json!({ "ports": [{ "port": 80, "name": "a", "nodePort": 1 }, { "port": 81, "name": "b", "nodePort": 1 }] }),
                vec![
                    "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".into(),
                    "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".into(),
                    "spec.ports[1].nodePort: Duplicate value: 1".into(),
                ],
            ),
        ],
    )
    .await;
    let both =
        json!({ "ports": [{ "port": 53, "name": "udp", "protocol": "UDP" }, { "port": 53, "name": "tcp" }] });
    assert_eq!(server.post(SERVICES, &service_with("x", &both)).await.code, 201);
}

#[tokio::test]
async fn which_values_fields_may_have() {
    let server = Server::start().await;
    let affinity = |seconds: i64| json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": seconds } } });
    let seconds = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    let class = "name part must be no more than 63 characters";
    refused(
        &server,
        vec![
            (
                json!({ "sessionAffinity": "Sticky" }),
                one(
                    "spec.sessionAffinity",
                    "Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
                ),
            ),
            (affinity(0), one(seconds, invalid(0, "must be greater than 0 and less than 86400"))),
            (affinity(86401), one(seconds, invalid(86401, "must be greater than 0 and less than 86400"))),
            (
                json!({ "type": "Balancer" }),
                one(
                    "spec.type",
                    "Unsupported value: \"Balancer\": supported values: \"ClusterIP\", \"ExternalName\", \
                     \"LoadBalancer\", \"NodePort\"",
                ),
            ),
            (
                json!({ "type": "NodePort", "externalTrafficPolicy": "Nope" }),
                one(
                    "spec.externalTrafficPolicy",
                    "Unsupported value: \"Nope\": supported values: \"Cluster\", \"Local\"",
                ),
            ),
            (
                json!({ "internalTrafficPolicy": "Nope" }),
                one(
                    "spec.internalTrafficPolicy",
                    "Unsupported value: \"Nope\": supported values: \"Cluster\", \"Local\"",
                ),
            ),
            (
                json!({ "type": "ExternalName", "externalName": "a.b", "internalTrafficPolicy": "Nope" }),
                one(
                    "spec.internalTrafficPolicy",
                    "Unsupported value: \"Nope\": supported values: \"Cluster\", \"Local\"",
                ),
            ),
            (
                json!({ "trafficDistribution": "Nope" }),
                one(
                    "spec.trafficDistribution",
                    "Unsupported value: \"Nope\": supported values: \"PreferClose\", \"PreferSameZone\", \
                     \"PreferSameNode\"",
                ),
            ),
            (
                json!({ "type": "LoadBalancer", "loadBalancerClass": "c".repeat(64) }),
                one("spec.loadBalancerClass", invalid("c".repeat(64), class)),
            ),
            // Several are said in the order in which they are looked for.
            (
                json!({ "trafficDistribution": "Nope", "sessionAffinity": "Sticky", "type": "Balancer" }),
                vec![
                    "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"".into(),
                    "spec.type: Unsupported value: \"Balancer\": supported values: \"ClusterIP\", \"ExternalName\", \
                     \"LoadBalancer\", \"NodePort\""
                        .into(),
                    "spec.trafficDistribution: Unsupported value: \"Nope\": supported values: \"PreferClose\", \
                     \"PreferSameZone\", \"PreferSameNode\""
                        .into(),
                ],
            ),
        ],
    )
    .await;
    assert_eq!(server.post(SERVICES, &service_with("x", &affinity(86400))).await.code, 201);
}

#[tokio::test]
async fn which_addresses_and_ranges_are_taken() {
    let server = Server::start().await;
    let ip = |ip: &str| json!({ "externalIPs": [ip] });
    let cidr = |cidr: &str| json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": [cidr] });
    let mut cases = Vec::new();
    for (value, detail) in [
        ("a", NOT_IP),
        ("10.9.8.256", NOT_IP),
        ("010.9.8.7", "must not have leading 0s"),
        ("::ffff:10.9.8.7", "must not be an IPv4-mapped IPv6 address"),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("::1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.1.1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("fe80::1", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("ff02::1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        cases.push((ip(value), one("spec.externalIPs[0]", invalid(value, detail))));
    }
    for (value, detail) in [
        ("10.0.0.0", NOT_CIDR),
        ("10.0.0.0/33", NOT_CIDR),
        ("010.0.0.0/8", "must not have leading 0s in IP or prefix length"),
        ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
        ("::ffff:10.0.0.0/104", "must not have an IPv4-mapped IPv6 address"),
        ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
    ] {
        cases.push((cidr(value), one("spec.LoadBalancerSourceRanges[0]", invalid(value, detail))));
    }
    refused(&server, cases).await;
    let padded = json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 "] });
    let made = server.post(SERVICES, &service_with("x", &padded)).await.ok();
    assert_eq!(made["spec"]["loadBalancerSourceRanges"], json!([" 10.0.0.0/8 "]));
    // The old field for the balancer's address is nobody's business.
    let odd = json!({ "type": "LoadBalancer", "loadBalancerIP": "anything" });
    assert_eq!(
        server.post(SERVICES, &service_with("y", &odd)).await.ok()["spec"]["loadBalancerIP"],
        "anything"
    );
}

#[tokio::test]
async fn what_names_and_annotations_must_be() {
    let server = Server::start().await;
    let annotated = |kind: &str, ranges: Option<&str>, annotations: Value| {
        let mut object = service_with("x", &json!({ "type": kind }));
        if let Some(ranges) = ranges {
            object["spec"]["loadBalancerSourceRanges"] = json!([ranges]);
        }
        object["metadata"]["annotations"] = annotations;
        object
    };
    let path = format!("metadata.annotations[{RANGES}]");
    for (object, errors) in [
        (
            annotated(
                "ClusterIP",
                None,
                json!({ "service.kubernetes.io/topology-aware-hints": "Auto",
                        "service.kubernetes.io/topology-mode": "Disabled" }),
            ),
            one(
                "metadata.annotations[service.kubernetes.io/topology-mode]",
                "Invalid value: \"Disabled\": must match annotations[service.kubernetes.io/topology-aware-hints] when \
                 both are specified",
            ),
        ),
        (
            annotated("ClusterIP", None, json!({ RANGES: "10.0.0.0/8" })),
            one(&path, format!("Forbidden: {ONLY_BALANCER}")),
        ),
        (
            annotated("LoadBalancer", None, json!({ RANGES: "10.0.0.0/8, x" })),
            one(&path, invalid("x", NOT_CIDR)),
        ),
    ] {
        let difference = difference(&server.post(SERVICES, &object).await, &errors);
        assert_eq!(difference, None, "{object}");
    }
    // The field goes before the annotation, and nothing is no range.
    for (ranges, annotation) in [(Some("10.0.0.0/8"), "x"), (None, " ")] {
        let object = annotated("LoadBalancer", ranges, json!({ RANGES: annotation }));
        server.post(SERVICES, &object).await.ok();
        server.delete(&format!("{SERVICES}/x")).await.ok();
    }

    let named = |name: &str| service_with(name, &json!({ "selector": null }));
    for (name, detail) in [
        ("Web", LABEL),
        ("a.b", "must not contain dots"),
        (&"a".repeat(64), "must be no more than 63 characters"),
    ] {
        let (code, _, message) = server.post(SERVICES, &named(name)).await.refusal();
        let wanted =
            format!("Service \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\": {detail}");
        assert_eq!((code, message), (422, wanted));
    }
    assert_eq!(server.post(SERVICES, &named("1-web")).await.code, 201, "a digit may come first");
    let nameless = json!({ "spec": { "ports": [{ "port": 80 }] } });
    let (code, _, message) = server.post(SERVICES, &nameless).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("metadata.name: Required value: name or generateName is required"), "{message}");
}

#[tokio::test]
async fn what_may_not_change() {
    let server = Server::start().await;
    let local = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000,
        "loadBalancerClass": "a/b", "clusterIP": "10.96.0.20" });
    let path = format!("{SERVICES}/x");
    server.post(SERVICES, &service_with("x", &local)).await.ok();
    let class = |value: &str, detail: &str| format!("spec.loadBalancerClass: {}", invalid(value, detail));
    for (patch, errors) in [
        (
            json!({ "clusterIP": "10.96.0.21" }),
            one("spec.clusterIPs[0]", "Invalid value: [\"10.96.0.21\"]: may not change once set"),
        ),
        (
            json!({ "type": "ClusterIP", "clusterIP": "None", "externalTrafficPolicy": null }),
            one("spec.clusterIPs[0]", "Invalid value: [\"None\"]: may not change once set"),
        ),
        (
            json!({ "healthCheckNodePort": 31001 }),
            one("spec.healthCheckNodePort", "Forbidden: field is immutable"),
        ),
        (json!({ "loadBalancerClass": "a/c" }), vec![class("a/c", "may not change once set")]),
        // Kubernetes looks at the class twice when a Service changes.
        (
            json!({ "loadBalancerClass": "a/" }),
            [
                class("a/", "may not change once set"),
                class("a/", "name part must be non-empty"),
                class("a/", QUALIFIED),
                class("a/", "name part must be non-empty"),
                class("a/", QUALIFIED),
            ]
            .to_vec(),
        ),
        (
            json!({ "loadBalancerClass": null }),
            one("spec.loadBalancerClass", "Invalid value: \"null\": may not change once set"),
        ),
    ] {
        let reply = server.patch(&path, "merge", &json!({ "spec": patch })).await;
        assert_eq!(difference(&reply, &errors), None, "{patch}");
    }
    let (code, _, message) =
        server.patch(&path, "merge", &json!({ "metadata": { "name": "y" } })).await.refusal();
    assert_eq!((code, &*message), (400, "the name of the object (y) does not match the name on the URL (x)"));

    // A headless Service stays one.
    server.delete(&path).await.ok();
    server.post(SERVICES, &service_with("x", &json!({ "clusterIP": "None" }))).await.ok();
    let reply = server.patch(&path, "merge", &json!({ "spec": { "clusterIP": "10.96.0.21" } })).await;
    let frozen = one("spec.clusterIPs[0]", "Invalid value: [\"10.96.0.21\"]: may not change once set");
    assert_eq!(difference(&reply, &frozen), None);
}

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
     alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

#[tokio::test]
async fn what_a_status_may_say() {
    let server = Server::start().await;
    let path = format!("{SERVICES}/x/status");
    server.post(SERVICES, &service_with("x", &json!({ "type": "LoadBalancer" }))).await.ok();
    let ingress = "status.loadBalancer.ingress";
    for (entry, errors) in [
        (
            json!({ "hostname": "a.b", "ipMode": "VIP" }),
            one(&format!("{ingress}[0].ipMode"), "Forbidden: may not be specified when `ip` is not set"),
        ),
        (
            json!({ "ip": "192.0.2.1", "ipMode": "Nope" }),
            one(
                &format!("{ingress}[0].ipMode"),
                "Unsupported value: \"Nope\": supported values: \"Proxy\", \"VIP\"",
            ),
        ),
        (json!({ "ip": "x" }), one(&format!("{ingress}[0].ip"), invalid("x", NOT_IP))),
        (json!({ "hostname": "A_" }), one(&format!("{ingress}[0].hostname"), invalid("A_", SUBDOMAIN))),
        (
            json!({ "hostname": "192.0.2.1" }),
            one(
                &format!("{ingress}[0].hostname"),
                invalid("192.0.2.1", "must be a DNS name, not an IP address"),
            ),
        ),
    ] {
        let status = json!({ "status": { "loadBalancer": { "ingress": [entry] } } });
        let reply = server.patch(&path, "merge", &status).await;
        assert_eq!(difference(&reply, &errors), None, "{status}");
    }
    let good = json!([{ "ip": "192.0.2.1", "ipMode": "Proxy" }, { "hostname": "a.b" }]);
    let status = json!({ "status": { "loadBalancer": { "ingress": good } } });
    assert_eq!(server.patch(&path, "merge", &status).await.ok()["status"]["loadBalancer"]["ingress"], good);
    // What is written with the status obeys the rules for all that is written.
    let labels = json!({ "metadata": { "labels": { "a": "b c" } } });
    let (code, _, message) = server.patch(&path, "merge", &labels).await.refusal();
    assert_eq!(code, 422);
    assert!(
        message.starts_with("Service \"x\" is invalid: metadata.labels: Invalid value: \"b c\": "),
        "{message}"
    );
}

#[tokio::test]
async fn what_clients_are_warned_about() {
    let server = Server::start().await;
    let deprecated = "spec.externalIPs is deprecated and may no longer be implemented in some clusters";
    let cases = [
        (json!({}), vec![]),
        (
            json!({ "clusterIP": "None", "loadBalancerIP": "192.0.2.1", "externalIPs": ["192.0.2.1"],
                    "sessionAffinity": "ClientIP" }),
            vec![
                "spec.loadBalancerIP is ignored for headless services",
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        ),
        (json!({ "externalIPs": ["192.0.2.1"] }), vec![deprecated]),
        (
            json!({ "externalIPs": ["2001:DB8::1"] }),
            vec![
                "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                deprecated,
            ],
        ),
        (
            json!({ "type": "ExternalName", "externalName": "a.b", "externalIPs": ["192.0.2.1"] }),
            vec!["spec.externalIPs is ignored when spec.type is \"ExternalName\""],
        ),
        (
            json!({ "externalName": "a.b" }),
            vec!["spec.externalName is ignored when spec.type is not \"ExternalName\""],
        ),
        (
            json!({ "trafficDistribution": "PreferClose" }),
            vec!["spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""],
        ),
        (
            json!({ "type": "LoadBalancer", "loadBalancerIP": "010.0.0.1" }),
            vec!["spec.loadBalancerIP: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\""],
        ),
        (
            json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ["FD00::/8"] }),
            vec![
                "spec.loadBalancerSourceRanges[0]: IPv6 CIDR value \"FD00::/8\" should be in RFC 5952 canonical format \
                 (\"fd00::/8\")",
            ],
        ),
    ];
    for (spec, texts) in cases {
        let reply = server.post(&format!("{SERVICES}?dryRun=All"), &service_with("x", &spec)).await;
        assert_eq!(reply.code, 201, "{spec}");
        let wanted: Vec<String> =
            texts.iter().map(|t| format!("299 - \"{}\"", t.replace('"', "\\\""))).collect();
        assert_eq!(reply.warnings(), wanted, "{spec}");
    }
    let mut hinted = service_with("x", &json!({}));
    hinted["metadata"]["annotations"] = json!({ "service.kubernetes.io/topology-aware-hints": "Auto" });
    let reply = server.post(SERVICES, &hinted).await;
    assert_eq!(
        reply.warnings(),
        ["299 - \"annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
          service.kubernetes.io/topology-mode instead\""]
    );
    assert_eq!(text(&reply.ok()["metadata"]["name"]), "x");
}
