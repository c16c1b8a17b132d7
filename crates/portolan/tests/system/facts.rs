//! What the founding document states about Services, fact by fact, shown on a running cluster.

use portolan_lab::Host;
use portolan_lab::probe::{self, Answer};

use crate::bed::{Bed, PATIENCE, at, peer, settles, web_pod, who, yaml};

const SELECTED: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 32001}
  - {name: line, port: 9000, targetPort: line, nodePort: 32002}
  - {name: datagram, port: 9001, targetPort: datagram, protocol: UDP, nodePort: 32003}
";

/// Two nodes, a pod of the Service on each, and a pod to ask from.
fn bed() -> Bed {
    let bed = Bed::up(2);
    let pods =
        [("web-1", "node-1"), ("web-2", "node-2")].map(|(name, node)| web_pod(name, "app: web", Some(node)));
    bed.apply(&(pods.concat() + &web_pod("shell", "app: shell", Some("node-1")) + "---" + SELECTED));
    bed.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s"]);
    bed
}

fn endpoints(bed: &Bed, which: &str) -> Vec<String> {
    let ips = bed.field("endpoints web", &format!("{{.subsets[*].{which}[*].ip}}"));
    let mut ips: Vec<String> = ips.split_whitespace().map(str::to_owned).collect();
    ips.sort();
    ips.dedup();
    ips
}

#[test]
fn facts_1_2_6_13_endpoints_follow_labels_and_probes() {
    let bed = bed();
    let (one, two) = (bed.pod_ip("web-1").to_string(), bed.pod_ip("web-2").to_string());
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    bed.until_field("endpoints web", "{.subsets[*].addresses[*].ip}", |_| {
        endpoints(&bed, "addresses") == both
    });

    bed.run(&["label", "pod", "web-1", "app=other", "--overwrite"]);
    bed.until_field("endpoints web", "{.subsets}", |_| endpoints(&bed, "addresses") == [two.clone()]);
    bed.run(&["label", "pod", "web-1", "app=web", "--overwrite"]);
    bed.until_field("endpoints web", "{.subsets}", |_| endpoints(&bed, "addresses") == both);

    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=false");
    bed.until_field("endpoints web", "{.subsets}", |_| endpoints(&bed, "notReadyAddresses") == [one.clone()]);
    assert_eq!(endpoints(&bed, "addresses"), [two]);
    let service = at(bed.cluster_ip("web"), 80);
    bed.until_answerers("shell", service, &["web-2"]);
    assert_eq!(bed.answerers("shell", service, 40), ["web-2"]);
    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=true");
    bed.until_answerers("shell", service, &["web-1", "web-2"]);

    bed.run(&["delete", "pod", "web-2", "--grace-period=1"]);
    bed.until_field("endpoints web", "{.subsets}", |_| endpoints(&bed, "addresses") == [one.clone()]);
    bed.until_answerers("shell", service, &["web-1"]);
}

#[test]
fn facts_3_4_7_8_9_every_place_inside_reaches_every_pod_through_the_service() {
    let bed = bed();
    let ip = bed.cluster_ip("web");
    for from in ["shell", "web-1", "web-2", "node-1", "node-2"] {
        bed.until_answerers(from, at(ip, 80), &["web-1", "web-2"]);
        settles(|| bed.line(from, at(ip, 9000)), |answer| answer.text().is_some_and(|t| t.contains("web-")));
        settles(|| bed.udp(from, at(ip, 9001)), |answer| answer.text().is_some_and(|t| t.contains("web-")));
    }
    // The pod's own address is kept inside the cluster; a pod that meets itself sees its node.
    let shell = bed.pod_ip("shell");
    settles(|| bed.http("shell", at(ip, 80)), |answer| peer(answer) == shell);
    let web_1 = bed.pod_ip("web-1");
    settles(|| bed.http("web-1", at(ip, 80)), |answer| (who(answer) == "web-1") == (peer(answer) != web_1));
    // The outside has no way to the Service's address.
    assert!(!matches!(bed.http("client", at(ip, 80)), Answer::Text(_)));
    // A port that the Service does not have.
    settles(|| bed.http("shell", at(ip, 81)), |answer| *answer == Answer::Refused);
}

#[test]
fn fact_5_an_address_is_allocated_returned_and_stored() {
    let bed = Bed::up(1);
    let manifest = "{apiVersion: v1, kind: Service, metadata: {name: any}, spec: {ports: [{port: 80}]}}";
    let output = bed
        .kubectl()
        .output(&["create", "-f", "-", "-o", "jsonpath={.spec.clusterIP}"], &yaml(manifest))
        .unwrap();
    let returned = String::from_utf8(output.stdout).unwrap();
    let ip: std::net::IpAddr = returned.parse().unwrap_or_else(|e| panic!("{e}: {returned:?}"));
    let range: ipnet::IpNet = "10.96.0.0/12".parse().unwrap();
    assert!(range.contains(&ip), "{ip}");
    assert_eq!(bed.cluster_ip("any"), ip);
    bed.run(&["delete", "service", "any"]);
    // Free again: it can be asked for.
    let asked = manifest.replace("spec: {", &format!("spec: {{clusterIP: {ip}, "));
    bed.apply(&asked);
    assert_eq!(bed.cluster_ip("any"), ip);
}

