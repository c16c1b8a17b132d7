//! Addresses for Services of type LoadBalancer, against an API server in memory.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_controllers::loadbalancer::{self, Config};
use serde_json::{Value, json};

struct Bed {
    api: Arc<FakeApi>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pool(addresses: &[&str]) -> Value {
    json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "LoadBalancerPool",
        "metadata": {"name": "main"}, "spec": {"addresses": addresses}})
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]}})
}

impl Bed {
    fn start(api: Arc<FakeApi>) -> Self {
        let run = loadbalancer::run(api.client(), Config::default(), std::future::pending());
        Self { task: tokio::spawn(run), api }
    }

    fn ips(&self, name: &str) -> Vec<String> {
        let service = self.api.get(&paths::SERVICES, "default", name).unwrap_or_default();
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().cloned().unwrap_or_default();
        ingress.iter().map(|entry| entry["ip"].as_str().unwrap().to_owned()).collect()
    }

    async fn until<T: std::fmt::Debug>(&self, look: impl Fn(&Self) -> Result<(), T>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(found) = look(self) {
            assert!(Instant::now() < deadline, "{found:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn has(&self, name: &str, ips: &[&str]) {
        self.until(|bed| if bed.ips(name) == ips { Ok(()) } else { Err((name.to_owned(), bed.ips(name))) })
            .await;
    }

    async fn said(&self, reason: &str, part: &str) {
        self.until(|bed| {
            let events = bed.api.all(&paths::EVENTS);
            let fits = |e: &Value| e["reason"] == reason && e["message"].as_str().unwrap().contains(part);
            if events.iter().any(fits) { Ok(()) } else { Err(events) }
        })
        .await;
    }
}

#[tokio::test]
async fn addresses_come_go_and_come_back() {
    let api = FakeApi::new();
    api.put(&paths::SERVICES, service("one"));
    let bed = Bed::start(api);
    bed.said("AllocationFailed", "there is no LoadBalancerPool: create one").await;
    bed.api.put(&paths::LOAD_BALANCER_POOLS, pool(&["192.0.2.1/32"]));
    bed.has("one", &["192.0.2.1"]).await;
    bed.said("IPAllocated", "192.0.2.1").await;
    bed.api.put(&paths::SERVICES, service("two"));
    bed.said("AllocationFailed", "no IPv4 address is left in main").await;
    bed.until(|bed| {
        let status = bed.api.get(&paths::LOAD_BALANCER_POOLS, "", "main").unwrap()["status"].clone();
        if status["assignedIPv4"] == 1 && status["availableIPv4"] == 0 { Ok(()) } else { Err(status) }
    })
    .await;
    assert!(bed.api.remove(&paths::SERVICES, "default", "one"));
    bed.has("two", &["192.0.2.1"]).await;
    // The pool goes while it is in use: the Service keeps its address, and says so.
    assert!(bed.api.remove(&paths::LOAD_BALANCER_POOLS, "", "main"));
    bed.said("OutsidePools", "keeps 192.0.2.1, although no pool offers it any more").await;
    bed.has("two", &["192.0.2.1"]).await;
}

#[tokio::test]
async fn a_service_that_changes_its_type_gives_its_address_back() {
    let api = FakeApi::new();
    api.put(&paths::LOAD_BALANCER_POOLS, pool(&["192.0.2.1/32"]));
    api.put(&paths::SERVICES, service("one"));
    let bed = Bed::start(api);
    bed.has("one", &["192.0.2.1"]).await;
    let mut plain = bed.api.get(&paths::SERVICES, "default", "one").unwrap();
    plain["spec"]["type"] = "ClusterIP".into();
    bed.api.put(&paths::SERVICES, plain);
    bed.has("one", &[]).await;
    bed.api.put(&paths::SERVICES, service("two"));
    bed.has("two", &["192.0.2.1"]).await;
}

#[tokio::test]
async fn a_restart_moves_nobody_and_writes_nothing() {
    let api = FakeApi::new();
    api.put(&paths::LOAD_BALANCER_POOLS, pool(&["192.0.2.0/24"]));
    let asking = |name: &str, ip: &str| {
        let mut service = service(name);
        service["spec"]["loadBalancerIP"] = ip.into();
        service
    };
    api.put(&paths::SERVICES, asking("one", "192.0.2.50"));
    {
        let bed = Bed::start(Arc::clone(&api));
        bed.has("one", &["192.0.2.50"]).await;
        let mut plain = bed.api.get(&paths::SERVICES, "default", "one").unwrap();
        plain["spec"].as_object_mut().unwrap().remove("loadBalancerIP");
        bed.api.put(&paths::SERVICES, plain);
    }
    let bed = Bed::start(Arc::clone(&api));
    bed.api.put(&paths::SERVICES, asking("two", "192.0.2.50"));
    bed.said("AllocationFailed", "192.0.2.50 is held by default/one").await;
    bed.has("one", &["192.0.2.50"]).await;
}

#[tokio::test]
async fn others_classes_are_left_alone_and_ours_is_served() {
    let api = FakeApi::new();
    api.put(&paths::LOAD_BALANCER_POOLS, pool(&["192.0.2.0/24"]));
    let classed = |name: &str, class: &str| {
        let mut service = service(name);
        service["spec"]["loadBalancerClass"] = class.into();
        service
    };
    api.put(&paths::SERVICES, classed("cloud", "example.org/cloud"));
    api.put(&paths::SERVICES, classed("ours", "portolan.dev/l2"));
    let bed = Bed::start(api);
    bed.has("ours", &["192.0.2.0"]).await;
    assert_eq!(bed.api.get(&paths::SERVICES, "default", "cloud").unwrap()["status"], Value::Null);
}
