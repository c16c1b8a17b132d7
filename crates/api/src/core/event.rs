//! Events of the core group.

use super::common::ObjectReference;
use crate::{MicroTime, Time};

kind! {
    /// Something that happened to an object.
    Event("io.k8s.api.core.v1.Event", "", "v1") {
        /// The object it happened to.
        "involvedObject" involved_object: ObjectReference [.required()],
        /// What happened, as one CamelCase word.
        "reason" reason: String,
        /// What happened, for people.
        "message" message: String,
        /// Who reports it.
        "source" source: EventSource,
        /// When it was first seen.
        "firstTimestamp" first_timestamp: Option<Time>,
        /// When it was last seen.
        "lastTimestamp" last_timestamp: Option<Time>,
        /// How often it was seen.
        "count" count: i32,
        /// `Normal` or `Warning`.
        "type" type_: String,
        /// When it was first seen, exactly.
        "eventTime" event_time: Option<MicroTime>,
        /// The series this event stands for.
        "series" series: Option<EventSeries>,
        /// What was done or failed.
        "action" action: String,
        /// A second object that took part.
        "related" related: Option<ObjectReference>,
        /// Controller that reports it.
        "reportingComponent" reporting_component: String [.keep().or("\"\"")],
        /// Replica of the controller.
        "reportingInstance" reporting_instance: String [.keep().or("\"\"")],
    }
}

objects! {
    /// Who reports an event.
    struct EventSource("io.k8s.api.core.v1.EventSource") {
        /// The component.
        "component" component: String,
        /// The node it runs on.
        "host" host: String,
    }

    /// A run of the same event.
    struct EventSeries("io.k8s.api.core.v1.EventSeries") {
        /// How often it was seen.
        "count" count: i32,
        /// When it was last seen.
        "lastObservedTime" last_observed_time: Option<MicroTime>,
    }
}
