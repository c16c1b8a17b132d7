//! The record of a new object, written straight as text: creates are the most frequent writes of all, and most of their
//! cost would be in building sets that nobody needs again.
//!
//! It says the same as comparing the object with an empty one does; a test holds the two together.

use portolan_api::Time;
use portolan_api::schema::Schema;
use serde_json::Value;

use super::compare::{index, root, zero_of};
use super::entries::Manager;
use super::shape::Shape;
use super::{Scope, UNOWNED_METADATA};

/// What stands where the value was before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    /// Kubernetes' encoder writes an empty object or null.
    Zero(&'static Value),
}

/// `managedFields` of a new object, as JSON; `None` if its writer owns nothing.
pub(crate) fn record(
    schema: &'static Schema,
    scope: Scope,
    manager: &Manager,
    new: &Value,
    now: Time,
) -> Option<String> {
    let mut out = String::with_capacity(1024);
    out.push_str("[{\"apiVersion\":");
    quote(&mut out, &manager.api_version);
    out.push_str(",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{");
    let begin = out.len();
    for (key, value) in new.as_object()? {
        let in_scope = match key.as_str() {
            "apiVersion" | "kind" => false,
            "status" => scope != Scope::NotStatus,
            "metadata" => true,
            _ => scope != Scope::Status,
        };
        if in_scope {
            let before = below(root(schema), key, Before::Zero(&Value::Null));
            let unowned = if key == "metadata" { UNOWNED_METADATA } else { &[] };
            field(&mut out, key, value, root(schema), before, unowned);
        }
    }
    if out.len() == begin {
        return None;
    }
    close(&mut out);
    let time = now.to_string();
    let pairs = [
        ("manager", &*manager.name),
        ("operation", manager.operation.name()),
        ("subresource", &manager.subresource),
        ("time", &time),
    ];
    for (name, value) in pairs.into_iter().filter(|(_, value)| !value.is_empty()) {
        out.extend([",\"", name, "\":"]);
        quote(&mut out, value);
    }
    out.push_str("}]");
    Some(out)
}

/// What was before below a key of something that was `before`.
fn below(shape: Shape, key: &str, before: Before) -> Before {
    match before {
        Before::Nothing => Before::Nothing,
        Before::Zero(_) => zero_of(shape, key).map_or(Before::Nothing, Before::Zero),
    }
}

/// One field with all that is below it; nothing if there is nothing to own.
fn field(out: &mut String, key: &str, value: &Value, shape: Shape, before: Before, unowned: &[&str]) {
    let begin = out.len();
    if matches!(shape, Shape::Struct(_)) {
        out.extend(["\"f:", key, "\":"]);
    } else {
        quote(out, &format!("f:{key}"));
        out.push(':');
    }
    let inner = out.len();
    let is_member = node(out, value, shape.below(key).0, before, unowned);
    if !is_member && out.len() == inner + "{}".len() {
        out.truncate(begin);
    } else {
        out.push(',');
    }
}

/// `{..}` of one value; returns whether the value itself is owned.
fn node(out: &mut String, value: &Value, shape: Shape, before: Before, unowned: &[&str]) -> bool {
    let is_new = before == Before::Nothing;
    let open = |out: &mut String| out.push_str(if is_new { "{\".\":{}," } else { "{" });
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) if !map.is_empty() => {
            open(out);
            for (key, value) in map.iter().filter(|(key, _)| !unowned.contains(&key.as_str())) {
                field(out, key, value, shape, below(shape, key, before), &[]);
            }
            close(out);
            is_new
        }
        (Shape::List(items, ty), Value::Array(list)) if !list.is_empty() => {
            open(out);
            for (step, found) in index(Some(list), items, ty) {
                quote(out, &step);
                out.push(':');
                match found.as_slice() {
                    [item] => _ = node(out, item, Shape::of_type(*ty), Before::Nothing, &[]),
                    _ => out.push_str("{}"),
                }
                out.push(',');
            }
            close(out);
            is_new
        }
        _ => {
            out.push_str("{}");
            match before {
                Before::Nothing => true,
                Before::Zero(zero) => zero != value,
            }
        }
    }
}

/// The brace after a list of members that each end with a comma.
fn close(out: &mut String) {
    if out.ends_with(',') {
        out.pop();
    }
    out.push('}');
}

fn quote(out: &mut String, text: &str) {
    if text.bytes().all(|b| b >= b' ' && b != b'"' && b != b'\\') {
        out.extend(["\"", text, "\""]);
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}
