//! What strict decoding finds in a patch document itself, before the result is looked at; and how a refusal shows the
//! patch.

use portolan_api::decode;
use portolan_api::field::go_quote;
use serde_json::Value;

use super::Kind;

/// The fields that an operation of a JSON patch may have.
const OPERATION_FIELDS: &[&str] = &["op", "path", "from", "value"];

/// Fields given twice, and fields that no operation has. A document that cannot be read has none: it is refused anyway.
pub(crate) fn problems(kind: Kind, patch: &[u8]) -> Vec<String> {
    let twice = decode::duplicates(patch).into_iter().map(|problem| problem.to_string());
    if kind != Kind::Json {
        return twice.collect();
    }
    // In the order of the operations, as a reader would find them.
    let operations: Vec<Value> = serde_json::from_slice(patch).unwrap_or_default();
    let mut found: Vec<(usize, String)> = twice.map(|text| (operation_of(&text), text)).collect();
    for (index, operation) in operations.iter().enumerate() {
        let names = operation.as_object().into_iter().flat_map(|fields| fields.keys());
        for name in names.filter(|name| !OPERATION_FIELDS.contains(&name.as_str())) {
            found.push((index, format!("unknown field {}", go_quote(&format!("[{index}].{name}")))));
        }
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, text)| format!("json patch {text}")).collect()
}

/// The operation that a problem's path leads to.
fn operation_of(problem: &str) -> usize {
    let index = problem.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    index.and_then(|(index, _)| index.parse().ok()).unwrap_or_default()
}

/// What a refusal shows: of a strategic patch the patch, as Go prints its maps; else the object it leads to.
pub(crate) fn shown(kind: Kind, patch: &[u8], patched: &Value) -> String {
    match (kind, serde_json::from_slice(patch)) {
        (Kind::Strategic, Ok(document)) => go_print(&document),
        _ => patched.to_string(),
    }
}

/// Go's `%+v` of decoded JSON.
pub(crate) fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_print).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key}:{}", go_print(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_is_read_strictly_too() {
        let twice = br#"{"spec":{"a":1,"a":2,"b":[{"c":1,"c":1}]}}"#;
        for kind in [Kind::Merge, Kind::Strategic] {
            assert_eq!(
                problems(kind, twice),
                ["duplicate field \"spec.a\"", "duplicate field \"spec.b[0].c\""]
            );
        }
        let operations =
            br#"[{"op":"add","path":"/a","foo":1},{"op":"add","path":"/b","path":"/c","value":{"foo":1}}]"#;
        assert_eq!(
            problems(Kind::Json, operations),
            ["json patch unknown field \"[0].foo\"", "json patch duplicate field \"[1].path\""]
        );
        assert!(problems(Kind::Merge, b"{").is_empty());
    }

    #[test]
    fn maps_are_printed_as_go_prints_them() {
        let patch = json!({"b": {"c": [1, 2.5, "x y", null]}, "a": true});
        let text = patch.to_string();
        assert_eq!(
            shown(Kind::Strategic, text.as_bytes(), &Value::Null),
            "map[a:true b:map[c:[1 2.5 x y <nil>]]]"
        );
        assert_eq!(shown(Kind::Merge, text.as_bytes(), &json!({"a": 1})), "{\"a\":1}");
    }
}
