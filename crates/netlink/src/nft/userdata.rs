//! Notes that user space leaves with kernel objects, in the format of the `nft` tool, so that it shows our comments.
//!
//! A note is a byte for its type, a byte for its length, and its bytes; a comment ends with a zero byte.

use super::object::{Set, SetData};

/// The comment's number for tables, chains, rules and elements.
const COMMENT: u8 = 0;
const SET_KEY_BYTE_ORDER: u8 = 0;
const SET_DATA_BYTE_ORDER: u8 = 1;
const SET_COMMENT: u8 = 7;

/// One length byte, one of them for the zero at the end.
pub(super) const COMMENT_LEN_MAX: usize = 253;

/// Appends the comment of a table, chain, rule or element.
pub(super) fn put_comment(out: &mut Vec<u8>, comment: &str) {
    put_text(out, COMMENT, comment);
}

/// The notes of a set: how to print its elements, and its comment.
pub(super) fn of_set(set: &Set) -> Vec<u8> {
    let mut out = Vec::new();
    put_number(&mut out, SET_KEY_BYTE_ORDER, set.key.byte_order() as u32);
    if let SetData::Value(data) = &set.data {
        put_number(&mut out, SET_DATA_BYTE_ORDER, data.byte_order() as u32);
    }
    if let Some(comment) = &set.comment {
        put_text(&mut out, SET_COMMENT, comment);
    }
    out
}

pub(super) fn comment(notes: &[u8]) -> Option<&str> {
    find_text(notes, COMMENT)
}

pub(super) fn set_comment(notes: &[u8]) -> Option<&str> {
    find_text(notes, SET_COMMENT)
}

fn put_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    let mut end = text.len().min(COMMENT_LEN_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&[kind, end as u8 + 1]);
    out.extend_from_slice(&text.as_bytes()[..end]);
    out.push(0);
}

fn put_number(out: &mut Vec<u8>, kind: u8, number: u32) {
    out.extend_from_slice(&[kind, 4]);
    out.extend_from_slice(&number.to_ne_bytes());
}

fn find_text(mut notes: &[u8], wanted: u8) -> Option<&str> {
    while let [kind, len, rest @ ..] = notes {
        let payload = rest.get(..usize::from(*len))?;
        if *kind == wanted {
            return std::str::from_utf8(payload.strip_suffix(&[0])?).ok();
        }
        notes = &rest[payload.len()..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        put_number(&mut notes, SET_KEY_BYTE_ORDER, 1);
        put_text(&mut notes, SET_COMMENT, "frontends");
        assert_eq!(set_comment(&notes), Some("frontends"));
        assert_eq!(comment(&notes[..4]), None, "cut off");
    }

    #[test]
    fn a_long_comment_is_cut_at_a_character() {
        let mut notes = Vec::new();
        put_comment(&mut notes, &"ä".repeat(200));
        assert_eq!(comment(&notes).unwrap().len(), 252);
    }
}
