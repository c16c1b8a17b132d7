//! Events of watches, encoded once: every watch that wants the same line of the same event shares its bytes.
//!
//! Watches read the store's events on their own, so the sharing is a small memory of recent lines, not a fan-out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use portolan_store::Revision;

use crate::limits::{LINES_BYTES_MAX, LINES_MAX};
use crate::object::{self, Unreadable};

/// What happened to an object, as a watch tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventType {
    /// It came into being, or into the selection.
    Added,
    /// It changed.
    Modified,
    /// It went, or left the selection.
    Deleted,
}

impl EventType {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

type Id = (Revision, EventType, Arc<str>);

#[derive(Default)]
struct Recent {
    lines: HashMap<Id, Bytes>,
    order: VecDeque<Id>,
    bytes: usize,
}

/// Recent lines.
#[derive(Default)]
pub(crate) struct Lines {
    recent: Mutex<Recent>,
}

impl Lines {
    /// The line for the object `json` at `key`, which is at `revision`.
    pub(crate) fn get(
        &self,
        kind: EventType,
        key: &Arc<str>,
        json: &[u8],
        revision: Revision,
    ) -> Result<Bytes, Unreadable> {
        let id = (revision, kind, key.clone());
        if let Some(line) = self.lock().lines.get(&id) {
            return Ok(line.clone());
        }
        let line = line(kind, key, json, revision)?;
        let mut recent = self.lock();
        recent.bytes += line.len();
        if let Some(twin) = recent.lines.insert(id.clone(), line.clone()) {
            recent.bytes -= twin.len();
        } else {
            recent.order.push_back(id);
        }
        while recent.order.len() > LINES_MAX || recent.bytes > LINES_BYTES_MAX {
            let Some(oldest) = recent.order.pop_front() else { break };
            if let Some(gone) = recent.lines.remove(&oldest) {
                recent.bytes -= gone.len();
            }
        }
        Ok(line)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recent> {
        // A panic while it was held can only have lost lines.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `{"type":"ADDED","object":{...}}` and a newline.
pub(crate) fn line(kind: EventType, key: &str, json: &[u8], revision: Revision) -> Result<Bytes, Unreadable> {
    let mut out = Vec::with_capacity(json.len() + 80);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.name().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object::splice(&mut out, key, json, revision)?;
    out.extend_from_slice(b"}\n");
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_made_once_and_forgotten_in_time() {
        let lines = Lines::default();
        let key: Arc<str> = "/registry/pods/a/b".into();
        let json = br#"{"metadata":{"name":"b"}}"#;
        let one = lines.get(EventType::Added, &key, json, 5).unwrap();
        assert_eq!(
            &one[..],
            b"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"5\",\"name\":\"b\"}}}\n"
        );
        let two = lines.get(EventType::Added, &key, b"never looked at", 5).unwrap();
        assert_eq!(one.as_ptr(), two.as_ptr());
        for revision in 6..=(LINES_MAX as u64 + 6) {
            lines.get(EventType::Modified, &key, json, revision).unwrap();
        }
        assert_eq!(lines.lock().lines.len(), LINES_MAX);
        assert!(lines.get(EventType::Added, &key, b"never looked at", 5).is_err());
    }
}
