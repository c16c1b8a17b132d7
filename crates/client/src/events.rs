//! Events about objects, for people who run `kubectl describe`.

use crate::Client;

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

/// Writes core/v1 events in the background. Never blocks and never fails its caller; repeated events raise the
/// count of the first. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {}

impl EventRecorder {
    /// `component` becomes `source.component`; `host` the node's name or empty.
    pub fn new(client: Client, component: &str, host: &str) -> EventRecorder {
        let _ = (client, component, host);
        todo!()
    }

    pub fn record(&self, about: &ObjectRef, kind: EventType, reason: &str, message: &str) {
        let _ = (about, kind, reason, message);
        todo!()
    }
}
