//! Thousands of pods behind one Service, and all of them replaced: how many writes that takes, how long, and that no
//! view in between misses a ready pod or serves one that is gone.
//!
//! `PORTOLAN_SCALE_PODS=10000 cargo test --release -p portolan-controllers --test scale -- --nocapture` prints the
//! figures for ten thousand; without the variable there are fewer, so that everybody's tests stay quick.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_controllers::Config;
use serde_json::{Value, json};

const PODS: usize = 2000;
const NODES: usize = 100;
/// Pods are replaced in so many batches, as `maxSurge: 10%` has it.
const BATCHES: usize = 10;
const PATIENCE: Duration = Duration::from_mins(2);

fn pod(generation: usize, number: usize, ready: bool, ending: bool) -> Value {
    let name = format!("web-{generation}-{number}");
    let ip = format!("10.{generation}.{}.{}", number / 250, number % 250 + 1);
    let mut pod = json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "app": "web" } },
        "spec": { "nodeName": format!("n{}", number % NODES), "containers": [{ "name": "main" }] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" },
                             "lastTransitionTime": "2026-01-01T00:00:01Z" }],
        },
    });
    if ending {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:02Z".into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    }
    pod
}

/// Names of pods whose endpoint is called ready, from the slices as they are now.
fn ready(api: &FakeApi) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for slice in api.all(&paths::ENDPOINT_SLICES) {
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint["conditions"]["ready"] == true {
                let name = endpoint["targetRef"]["name"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{name} is in two slices");
            }
        }
    }
    names
}

/// Writes so far, by kind.
fn writes(api: &FakeApi) -> HashMap<&'static str, usize> {
    let mut counts = HashMap::from([("slices", 0), ("endpoints", 0)]);
    for write in api.writes() {
        if write.contains("/endpointslices") {
            *counts.get_mut("slices").unwrap() += 1;
        } else if write.contains("/endpoints") {
            *counts.get_mut("endpoints").unwrap() += 1;
        }
    }
    counts
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begin.elapsed()
}

fn pods() -> usize {
    let given = std::env::var("PORTOLAN_SCALE_PODS").ok();
    given.map_or(PODS, |text| text.parse().unwrap())
}

fn cluster(pods: usize) -> Arc<FakeApi> {
    let api = FakeApi::new();
    for number in 0..NODES {
        api.put(
            &paths::NODES,
            json!({ "metadata": { "name": format!("n{number}") },
                    "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
        );
    }
    for number in 0..pods {
        api.put(&paths::PODS, pod(1, number, true, false));
    }
    api.put(
        &paths::SERVICES,
        json!({
            "metadata": { "name": "web", "uid": "uid-web", "creationTimestamp": "2026-01-01T00:00:00Z" },
            "spec": { "type": "ClusterIP", "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"],
                      "selector": { "app": "web" }, "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 8080 }] },
        }),
    );
    api
}

fn names(generation: usize, numbers: impl Iterator<Item = usize>) -> BTreeSet<String> {
    numbers.map(|number| format!("web-{generation}-{number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_thousands_of_pods_are_replaced() {
    let pods = pods();
    let size = pods / BATCHES;
    let api = cluster(pods);
    let config = Config { node_grace: Duration::from_hours(1), ..Config::default() };
    let task = tokio::spawn(portolan_controllers::run(api.client(), config, std::future::pending()));
    let filled = until("all pods are endpoints", || {
        api.all(&paths::ENDPOINT_SLICES).len() == pods / 100 && ready(&api).len() == pods
    })
    .await;
    let start = writes(&api);
    println!("{pods} pods: filled in {filled:?} with {start:?} writes");
    assert!(start["slices"] <= pods / 100 + 5, "{start:?}");

    // One pod turns: two objects are written.
    let one = Instant::now();
    api.put(&paths::PODS, pod(1, 77, false, false));
    until("it is out", || !ready(&api).contains("web-1-77")).await;
    println!("one pod turned unready: {:?}", one.elapsed());
    api.put(&paths::PODS, pod(1, 77, true, false));
    until("it is in", || ready(&api).len() == pods).await;
    let before = writes(&api);
    assert!(before["slices"] - start["slices"] == 2, "{before:?}");

    let begin = Instant::now();
    let mut slowest = Duration::ZERO;
    for batch in 0..BATCHES {
        let numbers = batch * size..(batch + 1) * size;
        // New pods come one by one and turn ready, then the old ones go.
        for number in numbers.clone() {
            api.put(&paths::PODS, pod(2, number, false, false));
            api.put(&paths::PODS, pod(2, number, true, false));
        }
        let came = until("the new pods are in", || ready(&api).is_superset(&names(2, numbers.clone()))).await;
        for number in numbers.clone() {
            api.put(&paths::PODS, pod(1, number, true, true));
        }
        let going = names(1, numbers.clone());
        let went = until("the old pods are out", || ready(&api).is_disjoint(&going)).await;
        for number in numbers.clone() {
            api.remove(&paths::PODS, "default", &format!("web-1-{number}"));
        }
        slowest = slowest.max(came).max(went);
        assert_eq!(ready(&api).len(), pods, "as many as there have to be");
    }
    let took = begin.elapsed();
    let expected = names(2, 0..pods);
    until("only new pods are left", || ready(&api) == expected).await;
    until("nothing is left of the old ones", || {
        let count = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
        api.all(&paths::ENDPOINT_SLICES).iter().map(count).sum::<usize>() == pods
    })
    .await;
    let after = writes(&api);
    let (slices, endpoints) = (after["slices"] - before["slices"], after["endpoints"] - before["endpoints"]);
    println!(
        "{pods} pods replaced in {took:?}, the slowest half of a batch of {size} in {slowest:?}: {slices} writes of \
         slices, {endpoints} of Endpoints; {} slices at the end",
        api.all(&paths::ENDPOINT_SLICES).len()
    );
    // Every pod changes four times: a write of a slice is worth many changes.
    assert!(slices < pods / 2, "{slices}");
    assert!(endpoints < pods / 10, "{endpoints}");
    task.abort();
}
