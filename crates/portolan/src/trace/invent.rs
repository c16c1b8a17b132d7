//! What a cluster would add to manifests: addresses, node ports, pods of workloads, nodes, readiness.
//!
//! Always the same for the same files, and everything made up is said. Order counts: workloads become pods, pods get
//! nodes, nodes and pods get addresses, Services theirs.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use portolan_controllers::objects::{Node, Pod};
use portolan_controllers::scheduler::plan::{self, Candidate, Choice};
use serde_json::{Value, json};

use super::objects::{Objects, is_set, list, name_of, set, text};

/// Documentation addresses (RFC 5737): nobody takes them for real ones.
const NODE_NETWORK: [u8; 3] = [192, 0, 2];
const POD_NETWORK: [u8; 2] = [10, 244];
const SERVICE_NETWORK: [u8; 2] = [10, 96];
const NODE_PORT_FIRST: u16 = 30_000;
const REPLICAS_MAX: u64 = 1000;

pub(crate) fn complete(objects: &mut Objects) {
    pods_of_workloads(objects);
    nodes(objects);
    place_pods(objects);
    pod_state(objects);
    services(objects);
    if !objects.ignored.is_empty() {
        let kinds: Vec<String> = objects.ignored.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
        objects.assumptions.push(format!("not looked at: {}", kinds.join(", ")));
    }
}

/// Names in one line: all of them while they are few.
fn some(names: &[String]) -> String {
    match names {
        names if names.len() > 4 => format!("{} and {} more", names[..3].join(", "), names.len() - 3),
        names => names.join(", "),
    }
}

fn pods_of_workloads(objects: &mut Objects) {
    let nodes = objects.nodes.len().max(1) as u64;
    for workload in std::mem::take(&mut objects.workloads) {
        let kind = text(&workload, "/kind").to_owned();
        let replicas = match &*kind {
            "DaemonSet" => nodes,
            _ => workload.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1).min(REPLICAS_MAX),
        };
        let first = u64::from(kind != "StatefulSet");
        for number in first..first + replicas {
            objects.pods.push(pod_of(&workload, number));
        }
        let name = name_of(&workload);
        objects.assumptions.push(format!("{kind} {name}: made up its pods ({replicas})"));
    }
}

fn pod_of(workload: &Value, number: u64) -> Value {
    let name = format!("{}-{number}", text(workload, "/metadata/name"));
    let template = workload.pointer("/spec/template").cloned().unwrap_or_default();
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": template["metadata"], "spec": template["spec"]});
    set(&mut pod, &["metadata", "name"], json!(name));
    if let Some(resource) = portolan_api::resource::find("", "v1", "pods") {
        resource.strategy.default(&mut pod);
    }
    set(&mut pod, &["metadata", "namespace"], workload["metadata"]["namespace"].clone());
    if text(workload, "/kind") == "StatefulSet" {
        set(&mut pod, &["spec", "hostname"], json!(name));
        set(&mut pod, &["spec", "subdomain"], workload["spec"]["serviceName"].clone());
    }
    pod
}

/// Every node that a pod names exists, and there is at least one.
fn nodes(objects: &mut Objects) {
    let mut known: HashSet<String> =
        objects.nodes.iter().map(|node| text(node, "/metadata/name").to_owned()).collect();
    let named = objects.pods.iter().map(|pod| text(pod, "/spec/nodeName").to_owned());
    let mut wanted: Vec<String> =
        named.filter(|name| !name.is_empty() && known.insert(name.clone())).collect();
    if objects.nodes.is_empty() && wanted.is_empty() {
        wanted.push("node-1".into());
    }
    wanted.sort();
    for name in &wanted {
        objects.nodes.push(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}));
    }
    if !wanted.is_empty() {
        objects.assumptions.push(format!("made up the nodes {}", some(&wanted)));
    }
    objects.nodes.sort_by_key(name_of);
    let mut invented = Vec::new();
    for (index, node) in (1u8..).zip(&mut objects.nodes) {
        if list(node, "/status/conditions").is_empty() {
            set(node, &["status", "conditions"], json!([{"type": "Ready", "status": "True"}]));
        }
        if list(node, "/status/addresses").is_empty() {
            let [a, b, c] = NODE_NETWORK;
            let address = Ipv4Addr::new(a, b, c, index);
            set(node, &["status", "addresses"], json!([{"type": "InternalIP", "address": address}]));
            invented.push(format!("{} {address}", text(node, "/metadata/name")));
        }
    }
    if !invented.is_empty() {
        objects.assumptions.push(format!("made up the addresses of nodes: {}", some(&invented)));
    }
}

