//! Whether the values of an applied object are of the types that the schema names, in the words of the library with which
//! Kubernetes applies.

use portolan_api::field::go_quote;
use portolan_api::schema::{Field, ListType, Schema, Type};
use serde_json::Value;

use super::set::brackets;
use super::shape::{Items, step_to_item};
use crate::patch::go_print;

/// What does not fit, with its path. Null fits everywhere.
pub(super) fn mistyped(object: &Value, schema: &'static Schema) -> Vec<String> {
    let mut wrong = Vec::new();
    in_struct(object, schema, "", &mut wrong);
    wrong
}

fn in_struct(value: &Value, schema: &'static Schema, path: &str, wrong: &mut Vec<String>) {
    let Some(map) = value.as_object() else { return wrong.push(unlike("map", value, path)) };
    for (name, value) in map {
        if let Some(field) = schema.field(name) {
            in_field(value, field, &format!("{path}.{name}"), wrong);
        }
    }
}

fn in_field(value: &Value, field: &'static Field, path: &str, wrong: &mut Vec<String>) {
    match (field.ty, value) {
        (_, Value::Null) => {}
        (Type::List(item), Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                // An item without keys has no place: that is what is said of it then.
                if matches!(field.list, ListType::Map(_)) && !value.is_object() {
                    continue;
                }
                in_type(value, item, &format!("{path}{}", place(value, index, item, field.list)), wrong);
            }
        }
        _ => in_type(value, &field.ty, path, wrong),
    }
}

/// How a path names an item of a list.
fn place(value: &Value, index: usize, item: &'static Type, list: ListType) -> String {
    match list {
        ListType::Map(keys) => match step_to_item(Items::Map(keys), item, value) {
            Some(step) => brackets(step.trim_start_matches("k:")),
            None => format!("[{index}]"),
        },
        ListType::Set => format!("[={value}]"),
        ListType::Atomic | ListType::None => format!("[{index}]"),
    }
}

fn in_type(value: &Value, ty: &'static Type, path: &str, wrong: &mut Vec<String>) {
    match (ty, value) {
        (_, Value::Null)
        | (Type::Any | Type::IntOrString | Type::Quantity | Type::Time | Type::MicroTime, _) => {}
        (Type::String | Type::Bytes, value) if !value.is_string() => {
            wrong.push(format!(
                "{path}: expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(value)
            ));
        }
        (Type::Bool, value) if !value.is_boolean() => wrong.push(unlike("boolean", value, path)),
        (Type::Int32 | Type::Int64 | Type::Double, value) if !value.is_number() => {
            wrong.push(format!("{path}: expected numeric (int or float), got *value.valueUnstructured"));
        }
        (Type::List(item), value) => match value.as_array() {
            Some(items) => {
                for (index, value) in items.iter().enumerate() {
                    in_type(value, item, &format!("{path}[{index}]"), wrong);
                }
            }
            None => wrong.push(unlike("list", value, path)),
        },
        (Type::StringMap, value) => in_map(value, &Type::String, path, wrong),
        (Type::Map(item), value) => in_map(value, item, path, wrong),
        (Type::Object(schema), value) => in_struct(value, schema(), path, wrong),
        _ => {}
    }
}

fn in_map(value: &Value, item: &'static Type, path: &str, wrong: &mut Vec<String>) {
    let Some(map) = value.as_object() else { return wrong.push(unlike("map", value, path)) };
    for (key, value) in map {
        in_type(value, item, &format!("{path}.{key}"), wrong);
    }
}

fn unlike(wanted: &str, value: &Value, path: &str) -> String {
    format!("{path}: expected {wanted}, got &{{{}}}", go_print(value))
}

/// Go's `%#v` of decoded JSON.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => go_quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<String> =
                fields.iter().map(|(key, value)| format!("{}:{}", go_quote(key), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::core::v1::Service;
    use serde_json::json;

    #[test]
    fn values_of_other_types_are_told_as_kubernetes_tells_them() {
        let string = |value: &str| format!("expected string, got &value.valueUnstructured{{Value:{value}}}");
        let cases = [
            (json!({"type": {}}), ".spec.type", string("map[string]interface {}{}")),
            (json!({"type": 1.5}), ".spec.type", string("1.5")),
            (
                json!({"type": ["a", 1, null]}),
                ".spec.type",
                string("[]interface {}{\"a\", 1, interface {}(nil)}"),
            ),
            (json!({"externalIPs": "a"}), ".spec.externalIPs", "expected list, got &{a}".into()),
            (json!({"externalIPs": [1]}), ".spec.externalIPs[0]", string("1")),
            (json!({"selector": "a"}), ".spec.selector", "expected map, got &{a}".into()),
            (json!({"selector": {"a": 1}}), ".spec.selector.a", string("1")),
            (
                json!({"publishNotReadyAddresses": "a"}),
                ".spec.publishNotReadyAddresses",
                "expected boolean, got &{a}".into(),
            ),
            (
                json!({"healthCheckNodePort": true}),
                ".spec.healthCheckNodePort",
                "expected numeric (int or float), got *value.valueUnstructured".into(),
            ),
            (
                json!({"ports": [{"port": "a", "protocol": "TCP"}]}),
                ".spec.ports[port=\"a\",protocol=\"TCP\"].port",
                "expected numeric (int or float), got *value.valueUnstructured".into(),
            ),
            (
                json!({"sessionAffinityConfig": [1]}),
                ".spec.sessionAffinityConfig",
                "expected map, got &{[1]}".into(),
            ),
        ];
        for (spec, path, what) in cases {
            let object = json!({ "spec": spec });
            assert_eq!(mistyped(&object, Service::schema()), [format!("{path}: {what}")], "{object}");
        }
        assert_eq!(mistyped(&json!({"spec": "a"}), Service::schema()), [".spec: expected map, got &{a}"]);
        let good = json!({"metadata": {"labels": {"a": null}}, "spec": {"ports": [{"port": 80, "targetPort": "a"}]}});
        assert!(mistyped(&good, Service::schema()).is_empty());
    }
}
