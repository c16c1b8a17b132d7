//! Sessions over websockets, in the protocols `v5.channel.k8s.io` and `v4.channel.k8s.io`: every message begins with the
//! number of its channel. Ours are binary; some clients send text. The fifth version lets the client end its input.

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::request::Streams;
use super::session::{Channel, Client, Input, resize};
use super::upgrade::{self, Io, common, words};
use super::{Body, Refusal};
use crate::limits::{SESSION_MESSAGE_BYTES_MAX, SESSION_QUEUE, SESSION_READ_BYTES};

const STDIN: u8 = 0;
const RESIZE: u8 = 4;
/// The fifth version's: ends the channel that the next byte names.
const CLOSE: u8 = 255;

/// The versions spoken, the best one first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

pub(super) type Socket = WebSocketStream<Io>;

/// Takes the connection over for a session.
pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
    request: Request<Incoming>,
    streams: Streams,
    session: impl FnOnce(Client) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let protocol = common(&PROTOCOLS, &words(request.headers(), &SEC_WEBSOCKET_PROTOCOL))?;
    take_over(request, protocol, move |socket| async move {
        let (sink, stream) = socket.split();
        let (input_sender, input) = mpsc::channel(SESSION_QUEUE);
        let (output, outbox) = mpsc::channel(SESSION_QUEUE);
        let reading = tokio::spawn(take(stream, input_sender));
        let writing = tokio::spawn(give(sink, outbox, streams));
        session(Client { input, output }).await;
        // What was said last is sent before the end.
        let _ = writing.await;
        reading.abort();
    })
}

/// Takes the connection over for another protocol, whose bytes are what the messages hold.
pub(super) fn accept_tunnel<F: Future<Output = ()> + Send + 'static>(
    request: Request<Incoming>,
    protocol: &'static str,
    then: impl FnOnce(DuplexStream) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    take_over(request, protocol, |socket| async move {
        let (near, far) = tokio::io::duplex(SESSION_READ_BYTES);
        tokio::join!(then(near), tunnel(socket, far));
    })
}

/// Takes the connection over; what comes of the messages is another's.
pub(super) fn take_over<F: Future<Output = ()> + Send + 'static>(
    request: Request<Incoming>,
    protocol: &'static str,
    then: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY);
    let key = key.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok();
    let mut headers = vec![(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol))];
    headers.extend(accept.map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    Ok(upgrade::take_over(request, "websocket", headers, |io| async move {
        then(WebSocketStream::from_raw_socket(io, Role::Server, Some(within_limits())).await).await;
    }))
}

/// What is read as one message.
pub(crate) fn within_limits() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(SESSION_MESSAGE_BYTES_MAX))
        .max_frame_size(Some(SESSION_MESSAGE_BYTES_MAX))
}

/// Carries bytes both ways until either side has ended.
async fn tunnel(socket: Socket, far: DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut from, mut to) = tokio::io::split(far);
    let inward = async {
        while let Some(Ok(message)) = stream.next().await {
            match content(message) {
                Content::Bytes(bytes) if to.write_all(&bytes).await.is_ok() => {}
                Content::Bytes(_) | Content::End => break,
                Content::Nothing => {}
            }
        }
        let _ = to.shutdown().await;
    };
    let outward = async {
        let mut read = BytesMut::with_capacity(SESSION_READ_BYTES);
        while let Ok(1..) = from.read_buf(&mut read).await {
            if sink.send(Message::Binary(read.split().freeze())).await.is_err() {
                return;
            }
            read.reserve(SESSION_READ_BYTES);
        }
        farewell(&mut sink).await;
    };
    // The side within ends when it has heard all and said all.
    tokio::select! {
        () = outward => {}
        () = async { inward.await; std::future::pending().await } => {}
    }
}

/// From the client to the session.
async fn take(mut stream: SplitStream<Socket>, input: mpsc::Sender<Input>) {
    while let Some(Ok(message)) = stream.next().await {
        let word = match content(message) {
            Content::Bytes(bytes) => read(&bytes),
            Content::End => break,
            Content::Nothing => None,
        };
        if let Some(word) = word
            && input.send(word).await.is_err()
        {
            return;
        }
    }
    let _ = input.send(Input::Gone).await;
}

/// What a message carries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Bytes),
    End,
    Nothing,
}

/// Python's client sends text that it is given as text.
pub(crate) fn content(message: Message) -> Content {
    match message {
        Message::Binary(bytes) => Content::Bytes(bytes),
        Message::Text(text) => Content::Bytes(text.into()),
        Message::Close(_) => Content::End,
        _ => Content::Nothing,
    }
}

/// What a message says; `None` for what means nothing.
pub(crate) fn read(message: &Bytes) -> Option<Input> {
    let rest = message.slice(1.min(message.len())..);
    match *message.first()? {
        STDIN if rest.is_empty() => None,
        STDIN => Some(Input::Data(rest)),
        RESIZE => resize(&rest),
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
        if wanted && sink.feed(message(number(channel), &[])).await.is_err() {
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
        if wanted && sink.send(message(number(channel), &bytes)).await.is_err() {
            return;
        }
    }
    farewell(&mut sink).await;
}

pub(super) async fn farewell(sink: &mut SplitSink<Socket, Message>) {
    let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(end))).await;
    let _ = sink.close().await;
}

fn number(channel: Channel) -> u8 {
    match channel {
        Channel::Stdout => 1,
        Channel::Stderr => 2,
        Channel::Error => 3,
    }
}

/// Bytes for a channel, behind its number.
pub(super) fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(1 + bytes.len());
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_heard_as_bytes_are() {
        let same = Content::Bytes(Bytes::from_static(b"\0ls\n"));
        assert_eq!(content(Message::text("\0ls\n")), same);
        assert_eq!(content(Message::Binary(Bytes::from_static(b"\0ls\n"))), same);
        assert_eq!(content(Message::Close(None)), Content::End);
        assert_eq!(content(Message::Ping(Bytes::new())), Content::Nothing);
    }

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

    /// Frames are the websocket library's business; what is in them is read here.
    #[test]
    fn any_bytes_are_read_or_passed_over() {
        let mut read_as = [0; 3];
        for _ in 0..100_000 {
            let mut bytes = match rand::random_range(0..4) {
                0 => b"\x04{\"Width\":80,\"Height\":24}".to_vec(),
                1 => vec![CLOSE, STDIN],
                _ => (0..rand::random_range(0..40)).map(|_| rand::random()).collect::<Vec<u8>>(),
            };
            for _ in 0..rand::random_range(0..3) {
                if !bytes.is_empty() {
                    let at = rand::random_range(0..bytes.len());
                    bytes[at] = rand::random();
                }
            }
            match read(&Bytes::from(bytes.clone())) {
                Some(Input::Data(data)) => {
                    assert_eq!((bytes[0], &bytes[1..]), (STDIN, &data[..]));
                    read_as[0] += 1;
                }
                Some(Input::Resize { .. }) => {
                    assert_eq!(bytes[0], RESIZE);
                    read_as[1] += 1;
                }
                Some(Input::End) => {
                    assert_eq!(bytes[..2], [CLOSE, STDIN]);
                    read_as[2] += 1;
                }
                Some(other) => panic!("{bytes:?} is read as {other:?}"),
                None => {}
            }
        }
        assert!(read_as.iter().all(|count| *count > 0), "{read_as:?}");
    }
}
