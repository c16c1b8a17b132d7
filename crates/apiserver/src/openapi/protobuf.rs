//! A writer of protobuf messages: the three wire types that OpenAPI documents need. Fields with the default value are
//! left out, as proto3 does.

/// One message under construction.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A string field; an empty string is the default.
    pub(super) fn text(&mut self, field: u32, text: &str) -> &mut Message {
        if !text.is_empty() {
            self.delimited(field, text.as_bytes());
        }
        self
    }

    /// A bool field; false is the default.
    pub(super) fn flag(&mut self, field: u32, flag: bool) -> &mut Message {
        if flag {
            self.varint(u64::from(field) << 3);
            self.varint(1);
        }
        self
    }

    /// A field that is a message itself; an empty one is written too, since it says that the field is there.
    #[expect(clippy::needless_pass_by_value, reason = "a part is finished once it is in its whole")]
    pub(super) fn message(&mut self, field: u32, message: Message) -> &mut Message {
        self.delimited(field, &message.bytes);
        self
    }

    fn delimited(&mut self, field: u32, content: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(content.len() as u64);
        self.bytes.extend_from_slice(content);
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        // The examples of the protobuf encoding guide: a string in field 2, a message in field 3.
        let mut inner = Message::default();
        inner.text(2, "testing");
        assert_eq!(inner.bytes, b"\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, inner).flag(1, true).flag(4, false).text(5, "");
        assert_eq!(outer.bytes, b"\x1a\x09\x12\x07testing\x08\x01");
        let mut long = Message::default();
        long.text(31, &"x".repeat(300));
        assert_eq!(long.bytes[..4], [0xfa, 0x01, 0xac, 0x02]);
    }
}
