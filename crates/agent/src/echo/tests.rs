//! The built-in image over the loopback address.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

fn shared(ready_file: Option<PathBuf>) -> Arc<Shared> {
    let identity = Identity {
        name: "web-1".into(),
        namespace: "shop".into(),
        ip: "10.1.0.5".into(),
        node: "node-a".into(),
    };
    Arc::new(Shared { identity, ready: AtomicBool::new(true), ready_file })
}

fn http(ready_file: Option<PathBuf>) -> u16 {
    let listener = listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(http::serve(listener, shared(ready_file)));
    port
}

/// Sends one request; returns the status and the body, and from where it was sent.
async fn ask(port: u16, request: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let from = stream.local_addr().unwrap().to_string();
    let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned(), from)
}

#[tokio::test]
async fn http_tells_who_answered_and_who_asked() {
    let port = http(None);
    let (status, body, from) = ask(port, "GET /a/b?c=1", "").await;
    let json: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, 200);
    let expected = serde_json::json!({
        "name": "web-1", "namespace": "shop", "ip": "10.1.0.5", "node": "node-a", "peer": from,
        "local": format!("127.0.0.1:{port}"), "method": "GET", "path": "/a/b?c=1",
    });
    assert_eq!(json, expected);
    for (request, headers) in [("GET /?format=text", ""), ("GET /", "accept: text/plain\r\n")] {
        let (_, body, from) = ask(port, request, headers).await;
        assert_eq!(body, format!("name=web-1 ip=10.1.0.5 peer={from}\n"));
    }
}

#[tokio::test]
async fn readiness_is_flipped_by_http_and_by_command() {
    let port = http(None);
    let ready = || async move { ask(port, "GET /ready", "").await.0 };
    assert_eq!(ready().await, 200);
    assert_eq!(ask(port, "POST /ready?value=false", "").await.0, 200);
    assert_eq!(ready().await, 503);
    assert_eq!(ask(port, "POST /ready?value=maybe", "").await.0, 400);
    http::set_ready(port, true).await.unwrap();
    assert_eq!(ready().await, 200);
}

#[tokio::test]
async fn readiness_is_flipped_by_a_file() {
    let file = std::env::temp_dir().join(format!("pt-echo-ready-{}", std::process::id()));
    let port = http(Some(file.clone()));
    assert_eq!(ask(port, "GET /ready", "").await.0, 200);
    std::fs::write(&file, "false\n").unwrap();
    assert_eq!(ask(port, "GET /ready", "").await.0, 503);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask(port, "GET /ready", "").await.0, 200);
}

#[tokio::test]
async fn tcp_greets_and_echoes() {
    let listener = listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(streams::serve_tcp(listener, shared(None)));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let line = format!("name=web-1 ip=10.1.0.5 peer={}\n", stream.local_addr().unwrap());
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert_eq!(all, line + "hello");
}

#[tokio::test]
async fn udp_answers_each_datagram() {
    let server = datagrams(0).await.unwrap();
    let port = server.local_addr().unwrap().port();
    tokio::spawn(streams::serve_udp(server, shared(None)));
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for _ in 0..3 {
        client.send_to(b"x", (Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let mut buffer = [0; 200];
        let (len, _) = client.recv_from(&mut buffer).await.unwrap();
        let line = format!("name=web-1 ip=10.1.0.5 peer={}\n", client.local_addr().unwrap());
        assert_eq!(String::from_utf8_lossy(&buffer[..len]), line);
    }
}
