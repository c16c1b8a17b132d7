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
