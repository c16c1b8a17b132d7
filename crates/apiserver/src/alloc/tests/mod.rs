//! The allocator against a store: single writes as a client sees them, and many clients at once.

mod memory;
mod race;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use memory::Memory;
use portolan_store::{Commit, Txn};
use repair::Finding;

fn config(cidrs: &[&str], node_ports: RangeInclusive<u16>) -> Config {
    Config { service_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(), node_ports }
}

async fn allocator(store: &Arc<Memory>, cidrs: &[&str]) -> Allocator {
    allocator_of(store, config(cidrs, 30000..=32767)).await
}

/// On ranges that the server has made before.
async fn allocator_of(store: &Arc<Memory>, config: Config) -> Allocator {
    let cidrs: Vec<String> = config.service_cidrs.iter().map(ToString::to_string).collect();
    let range = json!({"spec": {"cidrs": cidrs}}).to_string();
    // Another server may have made it.
    let key = "/registry/servicecidrs/kubernetes";
    _ = store.commit(Txn::new().if_absent(key).put(key, range)).await.unwrap();
    Allocator::start(config, store.clone()).await.unwrap()
}

fn service(name: &str, spec: Value) -> Value {
    let mut service = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    // As the strategy's defaults leave them.
    for port in service["spec"]["ports"].as_array_mut().into_iter().flatten() {
        port["protocol"] = "TCP".into();
    }
    service
}

fn service_key(name: &str) -> String {
    format!("/registry/services/specs/default/{name}")
}

/// What the verb layer does on a create.
async fn create(allocator: &Allocator, store: &Memory, object: &Value) -> Result<Value, AllocError> {
    for _ in 0..100 {
        let mut service = object.clone();
        let mut plan = allocator.plan_create(&mut service, false).await?;
        let key = service_key(object["metadata"]["name"].as_str().unwrap());
        let mut txn = Txn::new().if_absent(key.as_str()).put(key.as_str(), service.to_string());
        txn.compares.append(&mut plan.compares.clone());
        txn.ops.append(&mut plan.ops);
        match store.commit(txn).await? {
            Commit::Done(_) => {
                plan.committed();
                return Ok(service);
            }
            Commit::Conflict { current } => {
                if current.iter().any(|(other, value)| **other == *key && value.is_some()) {
                    return Err(AllocError::Plain("already exists".into()));
                }
                assert!(plan.conflict(&current), "only the plan's own compares can have failed");
            }
        }
    }
    panic!("no end of conflicts");
}

/// What the verb layer does on a delete (`new` is None) or an update. False: there is no such Service.
async fn change(
    allocator: &Allocator,
    store: &Memory,
    name: &str,
    new: Option<&Value>,
) -> Result<bool, AllocError> {
    let key = service_key(name);
    for _ in 0..100 {
        let Some(current) = store.get(&key).await?.0 else { return Ok(false) };
        let old: Value = serde_json::from_slice(&current.value).unwrap();
        let mut service = new.cloned();
        let plan = match &mut service {
            Some(service) => allocator.plan_update(&old, service, false).await?,
            None => allocator.plan_delete(&old).await?,
        };
        let mut txn = Txn::new().if_revision(key.as_str(), current.mod_revision);
        txn = match &service {
            Some(service) => txn.put(key.as_str(), service.to_string()),
            None => txn.delete(key.as_str()),
        };
        txn.compares.append(&mut plan.compares.clone());
        txn.ops.append(&mut plan.ops.clone());
        match store.commit(txn).await? {
            Commit::Done(_) => {
                plan.committed();
                return Ok(true);
            }
            Commit::Conflict { current } => _ = plan.conflict(&current),
        }
    }
    panic!("no end of conflicts");
}

