//! Frames of SPDY/3.1 as far as Kubernetes uses them: streams that a client opens, data both ways, ends, pings. Nobody
//! there heeds windows, and neither does this: the connection below holds back who writes too much. Pure.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::headers::{EMPTY, FIRST_EMPTY, Unpacker};
use crate::limits::SESSION_MESSAGE_BYTES_MAX;

/// The version of the framing layer, which 3.1 shares with 3.
const VERSION: u16 = 3;
const CONTROL: u16 = 1 << 15;
const HEAD: usize = 8;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// The number of a stream, 31 bits.
pub(crate) type StreamId = u32;

/// Why a stream is reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Protocol = 1,
    Refused = 3,
}

/// Bytes that are no SPDY. The connection cannot be read any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(super) &'static str);

/// What a client says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Open {
        stream: StreamId,
        headers: Vec<(String, String)>,
        last: bool,
    },
    Data {
        stream: StreamId,
        bytes: Bytes,
        last: bool,
    },
    Reset {
        stream: StreamId,
    },
    Ping(u32),
    GoAway,
    /// What needs no answer.
    Other,
}

/// Takes frames off what has been read.
#[derive(Debug)]
pub(crate) struct Decoder(Unpacker);

impl Decoder {
    pub(crate) fn new() -> Self {
        Self(Unpacker::new())
    }

    /// The first frame in `read`, which it leaves; `None` while it is not there as a whole.
    pub(crate) fn next(&mut self, read: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
        let Some(mut head) = read.get(..HEAD) else { return Ok(None) };
        let (first, second, sized) = (head.get_u16(), head.get_u16(), head.get_u32());
        let (flags, len) = (sized.to_be_bytes()[0], (sized & 0x00ff_ffff) as usize);
        if len > SESSION_MESSAGE_BYTES_MAX {
            return Err(Malformed("a frame is too large"));
        }
        if read.len() < HEAD + len {
            read.reserve(HEAD + len - read.len());
            return Ok(None);
        }
        read.advance(HEAD);
        let body = read.split_to(len).freeze();
        let last = flags & FIN != 0;
        if first & CONTROL == 0 {
            let stream = u32::from(first) << 16 | u32::from(second);
            return Ok(Some(Frame::Data { stream, bytes: body, last }));
        }
        if first & !CONTROL != VERSION {
            return Err(Malformed("a frame is of another version than 3"));
        }
        self.control(second, last, body).map(Some)
    }

    fn control(&mut self, kind: u16, last: bool, mut body: Bytes) -> Result<Frame, Malformed> {
        let mut number = || body.try_get_u32().map_err(|_| Malformed("a frame is cut off"));
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()? & !(1 << 31);
                let _associated = number()?;
                body.try_get_u16().map_err(|_| Malformed("a frame is cut off"))?;
                Frame::Open { stream, headers: self.0.pairs(&body)?, last }
            }
            // Later blocks refer to these, so they are unpacked although nobody asks.
            SYN_REPLY | HEADERS => {
                number()?;
                self.0.pairs(&body)?;
                Frame::Other
            }
            RST_STREAM => Frame::Reset { stream: number()? & !(1 << 31) },
            PING => Frame::Ping(number()?),
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        })
    }
}

/// What is said to a client.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Accept { stream: StreamId },
    Data { stream: StreamId, bytes: Bytes, last: bool },
    Reset { stream: StreamId, status: Status },
    Ping(u32),
    GoAway { last: StreamId },
}

/// Writes frames.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    begun: bool,
}

impl Encoder {
    pub(super) fn write(&mut self, reply: &Reply, to: &mut BytesMut) {
        match reply {
            Reply::Accept { stream } => {
                let block = if std::mem::replace(&mut self.begun, true) { EMPTY } else { FIRST_EMPTY };
                control(to, SYN_REPLY, 4 + block.len());
                to.put_u32(*stream);
                to.put_slice(block);
            }
            Reply::Data { stream, bytes, last } => {
                to.put_u32(*stream);
                to.put_u8(if *last { FIN } else { 0 });
                to.put_uint(bytes.len() as u64, 3);
                to.put_slice(bytes);
            }
            Reply::Reset { stream, status } => {
                control(to, RST_STREAM, 8);
                to.put_u32(*stream);
                to.put_u32(*status as u32);
            }
            Reply::Ping(id) => {
                control(to, PING, 4);
                to.put_u32(*id);
            }
            Reply::GoAway { last } => {
                control(to, GOAWAY, 8);
                to.put_u32(*last);
                to.put_u32(0);
            }
        }
    }
}

