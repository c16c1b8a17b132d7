//! The objects, their history since the last [`Objects::expire`], and the watches on them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::select::Selector;

/// Names one object. The collection is its path over all namespaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) collection: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What a watch or list is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    pub(super) collection: String,
    pub(super) namespace: Option<String>,
    pub(super) selector: Selector,
}

impl Scope {
    pub(super) fn covers(&self, id: &Id) -> bool {
        self.collection == id.collection && self.namespace.as_ref().is_none_or(|n| *n == id.namespace)
    }
}

#[derive(Debug, Clone)]
struct Change {
    version: u64,
    id: Id,
    before: Option<Value>,
    /// `None`: deleted.
    after: Option<Value>,
}

#[derive(Debug)]
struct Watcher {
    scope: Scope,
    lines: mpsc::UnboundedSender<String>,
}

#[derive(Debug)]
pub(super) struct Objects {
    version: u64,
    oldest: u64,
    current: BTreeMap<Id, Value>,
    history: Vec<Change>,
    watchers: Vec<Watcher>,
}

impl Default for Objects {
    fn default() -> Objects {
        Objects { version: 1, oldest: 1, current: BTreeMap::new(), history: Vec::new(), watchers: Vec::new() }
    }
}

impl Objects {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn oldest(&self) -> u64 {
        self.oldest
    }

    pub(super) fn get(&self, id: &Id) -> Option<&Value> {
        self.current.get(id)
    }

    pub(super) fn collection(&self, collection: &str) -> impl Iterator<Item = (&Id, &Value)> {
        self.current.iter().filter(move |(id, _)| id.collection == collection)
    }

    /// Store an object under a new resource version, unless nothing changes.
    pub(super) fn put(&mut self, id: Id, mut object: Value) -> Value {
        let before = self.current.get(&id).cloned();
        let version = self.version + 1;
        object["metadata"]["name"] = id.name.as_str().into();
        let meta = |before: &Value, field: &str| before["metadata"][field].clone();
        if let Some(before) = &before {
            for field in ["uid", "creationTimestamp", "resourceVersion"] {
                object["metadata"][field] = meta(before, field);
            }
            if object == *before {
                return object;
            }
        } else {
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = format!("00000000-0000-0000-0000-{version:012}").into();
            }
            if object["metadata"]["creationTimestamp"].is_null() {
                object["metadata"]["creationTimestamp"] = now(0).into();
            }
        }
        object["metadata"]["resourceVersion"] = version.to_string().into();
        self.current.insert(id.clone(), object.clone());
        self.record(Change { version, id, before, after: Some(object.clone()) });
        object
    }

    pub(super) fn remove(&mut self, id: &Id) -> Option<Value> {
        let mut last = self.current.remove(id)?;
        last["metadata"]["resourceVersion"] = (self.version + 1).to_string().into();
        let before = Some(last.clone());
        self.record(Change { version: self.version + 1, id: id.clone(), before, after: None });
        Some(last)
    }

    fn record(&mut self, change: Change) {
        self.version = change.version;
        self.watchers.retain(|watcher| match line(&watcher.scope, &change) {
            Some(line) => watcher.lines.send(line).is_ok(),
            None => !watcher.lines.is_closed(),
        });
        self.history.push(change);
    }

    /// Lines from `after` on, or from the current content if there is no such version. `None`: too old.
    pub(super) fn watch(
        &mut self,
        scope: Scope,
        after: Option<u64>,
    ) -> Option<mpsc::UnboundedReceiver<String>> {
        let (lines, receiver) = mpsc::unbounded_channel();
        // The receiver is right here, so sending cannot fail.
        let send = |line| _ = lines.send(line);
        match after {
            Some(after) if after < self.oldest => return None,
            Some(after) => self
                .history
                .iter()
                .filter(|c| c.version > after)
                .filter_map(|c| line(&scope, c))
                .for_each(send),
            None => self
                .current
                .iter()
                .filter(|(id, object)| scope.covers(id) && scope.selector.matches(object))
                .map(|(_, object)| format(&json!({ "type": "ADDED", "object": object })))
                .for_each(send),
        }
        self.watchers.push(Watcher { scope, lines });
        Some(receiver)
    }

    pub(super) fn watch_count(&self) -> usize {
        self.watchers.iter().filter(|w| !w.lines.is_closed()).count()
    }

    pub(super) fn drop_watches(&mut self) {
        self.watchers.clear();
    }

    pub(super) fn bookmark(&mut self) {
        let metadata = json!({ "resourceVersion": self.version.to_string(), "creationTimestamp": null });
        let line = format(&json!({ "type": "BOOKMARK", "object": { "metadata": metadata } }));
        self.watchers.retain(|watcher| watcher.lines.send(line.clone()).is_ok());
    }

    pub(super) fn expire(&mut self) {
        self.history.clear();
        // One revision more, so that whatever anybody holds is too old.
        self.version += 1;
        self.oldest = self.version;
        let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
            "reason": "Expired", "message": "too old resource version" });
        let line = format(&json!({ "type": "ERROR", "object": status }));
        for watcher in self.watchers.drain(..) {
            let _ = watcher.lines.send(line.clone());
        }
    }
}

/// What a watcher hears of a change: objects may enter or leave its selection.
fn line(scope: &Scope, change: &Change) -> Option<String> {
    if !scope.covers(&change.id) {
        return None;
    }
    let matches = |object: &&Value| scope.selector.matches(object);
    let before = change.before.as_ref().filter(matches);
    let after = change.after.as_ref().filter(matches);
    let (kind, object) = match (before, after) {
        (None, Some(object)) => ("ADDED", object.clone()),
        (Some(_), Some(object)) => ("MODIFIED", object.clone()),
        (Some(before), None) => {
            let mut last = before.clone();
            last["metadata"]["resourceVersion"] = change.version.to_string().into();
            ("DELETED", last)
        }
        (None, None) => return None,
    };
    Some(format(&json!({ "type": kind, "object": object })))
}

fn format(event: &Value) -> String {
    format!("{event}\n")
}

pub(super) fn now(plus_seconds: i64) -> String {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(plus_seconds);
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