/// Where the scheduler would put pods that name no node.
fn place_pods(objects: &mut Objects) {
    objects.pods.sort_by_key(name_of);
    let nodes: Vec<Node> = objects.nodes.iter().filter_map(read).collect();
    let mut placed: Vec<Arc<Pod>> = objects.pods.iter().filter_map(read).map(Arc::new).collect();
    placed.retain(|pod| !pod.spec.node_name.is_empty());
    let mut said = Vec::new();
    for object in &mut objects.pods {
        let Some(mut pod) = read::<Pod>(object).filter(plan::is_ours) else { continue };
        let candidates: Vec<Candidate<'_>> = nodes
            .iter()
            .map(|node| {
                let here = placed.iter().filter(|other| other.spec.node_name == node.metadata.name);
                let alike = here.clone().filter(|other| plan::alike(other, &pod)).count();
                Candidate { node, pods: here.count(), alike }
            })
            .collect();
        if let Choice::Node(name) = plan::choose(&pod, &candidates) {
            said.push(format!("{} on {name}", name_of(object)));
            set(object, &["spec", "nodeName"], json!(name));
            pod.spec.node_name = name.into();
            placed.push(Arc::new(pod));
        }
    }
    if !said.is_empty() {
        objects.assumptions.push(format!("placed pods as the scheduler would: {}", some(&said)));
    }
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> Option<T> {
    serde_json::from_value(object.clone()).ok()
}

/// A pod that says nothing of its state runs, is ready and has an address.
fn pod_state(objects: &mut Objects) {
    let mut taken: HashSet<String> =
        objects.pods.iter().map(|pod| text(pod, "/status/podIP").to_owned()).collect();
    let node_address: BTreeMap<String, String> = objects
        .nodes
        .iter()
        .map(|node| {
            let address = list(node, "/status/addresses").first().map_or("", |a| text(a, "/address"));
            (text(node, "/metadata/name").to_owned(), address.to_owned())
        })
        .collect();
    let position = |name: &str| node_address.keys().position(|node| node == name).map_or(0, |i| i + 1);
    let mut invented = Vec::new();
    let mut ready = Vec::new();
    for pod in &mut objects.pods {
        let name = name_of(pod);
        let phase = text(pod, "/status/phase");
        let silent = list(pod, "/status/conditions").is_empty();
        if silent && matches!(phase, "" | "Pending") && !is_set(pod, "/status/containerStatuses") {
            set(pod, &["status", "phase"], json!("Running"));
            set(pod, &["status", "conditions"], json!([{"type": "Ready", "status": "True"}]));
            ready.push(name.clone());
        }
        if !text(pod, "/status/podIP").is_empty() || !list(pod, "/status/podIPs").is_empty() {
            continue;
        }
        let node = text(pod, "/spec/nodeName").to_owned();
        let address = if pod.pointer("/spec/hostNetwork") == Some(&json!(true)) {
            node_address.get(&node).cloned().unwrap_or_default()
        } else {
            let [a, b] = POD_NETWORK;
            let mut free =
                (2u8..=254).map(|host| Ipv4Addr::new(a, b, position(&node) as u8, host).to_string());
            free.find(|address| taken.insert(address.clone())).unwrap_or_default()
        };
        set(pod, &["status", "podIP"], json!(address));
        set(pod, &["status", "podIPs"], json!([{"ip": address}]));
        invented.push(format!("{name} {address}"));
    }
    if !ready.is_empty() {
        objects.assumptions.push(format!("taken to be running and ready: {}", some(&ready)));
    }
    if !invented.is_empty() {
        objects.assumptions.push(format!("made up the addresses of pods: {}", some(&invented)));
    }
}

/// Every Service that would be given a ClusterIP and node ports has them.
fn services(objects: &mut Objects) {
    objects.services.sort_by_key(name_of);
    let mut free = Free::of(&objects.services);
    let mut invented = Vec::new();
    for service in &mut objects.services {
        let kind = text(service, "/spec/type").to_owned();
        if kind == "ExternalName" {
            continue;
        }
        invented.extend(free.cluster_ip(service));
        let allocates = service.pointer("/spec/allocateLoadBalancerNodePorts") != Some(&json!(false));
        if kind == "NodePort" || (kind == "LoadBalancer" && allocates) {
            free.node_ports(service, &mut invented);
        }
        let checked = kind == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local";
        if checked && service.pointer("/spec/healthCheckNodePort").is_none_or(is_zero) {
            set(service, &["spec", "healthCheckNodePort"], json!(free.port()));
        }
    }
    if !invented.is_empty() {
        objects.assumptions.push(format!("made up for Services: {}", some(&invented)));
    }
}

fn is_zero(number: &Value) -> bool {
    number.as_u64().unwrap_or_default() == 0
}

/// What no Service of the files asks for is free to be given.
struct Free {
    addresses: HashSet<String>,
    ports: HashSet<u64>,
}

impl Free {
    fn of(services: &[Value]) -> Self {
        let ports = services.iter().flat_map(|service| list(service, "/spec/ports"));
        Self {
            addresses: services.iter().map(|service| text(service, "/spec/clusterIP").to_owned()).collect(),
            ports: ports.filter_map(|port| port["nodePort"].as_u64()).collect(),
        }
    }

    fn port(&mut self) -> Option<u64> {
        (u64::from(NODE_PORT_FIRST)..32768).find(|number| self.ports.insert(*number))
    }

    /// Both fields of the ClusterIP; says what was made up.
    fn cluster_ip(&mut self, service: &mut Value) -> Option<String> {
        let first = list(service, "/spec/clusterIPs").first().and_then(Value::as_str).map(str::to_owned);
        let asked = Some(text(service, "/spec/clusterIP").to_owned()).filter(|address| !address.is_empty());
        let known = asked.or(first);
        let [a, b] = SERVICE_NETWORK;
        let address = known.clone().or_else(|| {
            let all = (0..=255u8).flat_map(|c| (1..=254u8).map(move |d| Ipv4Addr::new(a, b, c, d)));
            // The first ones are those that a cluster gives to its own Services.
            all.skip(9).map(|ip| ip.to_string()).find(|address| self.addresses.insert(address.clone()))
        })?;
        if list(service, "/spec/clusterIPs").is_empty() {
            set(service, &["spec", "clusterIPs"], json!([address]));
        }
        set(service, &["spec", "clusterIP"], json!(address));
        known.is_none().then(|| format!("{} {address}", name_of(service)))
    }

    fn node_ports(&mut self, service: &mut Value, invented: &mut Vec<String>) {
        let name = name_of(service);
        let ports = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten().filter(|port| is_zero(&port["nodePort"])) {
            let Some(number) = self.port() else { continue };
            port["nodePort"] = json!(number);
            invented.push(format!("{name} node port {number}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_the_same_every_time_and_never_taken_twice() {
        let service = |name: &str, spec: Value| json!({"kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let pod = |name: &str| json!({"kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {}});
        let make = || {
            let services = vec![
                service(
                    "b",
                    json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "nodePort": 30000}]}),
                ),
                service("a", json!({"clusterIP": "10.96.0.10", "ports": [{"port": 80}]})),
            ];
            let pods = vec![pod("p-2"), pod("p-1")];
            let nodes = ["n1", "n2"].map(|name| json!({"metadata": {"name": name}})).to_vec();
            let mut objects = Objects { services, pods, nodes, ..Objects::default() };
            complete(&mut objects);
            objects
        };
        let objects = make();
        assert_eq!(text(&objects.services[1], "/spec/clusterIP"), "10.96.0.11");
        assert_eq!(objects.services[1]["spec"]["ports"][0]["nodePort"], 30001);
        let where_is =
            |pod: &Value| (text(pod, "/spec/nodeName").to_owned(), text(pod, "/status/podIP").to_owned());
        assert_eq!(where_is(&objects.pods[0]), ("n1".into(), "10.244.1.2".into()));
        assert_eq!(where_is(&objects.pods[1]), ("n2".into(), "10.244.2.2".into()));
        assert_eq!(make().assumptions, objects.assumptions);
    }

    #[test]
    fn a_deployment_becomes_pods_that_carry_its_labels() {
        let mut objects = Objects::default();
        objects
            .workloads
            .push(json!({"kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {}}}}));
        complete(&mut objects);
        let names: Vec<String> = objects.pods.iter().map(name_of).collect();
        assert_eq!(names, ["shop/web-1", "shop/web-2"]);
        assert_eq!(text(&objects.pods[0], "/metadata/labels/app"), "web");
    }
}
