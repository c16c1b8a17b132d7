//! Protocol Buffers' wire format, as much of it as etcd's messages need: varints and length-delimited fields.
//!
//! Decoding never copies: text and values are slices of the message they came in.

use bytes::Bytes;

/// Why a message could not be read. It comes from the network, so this is an error, never a panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed message from etcd: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Writes fields. As in proto3, zero and empty are left out, except where [`Writer::always`] is asked for.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn into_bytes(self) -> Bytes {
        self.out.into()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// A number that must be there even when it is zero: a choice in a `oneof`.
    pub(super) fn always(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.always(field, value);
        }
    }

    pub(super) fn flag(&mut self, field: u32, value: bool) {
        self.number(field, value.into());
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.delimited(field, value);
        }
    }

    /// A nested message, written even when it is empty.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Writer)) {
        let mut inner = Writer::default();
        write(&mut inner);
        self.delimited(field, &inner.out);
    }

    fn delimited(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.out.extend_from_slice(value);
    }
}

/// One field's content. Fixed-width fields are skipped: none of etcd's are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Field {
    Number(u64),
    Bytes(Bytes),
}

impl Field {
    pub(super) fn number(self) -> Result<u64, Malformed> {
        if let Field::Number(number) = self { Ok(number) } else { Err(Malformed("bytes for a number")) }
    }

    pub(super) fn bytes(self) -> Result<Bytes, Malformed> {
        if let Field::Bytes(bytes) = self { Ok(bytes) } else { Err(Malformed("a number for bytes")) }
    }

    pub(super) fn flag(self) -> Result<bool, Malformed> {
        self.number().map(|number| number != 0)
    }
}

/// Reads fields in the order in which they come.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(message: Bytes) -> Reader {
        Reader { rest: message }
    }

    /// The next field's number and content; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field)>, Malformed> {
        while !self.rest.is_empty() {
            let tag = self.varint()?;
            let number = u32::try_from(tag >> 3).map_err(|_| Malformed("field number out of range"))?;
            match tag & 7 {
                0 => return Ok(Some((number, Field::Number(self.varint()?)))),
                1 => drop(self.take(8)?),
                2 => {
                    let length =
                        usize::try_from(self.varint()?).map_err(|_| Malformed("length out of range"))?;
                    return Ok(Some((number, Field::Bytes(self.take(length)?))));
                }
                5 => drop(self.take(4)?),
                _ => return Err(Malformed("unknown wire type")),
            }
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.rest.len() {
            return Err(Malformed("cut short"));
        }
        Ok(self.rest.split_to(length))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = self.rest.slice(index + 1..);
                return Ok(value);
            }
        }
        Err(Malformed("a varint without end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_read_back_as_written_and_empty_ones_are_left_out() {
        let mut writer = Writer::default();
        writer.number(1, 300);
        writer.number(2, 0);
        writer.always(3, 0);
        writer.bytes(4, b"");
        writer.bytes(5, b"xy");
        writer.message(16, |inner| inner.number(1, u64::MAX));
        let bytes = writer.into_bytes();
        assert_eq!(&bytes[..3], [0x08, 0xac, 0x02], "the encoding of 300 in the specification's own example");
        let mut reader = Reader::new(bytes);
        let mut fields = Vec::new();
        while let Some(field) = reader.next().unwrap() {
            fields.push(field);
        }
        let inner = Bytes::from_static(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(
            fields,
            [
                (1, Field::Number(300)),
                (3, Field::Number(0)),
                (5, Field::Bytes(Bytes::from_static(b"xy"))),
                (16, Field::Bytes(inner)),
            ]
        );
    }

    #[test]
    fn fixed_width_fields_are_skipped_and_broken_ones_named() {
        let read = |bytes: &'static [u8]| Reader::new(Bytes::from_static(bytes)).next();
        assert_eq!(
            read(&[0x09, 1, 2, 3, 4, 5, 6, 7, 8, 0x0d, 1, 2, 3, 4, 0x08, 7]),
            Ok(Some((1, Field::Number(7))))
        );
        assert_eq!(read(&[0x0a, 5, 1]), Err(Malformed("cut short")));
        assert_eq!(read(&[0x0b]), Err(Malformed("unknown wire type")));
        assert_eq!(read(&[0xff; 11]), Err(Malformed("a varint without end")));
        assert_eq!(read(&[0x80]), Err(Malformed("a varint without end")));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(bytes.into());
            while let Ok(Some(_)) = reader.next() {}
        }
    }
}
