//! Sessions over websockets, in the protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`: every message is binary and
//! begins with the number of its channel. The fifth version lets the client end its input.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::request::Streams;
use super::session::{Channel, Client, Input};
use super::{Body, Refusal, whole};
use crate::limits::{SESSION_MESSAGE_BYTES_MAX, SESSION_QUEUE};

const STDIN: u8 = 0;
const RESIZE: u8 = 4;
/// The fifth version's: ends the channel that the next byte names.
const CLOSE: u8 = 255;

/// The versions spoken, the best one first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Takes the connection over for a session.
pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
    mut request: Request<Incoming>,
    streams: Streams,
    session: impl FnOnce(Client) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let (protocol, accept) = negotiate(request.headers())?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let config = WebSocketConfig::default()
            .max_message_size(Some(SESSION_MESSAGE_BYTES_MAX))
            .max_frame_size(Some(SESSION_MESSAGE_BYTES_MAX));
        let io = TokioIo::new(upgraded);
        let (sink, stream) = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await.split();
        let (input_sender, input) = mpsc::channel(SESSION_QUEUE);
        let (output, outbox) = mpsc::channel(SESSION_QUEUE);
        let reading = tokio::spawn(take(stream, input_sender));
        let writing = tokio::spawn(give(sink, outbox, streams));
        session(Client { input, output }).await;
        // What was said last is sent before the end.
        let _ = writing.await;
        reading.abort();
    });
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    headers.extend(accept.map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    Ok(response)
}

fn negotiate(headers: &HeaderMap) -> Result<(&'static str, Option<HeaderValue>), Refusal> {
    let words = |name: &HeaderName| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).map(|word| word.trim().to_owned()).collect()
    };
    let bad = |text: String| Refusal::new(StatusCode::BAD_REQUEST, text);
    let upgrade = words(&UPGRADE).join(", ");
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(bad(format!(
            "sessions are served over websockets, not over {upgrade:?}: kubectl uses them since 1.31, and 1.29 and 1.30 \
             do with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true in the environment"
        )));
    }
    let offered = words(&SEC_WEBSOCKET_PROTOCOL);
    let protocol = PROTOCOLS.into_iter().find(|known| offered.iter().any(|offer| offer == known));
    let protocol = protocol.ok_or_else(|| {
        bad(format!(
            "none of the websocket protocols offered ({}) is known; known are {}",
            offered.join(", "),
            PROTOCOLS.join(", ")
        ))
    })?;
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(|| bad("Sec-WebSocket-Key is missing".into()))?;
    Ok((protocol, HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()))
}

/// From the client to the session.
async fn take(mut stream: SplitStream<Socket>, input: mpsc::Sender<Input>) {
    while let Some(Ok(message)) = stream.next().await {
        let word = match message {
            Message::Binary(bytes) => read(&bytes),
            Message::Close(_) => break,
            _ => None,
        };
        if let Some(word) = word
            && input.send(word).await.is_err()
        {
            return;
        }
    }
    let _ = input.send(Input::Gone).await;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// What a message says; `None` for what means nothing.
fn read(message: &Bytes) -> Option<Input> {
    let rest = message.slice(1.min(message.len())..);
    match *message.first()? {
        STDIN if rest.is_empty() => None,
        STDIN => Some(Input::Data(rest)),
        RESIZE => {
            let size: Size = serde_json::from_slice(&rest).ok()?;
            Some(Input::Resize { columns: size.width, rows: size.height })
        }
        CLOSE if rest.first() == Some(&STDIN) => Some(Input::End),
        _ => None,
    }
}

/// From the session to the client, until the session has nothing more to say.
async fn give(
    mut sink: SplitSink<Socket, Message>,
    mut outbox: mpsc::Receiver<(Channel, Bytes)>,
    streams: Streams,
) {
    // Clients take the connection for made at the first message.
    for (wanted, channel) in
        [(streams.stdout, Channel::Stdout), (streams.stderr, Channel::Stderr), (true, Channel::Error)]
    {
        if wanted && sink.feed(message(channel, &[])).await.is_err() {
            return;
        }
    }
    let _ = sink.flush().await;
    while let Some((channel, bytes)) = outbox.recv().await {
        let wanted = match channel {
            Channel::Stdout => streams.stdout,
            Channel::Stderr => streams.stderr,
            Channel::Error => true,
        };
        if wanted && sink.send(message(channel, &bytes)).await.is_err() {
            return;
        }
    }
    let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(end))).await;
    let _ = sink.close().await;
}

fn message(channel: Channel, bytes: &[u8]) -> Message {
    let number = match channel {
        Channel::Stdout => 1,
        Channel::Stderr => 2,
        Channel::Error => 3,
    };
    let mut out = BytesMut::with_capacity(1 + bytes.len());
    out.put_u8(number);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_and_nonsense_is_passed_over() {
        let said = |bytes: &'static [u8]| read(&Bytes::from_static(bytes));
        assert_eq!(said(b"\0ls\n"), Some(Input::Data(Bytes::from_static(b"ls\n"))));
        assert_eq!(said(b"\x04{\"Width\":80,\"Height\":24}"), Some(Input::Resize { columns: 80, rows: 24 }));
        assert_eq!(said(b"\xff\0"), Some(Input::End));
        for nonsense in [&b""[..], b"\0", b"\x04{", b"\xff", b"\xff\x01", b"\x01x", b"\x09x"] {
            assert_eq!(said(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn the_best_common_version_is_taken_and_the_rest_refused_with_a_reason() {
        let headers = |pairs: &[(HeaderName, &'static str)]| -> HeaderMap {
            pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
        };
        let both = headers(&[
            (UPGRADE, "websocket"),
            (SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io, v5.channel.k8s.io"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        let (protocol, accept) = negotiate(&both).unwrap();
        assert_eq!(
            (protocol, accept.unwrap().to_str().unwrap()),
            ("v5.channel.k8s.io", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let spdy = headers(&[(UPGRADE, "SPDY/3.1")]);
        assert!(negotiate(&spdy).unwrap_err().text.contains("KUBECTL_REMOTE_COMMAND_WEBSOCKETS"));
        let old = headers(&[(UPGRADE, "websocket"), (SEC_WEBSOCKET_PROTOCOL, "channel.k8s.io")]);
        assert!(negotiate(&old).unwrap_err().text.contains("channel.k8s.io"));
    }
}
