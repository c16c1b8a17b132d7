//! SPDY/3.1, the protocol under sessions and forwarded ports: what kubectl before 1.31 speaks, what API servers speak to
//! nodes, and what forwarded ports speak inside of a websocket to this day.
//!
//! [`connect`] gives the streams that a client opens; each is read and written on its own.

pub(crate) mod frame;
mod headers;

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::frame::{Decoder, Encoder, Frame, Reply, Status, StreamId};
use crate::limits::{SESSION_QUEUE, SESSION_READ_BYTES, SPDY_STREAMS_MAX};

/// As it is named where protocols are upgraded.
pub(super) const NAME: &str = "SPDY/3.1";

/// A connection: the streams that the client opens, until it has gone.
#[derive(Debug)]
pub(super) struct Connection {
    opened: mpsc::Receiver<Stream>,
    replies: mpsc::Sender<Reply>,
    reading: JoinHandle<()>,
    writing: JoinHandle<()>,
}

/// A stream that a client has opened.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    headers: Vec<(String, String)>,
    pub(super) input: Input,
    pub(super) output: Output,
}

/// What comes on a stream.
#[derive(Debug)]
pub(super) struct Input(mpsc::Receiver<Piece>);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Data(Bytes),
    /// The client has said all it has to say. The stream may still be reset.
    End,
}

/// Where a stream is written. Until [`Output::end`] the stream stays half open.
#[derive(Debug, Clone)]
pub(super) struct Output {
    id: StreamId,
    replies: mpsc::Sender<Reply>,
}

/// The client is gone.
#[derive(Debug)]
pub(super) struct Gone;

impl Stream {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Will not have it.
    pub(super) async fn refuse(self) {
        let reply = Reply::Reset { stream: self.id, status: Status::Protocol };
        let _ = self.output.replies.send(reply).await;
    }
}

impl Input {
    /// The next piece; `None` once the stream was reset or the client is gone.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        self.0.recv().await
    }
}

impl Output {
    pub(super) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let reply = Reply::Data { stream: self.id, bytes, last: false };
        self.replies.send(reply).await.map_err(|_| Gone)
    }

    /// Nothing more comes.
    pub(super) async fn end(&self) {
        let reply = Reply::Data { stream: self.id, bytes: Bytes::new(), last: true };
        let _ = self.replies.send(reply).await;
    }
}

/// Speaks SPDY as a server.
pub(super) fn connect<Io: AsyncRead + AsyncWrite + Send + 'static>(io: Io) -> Connection {
    let (reader, writer) = tokio::io::split(io);
    let (replies, outbox) = mpsc::channel(SESSION_QUEUE);
    let (opening, opened) = mpsc::channel(SPDY_STREAMS_MAX);
    let reading = Reading { opening, replies: replies.clone(), streams: HashMap::new() };
    let reading = tokio::spawn(async move {
        if let Err(error) = reading.run(reader).await {
            tracing::debug!(%error, "a SPDY connection ends");
        }
    });
    let writing = tokio::spawn(async move { drop(write(writer, outbox).await) });
    Connection { opened, replies, reading, writing }
}

impl Connection {
    /// The next stream; `None` once the client has gone.
    pub(super) async fn next(&mut self) -> Option<Stream> {
        self.opened.recv().await
    }

    /// Sends what was written, says farewell and closes.
    pub(super) async fn close(self) {
        let Self { opened, replies, reading, mut writing } = self;
        let _ = replies.send(Reply::GoAway { last: 0 }).await;
        drop((opened, replies));
        // A client that takes nothing must not keep this waiting.
        if tokio::time::timeout(crate::limits::SESSION_DRAIN, &mut writing).await.is_err() {
            writing.abort();
        }
        reading.abort();
    }
}

struct Reading {
    opening: mpsc::Sender<Stream>,
    replies: mpsc::Sender<Reply>,
    streams: HashMap<StreamId, mpsc::Sender<Piece>>,
}

