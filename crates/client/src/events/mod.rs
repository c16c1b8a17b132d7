//! Events about objects, for people who run `kubectl describe`.
//!
//! [`EventRecorder`] is the handle and the task that writes; [`aggregate`] decides, without I/O, whether a report
//! becomes a new event, raises the count of an earlier one, or is one too many.

mod aggregate;

use std::time::Instant;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::aggregate::{Aggregator, Outcome};
use crate::cache::Backoff;
use crate::limits::{EVENT_ATTEMPTS_MAX, EVENT_MESSAGE_BYTES_MAX, EVENT_QUEUE_MAX};
use crate::{Client, Error, Patch, Subresource, paths};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// The object that an event is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub field_path: String,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    about: ObjectRef,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// Writes core/v1 events in the background. Never blocks and never fails its caller; repeated events raise the
/// count of the first. Cheap to clone; the last clone dropped ends the task when the queue is written.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    reports: mpsc::Sender<Report>,
}

impl EventRecorder {
    /// `component` becomes `source.component`; `host` the node's name or empty. Starts a task in the current
    /// tokio runtime.
    pub fn new(client: Client, component: &str, host: &str) -> EventRecorder {
        let (recorder, writer) = EventRecorder::with_writer(client, component, host);
        tokio::spawn(writer);
        recorder
    }

    fn with_writer(
        client: Client,
        component: &str,
        host: &str,
    ) -> (EventRecorder, impl Future<Output = ()> + 'static) {
        let (reports, receiver) = mpsc::channel(EVENT_QUEUE_MAX);
        let writer = Writer {
            client,
            component: component.into(),
            host: host.into(),
            aggregator: Aggregator::default(),
        };
        (EventRecorder { reports }, writer.run(receiver))
    }

    pub fn record(&self, about: &ObjectRef, kind: EventType, reason: &str, message: &str) {
        let report = Report {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            message: shorten(message, EVENT_MESSAGE_BYTES_MAX).to_owned(),
            at: Timestamp::now(),
        };
        if self.reports.try_send(report).is_err() {
            tracing::debug!(reason, message, "event dropped: too many are waiting to be written");
        }
    }
}

struct Writer {
    client: Client,
    component: String,
    host: String,
    aggregator: Aggregator,
}

impl Writer {
    async fn run(mut self, mut reports: mpsc::Receiver<Report>) {
        while let Some(report) = reports.recv().await {
            let outcome = self.aggregator.decide(&report, Instant::now());
            let (name, count, first) = match outcome {
                Outcome::Drop => continue,
                Outcome::Create { name } => (name, 1, report.at),
                Outcome::Update { name, count, first } => (name, count, first),
            };
            let written = self.write(&report, &name, count, first).await;
            if let Err(error) = written {
                tracing::debug!(%error, reason = report.reason, "event not written");
                self.aggregator.forget(&report);
            }
        }
    }

    async fn write(&self, report: &Report, name: &str, count: u32, first: Timestamp) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let mut attempts = 1;
        loop {
            match self.write_once(report, name, count, first).await {
                Err(error) if error.is_retryable() && attempts < EVENT_ATTEMPTS_MAX => {
                    attempts += 1;
                    tokio::time::sleep(backoff.next(rand::random())).await;
                }
                // An attempt whose answer was lost.
                Err(error) if error.is_already_exists() => return Ok(()),
                outcome => return outcome,
            }
        }
    }

    async fn write_once(
        &self,
        report: &Report,
        name: &str,
        count: u32,
        first: Timestamp,
    ) -> Result<(), Error> {
        let namespace = Some(namespace(&report.about));
        if count > 1 {
            let patch = json!({ "count": count, "lastTimestamp": seconds(report.at) });
            let patch = Patch::Merge(&patch);
            let patched =
                self.client.patch::<Value>(&paths::EVENTS, namespace, name, Subresource::None, patch).await;
            match patched {
                // Events live for an hour: write it anew, with its count.
                Err(error) if error.is_not_found() => {}
                other => return other.map(|_| ()),
            }
        }
        let event = self.event(report, name, count, first);
        self.client.create::<Value>(&paths::EVENTS, namespace, &event).await.map(|_| ())
    }

    fn event(&self, report: &Report, name: &str, count: u32, first: Timestamp) -> Value {
        let about = &report.about;
        let mut involved = json!({ "apiVersion": about.api_version, "kind": about.kind, "name": about.name });
        let optional = [
            ("namespace", &about.namespace),
            ("uid", &about.uid),
            ("resourceVersion", &about.resource_version),
            ("fieldPath", &about.field_path),
        ];
        for (field, text) in optional {
            if !text.is_empty() {
                involved[field] = text.as_str().into();
            }
        }
        let mut source = json!({ "component": self.component });
        if !self.host.is_empty() {
            source["host"] = self.host.as_str().into();
        }
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "name": name, "namespace": namespace(about) },
            "involvedObject": involved,
            "reason": report.reason,
            "message": report.message,
            "type": match report.kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
            "source": source,
            "firstTimestamp": seconds(first),
            "lastTimestamp": seconds(report.at),
            "count": count,
            "reportingComponent": self.component,
            "reportingInstance": self.host,
        })
    }
}

