//! What a cache costs: `cargo run --release -p portolan-client --example cache_latency`.
//!
//! Memory for each object of a slim projection, and the time from an event's arrival to a subscriber that has
//! read the new value.

use std::time::{Duration, Instant};

use portolan_client::testing::FakeApi;
use portolan_client::{Cache, Key, Selectors, cache, paths};
use serde::Deserialize;
use serde_json::json;

const OBJECTS: usize = 10_000;
const CHANGES: usize = 2_000;

#[derive(Deserialize)]
struct Slim {
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    addresses: Vec<std::net::IpAddr>,
}

fn slice(n: usize, round: usize) -> serde_json::Value {
    let endpoint = |e: usize| {
        json!({ "addresses": [format!("10.{}.{}.{}", n / 250, n % 250, e + 1)], "nodeName": "n1",
            "conditions": { "ready": true, "serving": true, "terminating": false } })
    };
    // Never what it was: round 0 has ten, the others fewer, and no slice changes twice.
    let count = if round == 0 { 10 } else { 9 - round % 4 };
    let endpoints: Vec<_> = (0..count).map(endpoint).collect();
    json!({ "metadata": { "name": format!("service-{n}-abcde"), "namespace": "default",
        "labels": { "kubernetes.io/service-name": format!("service-{n}") } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }], "endpoints": endpoints })
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[tokio::main]
async fn main() {
    let api = FakeApi::new();
    for n in 0..OBJECTS {
        api.put(&paths::ENDPOINT_SLICES, slice(n, 0));
    }
    let (before, begin) = (resident_kib(), Instant::now());
    let cache: Cache<Slim> =
        Cache::start(api.client(), paths::ENDPOINT_SLICES, Selectors::default(), cache::json);
    cache.synced().await;
    let listed = begin.elapsed();
    let held = (resident_kib() - before) * 1_024 / OBJECTS;
    println!("{OBJECTS} slices of 10: listed in {listed:?}, {held} bytes of memory each, buffers included");
    let mut dirty = cache.subscribe();
    dirty.take();
    let mut times: Vec<Duration> = Vec::new();
    for round in 1..=CHANGES {
        let n = round * 7 % OBJECTS;
        let object = slice(n, round);
        let expected = object["endpoints"].as_array().map_or(0, Vec::len);
        api.put(&paths::ENDPOINT_SLICES, object);
        let begin = Instant::now();
        loop {
            dirty.wait().await;
            dirty.take();
            let key = Key::new("default", format!("service-{n}-abcde"));
            let held = cache.get(&key).map(|s| s.endpoints.iter().map(|e| e.addresses.len()).sum::<usize>());
            if held == Some(expected) {
                break;
            }
        }
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    println!("event to subscriber: p50 {:?}, p99 {:?}", times[CHANGES / 2], times[CHANGES * 99 / 100]);
}
