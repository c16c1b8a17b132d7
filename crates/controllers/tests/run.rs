//! The controllers at work against an API server in memory: what users see, and what it costs.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use portolan_client::testing::FakeApi;
use portolan_client::{Body, Client, Error, Transport, paths};
use portolan_controllers::Config;
use serde_json::{Value, json};

use common::{Running, answer, config, eventually, service};

/// The fake API server with what it lacks: bindings and discovery.
struct Api {
    fake: Arc<FakeApi>,
}

impl Api {
    fn special(&self, request: &http::Request<Bytes>) -> Option<Value> {
        let path = request.uri().path();
        match path {
            "/api/v1" => {
                let verbs = json!(["list", "delete"]);
                return Some(json!({ "resources": [
                    { "name": "pods", "namespaced": true, "verbs": verbs },
                    { "name": "services", "namespaced": true, "verbs": verbs },
                ] }));
            }
            "/apis" => return Some(json!({ "groups": [] })),
            _ => {}
        }
        let rest = path.strip_prefix("/api/v1/namespaces/")?.strip_suffix("/binding")?;
        let (namespace, name) = rest.split_once("/pods/")?;
        let mut pod = self.fake.get(&paths::PODS, namespace, name)?;
        let binding: Value = serde_json::from_slice(request.body()).ok()?;
        assert_eq!(pod["metadata"]["uid"], binding["metadata"]["uid"]);
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        self.fake.put(&paths::PODS, pod);
        Some(json!({ "kind": "Status", "status": "Success" }))
    }
}

impl Transport for Api {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        let response = match self.special(&request) {
            Some(body) => answer(http::StatusCode::OK, &body),
            None => self.fake.respond(&request),
        };
        ready(Ok(response)).boxed()
    }
}

struct Cluster {
    api: Arc<FakeApi>,
    _running: Running,
}

impl Cluster {
    fn start(api: Arc<FakeApi>, config: Config) -> Self {
        let running = Running::start(Api { fake: Arc::clone(&api) }, config);
        Self { api, _running: running }
    }

    fn new() -> Self {
        let api = FakeApi::new();
        for name in ["n1", "n2"] {
            api.put(&paths::NODES, node(name));
        }
        Self::start(api, config())
    }

    /// Waits until the condition holds; the last word on failure is what was there instead.
    async fn eventually<T: std::fmt::Debug>(&self, what: &str, look: impl Fn(&FakeApi) -> Result<(), T>) {
        eventually(what, || look(&self.api)).await;
    }

