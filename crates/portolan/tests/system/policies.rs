//! What the founding document's later manifests ask for: affinity, policies, addresses that are not ready. The examples
//! are applied as they stand; `bad_input` has their slips.

use std::net::SocketAddr;

use portolan_lab::Host;
use portolan_lab::probe::Answer;

use crate::bed::{Bed, at, peer, settles, web_pod, who};

/// A pod of the Service and a pod to ask from on each of two nodes.
fn bed(example: &str) -> Bed {
    let bed = Bed::up(2);
    let pods = ["1", "2"].map(|n| {
        let node = format!("node-{n}");
        web_pod(&format!("web-{n}"), "app: web", Some(&node))
            + &web_pod(&format!("shell-{n}"), "app: shell", Some(&node))
    });
    bed.apply(&(pods.concat() + "---\n" + example));
    bed.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s"]);
    bed
}

fn internal(bed: &Bed, service: &str) -> SocketAddr {
    at(bed.cluster_ip(service), 80)
}

fn external(bed: &Bed, service: &str, node: u8) -> SocketAddr {
    let port = bed.field(&format!("service {service}"), "{.spec.ports[0].nodePort}");
    at(Host::Node(node).ip(), port.parse().unwrap())
}

/// The pod that answers this client, once somebody does.
fn favourite(bed: &Bed, from: &str, to: SocketAddr) -> String {
    settles(|| bed.http(from, to), |answer| answer.text().is_some());
    who(&bed.http(from, to))
}

#[test]
fn fact_15_a_client_stays_with_its_pod() {
    let bed = bed(include_str!("../../../../examples/05-session-affinity.yaml"));
    let service = "demo-svc-sticky";
    for (from, to) in [
        ("shell-1", internal(&bed, service)),
        ("shell-2", internal(&bed, service)),
        ("node-1", internal(&bed, service)),
        ("client", external(&bed, service, 1)),
    ] {
        let name = favourite(&bed, from, to);
        assert_eq!(bed.answerers(from, to, 40), [name], "{from} at {to}");
    }
    // Its pod gone, the client gets the other one; without affinity both answer.
    let to = internal(&bed, service);
    let gone = favourite(&bed, "shell-1", to);
    let other = if gone == "web-1" { "web-2" } else { "web-1" };
    bed.post("node-1", at(bed.pod_ip(&gone), 80), "/ready?value=false");
    bed.until_answerers("shell-1", to, &[other]);
    bed.post("node-1", at(bed.pod_ip(&gone), 80), "/ready?value=true");
    bed.run(&["patch", "service", service, "-p", r#"{"spec": {"sessionAffinity": "None"}}"#]);
    bed.until_answerers("shell-1", to, &["web-1", "web-2"]);

    bed.run(&["patch", "service", service, "-p", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#]);
    let timeout = "{.spec.sessionAffinityConfig.clientIP.timeoutSeconds}";
    assert_eq!(bed.field(&format!("service {service}"), timeout), "10800");
}

#[test]
fn fact_16_outside_traffic_stays_on_its_node_where_asked_for() {
    let bed = bed(include_str!("../../../../examples/06-external-policy-local.yaml"));
    let service = "demo-svc-external-local";
    for node in [1, 2] {
        let to = external(&bed, service, node);
        let here = format!("web-{node}");
        bed.until_answerers("client", to, &[&here]);
        assert_eq!(bed.answerers("client", to, 20), [here]);
        assert_eq!(peer(&bed.http("client", to)), Host::Client.ip());
    }
    bed.run(&["delete", "pod", "web-2", "--grace-period=1"]);
    let to = external(&bed, service, 2);
    settles_few(&bed, "client", to);
    // Cluster policy leads to the pod on the other node.
    bed.run(&["patch", "service", service, "-p", r#"{"spec": {"externalTrafficPolicy": "Cluster"}}"#]);
    bed.until_answerers("client", to, &["web-1"]);
}

#[test]
fn fact_17_inside_traffic_stays_on_its_node_where_asked_for() {
    let bed = bed(include_str!("../../../../examples/07-internal-policy-local.yaml"));
    let service = "demo-svc-internal-local";
    let to = internal(&bed, service);
    for (from, here) in [("shell-1", "web-1"), ("node-1", "web-1"), ("shell-2", "web-2"), ("node-2", "web-2")]
    {
        bed.until_answerers(from, to, &[here]);
        assert_eq!(bed.answerers(from, to, 20), [here]);
    }
    // The node port is external: it leads to every pod.
    bed.until_answerers("client", external(&bed, service, 1), &["web-1", "web-2"]);
    bed.run(&["delete", "pod", "web-2", "--grace-period=1"]);
    settles_few(&bed, "shell-2", to);
    bed.until_answerers("shell-1", to, &["web-1"]);
}

#[test]
fn fact_18_both_policies_local_are_taken_with_a_warning() {
    let bed = bed(include_str!("../../../../examples/07-internal-policy-local.yaml"));
    let service = "demo-svc-internal-local";
    let patch = ["patch", "service", service, "-p", r#"{"spec": {"externalTrafficPolicy": "Local"}}"#];
    let output = bed.kubectl().output(&patch, "").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Warning: ") && said.contains("apply independently"), "{said}");
    bed.until_answerers("client", external(&bed, service, 1), &["web-1"]);
    bed.until_answerers("shell-2", internal(&bed, service), &["web-2"]);
}

#[test]
fn fact_19_the_example_publishes_pods_that_are_not_ready() {
    let bed = bed(include_str!("../../../../examples/08-publish-not-ready.yaml"));
    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=false");
    bed.until_field("pod web-1", "{.status.conditions[?(@.type=='Ready')].status}", |s| s == "False");
    let to = internal(&bed, "demo-svc-not-ready");
    bed.until_answerers("shell-2", to, &["web-1", "web-2"]);
    assert_eq!(bed.answerers("shell-2", to, 30), ["web-1", "web-2"]);
}

/// Nothing comes back, not even a refusal. Each such answer takes the whole patience of a client: few are asked for.
fn settles_few(bed: &Bed, from: &str, to: SocketAddr) {
    let silence = || bed.http(from, to) == Answer::Silence;
    let begin = std::time::Instant::now();
    while !silence() {
        assert!(begin.elapsed() < crate::bed::PATIENCE, "{from} still gets an answer at {to}");
    }
    assert!(silence() && silence(), "{from} got an answer at {to} after silence");
}
