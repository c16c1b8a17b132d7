//! API objects as JSON, sorted by kind: what both sources, a cluster and a directory, give.

use std::collections::BTreeMap;

use serde_json::Value;

use super::report::Problem;

/// Objects, and what was wrong with or assumed about them.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    pub(crate) services: Vec<Value>,
    pub(crate) slices: Vec<Value>,
    pub(crate) endpoints: Vec<Value>,
    pub(crate) pods: Vec<Value>,
    pub(crate) nodes: Vec<Value>,
    pub(crate) service_cidrs: Vec<Value>,
    /// Deployments and the like: their pods have to be made up.
    pub(crate) workloads: Vec<Value>,
    /// Said to the user: what was not in the source and had to be made up.
    pub(crate) assumptions: Vec<String>,
    pub(crate) problems: Vec<Problem>,
    /// Kinds that do not matter here, with how many there were.
    pub(crate) ignored: BTreeMap<String, usize>,
}

/// A text at a path such as `/metadata/name`; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn list<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    object.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn is_set(object: &Value, path: &str) -> bool {
    object.pointer(path).is_some_and(|value| !value.is_null())
}

/// `namespace/name`, or the name of what has no namespace.
pub(crate) fn name_of(object: &Value) -> String {
    match text(object, "/metadata/namespace") {
        "" => text(object, "/metadata/name").to_owned(),
        namespace => format!("{namespace}/{}", text(object, "/metadata/name")),
    }
}

/// Sets a field, making the objects on the way.
pub(crate) fn set(object: &mut Value, path: &[&str], value: Value) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = object;
    for part in parents {
        if !at[*part].is_object() {
            at[*part] = Value::Object(serde_json::Map::new());
        }
        at = &mut at[*part];
    }
    at[*last] = value;
}
