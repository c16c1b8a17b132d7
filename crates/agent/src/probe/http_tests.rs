//! HTTP probes against a server of a few lines, on the loopback address.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers every request with what `answer` makes of its head; returns the port.
async fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = vec![0; 4096];
            let len = stream.read(&mut buffer).await.unwrap_or(0);
            let answer = answer(&String::from_utf8_lossy(&buffer[..len]).to_lowercase());
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    port
}

fn status(code: u16, headers: &str) -> String {
    format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n{headers}\r\n")
}

async fn get(port: u16, action: serde_json::Value) -> Outcome {
    let action: HTTPGetAction = serde_json::from_value(action).unwrap();
    Get::new(&action, "127.0.0.1".into(), port).unwrap().ask().await
}

#[tokio::test]
async fn prb_1_200_to_399_is_success() {
    for (code, good) in
        [(200, true), (204, true), (302, true), (399, true), (400, false), (404, false), (503, false)]
    {
        let port = serve(move |_| status(code, "")).await;
        let expected = if good {
            Outcome::Success
        } else {
            Outcome::Failure(format!("HTTP probe failed with statuscode: {code}"))
        };
        assert_eq!(get(port, json!({"path": "/x"})).await, expected);
    }
}

#[tokio::test]
async fn the_request_is_kubelets() {
    let port = serve(|head| {
        let good = head.starts_with("get /ready?deep=1 http/1.1\r\n")
            && head.contains("\r\nuser-agent: kube-probe/1.36\r\n")
            && head.contains("\r\naccept: */*\r\n")
            && head.contains("\r\nhost: shop.example\r\n")
            && head.contains("\r\nx-a: 1\r\n");
        status(if good { 200 } else { 418 }, "")
    })
    .await;
    let headers = json!([{"name": "Host", "value": "shop.example"}, {"name": "X-A", "value": "1"}]);
    assert_eq!(get(port, json!({"path": "ready?deep=1", "httpHeaders": headers})).await, Outcome::Success);
}

#[tokio::test]
async fn redirects_are_followed_within_the_host_only() {
    let port = serve(|head| match head.split(' ').nth(1) {
        Some("/local") => status(302, "location: /end\r\n"),
        Some("/away") => status(302, "location: http://elsewhere.example/\r\n"),
        Some("/loop") => status(302, "location: /loop\r\n"),
        _ => status(503, ""),
    })
    .await;
    let unavailable = Outcome::Failure("HTTP probe failed with statuscode: 503".into());
    assert_eq!(get(port, json!({"path": "/local"})).await, unavailable);
    let warned = Outcome::Warned("Probe terminated redirects".into());
    assert_eq!(get(port, json!({"path": "/away"})).await, warned);
    let Outcome::Failure(text) = get(port, json!({"path": "/loop"})).await else { panic!() };
    assert!(text.ends_with("stopped after 10 redirects"), "{text}");
}

#[tokio::test]
async fn nobody_there_is_a_failure() {
    // Bound but not listening: refused, and nobody else gets the port.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    let text =
        format!("Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(get(port, json!({})).await, Outcome::Failure(text));
}

#[tokio::test]
async fn endless_answers_are_cut() {
    let port = serve(|head| match head.split(' ').nth(1) {
        Some("/body") => format!("HTTP/1.1 200 x\r\n\r\n{}", "x".repeat(5_000_000)),
        _ => format!("HTTP/1.1 200 x\r\nx-a: {}\r\n\r\n", "x".repeat(5_000_000)),
    })
    .await;
    assert_eq!(get(port, json!({"path": "/body"})).await, Outcome::Success);
    assert!(matches!(get(port, json!({"path": "/head"})).await, Outcome::Failure(_)));
}
