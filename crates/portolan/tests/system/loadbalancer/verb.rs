//! `portolan lb`, for clusters whose nodes are not ours, and what `deploy/` says about it.

use portolan_api::schema::{Schema, Type};
use portolan_lab::Host;
use portolan_lab::probe::{self, Answer};
use portolan_netlink::rt::Rt;
use rustix::process::{Pid, Signal, kill_process};

use super::{ADDRESS, announced, owner, until_settled, vip};
use crate::bed::{Bed, PATIENCE, at, settles, web_pod};

#[test]
fn the_crd_says_what_the_declaration_says() {
    let text = include_str!("../../../../../deploy/loadbalancerpool-crd.yaml");
    let crd: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    same_fields("", portolan_api::portolan::v1alpha1::LoadBalancerPool::schema(), root);
}

fn same_fields(path: &str, schema: &Schema, crd: &serde_json::Value) {
    let declared: std::collections::BTreeSet<&str> = schema.fields.iter().map(|field| field.name).collect();
    let written: std::collections::BTreeSet<&str> =
        crd["properties"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(declared, written, "{path}");
    for field in schema.fields.iter().filter(|field| field.name != "metadata") {
        let here = format!("{path}.{}", field.name);
        let property = &crd["properties"][field.name];
        let kind = match field.ty {
            Type::Bool => "boolean",
            Type::Int32 | Type::Int64 => "integer",
            Type::List(_) => "array",
            Type::Object(_) | Type::StringMap | Type::Map(_) => "object",
            _ => "string",
        };
        assert_eq!(property["type"], kind, "{here}");
        let inner = if kind == "array" { &property["items"] } else { property };
        if let Some(schema) = field.ty.schema() {
            same_fields(&here, schema, inner);
        }
    }
}

/// The verb for clusters whose nodes are not ours: beside whatever forwards there.
#[test]
fn the_verb_lb_announces_from_a_node_with_any_api_server() {
    let bed = announced(1);
    bed.apply(&web_pod("web-1", "app: web", Some("node-1")));
    bed.wait_ready("app=web");
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    let node = bed.lab.place("node-1").unwrap();
    // What is left is the kernel, which goes on forwarding.
    node.netns.kill_processes(PATIENCE).unwrap();
    let client = bed.lab.host(Host::Client).unwrap();
    let mut rt = Rt::open_in(&client).unwrap();
    rt.delete_neighbour("eth0", ADDRESS).unwrap();
    assert!(bed.http("client", vip()).text().is_none(), "nobody answers for the address");
    let mut command = node.command(crate::bed::exe().to_str().unwrap());
    command.args(["lb", "--node-name", "node-1", "--kubeconfig"]).arg(bed.lab.layout.kubeconfig());
    let mut lb = node.spawn(&mut command).unwrap();
    assert_eq!(owner(&bed), 1);
    settles(|| bed.http("client", vip()), |answer| matches!(answer, Answer::Text(_) | Answer::Refused));
    settles(
        || monitored(&bed, "node-1", "/metrics"),
        |answer| {
            let text = answer.text().unwrap_or_default();
            // Of eleven addresses, by the process that gives them.
            text.contains("metallb_allocator_addresses_total{pool=\"main\"} 11\n")
                && text.contains("metallb_allocator_addresses_in_use_total{pool=\"main\"} 1\n")
                && text.contains("metallb_speaker_announced{service=\"default/web\"")
        },
    );
    settles(|| monitored(&bed, "node-1", "/readyz"), |answer| answer.text() == Some("ok\n"));
    bed.until_field("lease -n kube-system portolan-loadbalancer", "{.spec.holderIdentity}", |holder| {
        holder.starts_with("node-1_")
    });
    kill_process(Pid::from_child(&lb), Signal::TERM).unwrap();
    assert!(lb.wait().unwrap().success());
    assert_eq!(bed.field("leases -n kube-system -l portolan.dev/announcer", "{.items[*].metadata.name}"), "");
}

/// What the node answers on its own loopback.
fn monitored(bed: &Bed, node: &str, path: &str) -> Answer {
    let to = at("127.0.0.1".parse().unwrap(), 7472);
    probe::http_get(&bed.lab.place(node).unwrap().netns, to, path).unwrap()
}

#[test]
fn nodes_say_what_they_announce_under_metallbs_names() {
    let bed = announced(2);
    let node = format!("node-{}", until_settled(&bed, ADDRESS));
    settles(|| monitored(&bed, &node, "/readyz"), |answer| answer.text() == Some("ok\n"));
    // The client may have learnt the address unasked, and which announcements are out by now is a matter of time.
    let mut client = Rt::open_in(&bed.lab.host(Host::Client).unwrap()).unwrap();
    let at_least = [
        ("metallb_layer2_requests_received_total{ip=\"10.0.0.240\"}", 1),
        ("metallb_layer2_responses_sent_total{ip=\"10.0.0.240\"}", 1),
        ("metallb_layer2_gratuitous_sent_total{ip=\"10.0.0.240\"}", 2),
        ("metallb_speaker_announced{service=\"default/web\"", 1),
        ("portolan_announce_nodes_heard", 1),
    ];
    settles(
        || {
            let _ = client.delete_neighbour("eth0", ADDRESS);
            let _ = bed.http("client", vip());
            monitored(&bed, &node, "/metrics")
        },
        |answer| {
            let text = answer.text().unwrap_or_default();
            at_least.iter().all(|(name, least)| sample(text, name).is_some_and(|value| value >= *least))
        },
    );
    // The other one announces nothing, and is well.
    let other = if node == "node-1" { "node-2" } else { "node-1" };
    settles(|| monitored(&bed, other, "/livez"), |answer| answer.text() == Some("ok\n"));
    assert!(!monitored(&bed, other, "/metrics").text().unwrap().contains("speaker_announced{"));
}

/// The value of the first sample whose line begins so.
fn sample(text: &str, name: &str) -> Option<u64> {
    text.lines().find(|line| line.starts_with(name))?.rsplit(' ').next()?.parse().ok()
}