    async fn endpoints(&self, service: &str, ready: &[&str], not_ready: &[&str]) {
        self.eventually(&format!("endpoints of {service}"), |api| {
            let object = api.get(&paths::ENDPOINTS, "default", service).unwrap_or_default();
            let ips = |field: &str| -> Vec<String> {
                let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
                let addresses =
                    subsets.iter().flat_map(|subset| subset[field].as_array().cloned().unwrap_or_default());
                addresses.filter_map(|address| address["ip"].as_str().map(str::to_owned)).collect()
            };
            let found = (ips("addresses"), ips("notReadyAddresses"));
            if found.0 == ready && found.1 == not_ready { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// Both kinds of object are there, whatever they say.
    async fn made(&self, service: &str) {
        self.eventually(&format!("objects of {service}"), |api| {
            let found =
                (slices_of(api, service).len(), api.get(&paths::ENDPOINTS, "default", service).is_some());
            if found == (1, true) { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// The addresses that the slices of a Service call ready.
    async fn slices(&self, service: &str, ready: &[&str]) {
        self.eventually(&format!("slices of {service}"), |api| {
            let found = ready_in_slices(api, service);
            if found == ready { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

fn slices_of(api: &FakeApi, service: &str) -> Vec<Value> {
    let slices = api.all(&paths::ENDPOINT_SLICES).into_iter();
    slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service).collect()
}

fn ready_in_slices(api: &FakeApi, service: &str) -> Vec<String> {
    let slices = slices_of(api, service);
    let endpoints =
        slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
    let mut ready: Vec<String> = endpoints
        .filter(|endpoint| endpoint["conditions"]["ready"] == true)
        .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(str::to_owned))
        .collect();
    ready.sort();
    ready
}

fn node(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": "z1" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

fn pod(name: &str, app: &str, ip: &str, ready: bool) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "app": app } },
        "spec": { "nodeName": "n1", "containers": [{ "name": "main" }] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" },
                             "lastTransitionTime": "2026-01-01T00:00:01Z" }],
        },
    })
}

#[tokio::test]
async fn endpoints_and_slices_follow_the_pods() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    api.put(&paths::SERVICES, service("web"));
    cluster.made("web").await;
    api.put(&paths::PODS, pod("a", "web", "10.0.0.1", true));
    api.put(&paths::PODS, pod("b", "web", "10.0.0.2", false));
    api.put(&paths::PODS, pod("x", "other", "10.0.0.9", true));
    cluster.slices("web", &["10.0.0.1"]).await;
    cluster.endpoints("web", &["10.0.0.1"], &["10.0.0.2"]).await;
    api.put(&paths::PODS, pod("b", "web", "10.0.0.2", true));
    cluster.slices("web", &["10.0.0.1", "10.0.0.2"]).await;
    cluster.endpoints("web", &["10.0.0.1", "10.0.0.2"], &[]).await;
    api.remove(&paths::PODS, "default", "a");
    cluster.slices("web", &["10.0.0.2"]).await;
    cluster.endpoints("web", &["10.0.0.2"], &[]).await;
    assert_eq!(slices_of(api, "web").len(), 1, "one slice through all of it");
}

#[tokio::test]
async fn what_goes_with_a_service() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    api.put(&paths::SERVICES, service("web"));
    api.put(&paths::PODS, pod("a", "web", "10.0.0.1", true));
    cluster.slices("web", &["10.0.0.1"]).await;
    cluster.endpoints("web", &["10.0.0.1"], &[]).await;
    api.remove(&paths::SERVICES, "default", "web");
    cluster
        .eventually("everything of the Service goes", |api| {
            let left = (slices_of(api, "web"), api.get(&paths::ENDPOINTS, "default", "web"));
            if left.0.is_empty() && left.1.is_none() { Ok(()) } else { Err(left) }
        })
        .await;
}

#[tokio::test]
async fn custom_endpoints_are_left_alone_and_mirrored() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    let endpoints = json!({
        "metadata": { "name": "db", "uid": "uid-ep" },
        "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 5432 }] }],
    });
    api.put(&paths::ENDPOINTS, endpoints);
    let mut db = service("db");
    db["spec"].as_object_mut().unwrap().remove("selector");
    api.put(&paths::SERVICES, db);
    cluster.slices("db", &["192.0.2.1"]).await;
    cluster.endpoints("db", &["192.0.2.1"], &[]).await;
    let slice = &slices_of(api, "db")[0];
    let manager = &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(manager, "endpointslicemirroring-controller.k8s.io");
    api.remove(&paths::ENDPOINTS, "default", "db");
    cluster.slices("db", &[]).await;
}

#[tokio::test]
async fn a_restart_writes_nothing_while_all_is_right() {
    let first = Cluster::new();
    let api = Arc::clone(&first.api);
    api.put(&paths::SERVICES, service("web"));
    api.put(&paths::PODS, pod("a", "web", "10.0.0.1", true));
    first.slices("web", &["10.0.0.1"]).await;
    first.endpoints("web", &["10.0.0.1"], &[]).await;
    let ranged = |api: &FakeApi| {
        let missing = api.all(&paths::NODES).iter().filter(|node| node["spec"]["podCIDR"].is_null()).count();
        if missing == 0 { Ok(()) } else { Err(missing) }
    };
    first.eventually("pod ranges", ranged).await;
    drop(first);
    let before = api.writes().len();
    let second = Cluster::start(Arc::clone(&api), config());
    // A later change that must be written shows that the restart has been through everything before it.
    api.put(&paths::SERVICES, service("marker"));
    second.made("marker").await;
    let writes: Vec<String> = api.writes().split_off(before);
    let of_marker = |write: &&String| write.contains("endpoint");
    assert_eq!(writes.iter().filter(of_marker).count(), 2, "{writes:?}");
    assert_eq!(writes.len(), 2, "{writes:?}");
}

#[tokio::test]
async fn one_pod_more_is_two_writes() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    let pods: Vec<String> = (1..=150).map(|i| format!("10.0.0.{i}")).collect();
    for (index, ip) in pods.iter().enumerate() {
        api.put(&paths::PODS, pod(&format!("p{index:03}"), "web", ip, true));
    }
    api.put(&paths::SERVICES, service("web"));
    let sorted = |ips: &[String]| {
        let mut sorted = ips.to_vec();
        sorted.sort();
        sorted
    };
    let expected = sorted(&pods);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    cluster.slices("web", &expected).await;
    cluster
        .eventually("endpoints", |api| {
            let object = api.get(&paths::ENDPOINTS, "default", "web").unwrap_or_default();
            let count = object["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
            if count == 150 { Ok(()) } else { Err(count) }
        })
        .await;
    let before = api.writes().len();
    api.put(&paths::PODS, pod("new", "web", "10.0.1.1", true));
    let mut more = pods;
    more.push("10.0.1.1".into());
    let expected = sorted(&more);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    cluster.slices("web", &expected).await;
    cluster
        .eventually("endpoints", |api| {
            let object = api.get(&paths::ENDPOINTS, "default", "web").unwrap_or_default();
            let count = object["subsets"][0]["addresses"].as_array().map_or(0, Vec::len);
            if count == 151 { Ok(()) } else { Err(count) }
        })
        .await;
    let writes = api.writes().split_off(before);
    assert_eq!(writes.len(), 2, "{writes:?}");
}

#[tokio::test]
async fn a_conflict_and_a_failing_server_are_overcome() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    api.put(&paths::SERVICES, service("web"));
    cluster.made("web").await;
    api.fail_next(2, 409, "Conflict");
    api.put(&paths::PODS, pod("a", "web", "10.0.0.1", true));
    cluster.slices("web", &["10.0.0.1"]).await;
    api.fail_next(4, 500, "InternalError");
    api.put(&paths::PODS, pod("b", "web", "10.0.0.2", true));
    cluster.slices("web", &["10.0.0.1", "10.0.0.2"]).await;
    cluster.endpoints("web", &["10.0.0.1", "10.0.0.2"], &[]).await;
}

#[tokio::test]
async fn pods_are_spread_over_the_nodes_that_fit() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    let pending = |name: &str| {
        json!({
            "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "main" }] },
            "status": { "phase": "Pending" },
        })
    };
    for name in ["web-1", "web-2", "web-3", "web-4"] {
        api.put(&paths::PODS, pending(name));
    }
    cluster
        .eventually("two pods on each node", |api| {
            let pods = api.all(&paths::PODS);
            let on = |node: &str| pods.iter().filter(|pod| pod["spec"]["nodeName"] == node).count();
            if (on("n1"), on("n2")) == (2, 2) { Ok(()) } else { Err((on("n1"), on("n2"))) }
        })
        .await;
    let mut picky = pending("picky");
    picky["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    api.put(&paths::PODS, picky);
    cluster
        .eventually("the pod says why it waits", |api| {
            let pod = api.get(&paths::PODS, "default", "picky").unwrap();
            let message = pod["status"]["conditions"][0]["message"].as_str().unwrap_or_default().to_owned();
            let expected = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
            if message.starts_with(expected) { Ok(()) } else { Err(message) }
        })
        .await;
    let mut fast = node("n3");
    fast["metadata"]["labels"]["disk"] = "ssd".into();
    api.put(&paths::NODES, fast);
    cluster
        .eventually("the new node takes it", |api| {
            let pod = api.get(&paths::PODS, "default", "picky").unwrap();
            if pod["spec"]["nodeName"] == "n3" { Ok(()) } else { Err(pod) }
        })
        .await;
    cluster
        .eventually("events", |api| {
            let reasons: Vec<String> =
                api.all(&paths::EVENTS).iter().map(|event| event["reason"].to_string()).collect();
            let has = |reason: &str| reasons.iter().any(|found| found.contains(reason));
            if has("Scheduled") && has("FailedScheduling") { Ok(()) } else { Err(reasons) }
        })
        .await;
}

#[tokio::test]
async fn a_pod_made_anew_under_its_name_gets_a_node_too() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    for round in 0..3 {
        api.put(
            &paths::PODS,
            json!({
                "metadata": { "name": "again", "uid": format!("uid-{round}") },
                "spec": { "containers": [{ "name": "main" }] },
                "status": { "phase": "Pending" },
            }),
        );
        cluster
            .eventually("a node", |api| {
                let pod = api.get(&paths::PODS, "default", "again").unwrap();
                if pod["spec"]["nodeName"].is_string() { Ok(()) } else { Err(pod) }
            })
            .await;
        api.remove(&paths::PODS, "default", "again");
    }
}