/// Events about cluster-scoped objects are kept in `default`.
fn namespace(about: &ObjectRef) -> &str {
    if about.namespace.is_empty() { "default" } else { &about.namespace }
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn shorten(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeApi;

    fn about(name: &str) -> ObjectRef {
        ObjectRef {
            api_version: "v1".into(),
            kind: "Service".into(),
            namespace: "shop".into(),
            name: name.into(),
            uid: format!("uid-{name}"),
            ..ObjectRef::default()
        }
    }

    #[tokio::test]
    async fn a_repeated_event_raises_the_count_of_the_first() {
        let api = FakeApi::new();
        let (recorder, writer) = EventRecorder::with_writer(api.client(), "test-controller", "node-1");
        for _ in 0..3 {
            recorder.record(&about("web"), EventType::Warning, "Failed", "no address left");
        }
        recorder.record(&about("web"), EventType::Normal, "Allocated", "all good");
        drop(recorder);
        writer.await;
        let events = api.all(&paths::EVENTS);
        assert_eq!((events.len(), api.writes().len()), (2, 4));
        let failed = events.iter().find(|e| e["reason"] == "Failed").unwrap();
        assert_eq!(failed["count"], 3);
        assert_eq!(failed["type"], "Warning");
        assert_eq!(failed["message"], "no address left");
        assert_eq!(failed["involvedObject"]["uid"], "uid-web");
        assert_eq!(failed["metadata"]["namespace"], "shop");
        assert_eq!(failed["source"], json!({ "component": "test-controller", "host": "node-1" }));
        assert!(failed["firstTimestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[tokio::test]
    async fn an_event_that_has_expired_is_written_anew_with_its_count() {
        let api = FakeApi::new();
        let recorder = EventRecorder::new(api.client(), "test", "");
        recorder.record(&about("web"), EventType::Normal, "Seen", "once");
        while api.all(&paths::EVENTS).is_empty() {
            tokio::task::yield_now().await;
        }
        let name = api.all(&paths::EVENTS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(api.remove(&paths::EVENTS, "shop", &name));
        recorder.record(&about("web"), EventType::Normal, "Seen", "once");
        while api.all(&paths::EVENTS).is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(api.all(&paths::EVENTS)[0]["count"], 2);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_retried_a_few_times() {
        let api = FakeApi::new();
        let (recorder, writer) = EventRecorder::with_writer(api.client(), "test", "");
        api.fail_next(EVENT_ATTEMPTS_MAX as usize - 1, 503, "ServiceUnavailable");
        recorder.record(&about("web"), EventType::Normal, "Seen", "once");
        drop(recorder);
        writer.await;
        assert_eq!(api.all(&paths::EVENTS).len(), 1);
        api.fail_next(EVENT_ATTEMPTS_MAX as usize, 503, "ServiceUnavailable");
        let (recorder, writer) = EventRecorder::with_writer(api.client(), "test", "");
        recorder.record(&about("db"), EventType::Normal, "Seen", "given up");
        drop(recorder);
        writer.await;
        assert_eq!(api.all(&paths::EVENTS).len(), 1);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        assert_eq!(shorten("aé", 2), "a");
        assert_eq!(shorten("aé", 3), "aé");
        assert_eq!(shorten("a", 9), "a");
    }
}
