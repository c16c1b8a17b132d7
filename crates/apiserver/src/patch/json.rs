//! JSON patch (RFC 6902) and JSON merge patch (RFC 7386), with limits against patches that grow an object without end.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use super::{
    DEPTH_MAX, JSON_PATCH_COPY_BYTES_MAX, JSON_PATCH_OPERATIONS_MAX, PatchError, UNDECODABLE, bad_root,
    decode, decode_object,
};

/// Applies a list of operations; the first that fails refuses the whole patch.
pub(super) fn apply_operations(current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let operations = decode_operations(patch)?;
    let mut result = current.clone();
    let mut copied = 0;
    for operation in &operations {
        if let PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&result).map_or(0, |value| value.to_string().len());
            if copied > JSON_PATCH_COPY_BYTES_MAX {
                return Err(does_not_apply(format!(
                    "the copies add up to more than {JSON_PATCH_COPY_BYTES_MAX} bytes"
                )));
            }
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation))
            .map_err(|error| does_not_apply(error.to_string()))?;
        // One operation can at most double the depth, so the walk itself stays shallow.
        if depth(&result) > DEPTH_MAX {
            return Err(does_not_apply(format!("the result nests deeper than {DEPTH_MAX}")));
        }
    }
    Ok(result)
}

fn decode_operations(patch: &[u8]) -> Result<Vec<PatchOperation>, PatchError> {
    let document = decode(UNDECODABLE, patch)?;
    let Value::Array(list) = &document else {
        return Err(bad_root(UNDECODABLE, &document, "[]handlers.jsonPatchOp"));
    };
    if list.len() > JSON_PATCH_OPERATIONS_MAX {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_OPERATIONS_MAX}, got {}",
            list.len()
        )));
    }
    // An operation of unknown name or without a path is well-formed JSON; Kubernetes finds out while applying it.
    let Patch(operations) =
        serde_json::from_value(document).map_err(|error| does_not_apply(error.to_string()))?;
    Ok(operations)
}

/// Merges an object into the current one: null deletes, objects merge, everything else replaces.
pub(super) fn apply_merge(current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = Value::Object(decode_object(UNDECODABLE, patch)?);
    let mut result = current.clone();
    json_patch::merge(&mut result, &patch);
    Ok(result)
}

fn does_not_apply(detail: String) -> PatchError {
    PatchError::DoesNotApply { detail }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn operations(current: Value, patch: Value) -> Result<Value, PatchError> {
        apply_operations(&current, patch.to_string().as_bytes())
    }

    #[test]
    fn operations_apply_in_order() {
        let patched = operations(
            json!({"spec": {"ports": [{"port": 80}], "type": "ClusterIP"}}),
            json!([
                {"op": "test", "path": "/spec/type", "value": "ClusterIP"},
                {"op": "add", "path": "/spec/ports/-", "value": {"port": 443}},
                {"op": "replace", "path": "/spec/type", "value": "NodePort"},
                {"op": "remove", "path": "/spec/ports/0"},
            ]),
        );
        assert_eq!(patched.unwrap(), json!({"spec": {"ports": [{"port": 443}], "type": "NodePort"}}));
    }

    #[test]
    fn failures_have_kubernetes_codes() {
        let object = json!({"a": 1});
        let code = |patch: Value| operations(object.clone(), patch).unwrap_err().code();
        assert_eq!(code(json!([{"op": "test", "path": "/a", "value": 2}])), 422);
        assert_eq!(code(json!([{"op": "remove", "path": "/b"}])), 422);
        assert_eq!(code(json!([{"op": "frob", "path": "/b"}])), 422);
        assert_eq!(code(json!({"op": "remove"})), 400);
        assert_eq!(apply_operations(&object, b"[{").unwrap_err().code(), 400);
        let many: Vec<Value> = (0..=10_000).map(|_| json!({"op": "remove", "path": "/b"})).collect();
        let error = operations(object.clone(), Value::Array(many)).unwrap_err();
        assert_eq!(error.code(), 413);
        assert_eq!(error.to_string(), "The allowed maximum operations in a JSON patch is 10000, got 10001");
    }

    #[test]
    fn copies_cannot_grow_the_object_without_end() {
        let doubling: Vec<Value> =
            (0..40).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        assert_eq!(operations(json!({"a": ["x"]}), Value::Array(doubling)).unwrap_err().code(), 422);
        let wide: Vec<Value> =
            (0..9_000).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
        assert_eq!(operations(json!({"a": "x".repeat(1000)}), Value::Array(wide)).unwrap_err().code(), 422);
    }

    #[test]
    fn merge_wants_an_object() {
        let error = apply_merge(&json!({}), b"[]").unwrap_err();
        assert_eq!(error.code(), 400);
        assert_eq!(
            error.to_string(),
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
        );
    }

    /// The merge patch that leads from `a` to `b`; None if there is none (a null inside `b` cannot be said).
    fn diff(a: &Value, b: &Value) -> Value {
        let (Value::Object(a), Value::Object(b)) = (a, b) else { return b.clone() };
        let mut patch = serde_json::Map::new();
        for key in a.keys().filter(|key| !b.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        for (key, value) in b {
            match a.get(key) {
                Some(old) if old == value => {}
                Some(old) if old.is_object() && value.is_object() => {
                    patch.insert(key.clone(), diff(old, value));
                }
                _ => {
                    patch.insert(key.clone(), value.clone());
                }
            }
        }
        Value::Object(patch)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..5i64).prop_map(Value::from),
            "[ab]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from), object_of(inner),]
        })
    }

    fn object_of(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-d]", inner, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn merging_the_difference_gives_the_other(a in object_of(value()), b in object_of(value())) {
            let merged = apply_merge(&a, diff(&a, &b).to_string().as_bytes()).unwrap();
            prop_assert_eq!(merged, b);
        }

        #[test]
        fn merging_twice_is_merging_once(a in object_of(value()), patch in object_of(value())) {
            let once = apply_merge(&a, patch.to_string().as_bytes()).unwrap();
            let twice = apply_merge(&once, patch.to_string().as_bytes()).unwrap();
            prop_assert_eq!(once, twice);
        }
    }
}
