//! What the controllers of endpoints say in events, word by word, when they keep silent, and what they leave alone.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

mod common;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use http::Method;
use portolan_client::testing::FakeApi;
use portolan_client::{Body, Error, Transport, paths};
use serde_json::{Value, json};

use common::{Running, answer, config, eventually, service};

/// A write to be refused: its method, the end of its path, and the Status.
type Refusal = (Method, &'static str, Value);

/// The fake API server, but for some writes.
struct Api {
    fake: Arc<FakeApi>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
}

impl Transport for Api {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
        let matches =
            |(method, end, _): &Refusal| method == request.method() && request.uri().path().ends_with(end);
        let refused = {
            let mut refusals = self.refusals.lock().unwrap();
            refusals.iter().position(matches).map(|index| refusals.remove(index).2)
        };
        let response = match refused {
            Some(status) => {
                let code = u16::try_from(status["code"].as_u64().unwrap()).unwrap();
                answer(code.try_into().unwrap(), &status)
            }
            None => self.fake.respond(&request),
        };
        ready(Ok(response)).boxed()
    }
}

struct Cluster {
    api: Arc<FakeApi>,
    refusals: Arc<Mutex<Vec<Refusal>>>,
    _running: Running,
}

impl Cluster {
    /// Two nodes in zones of their own.
    fn start() -> Self {
        let api = FakeApi::new();
        for (name, zone) in [("n1", "z1"), ("n2", "z2")] {
            api.put(
                &paths::NODES,
                json!({
                    "metadata": { "name": name, "labels": { "topology.kubernetes.io/zone": zone } },
                    "status": { "conditions": [{ "type": "Ready", "status": "True" }], "allocatable": { "cpu": "2" } },
                }),
            );
        }
        let refusals = Arc::default();
        let transport = Api { fake: Arc::clone(&api), refusals: Arc::clone(&refusals) };
        Self { api, refusals, _running: Running::start(transport, config()) }
    }

    fn refuse(&self, method: Method, end: &'static str, status: Value) {
        self.refusals.lock().unwrap().push((method, end, status));
    }

    /// `TYPE REASON OBJECT: MESSAGE` of every event there is.
    fn events(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |event: &Value| {
            let about = &event["involvedObject"];
            let about = format!("{}/{}", text(&about["kind"]), text(&about["name"]));
            format!(
                "{} {} {about}: {}",
                text(&event["type"]),
                text(&event["reason"]),
                text(&event["message"])
            )
        };
        self.api.all(&paths::EVENTS).iter().map(line).collect()
    }

    async fn told(&self, start: &str) {
        eventually(start, || {
            let events = self.events();
            if events.iter().any(|event| event.starts_with(start)) { Ok(()) } else { Err(events) }
        })
        .await;
    }

    /// The addresses in the Endpoints of a Service, ready and not.
    fn addresses(&self, service: &str) -> Vec<String> {
        let object = self.api.get(&paths::ENDPOINTS, "default", service).unwrap_or_default();
        let subsets = object["subsets"].as_array().cloned().unwrap_or_default();
        let lists = subsets.iter().flat_map(|subset| [&subset["addresses"], &subset["notReadyAddresses"]]);
        let addresses = lists.flat_map(|list| list.as_array().cloned().unwrap_or_default());
        addresses.filter_map(|address| address["ip"].as_str().map(str::to_owned)).collect()
    }

    async fn serves(&self, service: &str, addresses: &[&str]) {
        eventually(service, || {
            let found = (self.addresses(service), self.slices(service));
            let in_slices =
                found.1.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
            let count = in_slices.count();
            if found.0 == addresses && count == addresses.len() { Ok(()) } else { Err(found) }
        })
        .await;
    }

    fn slices(&self, service: &str) -> Vec<Value> {
        let slices = self.api.all(&paths::ENDPOINT_SLICES).into_iter();
        slices.filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service).collect()
    }
}

fn pod(name: &str, app: &str, node: &str, ip: &str) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "app": app } },
        "spec": { "nodeName": node, "containers": [{ "name": "main" }] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z" }],
        },
    })
}

fn failure(code: u16, reason: &str, causes: &Value) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": "not today", "details": { "causes": causes } })
}

#[tokio::test]
async fn writes_that_fail_are_told_on_the_service() {
    let cluster = Cluster::start();
    let oops = || failure(500, "InternalError", &json!([]));
    cluster.refuse(Method::POST, "/endpoints", oops());
    cluster.refuse(Method::POST, "/endpointslices", oops());
    cluster.api.put(&paths::SERVICES, service("web"));
    let slices = "Warning FailedToUpdateEndpointSlices Service/web: Error updating Endpoint Slices for Service default/web: ";
    cluster
        .told(
            "Warning FailedToCreateEndpoint Service/web: Failed to create endpoint for service default/web: ",
        )
        .await;
    cluster.told(slices).await;
    cluster.api.put(&paths::PODS, pod("a", "web", "n1", "10.0.0.1"));
    cluster.serves("web", &["10.0.0.1"]).await;

    cluster.refuse(Method::PUT, "/endpoints/web", oops());
    cluster.api.put(&paths::PODS, pod("b", "web", "n1", "10.0.0.2"));
    cluster
        .told(
            "Warning FailedToUpdateEndpoint Service/web: Failed to update endpoint for service default/web: ",
        )
        .await;
    cluster.serves("web", &["10.0.0.1", "10.0.0.2"]).await;
}