#[test]
fn fact_10_a_node_port_answers_on_every_node_from_outside() {
    let bed = bed();
    for node in [1, 2] {
        let node = Host::Node(node).ip();
        bed.until_answerers("client", at(node, 32001), &["web-1", "web-2"]);
        settles(
            || bed.line("client", at(node, 32002)),
            |answer| answer.text().is_some_and(|t| t.contains("web-")),
        );
        settles(
            || bed.udp("client", at(node, 32003)),
            |answer| answer.text().is_some_and(|t| t.contains("web-")),
        );
        bed.until_answerers("shell", at(node, 32001), &["web-1", "web-2"]);
        // The node answers for the pod: the pod sees a node's address, not the client's.
        let nodes = [Host::Node(1).ip(), Host::Node(2).ip()];
        let seen = peer(&bed.http("client", at(node, 32001)));
        assert!(seen != Host::Client.ip() && (nodes.contains(&seen) || !seen.is_loopback()), "{seen}");
    }
    let automatic = "{apiVersion: v1, kind: Service, metadata: {name: auto}, spec: {type: NodePort, ports: [{port: 80}]}}";
    bed.apply(automatic);
    let port: u16 = bed.field("service auto", "{.spec.ports[0].nodePort}").parse().unwrap();
    assert!((30000..=32767).contains(&port), "{port}");
}

#[test]
fn fact_14_custom_endpoints_bring_an_outside_server_in() {
    let bed = Bed::up(1);
    bed.apply(
        &(web_pod("shell", "app: shell", None)
            + "---\n"
            + include_str!("../../../../examples/04-custom-endpoints.yaml")),
    );
    bed.wait_ready("app=shell");
    let place = bed.lab.place("server").unwrap();
    let mut command = place.command(crate::bed::exe().to_str().unwrap());
    command.args(["echo", "--tcp", "3306", "--tcp", "3307"]).env("POD_NAME", "mysql-outside");
    let mut server = place.spawn(&mut command).unwrap();
    let service = at(bed.cluster_ip("mysql-external"), 3366);
    for from in ["shell", "node-1"] {
        settles(
            || bed.line(from, service),
            |answer| answer.text().is_some_and(|t| t.contains("mysql-outside")),
        );
    }
    // The controller leaves the user's Endpoints alone, and the user's change counts.
    assert_eq!(bed.field("endpoints mysql-external", "{.subsets[0].addresses[0].ip}"), "10.0.0.206");
    bed.run(&[
        "patch",
        "endpoints",
        "mysql-external",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/subsets/0/addresses/0/ip","value":"10.0.0.207"}]"#,
    ]);
    settles(|| bed.line("shell", service), |answer| answer.text().is_none());
    bed.run(&["delete", "endpoints", "mysql-external"]);
    settles(|| bed.line("shell", service), |answer| *answer == Answer::Refused);
    server.kill().unwrap();
    server.wait().unwrap();
}

/// The node's own kernel may refuse to send in the first place.
fn told(answer: &Answer) -> bool {
    match answer {
        Answer::Refused => true,
        Answer::Failed(why) => why.contains("not permitted"),
        _ => false,
    }
}

#[test]
fn pol_6_no_ready_endpoint_refuses_at_once() {
    let bed = bed();
    let service = bed.cluster_ip("web");
    for pod in ["web-1", "web-2"] {
        bed.post("node-1", at(bed.pod_ip(pod), 80), "/ready?value=false");
    }
    for from in ["shell", "node-2", "web-1"] {
        settles(|| bed.http(from, at(service, 80)), |answer| *answer == Answer::Refused);
        // The kernel limits how often it sends ICMP: the first answer says it, later ones may be missing.
        let (answer, _) = probe::until(|| Ok(bed.udp(from, at(service, 9001))), told, PATIENCE).unwrap();
        assert!(told(&answer), "{answer:?}");
    }
    let node_port = at(Host::Node(1).ip(), 32001);
    settles(|| bed.http("client", node_port), |answer| *answer == Answer::Refused);
}

#[test]
fn a_new_service_and_a_deleted_one_take_effect_everywhere() {
    let bed = bed();
    let manifest = SELECTED.replace("name: web}", "name: second}").replace("3200", "3210");
    bed.apply(&manifest);
    let ip = bed.cluster_ip("second");
    bed.until_answerers("node-2", at(ip, 80), &["web-1", "web-2"]);
    bed.until_answerers("client", at(Host::Node(2).ip(), 32101), &["web-1", "web-2"]);
    bed.run(&["delete", "service", "second"]);
    settles(|| bed.http("shell", at(ip, 80)), |answer| answer.text().is_none());
    settles(|| bed.http("client", at(Host::Node(2).ip(), 32101)), |answer| answer.text().is_none());
    bed.until_field("endpointslices", "{.items[*].metadata.labels.kubernetes\\.io/service-name}", |names| {
        !names.contains("second")
    });
}
