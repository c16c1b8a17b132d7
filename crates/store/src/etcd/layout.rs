//! Where our keys are in etcd: under another prefix than `/registry`, if the administrator wants that.

use std::sync::Arc;

use bytes::Bytes;

use super::messages;
use crate::{Error, Event, KeyValue};

/// Both prefixes, without the slash at their end.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    ours: String,
    theirs: String,
}

impl Layout {
    pub(super) fn new(ours: &str, theirs: &str) -> Layout {
        let theirs = theirs.trim_matches('/');
        Layout { ours: ours.trim_end_matches('/').to_owned(), theirs: format!("/{theirs}") }
    }

    /// A key as etcd has it.
    pub(super) fn key(&self, key: &str) -> Result<Vec<u8>, Error> {
        let rest = key.strip_prefix(&*self.ours).filter(|rest| rest.starts_with('/'));
        let rest = rest.ok_or_else(|| Error::Invalid(format!("key {key:?} is not under {}/", self.ours)))?;
        Ok([self.theirs.as_bytes(), rest.as_bytes()].concat())
    }

    /// All keys under a prefix: first and end.
    pub(super) fn prefix(&self, prefix: &str) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let start = if self.ours.starts_with(prefix) || prefix.is_empty() {
            format!("{}/", self.theirs).into_bytes()
        } else {
            self.key(prefix)?
        };
        let end = prefix_end(&start);
        Ok((start, end))
    }

    /// A key of etcd's as we know it; `None` for one that is not ours.
    pub(super) fn ours(&self, key: &[u8]) -> Option<Arc<str>> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&*self.theirs)?;
        if self.ours == self.theirs {
            return std::str::from_utf8(key).ok().map(Arc::from);
        }
        Some(format!("{}{rest}", self.ours).into())
    }

    pub(super) fn key_value(&self, kv: messages::KeyValue) -> Option<KeyValue> {
        Some(KeyValue {
            key: self.ours(&kv.key)?,
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
        })
    }

    /// An event of etcd's. `Err`: what the key held before is compacted, so the event cannot be told.
    pub(super) fn event(&self, event: messages::Event) -> Option<Result<Event, Untold>> {
        let key = self.ours(&event.kv.key)?;
        let created = !event.deleted && event.kv.create_revision == event.kv.mod_revision;
        let previous = event.previous.and_then(|kv| self.key_value(kv));
        if previous.is_none() && !created {
            return Some(Err(Untold));
        }
        // Values are slices of the message they came in. The ring keeps them for long: it gets copies of its own.
        let value = (!event.deleted).then(|| Bytes::copy_from_slice(&event.kv.value));
        let previous =
            previous.map(|kv| KeyValue { key: key.clone(), value: Bytes::copy_from_slice(&kv.value), ..kv });
        Some(Ok(Event { revision: event.kv.mod_revision, key, value, previous }))
    }

    /// Where keys live that are not objects: beside `theirs`, so that no API server reads them.
    pub(super) fn private(&self, rest: &str) -> Vec<u8> {
        format!("/portolan{}/{rest}", self.theirs).into_bytes()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Untold;

/// The first key that is behind all keys with this prefix; `\0` stands for the end of all keys.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_to_the_administrators_prefix_and_back() {
        let same = Layout::new("/registry", "/registry");
        assert_eq!(same.key("/registry/pods/a/b").unwrap(), b"/registry/pods/a/b");
        let other = Layout::new("/registry", "clusters/one/");
        assert_eq!(other.key("/registry/pods/a/b").unwrap(), b"/clusters/one/pods/a/b");
        assert_eq!(other.ours(b"/clusters/one/pods/a/b").as_deref(), Some("/registry/pods/a/b"));
        assert_eq!(other.ours(b"/registry/pods/a/b"), None);
        assert!(other.key("/elsewhere/x").is_err());
        assert!(other.key("/registryx/x").is_err());
        let all = (b"/clusters/one/".to_vec(), b"/clusters/one0".to_vec());
        assert_eq!(other.prefix("").unwrap(), all);
        assert_eq!(other.prefix("/").unwrap(), all);
        assert_eq!(other.prefix("/registry/pods/").unwrap().1, b"/clusters/one/pods0");
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_all_its_keys() {
        assert_eq!(prefix_end(b"ab"), b"ac");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), b"\0");
        assert_eq!(prefix_end(b""), b"\0");
    }

    #[test]
    fn an_event_without_its_past_is_not_told() {
        let layout = Layout::new("", "/t");
        let kv = |create, modified| messages::KeyValue {
            key: Bytes::from_static(b"/t/a"),
            create_revision: create,
            mod_revision: modified,
            ..messages::KeyValue::default()
        };
        let event = |deleted, kv, previous| layout.event(messages::Event { deleted, kv, previous }).unwrap();
        assert_eq!(event(false, kv(5, 5), None).unwrap().previous, None);
        assert_eq!(event(false, kv(5, 6), None), Err(Untold));
        assert_eq!(event(true, kv(0, 6), None), Err(Untold));
        let deleted = event(true, kv(0, 6), Some(kv(5, 5))).unwrap();
        assert_eq!((deleted.revision, deleted.value), (6, None));
    }
}