fn refusal(error: AllocError) -> String {
    match error {
        AllocError::Invalid(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        AllocError::Internal(text) => format!("500 {text}"),
        AllocError::Plain(text) | AllocError::Store(text) => text,
    }
}

#[tokio::test]
async fn a_new_service_gets_an_address_and_an_object_that_holds_it() {
    let store = Memory::new(1);
    let allocator = allocator(&store, &["10.96.0.0/24", "fd00::/112"]).await;
    let created = create(
        &allocator,
        &store,
        &service("web", json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"})),
    )
    .await
    .unwrap();
    let addresses = created["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(addresses.len(), 2);
    assert_eq!(created["spec"]["clusterIP"], addresses[0]);
    assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    for address in addresses {
        let key = objects::address_key(address.as_str().unwrap().parse().unwrap());
        let stored: Value = serde_json::from_slice(&store.get(&key).await.unwrap().0.unwrap().value).unwrap();
        assert_eq!(objects::parent_service(&stored), Some(("default", "web")));
    }
    assert!(change(&allocator, &store, "web", None).await.unwrap());
    assert_eq!(store.all(objects::ADDRESSES), []);
}

#[tokio::test]
async fn requests_that_cannot_be_met_are_refused_in_kubernetes_words() {
    let store = Memory::new(2);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let ask = |name: &str, spec: Value| {
        let service = service(name, spec);
        let (allocator, store) = (&allocator, &store);
        async move { create(allocator, store, &service).await.map_err(refusal) }
    };
    ask(
        "first",
        json!({"type": "NodePort", "clusterIP": "10.96.0.10", "ports": [{"port": 80, "nodePort": 30080}]}),
    )
    .await
    .unwrap();
    assert_eq!(
        ask("taken", json!({"type": "ClusterIP", "clusterIP": "10.96.0.10"})).await.unwrap_err(),
        "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
    for outside in ["10.97.0.10", "10.96.0.0", "10.96.0.255"] {
        assert_eq!(
            ask("outside", json!({"type": "ClusterIP", "clusterIP": outside})).await.unwrap_err(),
            format!(
                "spec.clusterIPs: Invalid value: [\"{outside}\"]: failed to allocate IP {outside}: the provided network does not match the current range"
            )
        );
    }
    let port = |number: u32| json!({"type": "NodePort", "ports": [{"port": 79, "nodePort": 30079}, {"port": 80, "nodePort": number}]});
    assert_eq!(
        ask("port", port(30080)).await.unwrap_err(),
        "spec.ports[1].nodePort: Invalid value: 30080: provided port is already allocated"
    );
    assert_eq!(
        ask("port", port(70000)).await.unwrap_err(),
        "spec.ports[1].nodePort: Invalid value: 70000: provided port is not in the valid range. The range of valid ports is 30000-32767"
    );
    let health = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30080, "ports": []});
    assert_eq!(
        ask("health", health).await.unwrap_err(),
        "500 failed to allocate requested HealthCheck NodePort 30080: provided port is already allocated"
    );
    // Nothing of the refused requests is left behind.
    assert_eq!(store.all(objects::ADDRESSES).len(), 1);
    ask("again", port(30081)).await.unwrap();
}

#[tokio::test]
async fn a_full_range_is_an_internal_error() {
    let store = Memory::new(3);
    let allocator = allocator_of(&store, config(&["10.96.0.0/30"], 30000..=30000)).await;
    for name in ["a", "b"] {
        create(&allocator, &store, &service(name, json!({"type": "ClusterIP"}))).await.unwrap();
    }
    let full = create(&allocator, &store, &service("c", json!({"type": "ClusterIP"}))).await.unwrap_err();
    assert_eq!(refusal(full), "500 failed to allocate a serviceIP for Service \"c\": range is full");
    let ports = json!({"type": "NodePort", "clusterIP": "None", "ports": [{"port": 1}, {"port": 2}]});
    let full = create(&allocator, &store, &service("d", ports)).await.unwrap_err();
    assert_eq!(refusal(full), "500 failed to allocate a nodePort: range is full");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let store = Memory::new(4);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let before = store.revision().await.unwrap();
    let mut dry = service("web", json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81}]}));
    let plan = allocator.plan_create(&mut dry, true).await.unwrap();
    assert!(plan.ops.is_empty() && plan.compares.is_empty());
    assert_eq!(dry["spec"]["clusterIP"], "10.96.0.0");
    assert_eq!(
        (dry["spec"]["ports"][0]["nodePort"].clone(), dry["spec"]["ports"][1]["nodePort"].clone()),
        (json!(32769), json!(32770))
    );
    drop(plan);
    assert_eq!(store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn a_dropped_plan_gives_everything_back() {
    let store = Memory::new(5);
    let allocator = allocator_of(&store, config(&["10.96.0.0/30"], 30000..=30000)).await;
    let object = service("web", json!({"type": "NodePort", "ports": [{"port": 80}]}));
    for _ in 0..5 {
        let plan = allocator.plan_create(&mut object.clone(), false).await.unwrap();
        drop(plan);
    }
    create(&allocator, &store, &object).await.unwrap();
}

#[tokio::test]
async fn an_address_of_another_service_is_not_released() {
    let store = Memory::new(6);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    create(&allocator, &store, &service("owner", json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"})))
        .await
        .unwrap();
    let impostor = service(
        "impostor",
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}),
    );
    let plan = allocator.plan_delete(&impostor).await.unwrap();
    assert!(plan.ops.is_empty());
}

#[tokio::test]
async fn new_ranges_are_used_and_stopped_ones_are_not() {
    let store = Memory::new(7);
    let allocator = allocator(&store, &["10.96.0.0/30"]).await;
    let plain = |name: &str| service(name, json!({"type": "ClusterIP"}));
    for name in ["a", "b"] {
        create(&allocator, &store, &plain(name)).await.unwrap();
    }
    let more = json!({"spec": {"cidrs": ["10.97.0.0/24"]}});
    store.commit(Txn::new().put("/registry/servicecidrs/more", more.to_string())).await.unwrap();
    settle().await;
    let created = create(&allocator, &store, &plain("c")).await.unwrap();
    assert!(created["spec"]["clusterIP"].as_str().unwrap().starts_with("10.97.0."));
    let stopped = json!({"spec": {"cidrs": ["10.97.0.0/24"]}, "status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    store.commit(Txn::new().put("/registry/servicecidrs/more", stopped.to_string())).await.unwrap();
    settle().await;
    assert!(create(&allocator, &store, &plain("d")).await.is_err());
    let asked = service("e", json!({"type": "ClusterIP", "clusterIP": "10.97.0.9"}));
    assert_eq!(
        create(&allocator, &store, &asked).await.map_err(refusal).unwrap_err(),
        "spec.clusterIPs: Invalid value: [\"10.97.0.9\"]: failed to allocate IP 10.97.0.9: the provided network does not match the current range"
    );
}

#[tokio::test]
async fn a_range_of_another_server_is_used_before_the_watch_tells() {
    let store = Memory::new(11);
    let allocator = allocator(&store, &["10.96.0.0/30"]).await;
    for name in ["a", "b"] {
        create(&allocator, &store, &service(name, json!({"type": "ClusterIP"}))).await.unwrap();
    }
    for (name, range, asked) in
        [("c", "10.97.0.0/24", Value::Null), ("d", "10.98.0.0/24", json!("10.98.0.9"))]
    {
        // The watch's task had no turn since.
        allocator.mirror.abort();
        let more = json!({"spec": {"cidrs": [range]}});
        store
            .commit(Txn::new().put(format!("/registry/servicecidrs/{name}"), more.to_string()))
            .await
            .unwrap();
        let asked = service(name, json!({"type": "ClusterIP", "clusterIP": asked}));
        create(&allocator, &store, &asked).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_somebody_took_away_is_its_services_again_at_once() {
    let store = Memory::new(12);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let web = service("web", json!({"type": "ClusterIP", "clusterIP": "10.96.0.9"}));
    create(&allocator, &store, &web).await.unwrap();
    let key = objects::address_key("10.96.0.9".parse().unwrap());
    store.commit(Txn::new().delete(key.as_str())).await.unwrap();
    allocator.doubts().raised().await;
    let fixes = allocator.repair_doubtful().await.unwrap();
    assert_eq!(fixes.iter().map(|fix| fix.finding).collect::<Vec<_>>(), [Finding::ClusterIPNotAllocated]);
    let mut unlabelled: Value =
        serde_json::from_slice(&store.get(&key).await.unwrap().0.unwrap().value).unwrap();
    assert_eq!(objects::parent_service(&unlabelled), Some(("default", "web")));
    unlabelled["metadata"]["labels"] = json!({});
    store.commit(Txn::new().put(key.as_str(), unlabelled.to_string())).await.unwrap();
    allocator.doubts().raised().await;
    allocator.repair_doubtful().await.unwrap();
    let stored: Value = serde_json::from_slice(&store.get(&key).await.unwrap().0.unwrap().value).unwrap();
    assert_eq!(stored["metadata"]["labels"][objects::LABEL_MANAGED_BY], objects::MANAGER);
    // One that goes with its Service is nothing to mend.
    assert!(change(&allocator, &store, "web", None).await.unwrap());
    allocator.doubts().raised().await;
    assert_eq!(allocator.repair_doubtful().await.unwrap(), []);
    assert_eq!(store.all(objects::ADDRESSES), []);
}

#[tokio::test(start_paused = true)]
async fn an_address_without_its_service_is_given_a_minute() {
    let store = Memory::new(15);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let key = objects::address_key("10.96.0.9".parse().unwrap());
    let made = Timestamp::now();
    let mut object = objects::ip_address("10.96.0.9".parse().unwrap(), "default", "late", made);
    object["metadata"]["managedFields"] = json!([{"manager": "kube-apiserver"}]);
    store.commit(Txn::new().put(key.as_str(), object.to_string())).await.unwrap();
    allocator.doubts().raised().await;
    assert_eq!(allocator.repair_doubtful().await.unwrap(), []);
    let begun = tokio::time::Instant::now();
    allocator.doubts().raised().await;
    let waited = begun.elapsed().as_secs();
    assert!((59..=62).contains(&waited), "{waited}");
    // The clock of the tests ran ahead of the objects': make it as old as it would be.
    object["metadata"]["creationTimestamp"] = (made - jiff::SignedDuration::from_secs(61)).to_string().into();
    store.commit(Txn::new().put(key.as_str(), object.to_string())).await.unwrap();
    let found: Vec<Finding> =
        allocator.repair_doubtful().await.unwrap().iter().map(|fix| fix.finding).collect();
    assert_eq!(found, [Finding::IPAddressNotAllocated]);
    assert_eq!(store.all(objects::ADDRESSES), []);
}

#[tokio::test]
async fn addresses_come_back_however_often_they_are_given() {
    let store = Memory::new(13);
    let allocator = allocator(&store, &["10.96.0.0/29"]).await;
    for _ in 0..20 {
        create(&allocator, &store, &service("web", json!({"type": "ClusterIP"}))).await.unwrap();
        change(&allocator, &store, "web", None).await.unwrap();
    }
}

/// Lets the tasks that follow the store catch up.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn repair_puts_right_what_was_broken_by_hand() {
    let store = Memory::new(10);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let ports =
        json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30080}]});
    create(&allocator, &store, &service("web", ports)).await.unwrap();
    let address = objects::address_key("10.96.0.9".parse().unwrap());
    let leaked = objects::address_key("10.96.0.20".parse().unwrap());
    let old = objects::ip_address("10.96.0.20".parse().unwrap(), "default", "gone", Timestamp::UNIX_EPOCH);
    let empty = bitmap::Bitmap::new(&(30000..=32767)).encode();
    let broken =
        Txn::new().delete(address.as_str()).put(leaked.as_str(), old.to_string()).put(bitmap::KEY, empty);
    store.commit(broken).await.unwrap();

    let mut suspects = repair::Suspects::new();
    let fixes = allocator.repair(&mut suspects).await.unwrap();
    let found: Vec<&str> = fixes.iter().map(|fix| fix.finding.name()).collect();
    assert_eq!(found, ["ClusterIPNotAllocated", "IPAddressNotAllocated", "PortNotAllocated"]);
    settle().await;
    assert!(store.get(&address).await.unwrap().0.is_some());
    assert!(store.get(&leaked).await.unwrap().0.is_none());
    assert_eq!(allocator.repair(&mut suspects).await.unwrap(), []);
    let again = service("again", json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}));
    assert!(create(&allocator, &store, &again).await.is_err());
}

