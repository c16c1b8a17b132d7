//! `events.k8s.io`: events in their newer form. They are the events of the core group, told differently: both groups show
//! the same objects, and what is stored is the core form.

use serde_json::Value;

use crate::resource::View;

pub mod v1 {
    use crate::core::v1::{EventSource, ObjectReference};
    use crate::{MicroTime, Time};

    kind! {
        /// Something that happened to an object.
        Event("io.k8s.api.events.v1.Event", "events.k8s.io", "v1") {
            /// When it was first seen.
            "eventTime" event_time: Option<MicroTime> [.keep()],
            /// The series this event stands for.
            "series" series: Option<EventSeries>,
            /// Controller that reports it.
            "reportingController" reporting_controller: String,
            /// Replica of the controller.
            "reportingInstance" reporting_instance: String,
            /// What was done or failed.
            "action" action: String,
            /// What happened, as one CamelCase word.
            "reason" reason: String,
            /// The object it happened to.
            "regarding" regarding: ObjectReference,
            /// A second object that took part.
            "related" related: Option<ObjectReference>,
            /// What happened, for people.
            "note" note: String,
            /// `Normal` or `Warning`.
            "type" type_: String,
            /// Who reports it, in the older form.
            "deprecatedSource" deprecated_source: EventSource,
            /// When it was first seen, in the older form.
            "deprecatedFirstTimestamp" deprecated_first_timestamp: Option<Time>,
            /// When it was last seen, in the older form.
            "deprecatedLastTimestamp" deprecated_last_timestamp: Option<Time>,
            /// How often it was seen, in the older form.
            "deprecatedCount" deprecated_count: i32,
        }
    }

    objects! {
        /// A run of the same event.
        struct EventSeries("io.k8s.api.events.v1.EventSeries") {
            /// How often it was seen.
            "count" count: i32 [.required()],
            /// When it was last seen.
            "lastObservedTime" last_observed_time: Option<MicroTime> [.required()],
        }
    }
}

/// The fields that have other names; core form first.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// How this group shows the core group's events.
pub static VIEW: View = View { shown, stored };

fn shown(object: &mut Value) {
    rename(object, "events.k8s.io/v1", NAMES);
}

fn stored(object: &mut Value) {
    rename(object, "v1", NAMES.map(|(core, new)| (new, core)));
}

fn rename(object: &mut Value, api_version: &str, names: [(&str, &str); 7]) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
    fields.insert("apiVersion".into(), api_version.into());
}

/// The event in the core form, whatever its form is.
pub(crate) fn core(object: &Value) -> Value {
    let mut object = object.clone();
    if object["apiVersion"] != "v1" {
        stored(&mut object);
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn forms_turn_into_each_other_without_loss() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "shop"},
            "involvedObject": {"kind": "Pod", "name": "a"}, "reason": "Started", "message": "it started",
            "source": {"component": "agent"}, "firstTimestamp": "2026-01-02T03:04:05Z",
            "lastTimestamp": "2026-01-02T03:04:06Z", "count": 2, "type": "Normal", "eventTime": null,
            "reportingComponent": "agent", "reportingInstance": "node-1", "action": "Start",
        });
        let mut object = core.clone();
        shown(&mut object);
        assert_eq!(
            object,
            json!({
                "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "a.1", "namespace": "shop"},
                "regarding": {"kind": "Pod", "name": "a"}, "reason": "Started", "note": "it started",
                "deprecatedSource": {"component": "agent"}, "deprecatedFirstTimestamp": "2026-01-02T03:04:05Z",
                "deprecatedLastTimestamp": "2026-01-02T03:04:06Z", "deprecatedCount": 2, "type": "Normal",
                "eventTime": null, "reportingController": "agent", "reportingInstance": "node-1", "action": "Start",
            })
        );
        assert_eq!(super::core(&object), core);
        stored(&mut object);
        assert_eq!(object, core);
    }
}
