//! The server over real sockets on 127.0.0.1, asked by dig.

#![allow(clippy::unwrap_used, reason = "a panic is a failed test")]

mod common;
#[path = "common/net.rs"]
mod net;

use std::sync::Arc;
use std::time::Duration;

use common::{Cluster, options, question};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use net::{dig, exchange, serve, serve_plain};
use portolan_dns::server::limit::Limiter;
use portolan_dns::server::{Handler, tcp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A Service, and a headless one with so many endpoints.
fn handler(endpoints: u32) -> Handler {
    let mut cluster = Cluster::new(options());
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "name": "http", "port": 80 }] }));
    cluster.service("many", json!({ "clusterIP": "None" }));
    let all: Vec<_> = (0..endpoints)
        .map(|n| json!({ "addresses": [format!("10.4.{}.{}", n / 250, n % 250 + 1)] }))
        .collect();
    cluster.slice("many", 1, json!(all), json!([{ "name": "http", "port": 80 }]));
    cluster.handler()
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_gets_answers_by_udp_and_tcp() {
    let server = serve_plain(handler(3)).await;
    for transport in ["+notcp", "+tcp"] {
        let text = dig(server.address, &[transport, "web.default.svc.cluster.local"]).await;
        assert!(text.contains("status: NOERROR"), "{text}");
        assert!(text.contains("flags: qr aa rd;"), "{text}");
        assert!(text.contains("10.3.0.1"), "{text}");
        assert!(text.contains("udp: 1232"), "{text}");
        let text = dig(server.address, &[transport, "none.default.svc.cluster.local"]).await;
        assert!(text.contains("status: NXDOMAIN") && text.contains("SOA"), "{text}");
        let text =
            dig(server.address, &[transport, "_http._tcp.many.default.svc.cluster.local", "SRV"]).await;
        assert!(text.contains("ANSWER: 3,") && text.contains("ADDITIONAL: 4"), "{text}");
    }
    let text = dig(server.address, &["-x", "10.3.0.1"]).await;
    assert!(text.contains("web.default.svc.cluster.local."), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_cut_and_whole_by_tcp() {
    let server = serve_plain(handler(400)).await;
    let name = "many.default.svc.cluster.local";
    for (size, most) in [("+noedns", 512), ("+bufsize=1232", 1232), ("+bufsize=4096", 1232)] {
        let text = dig(server.address, &["+ignore", size, name]).await;
        assert!(text.contains("flags: qr aa tc rd"), "{text}");
        let received: usize = text.split("MSG SIZE  rcvd: ").nth(1).unwrap().trim().parse().unwrap();
        assert!(received <= most && received > most - 16, "{size}: {received} bytes, as many records as fit");
    }
    let text = dig(server.address, &[name]).await;
    assert!(text.contains("Truncated, retrying in TCP mode") && text.contains("ANSWER: 400,"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn additional_records_that_do_not_fit_are_no_reason_for_tcp() {
    let server = serve_plain(handler(11)).await;
    let text = dig(server.address, &["+ignore", "_http._tcp.many.default.svc.cluster.local", "SRV"]).await;
    assert!(text.contains("ANSWER: 11,") && !text.contains(" tc "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_begin_at_another_address_each_time() {
    let server = serve_plain(handler(3)).await;
    let mut first = std::collections::HashSet::new();
    for _ in 0..3 {
        let text = dig(server.address, &["+short", "many.default.svc.cluster.local"]).await;
        first.insert(text.lines().next().unwrap().to_owned());
    }
    assert_eq!(first.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_questions_get_their_codes() {
    let server = serve_plain(handler(1)).await;
    let status = async |arguments: &[&str]| {
        let text = dig(server.address, arguments).await;
        text.split("status: ").nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    let name = "web.default.svc.cluster.local";
    assert_eq!(status(&["+noednsneg", "+edns=1", name]).await, "BADVERS");
    assert_eq!(status(&["-c", "CH", "version.bind", "TXT"]).await, "REFUSED");
    assert_eq!(status(&["+opcode=UPDATE", name]).await, "NOTIMP");
    assert_eq!(status(&["example.com"]).await, "REFUSED", "nobody to ask");
    let text = dig(server.address, &["cluster.local", "AXFR"]).await;
    assert!(text.contains("Transfer failed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let handler = Arc::new(handler(1));
    let server = serve(handler, "0.0.0.0:0", Limiter::new(&[], 0), tcp::Limits::default()).await;
    // dig takes answers from the address it asked only.
    for ip in ["127.0.0.1", "127.0.0.2", "127.8.8.8"] {
        let address = std::net::SocketAddr::new(ip.parse().unwrap(), server.address.port());
        let text = dig(address, &["web.default.svc.cluster.local"]).await;
        assert!(text.contains("10.3.0.1"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_questions_of_one_client_all_get_their_own_answers() {
    let server = serve_plain(handler(2)).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    // Answers of several lengths to one client leave in groups; each must still be whole and its own.
    let names = ["web.default.svc", "none.default.svc", "a.default.svc", "many.default.svc", "b.default.svc"];
    let mut expected = std::collections::HashMap::new();
    for id in 0..200u16 {
        let name = format!("{}.cluster.local", names[usize::from(id) % names.len()]);
        let mut packet = question(&name, RecordType::A);
        packet[..2].copy_from_slice(&id.to_be_bytes());
        socket.send(&packet).await.unwrap();
        expected.insert(id, name + ".");
    }
    let mut buffer = [0; 2048];
    while !expected.is_empty() {
        let received = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
        let length = received.expect("every question is answered").unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        let name = expected.remove(&message.metadata.id).expect("each id once");
        assert_eq!(message.queries[0].name().to_string(), name);
        let answers = match name.split('.').next().unwrap() {
            "web" => 1,
            "many" => 2,
            _ => 0,
        };
        assert_eq!(message.answers.len(), answers, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_questions_may_be_piped_and_split() {
    let server = serve_plain(handler(1)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut bytes = Vec::new();
    for id in 0..100u16 {
        let mut packet = question("web.default.svc.cluster.local", RecordType::A);
        packet[..2].copy_from_slice(&id.to_be_bytes());
        bytes.extend((packet.len() as u16).to_be_bytes());
        bytes.extend(packet);
    }
    let (first, last) = bytes.split_at(1_111);
    stream.write_all(first).await.unwrap();
    stream.flush().await.unwrap();
    tokio::task::yield_now().await;
    stream.write_all(last).await.unwrap();
    for _ in 0..100 {
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(Message::from_vec(&answer).unwrap().answers.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_connections_are_bounded_in_number_and_time() {
    let limits = tcp::Limits { connections: 3, per_source: 2, idle: Duration::from_millis(200) };
    let server = serve(Arc::new(handler(1)), "127.0.0.1:0", Limiter::new(&[], 0), limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    // A third of the same source is closed at once; an idle one after its time.
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
    for mut stream in held {
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    }
    let text = dig(server.address, &["+tcp", "web.default.svc.cluster.local"]).await;
    assert!(text.contains("10.3.0.1"), "places are free again: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_limited_and_sent_to_tcp() {
    let handler = Arc::new(handler(1));
    // Nobody is trusted here.
    let server = serve(handler, "127.0.0.1:0", Limiter::new(&[], 5), tcp::Limits::default()).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.address).await.unwrap();
    let question = question("web.default.svc.cluster.local", RecordType::A);
    for _ in 0..200 {
        socket.send(&question).await.unwrap();
    }
    let (mut whole, mut cut) = (0, 0);
    let mut buffer = [0; 2048];
    while let Ok(length) = tokio::time::timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await {
        let length = length.unwrap();
        let message = Message::from_vec(&buffer[..length]).unwrap();
        if message.metadata.truncation {
            assert!(
                length <= question.len(),
                "what strangers are sent beyond their budget amplifies nothing"
            );
            cut += 1;
        } else {
            whole += 1;
        }
    }
    assert!((5..=10).contains(&whole), "{whole} whole answers");
    assert!((80..=100).contains(&cut), "{cut} cut answers: every second one");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_does_not_stop_the_server() {
    let server = serve_plain(handler(1)).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut packet: Vec<u8> = (0..1_400u32).map(|n| (n * 7_919 % 251) as u8).collect();
    for n in 0..200 {
        packet.rotate_left(n % 13 + 1);
        socket.send_to(&packet[..n * 7 % 1_400], server.address).await.unwrap();
    }
    // A message too long for a question, and one that begins TCP with a length that never comes.
    socket.send_to(&[0; 9_000], server.address).await.unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[0xff, 0xff, 0]).await.unwrap();
    let answer = exchange(server.address, &question("web.default.svc.cluster.local", RecordType::A)).await;
    assert_eq!(Message::from_vec(&answer.unwrap()).unwrap().answers.len(), 1);
}