impl Reading {
    async fn run<Io: AsyncRead>(mut self, mut from: ReadHalf<Io>) -> io::Result<()> {
        let (mut decoder, mut read) = (Decoder::new(), BytesMut::with_capacity(SESSION_READ_BYTES));
        loop {
            let next = decoder.next(&mut read).map_err(|malformed| io::Error::other(malformed.0))?;
            match next {
                Some(Frame::GoAway) => return Ok(()),
                Some(frame) => self.take(frame).await,
                None if from.read_buf(&mut read).await? == 0 => return Ok(()),
                None => {}
            }
        }
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Open { stream, headers, last } => self.open(stream, headers, last).await,
            Frame::Data { stream, bytes, last } => {
                let Some(to) = self.streams.get(&stream) else { return };
                // Nobody reads it any more: the rest is passed over.
                let gone = !bytes.is_empty() && to.send(Piece::Data(bytes)).await.is_err();
                if last {
                    let _ = to.send(Piece::End).await;
                }
                // One that has ended is kept: it may be reset all the same.
                if gone {
                    self.streams.remove(&stream);
                }
            }
            Frame::Reset { stream } => drop(self.streams.remove(&stream)),
            Frame::Ping(id) => drop(self.replies.send(Reply::Ping(id)).await),
            Frame::GoAway | Frame::Other => {}
        }
    }

    async fn open(&mut self, id: StreamId, headers: Vec<(String, String)>, last: bool) {
        self.streams.retain(|_, stream| !stream.is_closed());
        if self.streams.len() >= SPDY_STREAMS_MAX || self.streams.contains_key(&id) {
            let _ = self.replies.send(Reply::Reset { stream: id, status: Status::Refused }).await;
            return;
        }
        let _ = self.replies.send(Reply::Accept { stream: id }).await;
        let (pieces, input) = mpsc::channel(SESSION_QUEUE);
        if last {
            let _ = pieces.send(Piece::End).await;
        }
        self.streams.insert(id, pieces);
        let output = Output { id, replies: self.replies.clone() };
        let _ = self.opening.send(Stream { id, headers, input: Input(input), output }).await;
    }
}

/// Writes until there is a farewell, or nobody left to say anything.
async fn write<Io: AsyncWrite>(mut to: WriteHalf<Io>, mut outbox: mpsc::Receiver<Reply>) -> io::Result<()> {
    let (mut encoder, mut bytes) = (Encoder::default(), BytesMut::new());
    let mut open = true;
    while open && let Some(reply) = outbox.recv().await {
        encoder.write(&reply, &mut bytes);
        open = !matches!(reply, Reply::GoAway { .. });
        while open
            && bytes.len() < SESSION_READ_BYTES
            && let Ok(reply) = outbox.try_recv()
        {
            encoder.write(&reply, &mut bytes);
            open = !matches!(reply, Reply::GoAway { .. });
        }
        to.write_all_buf(&mut bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::frame::tests::{data, open};
    use super::headers::tests::Packer;
    use super::*;

    fn pair() -> (DuplexStream, Connection) {
        let (client, server) = tokio::io::duplex(1 << 16);
        (client, connect(server))
    }

    #[tokio::test]
    async fn a_stream_is_read_and_written() {
        let (mut client, mut connection) = pair();
        let mut packer = Packer::new();
        client.write_all(&open(&mut packer, 1, &[("streamtype", "data"), ("port", "80")])).await.unwrap();
        client.write_all(&data(1, b"ask", true)).await.unwrap();
        let mut stream = connection.next().await.unwrap();
        assert_eq!((stream.header("port"), stream.header("none")), (Some("80"), None));
        assert_eq!(stream.input.next().await, Some(Piece::Data(Bytes::from_static(b"ask"))));
        assert_eq!(stream.input.next().await, Some(Piece::End));
        stream.output.send(Bytes::from_static(b"answer")).await.unwrap();
        stream.output.end().await;
        connection.close().await;
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        let at = all.windows(6).position(|window| window == b"answer").expect("the answer");
        // Behind it: the stream's end, and the farewell.
        assert_eq!(all[at + 6..at + 14], [0, 0, 0, 1, 1, 0, 0, 0]);
        assert_eq!(all[at + 14..at + 18], [0x80, 3, 0, 7]);
    }

    #[tokio::test]
    async fn pings_come_back_and_streams_without_number_are_refused() {
        let (mut client, mut connection) = pair();
        let mut packer = Packer::new();
        for id in 0..=SPDY_STREAMS_MAX {
            let frame = open(&mut packer, 2 * u32::try_from(id).unwrap() + 1, &[]);
            client.write_all(&frame).await.unwrap();
        }
        client.write_all(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..SPDY_STREAMS_MAX {
            held.push(connection.next().await.unwrap());
        }
        let mut seen = Vec::new();
        while !seen.ends_with(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]) {
            assert_ne!(client.read_buf(&mut seen).await.unwrap(), 0);
        }
        let refused = [0x80, 3, 0, 3, 0, 0, 0, 8];
        assert_eq!(seen.windows(8).filter(|window| *window == refused).count(), 1);
        // One that is gone makes room.
        drop(held.pop());
        client.write_all(&open(&mut packer, 99_999, &[])).await.unwrap();
        assert_eq!(connection.next().await.unwrap().id, 99_999);
    }

    #[tokio::test]
    async fn a_reset_or_a_client_that_goes_ends_what_is_read() {
        let (mut client, mut connection) = pair();
        let mut packer = Packer::new();
        for id in [1, 3] {
            client.write_all(&open(&mut packer, id, &[])).await.unwrap();
        }
        let (mut first, mut second) = (connection.next().await.unwrap(), connection.next().await.unwrap());
        client.write_all(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 5]).await.unwrap();
        assert_eq!(first.input.next().await, None);
        drop(client);
        assert_eq!(second.input.next().await, None);
        assert!(connection.next().await.is_none());
    }
}
