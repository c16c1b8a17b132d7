//! The whole role against an API server: caches, zone, sockets, HTTP.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "common/net.rs"]
mod net;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use common::{Reply, question};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use net::exchange;
use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_dns::zone::Options;
use portolan_dns::{Config, forward, run};
use portolan_role::Progress;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn config() -> Config {
    let mut config = Config::new(Options::new("cluster.local").unwrap());
    config.listen = vec![free_port().await];
    (config.health, config.ready, config.metrics) = (None, None, None);
    config
}

async fn ask(server: SocketAddr, name: &str, rtype: RecordType) -> Reply {
    Reply::read(&exchange(server, &question(name, rtype)).await.expect("an answer"))
}

/// Asks until the answer is as wanted: changes arrive when they arrive.
async fn until(server: SocketAddr, name: &str, wanted: impl Fn(&Reply) -> bool) {
    let look = async {
        while !wanted(&ask(server, name, RecordType::A).await) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), look).await.unwrap_or_else(|_| panic!("{name} never came"));
}

fn namespace(name: &str) -> serde_json::Value {
    json!({ "metadata": { "name": name } })
}

fn headless(address: &str) -> serde_json::Value {
    json!({
        "metadata": { "name": "pets-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "pets" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
    })
}

/// By UDP and by TCP.
async fn free_port() -> SocketAddr {
    net::one_port().await.0.local_addr().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_objects() {
    let api = FakeApi::new();
    api.put(&paths::NAMESPACES, namespace("default"));
    let service = json!({ "metadata": { "name": "web", "namespace": "default" }, "spec": { "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] } });
    api.put(&paths::SERVICES, service);
    let progress = Progress::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { _ = stopped.await };
    let running = tokio::spawn(run(api.client(), config().await, progress.clone(), shutdown));
    let server = progress.ready().await[0];
    assert_eq!(ask(server, "web.default.svc.cluster.local", RecordType::A).await.answers().len(), 1);

    let pets = "pets.default.svc.cluster.local";
    api.put(
        &paths::SERVICES,
        json!({ "metadata": { "name": "pets", "namespace": "default" }, "spec": { "clusterIP": "None" } }),
    );
    api.put(&paths::ENDPOINT_SLICES, headless("10.4.0.1"));
    until(server, pets, |reply| reply.answers() == [format!("{pets} 5 A 10.4.0.1")]).await;
    api.put(&paths::ENDPOINT_SLICES, headless("10.4.0.2"));
    until(server, pets, |reply| reply.answers() == [format!("{pets} 5 A 10.4.0.2")]).await;
    api.remove(&paths::ENDPOINT_SLICES, "default", "pets-1");
    until(server, pets, |reply| reply.rcode == ResponseCode::NXDomain).await;
    api.put(&paths::NAMESPACES, namespace("new"));
    until(server, "new.svc.cluster.local", |reply| reply.rcode == ResponseCode::NoError).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(std::net::UdpSocket::bind(server).is_ok(), "the port is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_of_both_families_are_answered_by_udp_and_tcp() {
    let api = FakeApi::new();
    let mut config = config().await;
    let port = free_port().await.port();
    // As by default, but for the port.
    config.listen = vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
    let listen = config.listen.clone();
    let progress = Progress::default();
    let running = tokio::spawn(run(api.client(), config, progress.clone(), std::future::pending()));
    let addresses = tokio::select! {
        addresses = progress.ready() => addresses,
        ended = running => panic!("{ended:?}"),
    };
    assert_eq!(*addresses, *listen);
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let socket = tokio::net::UdpSocket::bind((loopback, 0)).await.unwrap();
        socket.connect((loopback, port)).await.unwrap();
        socket.send(&question("dns-version.cluster.local", RecordType::TXT)).await.unwrap();
        let mut answer = [0; 512];
        let receive = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut answer));
        let length = receive.await.unwrap().unwrap();
        assert_eq!(Reply::read(&answer[..length]).rcode, ResponseCode::NoError);
        assert!(tokio::net::TcpStream::connect((loopback, port)).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_api_server_has_been_read_names_fail_instead_of_being_denied() {
    let api = FakeApi::new();
    api.put(&paths::NAMESPACES, namespace("default"));
    api.fail_next(1_000, 503, "ServiceUnavailable");
    let mut config = config().await;
    config.listen = vec![free_port().await];
    config.ready = Some(free_port().await);
    config.metrics = Some(free_port().await);
    config.startup_timeout = Duration::from_millis(50);
    let (server, ready, metrics) = (config.listen[0], config.ready.unwrap(), config.metrics.unwrap());
    let progress = Progress::default();
    let running = tokio::spawn(run(api.client(), config, progress.clone(), std::future::pending()));
    let name = "web.default.svc.cluster.local";
    let packet = question(name, RecordType::A);
    let answered = async {
        loop {
            // Nobody listens at first.
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(server).await.unwrap();
            let mut buffer = [0; 512];
            socket.send(&packet).await.unwrap();
            if let Ok(length) = socket.recv(&mut buffer).await {
                return Reply::read(&buffer[..length]);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reply = tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!(reply.rcode, ResponseCode::ServFail);
    assert!(get(ready, "/ready").await.unwrap().starts_with("HTTP/1.1 503"));
    assert_eq!(ask(server, "dns-version.cluster.local", RecordType::TXT).await.answers().len(), 1);
    let text = get(metrics, "/metrics").await.unwrap();
    assert!(text.contains("rcode=\"SERVFAIL\",plugin=\"kubernetes\""), "{text}");
    running.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_answered_for_a_while_after_the_end_was_asked_for() {
    let api = FakeApi::new();
    let mut config = config().await;
    config.lameduck = Duration::from_secs(1);
    config.health = Some(free_port().await);
    let (lameduck, health) = (config.lameduck, config.health.unwrap());
    let progress = Progress::default();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async { _ = stopped.await };
    let running = tokio::spawn(run(api.client(), config, progress.clone(), shutdown));
    let server = progress.ready().await[0];
    stop.send(()).unwrap();
    let begin = std::time::Instant::now();
    let (mut answered, mut healthy) = (Duration::ZERO, Duration::ZERO);
    while !running.is_finished() {
        let question = question("dns-version.cluster.local", RecordType::TXT);
        // The last question of all may find nobody.
        if let Ok(Some(_)) = tokio::time::timeout(lameduck / 2, exchange(server, &question)).await {
            answered = begin.elapsed();
        }
        if get(health, "/health").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            healthy = begin.elapsed();
        }
    }
    assert!(answered >= lameduck / 2 && healthy >= lameduck / 2, "{answered:?} {healthy:?}");
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_and_metrics_are_served() {
    let api = FakeApi::new();
    api.put(&paths::NAMESPACES, namespace("default"));
    let mut config = config().await;
    let upstream = net::Upstream::honest(300).await;
    let upstreams = vec![upstream.address];
    config.forward = Some(forward::Config { upstreams, ..forward::Config::default() });
    let addresses = [free_port().await, free_port().await, free_port().await];
    (config.health, config.ready, config.metrics) =
        (Some(addresses[0]), Some(addresses[1]), Some(addresses[2]));
    let progress = Progress::default();
    let running = tokio::spawn(run(api.client(), config, progress.clone(), std::future::pending()));
    let server = progress.ready().await[0];
    ask(server, "default.svc.cluster.local", RecordType::A).await;
    ask(server, "www.example.com", RecordType::A).await;
    assert!(get(addresses[0], "/health").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(addresses[1], "/ready").await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(get(addresses[0], "/other").await.unwrap().starts_with("HTTP/1.1 404"));
    let text = get(addresses[2], "/metrics").await.unwrap();
    for line in [
        &format!(
            "coredns_dns_requests_total{{server=\"dns://{server}\",zone=\"cluster.local.\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"}} 2"
        ),
        "rcode=\"NOERROR\",plugin=\"kubernetes\"} 1",
        "coredns_dns_request_duration_seconds_count",
        "# TYPE coredns_kubernetes_dns_programming_duration_seconds histogram",
        "portolan_dns_services 0",
        &format!(
            "coredns_dns_responses_total{{server=\"dns://{server}\",zone=\"cluster.local.\",view=\"\",rcode=\"NOERROR\",plugin=\"forward\"}} 1"
        ),
        "coredns_dns_request_size_bytes_count",
        "coredns_dns_response_size_bytes_count",
        "coredns_cache_entries{type=\"success\"} 1",
        "coredns_cache_hits_total{type=\"success\"} 0",
        "coredns_cache_misses_total 1",
        "coredns_cache_requests_total 1",
        "coredns_cache_evictions_total{type=\"denial\"} 0",
        "coredns_cache_served_stale_total 0",
        "coredns_cache_prefetch_total 0",
        "coredns_forward_max_concurrent_rejects_total 0",
        "coredns_forward_healthcheck_broken_total 0",
        "coredns_proxy_healthcheck_failures_total 0",
        &format!(
            "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",to=\"{}\",rcode=\"NOERROR\"}} 1",
            upstream.address
        ),
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    running.abort();
}
