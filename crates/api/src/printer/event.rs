//! Events and leases.

use serde_json::{Value, json};

use super::{AGE, Column, NAME, age, column, name, since, text, wide};

pub static EVENT: &[Column] = &[
    column("Last Seen", "Time since it was last seen."),
    column("Type", "Normal or Warning."),
    column("Reason", "What happened, as one word."),
    column("Object", "What it happened to."),
    wide("Subobject", "The part it happened to."),
    wide("Source", "Who reports it."),
    column("Message", "What happened, for people."),
    wide("First Seen", "Time since it was first seen."),
    wide("Count", "How often it was seen."),
    Column { name: "Name", ty: "string", format: "name", description: "Name of the event.", priority: 1 },
];

/// Of both forms of events.
pub fn event(object: &Value, now: i64) -> Vec<Value> {
    let object = &crate::events::core(object);
    let at = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let first_time = at("/firstTimestamp").or_else(|| at("/eventTime"));
    let first = since(first_time, now);
    let last = match at("/series/lastObservedTime").or_else(|| at("/lastTimestamp")) {
        Some(time) => since(Some(time), now),
        None => first.clone(),
    };
    let count = object.pointer("/series/count").and_then(Value::as_i64).or_else(|| object["count"].as_i64());
    vec![
        last.into(),
        text(object, "/type").into(),
        text(object, "/reason").into(),
        involved(&object["involvedObject"]).into(),
        text(object, "/involvedObject/fieldPath").into(),
        source(object).into(),
        text(object, "/message").trim().into(),
        first.into(),
        json!(count.filter(|c| *c != 0).unwrap_or(1)),
        name(object),
    ]
}

fn involved(reference: &Value) -> String {
    let (kind, name) = (text(reference, "/kind").to_lowercase(), text(reference, "/name"));
    if name.is_empty() { kind } else { format!("{kind}/{name}") }
}

fn source(object: &Value) -> String {
    let or = |a: &'static str, b: &'static str| {
        let first = text(object, a);
        if first.is_empty() { text(object, b) } else { first }
    };
    let component = or("/source/component", "/reportingComponent");
    let host = or("/source/host", "/reportingInstance");
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub static LEASE: &[Column] = &[NAME, column("Holder", "Who holds it."), AGE];

pub fn lease(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), text(object, "/spec/holderIdentity").into(), age(object, now)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_show_when_what_and_to_whom() {
        let object = json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": " up \n",
            "involvedObject": {"kind": "Pod", "name": "web", "fieldPath": "spec.containers{web}"},
            "source": {"component": "agent", "host": "n1"},
            "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:01:00Z", "count": 3});
        assert_eq!(
            event(&object, 90),
            [
                json!("30s"),
                json!("Normal"),
                json!("Started"),
                json!("pod/web"),
                json!("spec.containers{web}"),
                json!("agent, n1"),
                json!("up"),
                json!("90s"),
                json!(3),
                json!("e"),
            ]
        );
        let fresh = json!({"metadata": {"name": "e"}, "eventTime": "1970-01-01T00:00:00.000000Z",
            "reportingComponent": "x"});
        let cells = event(&fresh, 5);
        assert_eq!((&cells[0], &cells[5], &cells[8]), (&json!("5s"), &json!("x"), &json!(1)));
        let series = json!({"metadata": {"name": "e"}, "eventTime": "1970-01-01T00:00:00.000000Z", "count": 2,
            "lastTimestamp": "1970-01-01T00:00:10Z", "reportingComponent": "x", "reportingInstance": "x-1",
            "series": {"count": 7, "lastObservedTime": "1970-01-01T00:00:30.000000Z"}});
        let cells = event(&series, 40);
        assert_eq!(
            [&cells[0], &cells[5], &cells[7], &cells[8]],
            [&json!("10s"), &json!("x, x-1"), &json!("40s"), &json!(7)]
        );
    }

    #[test]
    fn a_lease_shows_who_holds_it() {
        let object = json!({"metadata": {"name": "l", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"holderIdentity": "n1"}});
        assert_eq!(lease(&object, 60), ["l", "n1", "60s"]);
    }
}
