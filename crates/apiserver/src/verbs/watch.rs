//! GET with `watch`: what happens to objects, one JSON line per event, for as long as the client listens.
//!
//! A watch from a resource version gets every event after it. A watch without one gets the present objects as ADDED
//! first. Trouble is told in a last line of type ERROR, since the answer has begun with 200 already.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use portolan_api::field::FieldError;
use portolan_api::resource::Resource;
use portolan_api::status;
use portolan_store::{Error as StoreError, Event, KeyValue, Revision, Watch};
use rand::Rng as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::call::Call;
use crate::errors::{ApiError, Result, invalid_options, status_json};
use crate::limits::{
    BOOKMARK_BEFORE_END, BOOKMARK_INTERVAL, WATCH_CHUNK_BYTES, WATCH_TIMEOUT_MAX, WATCH_TIMEOUT_MIN,
};
use crate::lines::{EventType, line};
use crate::metrics::WatchGuard;
use crate::negotiate::{Shape, Syntax};
use crate::query::Query;
use crate::respond;
use crate::select::Selection;
use crate::verbs::list::{Version, wait_for};
use crate::{object, view};

/// How to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The present objects, then what happens; `marked` tells with a bookmark where the first part ends.
    Present { marked: bool, at_least: Option<Revision> },
    /// What happens from now on.
    Now,
    /// What happened since.
    After(Revision),
}

impl Start {
    fn read(query: &Query) -> Result<Self> {
        let forbidden =
            |path: &str, why: &str| Err(invalid_options("ListOptions", FieldError::forbidden(path, why)));
        let word = query.get("resourceVersionMatch");
        let version = Version::parse(query.get("resourceVersion"))?;
        match query.flag("sendInitialEvents") {
            None if word.is_some() => forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ),
            Some(_) if word.is_none() => forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            Some(_) if word != Some("NotOlderThan") => Err(invalid_options(
                "ListOptions",
                FieldError::not_supported(
                    "resourceVersionMatch",
                    word.unwrap_or_default(),
                    &["NotOlderThan"],
                ),
            )),
            Some(true) => {
                let at_least = if let Version::At(revision) = version { Some(revision) } else { None };
                Ok(Self::Present { marked: true, at_least })
            }
            sent => match version {
                Version::At(revision) => Ok(Self::After(revision)),
                Version::Unset | Version::Any if sent == Some(false) => Ok(Self::Now),
                Version::Unset | Version::Any => Ok(Self::Present { marked: false, at_least: None }),
            },
        }
    }
}

