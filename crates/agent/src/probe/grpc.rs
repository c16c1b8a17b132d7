//! gRPC probes: `grpc.health.v1.Health/Check`, asked without generated code.
//!
//! The call is one HTTP/2 request. Its body is a message behind a header of five bytes (compressed or not, length), and
//! both messages have one field: the question the name of a service, the answer a number.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::check::{connect, dial_error, join};
use super::http::AGENT;
use super::state::Outcome;

/// The answer is a few bytes; a server that sends more is not asked on.
const ANSWER_MAX: usize = 4 << 10;
/// Header names and values together.
const HEADERS_MAX: u32 = 16 << 10;
const SERVING: u64 = 1;
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
/// gRPC's number for "there is no such method".
const UNIMPLEMENTED: &str = "12";

/// A health check, ready to be asked for.
#[derive(Debug)]
pub(crate) struct Health {
    host: String,
    port: u16,
    /// Empty: the server as a whole.
    service: String,
}

impl Health {
    pub(super) fn new(host: String, port: u16, service: String) -> Self {
        Self { host, port, service }
    }

    pub(super) fn timed_out(&self, timeout: std::time::Duration) -> String {
        let address = join(&self.host, self.port);
        format!(
            "timeout: failed to connect service {address:?} within {timeout:?}: context deadline exceeded"
        )
    }

    pub(super) async fn ask(&self) -> Outcome {
        match self.call().await {
            Ok(SERVING) => Outcome::Success,
            Ok(other) => {
                let name = usize::try_from(other).ok().and_then(|at| STATUSES.get(at).copied());
                let name = name.map_or_else(|| other.to_string(), str::to_owned);
                Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
            }
            Err(why) => Outcome::Failure(why),
        }
    }

    async fn call(&self) -> Result<u64, String> {
        let address = join(&self.host, self.port);
        let failed = |why: &dyn std::fmt::Display| format!("error: health rpc probe failed: {why}");
        let stream = connect(&self.host, self.port).await.map_err(|e| failed(&dial_error(&address, &e)))?;
        let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HEADERS_MAX)
            .initial_stream_window_size(ANSWER_MAX as u32)
            .initial_connection_window_size(64 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .header(USER_AGENT, AGENT)
            .body(Full::new(question(&self.service)))
            .map_err(|e| failed(&e))?;
        // Driven in this very task, and dropped with it: a probe that times out leaves nothing behind.
        tokio::select! {
            biased;
            answer = async { read(sender.send_request(request).await.map_err(|e| failed(&e))?).await } => answer,
            ended = connection => Err(failed(&ended.err().map_or("the connection was closed".to_owned(), |e| e.to_string()))),
        }
    }
}

/// The message behind its header.
fn question(service: &str) -> Bytes {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        varint(&mut message, service.len() as u64);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.append(&mut message);
    frame.into()
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

async fn read<B>(response: Response<B>) -> Result<u64, String>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (parts, mut body) = response.into_parts();
    if parts.status != StatusCode::OK {
        return Err(format!("error: health rpc probe failed: HTTP status {}", parts.status.as_u16()));
    }
    status(&parts.headers)?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("error: health rpc probe failed: {e}"))?;
        if let Some(trailers) = frame.trailers_ref() {
            status(trailers)?;
        }
        bytes.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
        if bytes.len() > ANSWER_MAX {
            return Err("error: health rpc probe failed: the answer is too long".into());
        }
    }
    answer(&bytes).ok_or_else(|| "error: health rpc probe failed: the answer is no health status".into())
}

/// What the call came to, where it says so: in the trailers, or in the headers if there is nothing else.
fn status(headers: &HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => Ok(()),
        UNIMPLEMENTED => Err(format!(
            "this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
            text("grpc-message")
        )),
        code => Err(format!("error: health rpc probe failed: code {code}: {}", text("grpc-message"))),
    }
}

/// The number in field 1 of the message; a message without it means 0.
fn answer(frame: &[u8]) -> Option<u64> {
    let (header, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes(header[1..].try_into().ok()?);
    let message = message.get(..usize::try_from(length).ok()?)?;
    // Nobody compresses two bytes, and nobody was asked to.
    if header[0] != 0 {
        return None;
    }
    match message {
        [] => Some(0),
        [0x08, number, ..] if *number < 0x80 => Some(u64::from(*number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use hyper::body::{Frame, Incoming};
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use tokio::net::TcpListener;

    type Answer = (&'static [u8], &'static [(&'static str, &'static str)]);

    /// A server that answers every call for this service so: data, then trailers.
    async fn serve(expected: &'static [u8], answer: Answer) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |request: Request<Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    assert_eq!(request.headers()["te"], "trailers");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], expected);
                    let mut trailers = HeaderMap::new();
                    for (name, value) in answer.1 {
                        trailers.insert(*name, value.parse().unwrap());
                    }
                    let frames = [Frame::data(Bytes::from_static(answer.0)), Frame::trailers(trailers)];
                    let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
                    Ok::<_, Infallible>(Response::new(body))
                });
                tokio::spawn(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        port
    }

    async fn ask(port: u16, service: &str) -> Outcome {
        Health::new("127.0.0.1".into(), port, service.into()).ask().await
    }

    const OK: &[(&str, &str)] = &[("grpc-status", "0")];

    #[tokio::test]
    async fn prb_1_serving_is_success() {
        let port = serve(b"\0\0\0\0\0", (b"\0\0\0\0\x02\x08\x01", OK)).await;
        assert_eq!(ask(port, "").await, Outcome::Success);
        let port = serve(b"\0\0\0\0\x06\x0a\x04shop", (b"\0\0\0\0\x02\x08\x02", OK)).await;
        let text = "service unhealthy (responded with \"NOT_SERVING\")";
        assert_eq!(ask(port, "shop").await, Outcome::Failure(text.into()));
    }

    #[tokio::test]
    async fn other_answers_are_failures_with_a_reason() {
        let failure = |outcome: Outcome| match outcome {
            Outcome::Failure(text) => text,
            other => panic!("{other:?}"),
        };
        let trailers = &[("grpc-status", "12"), ("grpc-message", "unknown service")];
        let port = serve(b"\0\0\0\0\0", (b"", trailers)).await;
        let text = failure(ask(port, "").await);
        assert!(text.ends_with(
            "does not implement the grpc health protocol (grpc.health.v1.Health): unknown service"
        ));
        let port = serve(b"\0\0\0\0\0", (b"\0\0\0\0\x09xx", OK)).await;
        assert!(failure(ask(port, "").await).ends_with("the answer is no health status"));
        let long = Box::leak(vec![7; 100_000].into_boxed_slice());
        let port = serve(b"\0\0\0\0\0", (long, OK)).await;
        assert!(failure(ask(port, "").await).ends_with("the answer is too long"));
        let held = tokio::net::TcpSocket::new_v4().unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(failure(ask(port, "").await).ends_with("connect: connection refused"));
    }

    #[tokio::test]
    async fn one_that_does_not_speak_it_is_a_failure() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                use tokio::io::AsyncWriteExt as _;
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
            }
        });
        assert!(
            matches!(ask(port, "").await, Outcome::Failure(text) if text.starts_with("error: health rpc"))
        );
    }

    #[test]
    fn answers_are_read_or_refused() {
        assert_eq!(answer(b"\0\0\0\0\0"), Some(0), "a message without fields");
        assert_eq!(answer(b"\x01\0\0\0\x02\x08\x01"), None, "compressed");
        assert_eq!(answer(b"\0\xff\xff\xff\xff\x08\x01"), None, "cut off");
        assert_eq!(answer(b"\0\0"), None);
    }
}