#[tokio::test]
async fn nodes_get_ranges_that_differ() {
    let cluster = Cluster::new();
    let mut known = node("n0");
    known["spec"] = json!({ "podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"] });
    cluster.api.put(&paths::NODES, known);
    cluster
        .eventually("ranges", |api| {
            let mut ranges: Vec<String> =
                api.all(&paths::NODES).iter().map(|node| node["spec"]["podCIDRs"][0].to_string()).collect();
            ranges.sort();
            ranges.dedup();
            if ranges.len() == 3 && !ranges.contains(&"null".to_owned()) { Ok(()) } else { Err(ranges) }
        })
        .await;
}

#[tokio::test]
async fn a_silent_node_takes_its_endpoints_out() {
    let api = FakeApi::new();
    api.put(&paths::NODES, node("n1"));
    api.put(&paths::SERVICES, service("web"));
    api.put(&paths::PODS, pod("a", "web", "10.0.0.1", true));
    let config = Config { node_grace: Duration::from_millis(100), ..Config::default() };
    let cluster = Cluster::start(api, config);
    cluster.endpoints("web", &[], &["10.0.0.1"]).await;
    cluster.slices("web", &[]).await;
    let node = cluster.api.get(&paths::NODES, "", "n1").unwrap();
    let ready = &node["status"]["conditions"][0];
    assert_eq!(
        (ready["status"].as_str(), ready["reason"].as_str()),
        (Some("Unknown"), Some("NodeStatusUnknown"))
    );
    cluster
        .eventually("the node's taints", |api| {
            let node = api.get(&paths::NODES, "", "n1").unwrap();
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let unreachable = |taint: &Value| taint["key"] == "node.kubernetes.io/unreachable";
            if taints.len() == 2 && taints.iter().all(unreachable) { Ok(()) } else { Err(taints) }
        })
        .await;
    // A pod that does not want to wait is replaced elsewhere.
    let mut hurried = pod("b", "web", "10.0.0.2", false);
    hurried["spec"]["tolerations"] = json!([{ "key": "node.kubernetes.io/unreachable", "operator": "Exists",
        "effect": "NoExecute", "tolerationSeconds": 0 }]);
    cluster.api.put(&paths::PODS, hurried);
    cluster.api.put(&paths::NODES, cluster.api.get(&paths::NODES, "", "n1").unwrap());
    cluster
        .eventually("it is asked to leave", |api| match api.get(&paths::PODS, "default", "b") {
            Some(pod) if pod["metadata"]["deletionTimestamp"].is_null() => Err(pod),
            _ => Ok(()),
        })
        .await;
    assert!(cluster.api.get(&paths::PODS, "default", "a").is_some(), "the other has five minutes");
}