#[tokio::test]
async fn an_ending_namespace_is_no_news() {
    let cluster = Cluster::start();
    let ends =
        || failure(403, "Forbidden", &json!([{ "reason": "NamespaceTerminating", "message": "it ends" }]));
    cluster.refuse(Method::POST, "/endpoints", ends());
    cluster.refuse(Method::POST, "/endpointslices", ends());
    cluster.api.put(&paths::SERVICES, service("quiet"));
    eventually("both writes are refused", || {
        let left = cluster.refusals.lock().unwrap().len();
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    // Events come in the order in which they happen: had there been one, it would be there before the next.
    cluster.refuse(Method::POST, "/endpoints", failure(500, "InternalError", &json!([])));
    cluster.api.put(&paths::SERVICES, service("loud"));
    cluster.told("Warning FailedToCreateEndpoint Service/loud: ").await;
    let events = cluster.events();
    assert!(events.iter().all(|event| !event.contains("Service/quiet")), "{events:?}");
}

#[tokio::test]
async fn endpoints_stay_when_a_service_becomes_a_name_elsewhere() {
    let cluster = Cluster::start();
    cluster.api.put(&paths::SERVICES, service("web"));
    cluster.api.put(&paths::PODS, pod("a", "web", "n1", "10.0.0.1"));
    cluster.serves("web", &["10.0.0.1"]).await;
    let before = (cluster.api.get(&paths::ENDPOINTS, "default", "web"), cluster.slices("web"));
    let mut elsewhere = service("web");
    elsewhere["spec"]["type"] = "ExternalName".into();
    elsewhere["spec"]["externalName"] = "a.b".into();
    cluster.api.put(&paths::SERVICES, elsewhere);
    cluster.api.put(&paths::PODS, pod("b", "web", "n1", "10.0.0.2"));
    // A Service that comes later is served: the change before has been looked at.
    cluster.api.put(&paths::SERVICES, service("marker"));
    cluster.api.put(&paths::PODS, pod("m", "marker", "n1", "10.0.0.3"));
    cluster.serves("marker", &["10.0.0.3"]).await;
    assert_eq!((cluster.api.get(&paths::ENDPOINTS, "default", "web"), cluster.slices("web")), before);
}

#[tokio::test]
async fn what_is_not_mirrored_is_told_on_the_endpoints() {
    let cluster = Cluster::start();
    let mut db = service("db");
    db["spec"].as_object_mut().unwrap().remove("selector");
    cluster.api.put(&paths::SERVICES, db);
    let mut addresses: Vec<Value> =
        (0..1002).map(|i| json!({ "ip": format!("10.1.{}.{}", i / 250, i % 250 + 1) })).collect();
    addresses.insert(0, json!({ "ip": "nonsense" }));
    cluster.api.put(
        &paths::ENDPOINTS,
        json!({ "metadata": { "name": "db", "uid": "uid-db" },
            "subsets": [{ "addresses": addresses, "ports": [{ "port": 5432 }] }] }),
    );
    cluster
        .told("Warning InvalidIPAddress Endpoints/db: Skipped 1 invalid IP addresses when mirroring to EndpointSlices")
        .await;
    cluster
        .told(
            "Warning TooManyAddressesToMirror Endpoints/db: A max of 1000 addresses can be mirrored to EndpointSlices per \
             Endpoints subset. 2 addresses were skipped",
        )
        .await;
}

#[tokio::test]
async fn hints_by_share_are_told_of() {
    let cluster = Cluster::start();
    cluster.api.put(&paths::PODS, pod("a", "web", "n1", "10.0.0.1"));
    let mode = |mode: &str| {
        let mut web = service("web");
        web["metadata"]["annotations"] = json!({ "service.kubernetes.io/topology-mode": mode });
        web
    };
    cluster.api.put(&paths::SERVICES, mode("Auto"));
    cluster
        .told(
            "Warning TopologyAwareHintsDisabled Service/web: Insufficient number of endpoints (1 endpoints, 2 zones), \
             addressType: IPv4",
        )
        .await;
    cluster.api.put(&paths::PODS, pod("b", "web", "n2", "10.0.0.2"));
    cluster
        .told("Normal TopologyAwareHintsEnabled Service/web: Topology Aware Hints has been enabled, addressType: IPv4")
        .await;
    cluster.api.put(&paths::SERVICES, mode("Disabled"));
    cluster
        .told("Warning TopologyAwareHintsDisabled Service/web: Topology Aware Hints has been disabled, addressType: IPv4")
        .await;
    eventually("no hints are left", || {
        let slices = cluster.slices("web");
        let hinted = slices.iter().flat_map(|s| s["endpoints"].as_array().cloned().unwrap_or_default());
        if hinted.clone().count() == 2 && hinted.clone().all(|e| e.get("hints").is_none()) {
            Ok(())
        } else {
            Err(slices)
        }
    })
    .await;
}
