//! What is wrong is refused in Kubernetes' own words, with the likely intent where there is one.

use crate::bed::{Bed, yaml};

fn refused(bed: &Bed, manifest: &str) -> String {
    let output = bed.kubectl().output(&["apply", "-f", "-"], &yaml(manifest)).unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "accepted: {}", String::from_utf8_lossy(&output.stdout));
    message
}

fn service(spec: &str) -> String {
    format!("{{apiVersion: v1, kind: Service, metadata: {{name: bad}}, spec: {spec}}}")
}

#[test]
fn the_slips_name_field_value_and_likely_intent() {
    let bed = Bed::up(1);
    for manifest in [
        include_str!("../../../../examples/refused/05-session-affinity.yaml"),
        include_str!("../../../../examples/refused/06-external-policy-local.yaml"),
    ] {
        let message = refused(&bed, manifest);
        for part in [
            "spec.sessionAffinity",
            "\"ClientIp\"",
            "supported values: \"ClientIP\", \"None\"",
            "did you mean \"ClientIP\"?",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }
    }
    let message = refused(&bed, include_str!("../../../../examples/refused/08-publish-not-ready.yaml"));
    // Before 1.25 kubectl looks for unknown fields itself, and names them without a guess.
    let by_old_kubectl = "unknown field \"pubishNotReadyAddresses\" in io.k8s.api.core.v1.ServiceSpec";
    let by_server =
        "unknown field \"spec.pubishNotReadyAddresses\" (did you mean \"publishNotReadyAddresses\"?)";
    assert!(message.contains(by_server) || message.contains(by_old_kubectl), "{message}");
    assert_eq!(bed.run(&["get", "services", "-o", "name"]).trim(), "service/kubernetes");
}

#[test]
fn kubernetes_words_for_what_cannot_be_had() {
    let bed = Bed::up(1);
    bed.apply("{apiVersion: v1, kind: Service, metadata: {name: first}, spec: {type: NodePort, clusterIP: 10.96.7.7, ports: [{port: 80, nodePort: 32007}]}}");
    let cases = [
        (
            service("{clusterIP: 10.96.7.7, ports: [{port: 80}]}"),
            "spec.clusterIPs: Invalid value: [\"10.96.7.7\"]: failed to allocate IP 10.96.7.7: provided IP is already allocated",
        ),
        (
            service("{clusterIP: 192.168.7.7, ports: [{port: 80}]}"),
            "failed to allocate IP 192.168.7.7: the provided network does not match the current range",
        ),
        (
            service("{type: NodePort, ports: [{port: 80, nodePort: 32007}]}"),
            "spec.ports[0].nodePort: Invalid value: 32007: provided port is already allocated",
        ),
        (
            service("{type: NodePort, ports: [{port: 80, nodePort: 8080}]}"),
            "spec.ports[0].nodePort: Invalid value: 8080: provided port is not in the valid range. The range of valid ports is 30000-32767",
        ),
        (
            service("{ports: [{port: 70000}]}"),
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (service("{ports: []}"), "spec.ports: Required value"),
        (service("{ports: [{port: 80}, {port: 81}]}"), "spec.ports[0].name: Required value"),
        ("{apiVersion: v1, kind: Nonsense, metadata: {name: x}}".into(), "no matches for kind \"Nonsense\""),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: Bad_Name}, spec: {ports: [{port: 80}]}}".into(),
            "metadata.name: Invalid value: \"Bad_Name\"",
        ),
    ];
    for (manifest, wanted) in &cases {
        let message = refused(&bed, manifest);
        assert!(message.contains(wanted), "for {manifest}\n   wanted: {wanted}\n   got: {message}");
    }
    let bad_selector = bed.kubectl().output(&["get", "services", "-l", "a b=c,,"], "").unwrap();
    assert!(!bad_selector.status.success());
    assert_eq!(bed.run(&["get", "services", "-o", "jsonpath={.items[*].metadata.name}"]), "first kubernetes");
}

#[test]
fn an_image_that_cannot_be_run_says_so_in_an_event() {
    let bed = Bed::up(1);
    bed.apply("{apiVersion: v1, kind: Pod, metadata: {name: stranger}, spec: {containers: [{name: c, image: 'nginx:1.27'}]}}");
    bed.until_field("events", "{.items[*].message}", |messages| {
        messages.contains("nginx:1.27") && messages.contains("image store")
    });
    let phase = bed.field("pod stranger", "{.status.phase}");
    assert_eq!(phase, "Pending");
}

#[test]
fn endpoints_that_cannot_be_are_refused() {
    let bed = Bed::up(1);
    let endpoints = |subset: &str| {
        format!("{{apiVersion: v1, kind: Endpoints, metadata: {{name: bad}}, subsets: [{subset}]}}")
    };
    let slice = |endpoints: &str, ports: &str| {
        format!(
            "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: bad}}, addressType: IPv4, \
             endpoints: [{endpoints}], ports: [{ports}]}}"
        )
    };
    let addresses = [
        ("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        ("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        ("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ("0.0.0.0", "may not be unspecified (0.0.0.0)"),
    ];
    let mut cases = Vec::new();
    for (ip, why) in addresses {
        let old = endpoints(&format!("{{addresses: [{{ip: {ip}}}], ports: [{{port: 80}}]}}"));
        cases.push((old, format!("subsets[0].addresses[0].ip: Invalid value: \"{ip}\": {why}")));
        let new = slice(&format!("{{addresses: [{ip}]}}"), "{port: 80}");
        cases.push((new, format!("endpoints[0].addresses[0]: Invalid value: \"{ip}\": {why}")));
    }
    let one = "{addresses: [10.0.0.1]}";
    let unnamed = endpoints("{addresses: [{ip: 10.0.0.1}], ports: [{port: 80}, {port: 81, name: b}]}");
    cases.push((unnamed, "subsets[0].ports[0].name: Required value".into()));
    let nobody = endpoints("{ports: [{port: 80}]}");
    cases
        .push((nobody, "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`".into()));
    let twice = slice(one, "{name: a, port: 80}, {name: a, port: 81}");
    cases.push((twice, "ports[1].name: Duplicate value: \"a\"".into()));
    let many = slice(&[one; 1001].join(","), "{port: 80}");
    cases.push((many, "endpoints: Too many: 1001: must have at most 1000 items".into()));
    let wide = slice(&format!("{{addresses: [{}]}}", ["10.0.0.1"; 101].join(",")), "{port: 80}");
    cases.push((wide, "endpoints[0].addresses: Too many: 101: must have at most 100 items".into()));
    let long = "x".repeat(64);
    let name = format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {long}}}, spec: {{ports: [{{port: 80}}]}}}}"
    );
    cases.push((name, format!("metadata.name: Invalid value: \"{long}\"")));
    for (manifest, wanted) in &cases {
        let message = refused(&bed, manifest);
        assert!(message.contains(wanted), "for {manifest}\n   wanted: {wanted}\n   got: {message}");
    }
    assert_eq!(
        bed.run(&["get", "endpoints,endpointslices", "-o", "name"]).lines().count(),
        2,
        "nothing was taken"
    );
}
