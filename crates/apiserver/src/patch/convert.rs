//! What is of the wrong type in an object that a strategic patch led to, in the words of Kubernetes' converter: it goes from
//! maps to structs without JSON between, and says less than a JSON reader would.

use portolan_api::schema::{Schema, Type};
use serde_json::{Number, Value};

/// The first value that does not fit, if there is one of a type that the converter looks at itself.
pub(crate) fn misfit(object: &Value, schema: &'static Schema) -> Option<String> {
    in_struct(object, schema)
}

fn in_struct(value: &Value, schema: &'static Schema) -> Option<String> {
    let Value::Object(map) = value else {
        return Some(format!("cannot restore struct from: {}", kind(value)));
    };
    schema.fields.iter().find_map(|field| {
        let value = map.get(field.name).filter(|value| !value.is_null())?;
        of_type(value, &field.ty, field.go_type)
    })
}

fn of_type(value: &Value, ty: &'static Type, name: Option<&str>) -> Option<String> {
    let scalar = |fits: bool, wanted: &str| (!fits).then(|| unlike(value, wanted, name.unwrap_or(wanted)));
    match ty {
        Type::String => scalar(value.is_string(), "string"),
        Type::Bool => scalar(value.is_boolean(), "bool"),
        Type::Int32 => scalar(value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()), "int32"),
        Type::Int64 => scalar(value.is_i64(), "int64"),
        Type::Double => scalar(value.is_number(), "float64"),
        Type::List(item) => match value.as_array() {
            Some(items) => items.iter().find_map(|value| of_type(value, item, None)),
            None => Some(format!("cannot restore slice from {}", kind(value))),
        },
        Type::StringMap => in_map(value, &Type::String),
        Type::Map(item) => in_map(value, item),
        Type::Object(schema) => in_struct(value, schema()),
        // These read themselves.
        Type::IntOrString | Type::Quantity | Type::Time | Type::MicroTime | Type::Bytes | Type::Any => None,
    }
}

fn in_map(value: &Value, item: &'static Type) -> Option<String> {
    match value.as_object() {
        Some(map) => {
            map.values().filter(|value| !value.is_null()).find_map(|value| of_type(value, item, None))
        }
        None => Some(format!("cannot restore map from {}", kind(value))),
    }
}

/// Go converts numbers to numbers, and integers to letters: there it says that it will not.
fn unlike(value: &Value, wanted: &str, name: &str) -> String {
    let convertible = match wanted {
        "string" => value.is_i64(),
        "bool" => false,
        _ => value.is_number(),
    };
    if convertible {
        format!("cannot convert {} to {name}", kind(value))
    } else {
        format!("unrecognized type: {wanted}")
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if Number::is_f64(number) => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::core::v1::Service;
    use serde_json::json;

    #[test]
    fn misfits_are_told_as_the_converter_tells_them() {
        let cases = [
            (json!({"spec": {"ports": [{"port": "http"}]}}), "unrecognized type: int32"),
            (json!({"spec": {"ports": [{"port": 1.5}]}}), "cannot convert float64 to int32"),
            (json!({"spec": {"type": 5}}), "cannot convert int64 to v1.ServiceType"),
            (json!({"spec": {"type": true}}), "unrecognized type: string"),
            (json!({"spec": {"sessionAffinity": {}}}), "unrecognized type: string"),
            (json!({"spec": {"publishNotReadyAddresses": 1}}), "unrecognized type: bool"),
            (json!({"spec": []}), "cannot restore struct from: slice"),
            (json!({"spec": "a"}), "cannot restore struct from: string"),
            (json!({"spec": {"ports": {}}}), "cannot restore slice from map"),
            (json!({"spec": {"externalIPs": 1}}), "cannot restore slice from int64"),
            (json!({"spec": {"externalIPs": [1]}}), "cannot convert int64 to string"),
            (json!({"spec": {"selector": ["a"]}}), "cannot restore map from slice"),
            (json!({"metadata": {"labels": {"a": 1}}}), "cannot convert int64 to string"),
        ];
        for (object, wanted) in cases {
            assert_eq!(misfit(&object, Service::schema()).as_deref(), Some(wanted), "{object}");
        }
        let good = json!({"metadata": {"labels": {"a": null}}, "spec": {"ports": [{"port": 80, "targetPort": true}]}});
        assert_eq!(misfit(&good, Service::schema()), None);
    }
}
