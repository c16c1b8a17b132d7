//! Sessions over SPDY, in the protocol `v4.channel.k8s.io`: the client opens a stream for each of error, stdin, stdout,
//! stderr and resize, as far as it wants them.

use bytes::{Bytes, BytesMut};
use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::request::Streams;
use super::session::{Channel, Client, Input, resize};
use super::spdy::{self, Connection, Piece, Stream};
use super::upgrade::{common, take_over, words};
use super::{Body, Refusal};
use crate::limits::{SESSION_QUEUE, SPDY_STREAMS_PATIENCE};

/// Where SPDY's clients name what they speak on top of it.
pub(super) const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const PROTOCOL: &str = "v4.channel.k8s.io";

/// The longest order to resize.
const ORDER_BYTES_MAX: usize = 1024;

/// Takes the connection over for a session.
pub(super) fn accept<F: Future<Output = ()> + Send + 'static>(
    request: Request<Incoming>,
    streams: Streams,
    session: impl FnOnce(Client) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal> {
    let protocol = common(&[PROTOCOL], &words(request.headers(), &VERSION))?;
    let version = (VERSION, HeaderValue::from_static(protocol));
    Ok(take_over(request, spdy::NAME, [version], move |io| async move {
        let mut connection = spdy::connect(io);
        let gathering = gather(&mut connection, streams);
        if let Ok(Some(all)) = tokio::time::timeout(SPDY_STREAMS_PATIENCE, gathering).await {
            all.carry(session).await;
        }
        connection.close().await;
    }))
}

struct All {
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Waits for every stream that the request has announced.
async fn gather(connection: &mut Connection, streams: Streams) -> Option<All> {
    let wanted = [
        ("error", true),
        ("stdin", streams.stdin),
        ("stdout", streams.stdout),
        ("stderr", streams.stderr),
        ("resize", streams.tty),
    ];
    let mut found = wanted.map(|_| None);
    while wanted.iter().zip(&found).any(|((_, wanted), found)| *wanted && found.is_none()) {
        let stream = connection.next().await?;
        let place =
            wanted.iter().position(|(kind, wanted)| *wanted && stream.header("streamtype") == Some(kind));
        match place.map(|place| &mut found[place]) {
            Some(place) if place.is_none() => *place = Some(stream),
            _ => stream.refuse().await,
        }
    }
    let [error, stdin, stdout, stderr, resize] = found;
    Some(All { error: error?, stdin, stdout, stderr, resize })
}

impl All {
    async fn carry<F: Future<Output = ()>>(self, session: impl FnOnce(Client) -> F) {
        let (words, input) = mpsc::channel(SESSION_QUEUE);
        let (output, mut outbox) = mpsc::channel::<(Channel, Bytes)>(SESSION_QUEUE);
        let mut reading = JoinSet::new();
        let Stream { input: mut error, output: error_output, .. } = self.error;
        let gone = words.clone();
        reading.spawn(async move {
            // Nothing is ever said there, but its end is the client's.
            while error.next().await.is_some() {}
            let _ = gone.send(Input::Gone).await;
        });
        let stdin_output = self.stdin.map(|stdin| {
            reading.spawn(read(stdin.input, words.clone()));
            stdin.output
        });
        let resize_output = self.resize.map(|resize| {
            reading.spawn(orders(resize.input, words.clone()));
            resize.output
        });
        drop(words);
        let [stdout, stderr] = [self.stdout, self.stderr].map(|stream| stream.map(|stream| stream.output));
        let writing = async {
            while let Some((channel, bytes)) = outbox.recv().await {
                let to = match channel {
                    Channel::Stdout => stdout.as_ref(),
                    Channel::Stderr => stderr.as_ref(),
                    Channel::Error => Some(&error_output),
                };
                if let Some(to) = to
                    && to.send(bytes).await.is_err()
                {
                    return;
                }
            }
        };
        tokio::join!(session(Client { input, output }), writing);
        let outputs = [Some(error_output), stdin_output, stdout, stderr, resize_output];
        for output in outputs.into_iter().flatten() {
            output.end().await;
        }
        reading.shutdown().await;
    }
}

/// From the client to the process.
async fn read(mut stdin: spdy::Input, to: mpsc::Sender<Input>) {
    while let Some(piece) = stdin.next().await {
        let word = match piece {
            Piece::Data(bytes) => Input::Data(bytes),
            Piece::End => Input::End,
        };
        if to.send(word).await.is_err() {
            return;
        }
    }
}

/// Sizes of the terminal, each a line of JSON.
async fn orders(mut stream: spdy::Input, to: mpsc::Sender<Input>) {
    let mut read = BytesMut::new();
    while let Some(Piece::Data(bytes)) = stream.next().await {
        read.extend_from_slice(&bytes);
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            let line = read.split_to(end + 1);
            if let Some(order) = resize(&line)
                && to.send(order).await.is_err()
            {
                return;
            }
        }
        if read.len() > ORDER_BYTES_MAX {
            return;
        }
    }
    // The rest of the session needs no more sizes.
    std::future::pending::<()>().await;
}
