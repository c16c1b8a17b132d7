//! Percent-encoding, as paths and queries of requests have it (RFC 3986 section 2.1).

/// What a segment of a path or, with its pluses replaced, a part of a query says. `None`: it has a broken escape, or is
/// no text.
pub fn decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
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
    String::from_utf8(out).ok()
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
    }
}