#[tokio::test]
async fn a_terminating_namespace_is_emptied_and_finalized() {
    let cluster = Cluster::new();
    let api = &cluster.api;
    let mut web = service("web");
    web["metadata"]["namespace"] = "old".into();
    api.put(&paths::SERVICES, web);
    let mut pod = pod("a", "other", "10.0.0.1", true);
    pod["metadata"]["namespace"] = "old".into();
    pod["spec"].as_object_mut().unwrap().remove("nodeName");
    pod["spec"]["schedulerName"] = "someone-else".into();
    api.put(&paths::PODS, pod);
    let namespace = json!({
        "metadata": { "name": "old", "deletionTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "finalizers": ["kubernetes"] },
        "status": { "phase": "Terminating" },
    });
    api.put(&paths::NAMESPACES, namespace);
    cluster
        .eventually("the namespace goes", |api| match api.get(&paths::NAMESPACES, "", "old") {
            None => Ok(()),
            left => Err(left),
        })
        .await;
    assert!(api.get(&paths::SERVICES, "old", "web").is_none());
    assert!(api.get(&paths::PODS, "old", "a").is_none());
}

/// A range as an API server makes it, with an address that a Service has of it.
fn give_out(api: &FakeApi, name: &str, range: &str, address: Option<&str>) {
    let object = json!({ "metadata": { "name": name, "uid": name }, "spec": { "cidrs": [range] } });
    api.put(&paths::SERVICE_CIDRS, object);
    if let Some(address) = address {
        let labels = json!({ "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" });
        let parent = json!({ "resource": "services", "namespace": "default", "name": "web" });
        let meta = json!({ "name": address, "labels": labels });
        api.put(&paths::IP_ADDRESSES, json!({ "metadata": meta, "spec": { "parentRef": parent } }));
    }
}

impl Cluster {
    /// Finalizers, and what the condition says.
    async fn range(&self, name: &str, expected: (&Value, &str, &str, &str)) {
        self.eventually(&format!("the range {name}"), |api| {
            let object = api.get(&paths::SERVICE_CIDRS, "", name).unwrap_or_default();
            let says = &object["status"]["conditions"][0];
            let (finalizers, status, reason, message) = expected;
            let same = object["metadata"]["finalizers"] == *finalizers
                && (&says["status"], &says["reason"], &says["message"])
                    == (&status.into(), &reason.into(), &message.into());
            if same { Ok(()) } else { Err(object) }
        })
        .await;
    }

    async fn delete_range(&self, name: &str) {
        let client = Client::from_transport(Arc::new(Api { fake: Arc::clone(&self.api) }), "user");
        let options = portolan_client::DeleteOptions::default();
        client.delete(&paths::SERVICE_CIDRS, None, name, &options).await.unwrap();
    }
}

#[tokio::test]
async fn a_range_is_ready_and_stays_until_its_last_address_is_gone() {
    let cluster = Cluster::new();
    let ours = json!(["networking.k8s.io/service-cidr-finalizer"]);
    let ready = (&ours, "True", "", "Kubernetes Service CIDR is ready");
    for (name, range, address) in [("a", "10.1.0.0/24", "10.1.0.7"), ("b", "10.2.0.0/24", "10.2.0.7")] {
        give_out(&cluster.api, name, range, Some(address));
        cluster.range(name, ready).await;
    }
    let held = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    let terminating = (&ours, "False", "Terminating", held);
    for name in ["a", "b"] {
        cluster.delete_range(name).await;
        cluster.range(name, terminating).await;
    }

    // One loses its address, the other gets a neighbour that has the address too. Both go when every server has heard.
    let writes = cluster.api.writes().len();
    cluster.api.remove(&paths::IP_ADDRESSES, "", "10.1.0.7");
    give_out(&cluster.api, "c", "10.2.0.0/16", None);
    cluster.range("c", ready).await;
    let deadline = Instant::now() + Duration::from_mins(1);
    for name in ["a", "b"] {
        while let Some(left) = cluster.api.get(&paths::SERVICE_CIDRS, "", name) {
            assert!(Instant::now() < deadline, "{left}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let writes = cluster.api.writes().split_off(writes);
    assert_eq!(writes.len(), 4, "two for the new one, one for each that goes: {writes:?}");
}
