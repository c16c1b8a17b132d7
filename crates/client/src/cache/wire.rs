//! Lists and watch events as they come: objects stay the text they are until somebody wants their fields.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits::WATCH_LINE_BYTES_MAX;
use crate::{Error, ListMeta, Status};

/// One page of a list.
#[derive(Debug, Deserialize)]
pub(super) struct RawList<'a> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    #[serde(borrow, default)]
    pub(super) items: Option<Vec<&'a RawValue>>,
}

/// What every object has, and all that the cache itself wants to know.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) metadata: HeadMeta<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HeadMeta<'a> {
    #[serde(borrow, default)]
    pub(super) namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) resource_version: Cow<'a, str>,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) enum Event<'a> {
    /// ADDED and MODIFIED: the cache knows itself which it is.
    Applied(&'a RawValue),
    Deleted(&'a RawValue),
    /// Nothing happened up to this resource version.
    Bookmark(String),
    Failed(Status),
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

pub(super) fn parse_list(body: &[u8]) -> Result<RawList<'_>, Error> {
    serde_json::from_slice(body).map_err(|e| Error::Decode(format!("list: {e}")))
}

pub(super) fn parse_head(object: &RawValue) -> Result<HeadMeta<'_>, serde_json::Error> {
    serde_json::from_str::<Head<'_>>(object.get()).map(|head| head.metadata)
}

pub(super) fn parse_event(line: &[u8]) -> Result<Event<'_>, Error> {
    let bad = |e: serde_json::Error| Error::Decode(format!("watch event: {e}"));
    let line: Line<'_> = serde_json::from_slice(line).map_err(bad)?;
    Ok(match line.kind {
        "ADDED" | "MODIFIED" => Event::Applied(line.object),
        "DELETED" => Event::Deleted(line.object),
        "BOOKMARK" => Event::Bookmark(parse_head(line.object).map_err(bad)?.resource_version.into_owned()),
        "ERROR" => Event::Failed(serde_json::from_str(line.object.get()).map_err(bad)?),
        other => return Err(Error::Decode(format!("watch event of unknown type {other:?}"))),
    })
}

/// A resource version as a number for comparing equal, which is all it is good for. Real ones are decimal
/// numbers; others are hashed.
pub(super) fn version(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        hasher.finish()
    })
}

/// Collects the chunks of a watch into lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Up to here there is no newline.
    searched: usize,
}

impl Lines {
    /// Add a chunk and hand every line that is complete now to `each`.
    pub(super) fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.buffer.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
            let end = self.searched + at;
            let line = self.buffer[start..end].trim_ascii();
            if !line.is_empty() {
                each(line)?;
            }
            start = end + 1;
            self.searched = start;
        }
        self.buffer.drain(..start);
        self.searched = self.buffer.len();
        if self.buffer.len() > WATCH_LINE_BYTES_MAX {
            return Err(Error::Decode(format!("a watch event is larger than {WATCH_LINE_BYTES_MAX} bytes")));
        }
        // One large object must not keep its memory for the life of the watch.
        if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
            self.buffer = Vec::new();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&str]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            let each = |line: &[u8]| {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            };
            lines.feed(chunk.as_bytes(), each).unwrap();
        }
        seen
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let text = "{\"a\":1}\n\n{\"b\":2}\r\n{\"c\":3}\nrest";
        for cut in 0..text.len() {
            let (left, right) = text.split_at(cut);
            assert_eq!(lines(&[left, right]), ["{\"a\":1}", "{\"b\":2}", "{\"c\":3}"], "cut at {cut}");
        }
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(lines(&single).len(), 3);
    }

    #[test]
    fn events_are_told_apart() {
        let object = r#"{"metadata":{"name":"a\u0062","namespace":"n","resourceVersion":"7"}}"#;
        let line = |kind: &str| format!(r#"{{"type":"{kind}","object":{object}}}"#);
        let added = line("ADDED");
        let Ok(Event::Applied(raw)) = parse_event(added.as_bytes()) else { panic!("must apply") };
        let head = parse_head(raw).unwrap();
        assert_eq!((&*head.namespace, &*head.name, &*head.resource_version), ("n", "ab", "7"));
        assert!(matches!(parse_event(line("DELETED").as_bytes()), Ok(Event::Deleted(_))));
        assert!(matches!(parse_event(line("BOOKMARK").as_bytes()), Ok(Event::Bookmark(v)) if v == "7"));
        assert!(parse_event(line("SURPRISE").as_bytes()).is_err());
        let error = br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert!(matches!(parse_event(error), Ok(Event::Failed(s)) if s.code == 410));
    }

    #[test]
    fn an_empty_list_may_be_null() {
        assert!(parse_list(br#"{"items":null,"metadata":{"resourceVersion":"5"}}"#).unwrap().items.is_none());
    }
}
