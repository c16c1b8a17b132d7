//! What a pod finds about names: `/etc/resolv.conf`, `/etc/hosts`, its host name, and variables.

use std::time::Duration;

use portolan_client::paths;
use serde_json::{Value, json};

use crate::node::{Agent, Node, until};

/// A pod that prints what it finds and goes on.
fn printing(script: &str) -> Value {
    let script = format!("{script}; echo end; sleep 1000");
    json!({"containers": [{"name": "c", "image": "portolan.dev/host", "command": ["sh", "-c", script]}]})
}

fn said(node: &Node, pod: &str) -> String {
    until(&format!("{pod} has said it"), || node.log(pod, "c", 0).ends_with("end\n"));
    node.log(pod, "c", 0)
}

#[test]
fn a_pod_sees_its_own_files_and_the_nodes_stay() {
    let files = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];
    let read = || files.map(|path| std::fs::read(path).ok());
    let before = read();
    let mut node = Node::start();
    // With a server of the cluster's.
    node.agent.stop();
    node.config.names.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
    node.agent = Agent::start(&node.ns.netns, &node.api, node.config.clone());
    let mut spec = printing("cat /etc/resolv.conf /etc/hosts; hostname; cat /etc/hostname; echo $HOSTNAME");
    spec["hostname"] = "db".into();
    spec["subdomain"] = "data".into();
    spec["hostAliases"] = json!([{"ip": "192.0.2.9", "hostnames": ["legacy"]}]);
    node.run("names", spec);
    let text = said(&node, "names");
    assert!(text.starts_with("search shop.svc.cluster.local svc.cluster.local cluster.local"), "{text}");
    assert!(
        text.contains("\nnameserver 10.96.0.10\noptions ndots:5\n# Kubernetes-managed hosts file.\n"),
        "{text}"
    );
    let ip = node.status("names")["podIP"].as_str().unwrap().to_owned();
    assert!(text.contains(&format!("\n{ip}\tdb.data.shop.svc.cluster.local\tdb\n")), "{text}");
    if before[2].is_some() {
        assert!(text.ends_with("192.0.2.9\tlegacy\ndb\ndb\ndb\nend\n"), "{text}");
    }
    assert_eq!(read(), before, "the node's own files are as they were");

    // A probe runs where its container runs.
    let mut spec = printing("true");
    let look = ["sh", "-c", "grep -q 10.96.0.10 /etc/resolv.conf"];
    spec["containers"][0]["readinessProbe"] = json!({"exec": {"command": look}, "periodSeconds": 1});
    node.run("probed", spec);
    node.wait_ready("probed");
}

#[test]
fn odd_settings_are_told_and_lead_to_something() {
    let node = Node::start();
    let mut spec = printing("cat /etc/resolv.conf");
    let servers: Vec<String> = (1..=5).map(|n| format!("192.0.2.{n}")).collect();
    spec["dnsPolicy"] = "None".into();
    spec["dnsConfig"] = json!({"nameservers": servers, "options": [{"name": "ndots", "value": "2"}]});
    node.run("many", spec);
    let text = said(&node, "many");
    assert_eq!(text.matches("nameserver").count(), 3, "{text}");
    assert!(text.contains("options ndots:2\n"), "{text}");
    until("the event", || node.events("many", "DNSConfigForming").len() == 1);
    // This node knows no server of the cluster's.
    node.run("lost", printing("cat /etc/resolv.conf"));
    said(&node, "lost");
    until("the event", || node.events("lost", "MissingClusterDNS").len() == 1);
}

#[test]
fn services_and_objects_become_variables() {
    let node = Node::start();
    let service = |namespace: &str, name: &str, ip: &str| {
        let spec = json!({"clusterIP": ip, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]});
        node.api
            .put(&paths::SERVICES, json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec}));
    };
    service("shop", "my-db", "10.96.0.7");
    service("other", "secret-db", "10.96.0.8");
    service("default", "kubernetes", "10.96.0.1");
    let secret = json!({"metadata": {"name": "key", "namespace": "shop"}, "data": {"word": "c2VzYW1l"}});
    node.api.put(&paths::SECRETS, secret);
    let mut spec = printing("env");
    spec["containers"][0]["env"] = json!([
        {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "word"}}},
        {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "mode"}}},
    ]);
    node.run("env", spec.clone());
    until("it waits for its ConfigMap", || {
        let waiting = &node.container("env")["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError"
            && waiting["message"] == "configmap \"late\" not found"
    });
    let late = json!({"metadata": {"name": "late", "namespace": "shop"}, "data": {"mode": "fast"}});
    node.api.put(&paths::CONFIG_MAPS, late);
    let text = said(&node, "env");
    for line in [
        "WORD=sesame",
        "MODE=fast",
        "MY_DB_SERVICE_HOST=10.96.0.7",
        "MY_DB_SERVICE_PORT_HTTP=80",
        "MY_DB_PORT_80_TCP_ADDR=10.96.0.7",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("SECRET_DB"), "of the pod's own namespace only: {text}");
    spec["enableServiceLinks"] = false.into();
    node.run("plain", spec);
    let text = said(&node, "plain");
    assert!(text.contains("KUBERNETES_SERVICE_HOST=10.96.0.1") && !text.contains("MY_DB"), "{text}");
}

#[test]
fn a_deleted_node_registers_again_with_its_range() {
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]}));
    let ip = node.wait_ready("web");
    assert!(node.api.remove(&paths::NODES, "", "node-a"));
    let ready = || {
        let object = node.api.get(&paths::NODES, "", "node-a").unwrap_or_default();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
            && object["spec"]["podCIDR"] == "10.88.1.0/24"
    };
    until("the node is there again, and ready", ready);
    assert_eq!(node.wait_ready("web"), ip, "its pods went on");
}

#[test]
fn a_node_that_was_given_up_says_that_it_is_back() {
    let node = Node::start();
    node.run("web", json!({"containers": [{"name": "c", "image": "portolan.dev/echo"}]}));
    node.wait_ready("web");
    // What a controller writes about a node that fell silent, and about its pods.
    let unready = |object: &mut Value, status: &str| {
        for condition in object["status"]["conditions"].as_array_mut().unwrap() {
            if condition["type"] == "Ready" {
                condition["status"] = status.into();
            }
        }
    };
    let mut pod = node.pod("web").unwrap();
    unready(&mut pod, "False");
    node.api.put(&paths::PODS, pod);
    let mut object = node.api.get(&paths::NODES, "", "node-a").unwrap();
    unready(&mut object, "Unknown");
    node.api.put(&paths::NODES, object);
    let start = std::time::Instant::now();
    node.wait_ready("web");
    until("the node says it is ready", || {
        let object = node.api.get(&paths::NODES, "", "node-a").unwrap();
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap();
        conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    assert!(start.elapsed() < Duration::from_secs(5), "long before the next report is due");
}
