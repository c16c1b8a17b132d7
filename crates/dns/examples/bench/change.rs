//! What one change of a Service costs, and what a zone holds in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_client::Key;
use portolan_dns::zone::view::{EndpointView, PortView, Protocol, ServiceKind, ServiceView, SliceView};
use portolan_dns::zone::{Catalogue, Options};

/// From a changed slice to a zone that has it.
pub(crate) fn run() {
    for services in [1_000, 10_000, 100_000u32] {
        let before = resident_kib();
        let begin = Instant::now();
        let mut catalogue = Catalogue::new(Options::new("cluster.local").expect("a name")).expect("options");
        catalogue.set_namespace("default", true);
        let key = |n: u32| Key::new("default", format!("service-{n}"));
        let slice = |n: u32, round: u32| {
            let endpoint = |e: u32| EndpointView {
                addresses: vec![(0x0af4_0000 + n * 16 + e).to_be_bytes().into()],
                ready: true,
                hostname: None,
                target: None,
            };
            let ports = vec![PortView { name: "http".into(), protocol: Protocol::Tcp, port: 80 }].into();
            let endpoints = (0..10 - round % 2).map(endpoint).collect();
            Arc::new(SliceView { service: Some(key(n)), endpoints, ports, trigger_ns: None })
        };
        for n in 0..services {
            let view = ServiceView { kind: ServiceKind::Headless, ports: Vec::new() };
            catalogue.set_service(&key(n), Some(&Arc::new(view)));
            catalogue.set_slice(&key(n), Some(&slice(n, 0)));
        }
        let mut zone = catalogue.commit(1);
        let (filled, memory) = (begin.elapsed(), resident_kib() - before);
        let mut each: Vec<Duration> = (0..1_000)
            .map(|round| {
                let view = slice(round * 7_919 % services, 1);
                let begin = Instant::now();
                catalogue.set_slice(&key(round * 7_919 % services), Some(&view));
                // The old zone is still being answered from, as in the server.
                zone = catalogue.commit(1);
                begin.elapsed()
            })
            .collect();
        each.sort();
        println!(
            "{services:>7} headless Services of 10 endpoints: first zone {:.0} ms, {} MiB; one change {:.0} us median",
            filled.as_secs_f64() * 1e3,
            memory / 1_024,
            each[each.len() / 2].as_secs_f64() * 1e6,
        );
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}
