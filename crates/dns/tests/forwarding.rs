//! Names outside the cluster, with upstreams on loopback sockets that are honest, lie, stall, or are not there.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "common/net.rs"]
mod net;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Cluster, Reply, options, question};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, Record, RecordType, rdata};
use net::{Server, Transport, Upstream, answer, dead, denial, dig, exchange, reply_to, serve_plain, silent};
use portolan_dns::forward::{CacheConfig, Config, Forwarder, Policy, Stub};
use portolan_dns::server::{Handler, Snapshot};
use serde_json::json;

fn config(upstreams: &[SocketAddr]) -> Config {
    Config { upstreams: upstreams.to_vec(), policy: Policy::Sequential, ..Config::default() }
}

/// A server with one Service, and an `ExternalName`.
async fn server(config: Config) -> (Server, Forwarder) {
    let mut cluster = Cluster::new(options());
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] }));
    cluster.service("out", json!({ "type": "ExternalName", "externalName": "www.example.com" }));
    let zone = cluster.0.commit(1).unwrap();
    let forwarder = Forwarder::new(config).unwrap();
    let handler = Handler::new(zone.clone(), Some(forwarder.clone()), 1232);
    handler.set_snapshot(Snapshot { zone, synced: true });
    (serve_plain(handler).await, forwarder)
}

