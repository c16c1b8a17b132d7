//! Entries for fuzzing: what a client of a session may send once the connection is its own. Each takes any bytes and panics
//! if what comes of them breaks a promise. Fed by unit tests for a moment and by `cargo run -p xtask -- fuzz`.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use tokio_tungstenite::tungstenite::WebSocket;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::limits::{SESSION_MESSAGE_BYTES_MAX, SPDY_HEADER_BYTES_MAX};
use crate::serving::portforward::messages::{PORTS_MAX, addressed};
use crate::serving::spdy::frame::{Decoder, Frame};
use crate::serving::websocket::{self, Content, content};

/// What SPDY is made from: two streams with data, an end and a ping, as kubectl forwards a port; and one stream alone.
pub const SPDY: &[&[u8]] = &[
    b"\x80\x03\x00\x01\x00\x00\x00)\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00x\xf9\xe3\xc6\xa7\xc2\x02\xa6#FP\xca\n.)JM\xcc\x85\x16%\xac\xa9\xa0\x80\x06\x00\x00\x00\xff\xff\x80\x03\x00\x01\x00\x00\x00.\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x02\xa5G\x0c)P)\x03\xca\x04,\x01\xf9E\xa0\xc4\xcdda\x00$9\xa1\xd1\x9b\tJ\xf6\x8c\x06\x00\x00\x00\x00\xff\xff\x00\x00\x00\x03\x00\x00\x00\x05hello\x00\x00\x00\x03\x01\x00\x00\x00\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x07",
    b"\x80\x03\x00\x01\x00\x00\x00+\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00x\xf9\xe3\xc6\xa7\xc2\x02\xa6#FP\xca\n.)JM\xcc\x85\x16%\xac\xc5%)\x99y\x00\x00\x00\x00\xff\xff",
];

/// What frames of a websocket are made from, masked by zeros: input and a size in two pieces with a ping between them; the
/// end of input as text, and a farewell.
pub const WEBSOCKET: &[&[u8]] = &[
    b"\x82\x84\0\0\0\0\0ls\n\x02\x8c\0\0\0\0\x04{\"Width\":80\x89\x81\0\0\0\0p\x80\x8d\0\0\0\0,\"Height\":24}",
    b"\x81\x82\0\0\0\0\0x\x82\x82\0\0\0\0\xff\0\x88\x82\0\0\0\0\x03\xe8",
];

/// Bytes as a client's SPDY: frames are the same however they arrive, and no header is larger than its limit.
pub fn spdy(bytes: &[u8]) {
    let size = bytes.first().map_or(1, |byte| usize::from(*byte) + 1);
    let whole = frames(bytes.chunks(bytes.len().max(1)));
    assert_eq!(frames(bytes.chunks(size)), whole, "in pieces of {size}");
    for frame in whole {
        match frame {
            Frame::Open { headers, .. } => {
                let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
                // The room for what is unpacked doubles until it is at the limit.
                assert!(bytes <= 2 * SPDY_HEADER_BYTES_MAX, "{bytes} bytes of headers");
            }
            Frame::Data { bytes, .. } => assert!(bytes.len() <= SESSION_MESSAGE_BYTES_MAX),
            _ => {}
        }
    }
}

fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Frame> {
    let (mut decoder, mut read, mut seen) = (Decoder::new(), BytesMut::new(), Vec::new());
    for piece in pieces {
        read.extend_from_slice(piece);
        loop {
            match decoder.next(&mut read) {
                Ok(Some(frame)) => seen.push(frame),
                Ok(None) => break,
                Err(_) => return seen,
            }
        }
    }
    seen
}

/// Bytes as a client's websocket: messages are within their limit, and mean something or nothing to a session and to
/// forwarded ports.
pub fn websocket(bytes: &[u8]) {
    let mut socket = WebSocket::from_raw_socket(Sent(bytes), Role::Server, Some(websocket::within_limits()));
    while let Ok(message) = socket.read() {
        match content(message) {
            Content::Bytes(bytes) => {
                assert!(bytes.len() <= SESSION_MESSAGE_BYTES_MAX);
                let _ = websocket::read(&bytes);
                if let Some((port, piece)) = addressed(&bytes) {
                    assert!(port < PORTS_MAX && !piece.is_empty());
                }
            }
            Content::End | Content::Nothing => {}
        }
    }
}

/// A connection whose other side has said this and hears nothing.
struct Sent<'a>(&'a [u8]);

impl Read for Sent<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Sent<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    use super::*;

    /// Seeds with some bytes changed.
    fn feed(seeds: &[&[u8]], target: fn(&[u8])) {
        let mut random = StdRng::seed_from_u64(1);
        for round in 0..3_000 {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            for _ in 0..random.random_range(0..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            target(&bytes);
        }
    }

    #[test]
    fn no_bytes_stop_a_session() {
        feed(SPDY, spdy);
        feed(WEBSOCKET, websocket);
    }

    #[test]
    fn seeds_are_what_they_should_be() {
        assert_eq!(frames([SPDY[0]].into_iter()).len(), 5);
        assert_eq!(frames([SPDY[1]].into_iter()).len(), 1);
        let mut socket =
            WebSocket::from_raw_socket(Sent(WEBSOCKET[0]), Role::Server, Some(websocket::within_limits()));
        let mut said = Vec::new();
        while let Ok(message) = socket.read() {
            if let Content::Bytes(bytes) = content(message) {
                said.push(bytes);
            }
        }
        assert_eq!(said, [&b"\0ls\n"[..], b"\x04{\"Width\":80,\"Height\":24}"]);
    }
}
