//! Percent-encoding, as paths and queries of requests have it (RFC 3986 section 2.1).

use std::fmt::Write as _;

/// What a segment of a path or, with its pluses replaced, a part of a query says. `None`: it has a broken escape, or is
/// no text.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    String::from_utf8(decode_bytes(text)?).ok()
}

/// The same of what need not be text. `None`: it has a broken escape.
pub fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        if *byte == b'%' {
            out.push((digit(bytes.get(at + 1))? << 4 | digit(bytes.get(at + 2))?) as u8);
            at += 3;
        } else {
            out.push(*byte);
            at += 1;
        }
    }
    Some(out)
}

/// The other way: all but unreserved characters, and those in `kept`, become escapes.
pub fn encode(bytes: &[u8], kept: &str) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        let unreserved = byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
        if unreserved || byte.is_ascii() && kept.contains(char::from(*byte)) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_two_digits_and_make_text() {
        for (text, want) in [
            ("plain", Some("plain")),
            ("a%2Fb%2f", Some("a/b/")),
            ("%C3%A4", Some("\u{e4}")),
            ("a+b", Some("a+b")),
            ("", Some("")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+f", None),
            ("%ff", None),
            ("\u{e4}%2\u{e4}", None),
        ] {
            assert_eq!(decode(text).as_deref(), want, "{text}");
        }
        assert_eq!(decode_bytes("%ff%41").unwrap(), b"\xffA");
    }

    #[test]
    fn what_could_mean_something_is_escaped() {
        assert_eq!(encode(b"a-_.~/b c%\xff", ""), "a-_.~%2Fb%20c%25%FF");
        assert_eq!(encode(b"/a:b?", "/:"), "/a:b%3F");
    }
}
