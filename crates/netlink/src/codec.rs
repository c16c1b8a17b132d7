//! Netlink's wire format: messages that hold attributes (type, length, value) that may hold attributes.
//!
//! [`Writer`] builds any number of messages into one buffer; [`Messages`] and [`Attrs`] read without copying. Numbers
//! are big-endian in netfilter's families (`be32`) and host-endian in the route family and in headers (`ne32`).
//!
//! An attribute's length is sixteen bits. A longer one cannot be written: the writer notes it and [`Writer::finish`]
//! says so; who builds lists must split them over several messages (see [`Writer::len`]).

use std::ops::Range;

pub const HEADER_LEN: usize = 16;

/// Message flags (`NLM_F_*`).
pub mod flags {
    pub const REQUEST: u16 = 0x1;
    pub const MULTI: u16 = 0x2;
    pub const ACK: u16 = 0x4;
    pub const DUMP_INTR: u16 = 0x10;
    pub const REPLACE: u16 = 0x100;
    pub const EXCL: u16 = 0x200;
    pub const CREATE: u16 = 0x400;
    pub const APPEND: u16 = 0x800;
    pub const DUMP: u16 = 0x300;
    /// In an acknowledgement: the original request is left out but for its header.
    pub const CAPPED: u16 = 0x100;
    /// In an acknowledgement: attributes with an explanation follow.
    pub const ACK_TLVS: u16 = 0x200;
}

/// Message types that every family has.
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

/// An attribute would have been longer than its sixteen-bit length can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a netlink attribute would exceed 65535 bytes")]
pub struct TooLong;

#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    too_long: bool,
}

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), too_long: false }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything written, if every attribute fitted.
    pub fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(self.bytes) }
    }

    /// Writes a message: header, then the family's fixed part, then what `body` writes.
    pub fn message(
        &mut self,
        kind: u16,
        flags: u16,
        seq: u32,
        fixed: &[u8],
        body: impl FnOnce(&mut Self),
    ) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | flags::REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(fixed);
        self.pad();
        body(self);
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        start..self.bytes.len()
    }

    /// Adds flags to a message that is written already and starts at `start`.
    pub fn add_flags(&mut self, start: usize, more: u16) {
        let at = start + 6..start + 8;
        let old = u16::from_ne_bytes([self.bytes[at.start], self.bytes[at.start + 1]]);
        self.bytes[at].copy_from_slice(&(old | more).to_ne_bytes());
    }

    pub fn attr(&mut self, kind: u16, payload: &[u8]) {
        let Ok(len) = u16::try_from(payload.len() + 4) else {
            self.too_long = true;
            return;
        };
        let mut header = [0; 4];
        header[..2].copy_from_slice(&len.to_ne_bytes());
        header[2..].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(payload);
        self.pad();
    }

    /// A string, with the zero byte at its end.
    pub fn string(&mut self, kind: u16, text: &str) {
        let Ok(len) = u16::try_from(text.len() + 5) else {
            self.too_long = true;
            return;
        };
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    pub fn be32(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_be_bytes());
    }

    pub fn be64(&mut self, kind: u16, number: u64) {
        self.attr(kind, &number.to_be_bytes());
    }

    pub fn be16(&mut self, kind: u16, number: u16) {
        self.attr(kind, &number.to_be_bytes());
    }

    pub fn ne32(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_ne_bytes());
    }

    pub fn u8(&mut self, kind: u16, number: u8) {
        self.attr(kind, &[number]);
    }

    /// An attribute that holds what `body` writes.
    pub fn nested(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        match u16::try_from(self.bytes.len() - start) {
            Ok(len) => self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes()),
            Err(_) => self.too_long = true,
        }
    }

    fn pad(&mut self) {
        let padding = self.bytes.len().next_multiple_of(4) - self.bytes.len();
        self.bytes.extend_from_slice(&[0; 3][..padding]);
    }
}

/// One message as received.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed part of this many bytes.
    pub fn attrs(&self, fixed: usize) -> Attrs<'a> {
        Attrs(self.payload.get(fixed.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Reads the messages of one datagram; ends early at one that is cut off.
#[derive(Debug, Clone)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.get(..HEADER_LEN)?;
        let len = ne32(header)? as usize;
        let payload = self.0.get(HEADER_LEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: ne32(&header[8..])?,
            payload,
        })
    }
}

/// One attribute as received. The readers give `None` when the length is not that of the type asked for.
#[derive(Debug, Clone, Copy)]
pub struct Attr<'a> {
    pub kind: u16,
    pub payload: &'a [u8],
}

impl<'a> Attr<'a> {
    pub fn be16(&self) -> Option<u16> {
        self.payload.try_into().ok().map(u16::from_be_bytes)
    }

    pub fn be32(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn be64(&self) -> Option<u64> {
        self.payload.try_into().ok().map(u64::from_be_bytes)
    }

    pub fn ne32(&self) -> Option<u32> {
        self.payload.try_into().ok().map(u32::from_ne_bytes)
    }

    pub fn u8(&self) -> Option<u8> {
        match self.payload {
            [byte] => Some(*byte),
            _ => None,
        }
    }

    /// Text up to the zero byte, if there is one.
    pub fn text(&self) -> Option<&'a str> {
        let end = self.payload.iter().position(|byte| *byte == 0).unwrap_or(self.payload.len());
        std::str::from_utf8(&self.payload[..end]).ok()
    }

    pub fn nested(&self) -> Attrs<'a> {
        Attrs(self.payload)
    }
}

/// Reads a list of attributes; ends early at one that is cut off.
#[derive(Debug, Clone)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    /// The first attribute of this type.
    pub fn get(&self, kind: u16) -> Option<Attr<'a>> {
        self.clone().find(|attr| attr.kind == kind)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let &[len0, len1, kind0, kind1, ..] = self.0 else { return None };
        let len = usize::from(u16::from_ne_bytes([len0, len1]));
        let payload = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attr { kind: u16::from_ne_bytes([kind0, kind1]) & TYPE_MASK, payload })
    }
}

fn ne32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(7, flags::ACK, 42, &[1, 0, 0, 0], |w| {
            w.string(1, "abc");
            w.nested(2, |w| w.be32(3, 0x0102_0304));
            w.u8(4, 9);
        });
        let bytes = writer.finish().unwrap();
        let message = Messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.flags, message.seq), (7, flags::ACK | flags::REQUEST, 42));
        let attrs = message.attrs(4);
        assert_eq!(attrs.get(1).unwrap().text(), Some("abc"));
        assert_eq!(attrs.get(2).unwrap().nested().get(3).unwrap().be32(), Some(0x0102_0304));
        assert_eq!(attrs.get(4).unwrap().u8(), Some(9));
        assert!(attrs.get(5).is_none());
    }

    #[test]
    fn an_attribute_beyond_64_kib_is_an_error_and_never_cut() {
        let mut writer = Writer::default();
        writer.nested(1, |w| (0..40).for_each(|_| w.attr(2, &[0; 2000])));
        assert_eq!(writer.finish(), Err(TooLong));
    }

    #[test]
    fn cut_off_input_ends_the_iteration() {
        let mut writer = Writer::default();
        writer.message(1, 0, 1, &[], |w| w.be32(1, 1));
        let bytes = writer.finish().unwrap();
        for len in 0..bytes.len() {
            assert_eq!(Messages(&bytes[..len]).count(), 0);
        }
        assert_eq!(Attrs(&[3, 0, 1, 0]).count(), 0, "a length shorter than its own header");
    }
}