/// Opens the watch.
pub(crate) async fn run(call: Call) -> Result<Response<Body>> {
    let start = Start::read(&call.query)?;
    let mut selection = Selection::read(call.resource, &call.query)?;
    if let Some(name) = &call.name {
        selection = selection.with_name(name);
    }
    let mut format = call.format;
    // Streams are JSON lines; YAML documents cannot be told apart on the way.
    format.syntax = Syntax::Json;
    let stream = Stream::open(Call { format, ..call }, selection, start).await;
    let chunks = futures_util::stream::unfold(stream, |mut stream| async move {
        let chunk = stream.next().await?;
        Some((chunk, stream))
    });
    let mut response = Response::new(body::stream(chunks));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// An open watch.
struct Stream {
    call: Call,
    selection: Selection,
    /// Present objects still to be sent.
    present: VecDeque<KeyValue>,
    present_revision: Revision,
    mark_present: bool,
    /// Live events; `None` once the watch has ended.
    live: Option<Watch>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// A Table has been sent, so the next needs no columns.
    headed: bool,
    /// Said before the end.
    last_words: Option<ApiError>,
    stop: tokio::sync::watch::Receiver<bool>,
    guard: WatchGuard,
}

impl Stream {
    /// Never fails: what goes wrong becomes the only line.
    async fn open(call: Call, selection: Selection, start: Start) -> Self {
        let now = Instant::now();
        let timeout = timeout(&call.query);
        let bookmarks = call.query.flag("allowWatchBookmarks") == Some(true);
        let mut stream = Self {
            guard: call.server.metrics().watch(call.resource.plural),
            stop: call.server.stopped(),
            deadline: now + timeout,
            next_bookmark: bookmark_after(now, now + timeout),
            call,
            selection,
            present: VecDeque::new(),
            present_revision: 0,
            mark_present: false,
            live: None,
            bookmarks,
            headed: false,
            last_words: None,
        };
        if let Err(error) = stream.begin(start).await {
            stream.last_words = Some(error);
        }
        stream
    }

    async fn begin(&mut self, start: Start) -> Result<()> {
        let server = self.call.server.clone();
        let namespace = self.call.namespace.as_deref();
        let base = self.call.resource.key_prefix(namespace);
        let prefix = self.selection.narrow(self.call.resource, namespace, &base);
        let after = match start {
            Start::After(revision) => {
                wait_for(&server, revision).await?;
                revision
            }
            Start::Now => server.store().revision().await?,
            Start::Present { marked, at_least } => {
                if let Some(revision) = at_least {
                    wait_for(&server, revision).await?;
                }
                let page = server.store().list(&prefix, None, 0, None).await?;
                let resource = self.call.resource;
                self.present = page.items.into_iter().map(|kv| view::shown(resource, kv)).collect();
                self.present_revision = page.revision;
                self.mark_present = marked && self.bookmarks;
                page.revision
            }
        };
        let live = server.store().watch(&prefix, after).await.map_err(|error| match error {
            StoreError::Compacted { oldest } => {
                status::expired(format!("too old resource version: {after} ({oldest})")).into()
            }
            error => ApiError::from(error),
        })?;
        self.live = Some(live);
        Ok(())
    }

    /// The next lines; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(error) = self.last_words.take() {
                self.present.clear();
                self.live = None;
                return Some(error_line(&error));
            }
            let made = if self.present.is_empty() && !self.mark_present {
                self.wait().await?
            } else {
                self.present_lines()
            };
            match made {
                Ok(lines) if lines.is_empty() => {}
                Ok(lines) => return Some(lines),
                Err(error) => self.last_words = Some(error),
            }
        }
    }

    /// Some of the present objects, and the bookmark behind the last.
    fn present_lines(&mut self) -> Result<Bytes> {
        let mut out = Vec::new();
        while let Some(kv) = self.present.pop_front() {
            if self.selection.matches(&kv.value) {
                out.extend_from_slice(&self.line(EventType::Added, &kv.key, &kv.value, kv.mod_revision)?);
            }
            if out.len() > WATCH_CHUNK_BYTES {
                return Ok(out.into());
            }
        }
        if std::mem::take(&mut self.mark_present) {
            out.extend_from_slice(&self.bookmark(self.present_revision, true));
        }
        Ok(out.into())
    }

    /// Waits for events, the time of a bookmark, or the end (`None`).
    async fn wait(&mut self) -> Option<Result<Bytes>> {
        let live = self.live.as_mut()?;
        let wake = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
        let events = tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => return None,
            events = live.next() => Some(events?),
            () = tokio::time::sleep_until(wake) => None,
        };
        let Some(events) = events else { return self.tick().map(Ok) };
        match events {
            Ok(events) => Some(self.event_lines(&events)),
            Err(StoreError::SlowWatcher { pending }) => {
                tracing::debug!(
                    pending,
                    resource = self.call.resource.plural,
                    "watch cut off: client too slow"
                );
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// A bookmark, if it is time for one and nothing waits to be sent.
    fn tick(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        if now >= self.deadline {
            return None;
        }
        self.next_bookmark = bookmark_after(now, self.deadline);
        let progress = self.live.as_ref().and_then(Watch::progress);
        Some(progress.map(|revision| self.bookmark(revision, false)).unwrap_or_default())
    }

    fn event_lines(&mut self, events: &Arc<[Event]>) -> Result<Bytes> {
        let mut lines = Vec::with_capacity(1);
        for event in &**events {
            if let Some(line) = self.event_line(event)? {
                lines.push(line);
            }
        }
        self.guard.events.inc_by(lines.len() as u64);
        Ok(if lines.len() == 1 { lines.remove(0) } else { lines.concat().into() })
    }

    /// The line for one event, if it concerns the selection. Objects enter and leave a selection when they change.
    fn event_line(&mut self, event: &Event) -> Result<Option<Bytes>> {
        let turned;
        let event = if self.call.resource.view.is_some() {
            turned = shown(self.call.resource, event);
            &turned
        } else {
            event
        };
        let now = event.value.as_ref().filter(|value| self.selection.matches(value));
        let before = event.previous.as_ref().filter(|kv| self.selection.matches(&kv.value));
        let (kind, json) = match (before, now) {
            (None, Some(value)) => (EventType::Added, value),
            (Some(_), Some(value)) => (EventType::Modified, value),
            (Some(kv), None) => (EventType::Deleted, &kv.value),
            (None, None) => return Ok(None),
        };
        self.line(kind, &event.key, json, event.revision).map(Some)
    }

    fn line(&mut self, kind: EventType, key: &Arc<str>, json: &[u8], revision: Revision) -> Result<Bytes> {
        let format = self.call.format;
        if format.shape == Shape::Whole && self.call.resource.view.is_some() {
            return Ok(line(kind, key, json, revision)?);
        }
        if format.shape == Shape::Whole {
            return Ok(self.call.server.lines().get(kind, key, json, revision)?);
        }
        let value = object::parse(key, json, revision)?;
        let value = match format.shape {
            Shape::Table => {
                respond::tabled(&self.call, format, value, std::mem::replace(&mut self.headed, true))?
            }
            _ => respond::shaped(&self.call, format, value)?,
        };
        Ok(json_line(kind.name(), &value))
    }

    fn bookmark(&self, revision: Revision, end_of_present: bool) -> Bytes {
        json_line("BOOKMARK", &bookmark_object(&self.call, revision, end_of_present))
    }
}

/// The event in the form of a kind that is another's view.
fn shown(resource: &Resource, event: &Event) -> Event {
    let mut event = event.clone();
    event.value = event.value.map(|value| view::shown_bytes(resource, &value));
    event.previous = event.previous.map(|kv| view::shown(resource, kv));
    event
}

fn bookmark_object(call: &Call, revision: Revision, end_of_present: bool) -> Value {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if end_of_present {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let resource: &Resource = call.resource;
    let (version, kind) = match call.format.shape {
        Shape::Metadata | Shape::MetadataList => {
            (format!("meta.k8s.io/{}", call.format.meta_version), "PartialObjectMetadata")
        }
        Shape::Table => {
            return json!({
                "kind": "Table",
                "apiVersion": format!("meta.k8s.io/{}", call.format.meta_version),
                "metadata": { "resourceVersion": revision.to_string() },
                "columnDefinitions": null,
                "rows": [],
            });
        }
        Shape::Whole => (resource.api_version(), resource.kind),
    };
    json!({ "kind": kind, "apiVersion": version, "metadata": metadata })
}

fn json_line(kind: &str, object: &Value) -> Bytes {
    let mut line = serde_json::to_vec(&json!({ "type": kind, "object": object })).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

fn error_line(error: &ApiError) -> Bytes {
    let status = serde_json::from_slice(&status_json(&error.0)).unwrap_or_default();
    json_line("ERROR", &status)
}

fn timeout(query: &Query) -> Duration {
    match query.number("timeoutSeconds") {
        Ok(Some(seconds)) if seconds > 0 => Duration::from_secs(seconds as u64).min(WATCH_TIMEOUT_MAX),
        _ => WATCH_TIMEOUT_MIN.mul_f64(rand::rng().random_range(1.0..2.0)),
    }
}

/// The time of the next bookmark: in a minute, but also shortly before the end.
fn bookmark_after(now: Instant, deadline: Instant) -> Instant {
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now);
    (now + BOOKMARK_INTERVAL).min(last.unwrap_or(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_watch_begins() {
        let start = |query: &str| Start::read(&Query::parse(Some(query))).map_err(|e| e.0.message.clone());
        assert_eq!(start(""), Ok(Start::Present { marked: false, at_least: None }));
        assert_eq!(start("resourceVersion=0"), Ok(Start::Present { marked: false, at_least: None }));
        assert_eq!(start("resourceVersion=7"), Ok(Start::After(7)));
        let streaming = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        assert_eq!(start(streaming), Ok(Start::Present { marked: true, at_least: None }));
        assert_eq!(
            start(&format!("{streaming}&resourceVersion=7")),
            Ok(Start::Present { marked: true, at_least: Some(7) })
        );
        assert_eq!(start("sendInitialEvents=false&resourceVersionMatch=NotOlderThan"), Ok(Start::Now));
        assert!(
            start("sendInitialEvents=true").unwrap_err().contains("requires setting resourceVersionMatch")
        );
        assert!(
            start("resourceVersionMatch=NotOlderThan&resourceVersion=1")
                .unwrap_err()
                .contains("forbidden for watch")
        );
    }

    #[test]
    fn no_watch_lasts_for_ever() {
        let asked = |text: &str| timeout(&Query::parse(Some(text)));
        assert_eq!(asked("timeoutSeconds=30"), Duration::from_secs(30));
        assert_eq!(asked(&format!("timeoutSeconds={}", i64::MAX)), WATCH_TIMEOUT_MAX);
        let default = asked("timeoutSeconds=0");
        assert!(default >= WATCH_TIMEOUT_MIN && default < 2 * WATCH_TIMEOUT_MIN, "{default:?}");
    }

    #[test]
    fn the_last_bookmark_comes_before_the_end() {
        let now = Instant::now();
        assert_eq!(bookmark_after(now, now + Duration::from_mins(10)), now + BOOKMARK_INTERVAL);
        let soon = now + Duration::from_secs(30);
        assert_eq!(bookmark_after(now, soon), soon - BOOKMARK_BEFORE_END);
        assert_eq!(bookmark_after(now, now + Duration::from_secs(1)), now + Duration::from_secs(1));
    }
}