async fn ask(server: &Server, name: &str, rtype: RecordType) -> Reply {
    Reply::read(&exchange(server.address, &question(name, rtype)).await.expect("an answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_come_from_upstream_once_and_then_from_the_cache() {
    let upstream = Upstream::honest(300).await;
    let (server, forwarder) = server(config(&[upstream.address])).await;
    let reply = ask(&server, "www.example.com", RecordType::A).await;
    assert_eq!(reply.answers(), ["www.example.com. 300 A 192.0.2.80".replace(". ", " ")]);
    assert!(reply.message.metadata.recursion_available && !reply.message.metadata.authoritative);
    let again = ask(&server, "WWW.Example.com", RecordType::A).await;
    assert_eq!(again.message.queries[0].name().to_string(), "WWW.Example.com.", "spelled as asked");
    assert_eq!((again.answers().len(), upstream.count()), (1, 1));
    assert_eq!(forwarder.entries(), [1, 0]);
    assert_eq!(ask(&server, "web.default.svc.cluster.local", RecordType::A).await.answers().len(), 1);
    assert_eq!(upstream.count(), 1, "names of the cluster are never forwarded");
}

#[tokio::test(flavor = "multi_thread")]
async fn ttls_run_down_in_the_cache() {
    let upstream = Upstream::honest(2).await;
    let (server, _) = server(config(&[upstream.address])).await;
    let first = ask(&server, "www.example.com", RecordType::A).await;
    assert_eq!(first.message.answers[0].ttl, 2);
    let begin = Instant::now();
    let mut seen = Vec::new();
    while upstream.count() == 1 && begin.elapsed() < Duration::from_secs(10) {
        seen.push(ask(&server, "www.example.com", RecordType::A).await.message.answers[0].ttl);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(seen.contains(&1), "{seen:?}");
    assert!(begin.elapsed() >= Duration::from_millis(1_900), "kept for its time: {:?}", begin.elapsed());
    assert_eq!(upstream.count(), 2, "and asked again after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn denials_are_kept_as_their_soa_says() {
    let upstream = Upstream::start(|question, _| {
        let code = if question.queries[0].name().to_string().starts_with("nodata") {
            ResponseCode::NoError
        } else {
            ResponseCode::NXDomain
        };
        vec![denial(question, code, 60).to_vec().unwrap()]
    })
    .await;
    let (server, forwarder) = server(config(&[upstream.address])).await;
    for name in ["none.example", "nodata.example"] {
        for _ in 0..2 {
            let reply = ask(&server, name, RecordType::A).await;
            assert_eq!(reply.message.authorities.len(), 1);
        }
    }
    assert_eq!((upstream.count(), forwarder.entries()), (2, [0, 2]));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_question_suffices_for_an_external_name() {
    let upstream = Upstream::start(|question, _| {
        let mut reply = reply_to(question);
        let name = |text| Name::from_ascii(text).unwrap();
        let cname = RData::CNAME(rdata::CNAME(name("host.example.net.")));
        reply.add_answer(Record::from_rdata(name("www.example.com."), 60, cname));
        let address = RData::A(rdata::A("192.0.2.80".parse().unwrap()));
        reply.add_answer(Record::from_rdata(name("host.example.net."), 60, address));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let (server, _) = server(config(&[upstream.address])).await;
    // The second time from the cache.
    for _ in 0..2 {
        let reply = ask(&server, "out.default.svc.cluster.local", RecordType::A).await;
        assert_eq!(
            reply.answers(),
            [
                "host.example.net 60 A 192.0.2.80",
                "out.default.svc.cluster.local 5 CNAME www.example.com",
                "www.example.com 60 CNAME host.example.net",
            ]
        );
    }
    assert_eq!(upstream.count(), 1);
    let text = dig(server.address, &["+short", "out.default.svc.cluster.local"]).await;
    assert_eq!(text, "www.example.com.\nhost.example.net.\n192.0.2.80\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_name_that_does_not_exist_says_so() {
    let upstream =
        Upstream::start(|question, _| vec![denial(question, ResponseCode::NXDomain, 60).to_vec().unwrap()])
            .await;
    let (server, _) = server(config(&[upstream.address])).await;
    let reply = ask(&server, "out.default.svc.cluster.local", RecordType::A).await;
    assert_eq!((reply.rcode, reply.answers().len()), (ResponseCode::NXDomain, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_by_udp_is_fetched_by_tcp() {
    let upstream = Upstream::start(|question, transport| {
        let addresses: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut reply = answer(question, 60, if transport == Transport::Tcp { &addresses } else { &[] });
        reply.metadata.truncation = transport == Transport::Udp;
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let (server, _) = server(config(&[upstream.address])).await;
    let text = dig(server.address, &["many.example"]).await;
    assert!(text.contains("retrying in TCP") && text.contains("ANSWER: 100,"), "{text}");
    let text = dig(server.address, &["+ignore", "many.example"]).await;
    assert!(text.contains(" tc ") && text.contains("ANSWER: 7"), "as many as fit: {text}");
    assert_eq!(upstream.count(), 2, "by UDP, then by TCP, then never again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_costs_nothing() {
    let honest = Upstream::honest(60).await;
    let (server, _) = server(config(&[dead(), honest.address])).await;
    let begin = Instant::now();
    for n in 0..5 {
        assert_eq!(ask(&server, &format!("n{n}.example"), RecordType::A).await.answers().len(), 1);
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalling_upstream_is_passed_by_and_left_out() {
    let honest = Upstream::honest(60).await;
    let (stalling, _socket) = silent().await;
    let config = Config {
        hedge: Duration::from_millis(50),
        timeout: Duration::from_millis(200),
        health_interval: Duration::from_mins(1),
        ..config(&[stalling, honest.address])
    };
    let (server, _) = server(config).await;
    for n in 0..3 {
        let begin = Instant::now();
        assert_eq!(ask(&server, &format!("n{n}.example"), RecordType::A).await.answers().len(), 1);
        assert!(begin.elapsed() >= Duration::from_millis(50), "question {n} waited for the first upstream");
    }
    let begin = Instant::now();
    for n in 3..23 {
        assert_eq!(ask(&server, &format!("n{n}.example"), RecordType::A).await.answers().len(), 1);
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "and no later one: {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_the_client_is_told_in_time() {
    let (address, _socket) = silent().await;
    let config = Config {
        hedge: Duration::from_millis(10),
        timeout: Duration::from_millis(50),
        deadline: Duration::from_millis(400),
        ..config(&[address])
    };
    let (server, _) = server(config).await;
    let begin = Instant::now();
    assert_eq!(ask(&server, "lost.example", RecordType::A).await.rcode, ResponseCode::ServFail);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_upstream_is_not_believed() {
    // First an answer with another id, then one to another question, then garbage, then the truth.
    let liar = Upstream::start(|question, _| {
        let mut other_id = answer(question, 60, &["198.51.100.1"]);
        other_id.metadata.id = question.metadata.id.wrapping_add(1);
        let mut other_question = question.clone();
        other_question.queries[0].set_name(Name::from_ascii("bank.example.").unwrap());
        let other_question = answer(&other_question, 60, &["198.51.100.2"]);
        let mut echo = question.clone();
        echo.metadata.response_code = ResponseCode::NXDomain;
        let truth = answer(question, 60, &["192.0.2.80"]).to_vec().unwrap();
        let cut = truth[..truth.len() - 3].to_vec();
        vec![
            other_id.to_vec().unwrap(),
            other_question.to_vec().unwrap(),
            echo.to_vec().unwrap(),
            cut,
            vec![0; 3],
            truth,
        ]
    })
    .await;
    let (server, forwarder) = server(config(&[liar.address])).await;
    let reply = ask(&server, "www.example.com", RecordType::A).await;
    assert_eq!(reply.answers(), ["www.example.com 60 A 192.0.2.80"]);
    assert_eq!(forwarder.entries(), [1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_nobody_asked_for_are_not_taken_as_truth_for_other_names() {
    let liar = Upstream::start(|question, _| {
        let mut reply = answer(question, 60, &["192.0.2.80"]);
        let name = Name::from_ascii("bank.example.").unwrap();
        reply.add_additional(Record::from_rdata(
            name,
            60,
            RData::A(rdata::A("198.51.100.1".parse().unwrap())),
        ));
        vec![reply.to_vec().unwrap()]
    })
    .await;
    let (server, _) = server(config(&[liar.address])).await;
    ask(&server, "www.example.com", RecordType::A).await;
    let before = liar.count();
    ask(&server, "bank.example", RecordType::A).await;
    assert_eq!(liar.count(), before + 1, "asked for, not taken from an answer about something else");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_ask_the_same_share_one_question() {
    let (address, socket) = silent().await;
    let (server, _) = server(config(&[address])).await;
    let server = Arc::new(server);
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { ask(&server, "www.example.com", RecordType::A).await.answers().len() })
        })
        .collect();
    let mut buffer = [0; 512];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
        let question = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
        if question.queries[0].query_type() == RecordType::A {
            socket.send_to(&answer(&question, 60, &["192.0.2.80"]).to_vec().unwrap(), peer).await.unwrap();
            break;
        }
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_questions_at_once_are_refused() {
    let (address, _socket) = silent().await;
    let config = Config {
        max_concurrent: 3,
        deadline: Duration::from_millis(700),
        timeout: Duration::from_millis(300),
        ..config(&[address])
    };
    let (server, _) = server(config).await;
    let server = Arc::new(server);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..10 {
        let server = server.clone();
        clients.spawn(async move { ask(&server, &format!("n{n}.example"), RecordType::A).await.rcode });
    }
    let codes = clients.join_all().await;
    let count = |code| codes.iter().filter(|c| **c == code).count();
    assert_eq!((count(ResponseCode::Refused), count(ResponseCode::ServFail)), (7, 3), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_answer_stands_in_while_nobody_answers() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = broken.clone();
    let upstream = Upstream::start(move |question, _| {
        if switch.load(std::sync::atomic::Ordering::SeqCst) {
            return vec![denial(question, ResponseCode::ServFail, 0).to_vec().unwrap()];
        }
        vec![answer(question, 1, &["192.0.2.80"]).to_vec().unwrap()]
    })
    .await;
    let cache = CacheConfig { stale: Some(Duration::from_mins(1)), ..CacheConfig::default() };
    let (server, _) = server(Config { cache, ..config(&[upstream.address]) }).await;
    assert_eq!(ask(&server, "www.example.com", RecordType::A).await.answers().len(), 1);
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    let begin = Instant::now();
    while upstream.count() == 1 && begin.elapsed() < Duration::from_secs(10) {
        let reply = ask(&server, "www.example.com", RecordType::A).await;
        assert_eq!(reply.rcode, ResponseCode::NoError);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stale = ask(&server, "www.example.com", RecordType::A).await;
    assert_eq!((stale.answers().len(), stale.message.answers[0].ttl), (1, 0));
    assert_eq!(ask(&server, "never.example", RecordType::A).await.rcode, ResponseCode::ServFail);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_upstream_is_asked_upon_chosen_codes() {
    let failing =
        Upstream::start(|question, _| vec![denial(question, ResponseCode::ServFail, 0).to_vec().unwrap()])
            .await;
    let honest = Upstream::honest(60).await;
    let (first, _) = server(config(&[failing.address, honest.address])).await;
    assert_eq!(ask(&first, "www.example.com", RecordType::A).await.rcode, ResponseCode::ServFail);
    let (second, _) = server(Config { next_on: vec![2], ..config(&[failing.address, honest.address]) }).await;
    assert_eq!(ask(&second, "www.example.com", RecordType::A).await.answers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_may_have_upstreams_of_their_own_or_none() {
    let (general, corporate) = (Upstream::honest(60).await, Upstream::honest(60).await);
    let zone = |text| portolan_dns::name::Name::parse(text).unwrap();
    let stubs = vec![
        Stub { zone: zone("corp.example"), upstreams: vec![corporate.address] },
        Stub { zone: zone("secret.corp.example"), upstreams: vec![] },
    ];
    let (server, _) = server(Config { stubs, ..config(&[general.address]) }).await;
    ask(&server, "db.corp.example", RecordType::A).await;
    ask(&server, "www.notcorp.example", RecordType::A).await;
    assert_eq!((general.count(), corporate.count()), (1, 1));
    assert_eq!(ask(&server, "x.secret.corp.example", RecordType::A).await.rcode, ResponseCode::Refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_asks_us_is_found_and_left_out() {
    // A relay that sends every question it gets to the server itself.
    let relay = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let honest = Upstream::honest(60).await;
    let relay_address = relay.local_addr().unwrap();
    let config = Config { hedge: Duration::from_millis(100), ..config(&[relay_address, honest.address]) };
    let (server, forwarder) = server(config).await;
    let target = server.address;
    let relaying = tokio::spawn(async move {
        let relay = Arc::new(relay);
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = relay.recv_from(&mut buffer).await {
            let (relay, packet) = (relay.clone(), buffer[..length].to_vec());
            tokio::spawn(async move {
                if let Some(answer) = exchange(target, &packet).await {
                    let _ = relay.send_to(&answer, peer).await;
                }
            });
        }
    });
    let reply = ask(&server, "www.example.com", RecordType::A).await;
    assert_eq!(reply.answers().len(), 1, "the honest one answers all the same");
    let found = async {
        while forwarder.loops().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("the loop is found");
    assert_eq!(forwarder.loops(), [relay_address]);
    relaying.abort();
}