#[tokio::test]
async fn without_a_bitmap_no_port_is_given_until_repair_has_made_it() {
    let store = Memory::new(14);
    let allocator = allocator(&store, &["10.96.0.0/24"]).await;
    let node_port = |name: &str, port: u32| {
        service(name, json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}))
    };
    create(&allocator, &store, &node_port("web", 30080)).await.unwrap();
    store.commit(Txn::new().delete(bitmap::KEY)).await.unwrap();
    settle().await;
    let why = "cannot allocate resources of type servicenodeportallocations at this time";
    for port in [30080, 30081] {
        let refused =
            create(&allocator, &store, &node_port("other", port)).await.map_err(refusal).unwrap_err();
        assert_eq!(refused, format!("spec.ports[0].nodePort: Invalid value: {port}: {why}"));
    }
    let any = create(&allocator, &store, &node_port("other", 0)).await.map_err(refusal).unwrap_err();
    assert_eq!(any, format!("500 failed to allocate a nodePort: {why}"));
    let fixes = allocator.repair(&mut repair::Suspects::new()).await.unwrap();
    assert_eq!(fixes.iter().map(|fix| fix.finding).collect::<Vec<_>>(), [Finding::PortNotAllocated]);
    let taken = create(&allocator, &store, &node_port("other", 30080)).await.map_err(refusal).unwrap_err();
    assert_eq!(taken, "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated");
    create(&allocator, &store, &node_port("other", 30081)).await.unwrap();
    // One who starts then finds out by itself.
    store.commit(Txn::new().delete(bitmap::KEY)).await.unwrap();
    let new = allocator_of(&store, config(&["10.96.0.0/24"], 30000..=32767)).await;
    let taken = create(&new, &store, &node_port("third", 30081)).await.map_err(refusal).unwrap_err();
    assert!(taken.ends_with("provided port is already allocated"), "{taken}");
    // Nothing to put in is no reason to leave it out.
    for name in ["web", "other"] {
        change(&allocator, &store, name, None).await.unwrap();
    }
    store.commit(Txn::new().delete(bitmap::KEY)).await.unwrap();
    settle().await;
    assert_eq!(allocator.repair(&mut repair::Suspects::new()).await.unwrap(), []);
    create(&allocator, &store, &node_port("web", 30080)).await.unwrap();
}