fn control(to: &mut BytesMut, kind: u16, len: usize) {
    to.put_u16(CONTROL | VERSION);
    to.put_u16(kind);
    to.put_u8(0);
    to.put_uint(len as u64, 3);
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::headers::tests::Packer;
    use super::*;

    /// A frame that opens a stream, as clients write it.
    pub(in crate::serving::spdy) fn open(
        packer: &mut Packer,
        stream: StreamId,
        headers: &[(&str, &str)],
    ) -> Vec<u8> {
        let block = packer.pack(headers);
        let mut frame = BytesMut::new();
        control(&mut frame, SYN_STREAM, 10 + block.len());
        frame.put_u32(stream);
        frame.put_u32(0);
        frame.put_u16(0);
        frame.put_slice(&block);
        frame.to_vec()
    }

    pub(in crate::serving::spdy) fn data(stream: StreamId, bytes: &'static [u8], last: bool) -> Vec<u8> {
        let mut frame = BytesMut::new();
        let reply = Reply::Data { stream, bytes: Bytes::from_static(bytes), last };
        Encoder::default().write(&reply, &mut frame);
        frame.to_vec()
    }

    #[test]
    fn frames_are_taken_off_one_by_one_however_they_arrive() {
        let mut packer = Packer::new();
        let mut bytes = open(&mut packer, 1, &[("Streamtype", "stdin")]);
        bytes.extend(data(1, b"hello", true));
        bytes.extend([0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 7]);
        let want = vec![
            Frame::Open { stream: 1, headers: vec![("streamtype".into(), "stdin".into())], last: false },
            Frame::Data { stream: 1, bytes: Bytes::from_static(b"hello"), last: true },
            Frame::Ping(7),
        ];
        for size in [1, 2, 7, bytes.len()] {
            let (mut decoder, mut read, mut seen) = (Decoder::new(), BytesMut::new(), Vec::new());
            for piece in bytes.chunks(size) {
                read.extend_from_slice(piece);
                while let Some(frame) = decoder.next(&mut read).unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!((&seen, read.len()), (&want, 0));
        }
    }

    #[test]
    fn what_is_no_spdy_ends_the_connection() {
        let fails = |bytes: &[u8]| Decoder::new().next(&mut BytesMut::from(bytes)).unwrap_err().0;
        assert_eq!(fails(&[0x80, 2, 0, 6, 0, 0, 0, 0]), "a frame is of another version than 3");
        assert_eq!(fails(&[0x80, 3, 0, 6, 0, 0xff, 0xff, 0xff]), "a frame is too large");
        assert_eq!(fails(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), "a frame is cut off");
        assert_eq!(
            fails(&[0x80, 3, 0, 1, 0, 0, 0, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            "a header block is cut off"
        );
    }

    #[test]
    fn replies_are_frames() {
        let mut encoder = Encoder::default();
        let mut bytes = BytesMut::new();
        encoder.write(&Reply::Accept { stream: 1 }, &mut bytes);
        encoder.write(&Reply::Accept { stream: 3 }, &mut bytes);
        encoder.write(&Reply::Reset { stream: 5, status: Status::Refused }, &mut bytes);
        encoder.write(&Reply::GoAway { last: 5 }, &mut bytes);
        let mut decoder = Decoder::new();
        let mut seen = Vec::new();
        while let Some(frame) = decoder.next(&mut bytes).unwrap() {
            seen.push(frame);
        }
        assert_eq!(seen, [Frame::Other, Frame::Other, Frame::Reset { stream: 5 }, Frame::GoAway]);
    }
}
