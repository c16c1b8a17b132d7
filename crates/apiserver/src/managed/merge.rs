//! Values changed along a schema: an applied object merged into a live one, and fields taken out of an object.

use std::collections::{BTreeMap, BTreeSet};

use portolan_api::schema::Type;
use serde_json::{Map, Value};

use super::set::{Set, brackets, field_step};
use super::shape::{Items, Shape, step_to_item};

/// The live value with what the applied one says.
pub(crate) fn merge(live: Option<&Value>, applied: Option<&Value>, shape: Shape) -> Option<Value> {
    let Some(applied) = applied else { return live.cloned() };
    match (shape, live, applied) {
        (Shape::Struct(_) | Shape::Map(_), Some(Value::Object(live)), Value::Object(applied)) => {
            let mut merged = live.clone();
            for (key, value) in applied {
                if let Some(value) = merge(live.get(key), Some(value), shape.below(key).0) {
                    merged.insert(key.clone(), value);
                }
            }
            Some(Value::Object(merged))
        }
        (Shape::List(items, ty), Some(Value::Array(live)), Value::Array(applied)) => {
            Some(Value::Array(merge_lists(live, applied, items, ty)))
        }
        (Shape::Struct(_) | Shape::Map(_) | Shape::List(..), Some(live), Value::Null) => Some(live.clone()),
        (_, _, applied) => Some(applied.clone()),
    }
}

/// Items of the applied list in its order; those that only the live one has stay where they were, as far as both orders
/// allow that.
fn merge_lists(live: &[Value], applied: &[Value], items: Items, ty: &'static Type) -> Vec<Value> {
    let steps = |list: &[Value]| -> Vec<Option<Box<str>>> {
        list.iter().map(|item| step_to_item(items, ty, item)).collect()
    };
    let (had, wants) = (steps(live), steps(applied));
    let mut first = BTreeMap::new();
    for (step, item) in had.iter().zip(live) {
        if let Some(step) = step {
            first.entry(step).or_insert(item);
        }
    }
    let wanted: BTreeSet<_> = wants.iter().flatten().collect();
    let mut shared = wants.iter().flatten().filter(|step| first.contains_key(step)).peekable();
    let mut done = BTreeSet::new();
    let mut merged = Vec::with_capacity(live.len() + applied.len());
    let (mut l, mut a) = (0, 0);
    while l < live.len() || a < applied.len() {
        if let Some(here) = had.get(l) {
            let is_wanted = here.as_ref().is_some_and(|step| wanted.contains(step));
            if !is_wanted && wants.get(a) != Some(here) {
                merged.push(live[l].clone());
                l += 1;
                continue;
            }
            let turn_of_another = shared.peek().is_some_and(|next| Some(*next) != here.as_ref());
            let is_done = here.as_ref().is_some_and(|step| done.contains(step));
            if is_done || (turn_of_another && wants.get(a) != Some(here)) {
                l += 1;
                continue;
            }
            if wants.get(a) == Some(here) {
                l += 1;
            }
        }
        let (Some(item), Some(step)) = (applied.get(a), wants.get(a)) else {
            // Everything applied is done, so that what is left is live alone.
            continue;
        };
        let mine = step.as_ref().and_then(|step| first.get(step)).copied();
        merged.extend(merge(mine, Some(item), Shape::of_type(*ty)));
        if shared.peek().copied() == step.as_ref() {
            shared.next();
        }
        done.extend(step.as_ref());
        a += 1;
    }
    merged
}

/// The value without the members of `set`, and without what lies below them. Nothing is left of an object or list that
/// loses all it has.
pub(crate) fn without(value: &Value, set: &Set, shape: Shape) -> Option<Value> {
    let rest = |step: Option<&str>, below: &Value, shape: Shape| match step
        .and_then(|step| set.children.get(step))
    {
        None => Some(below.clone()),
        Some(found) if found.member => None,
        Some(found) => without(below, found, shape),
    };
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let left: Map<String, Value> = map
                .iter()
                .filter_map(|(key, value)| {
                    Some((key.clone(), rest(Some(&field_step(key)), value, shape.below(key).0)?))
                })
                .collect();
            (!left.is_empty() || map.is_empty()).then_some(Value::Object(left))
        }
        (Shape::List(items, ty), Value::Array(list)) => {
            let left: Vec<Value> = list
                .iter()
                .filter_map(|item| rest(step_to_item(items, ty, item).as_deref(), item, Shape::of_type(*ty)))
                .collect();
            (!left.is_empty() || list.is_empty()).then_some(Value::Array(left))
        }
        _ => Some(value.clone()),
    }
}

/// What is wrong with an object as one to apply: fields without a schema, items without keys, or the same item twice.
pub(crate) fn check(value: &Value, shape: Shape, path: &str) -> Vec<String> {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            let mut wrong = Vec::new();
            for (key, value) in map {
                let path = format!("{path}.{key}");
                let (below, declared) = shape.below(key);
                if matches!(shape, Shape::Struct(_)) && !declared {
                    wrong.push(format!("{path}: field not declared in schema"));
                } else {
                    wrong.extend(check(value, below, &path));
                }
            }
            wrong
        }
        (Shape::List(items, ty), Value::Array(list)) => check_list(list, items, ty, path),
        _ => Vec::new(),
    }
}

fn check_list(list: &[Value], items: Items, ty: &'static Type, path: &str) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, item) in list.iter().enumerate() {
        let Some(step) = step_to_item(items, ty, item) else {
            let Items::Map(keys) = items else { continue };
            if !item.is_object() {
                wrong.push(format!(
                    "{path}: element {at}: associative list with keys may not have non-map elements"
                ));
                continue;
            }
            let key = keys
                .iter()
                .find(|key| item.get(**key).is_none_or(Value::is_null))
                .copied()
                .unwrap_or_default();
            wrong.push(format!(
                "{path}: element {at}: associative list with keys has an element that omits key field {key:?} (and \
                 doesn't have default value)"
            ));
            continue;
        };
        let shown = match step.split_once(':') {
            Some(("k", keys)) => brackets(keys),
            Some((_, value)) => format!("[={value}]"),
            None => String::new(),
        };
        wrong.extend(check(item, Shape::of_type(*ty), &format!("{path}{shown}")));
        if !seen.insert(step) {
            wrong.push(format!("{path}: duplicate entries for key {shown}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use portolan_api::core::v1::{Pod, Service};
    use portolan_api::schema::Schema;
    use serde_json::json;

    use super::super::compare::root;
    use super::*;

    fn merged(live: &Value, applied: &Value, schema: &'static Schema) -> Value {
        merge(Some(live), Some(applied), root(schema)).unwrap()
    }

    fn finalizers(list: &[&str]) -> Value {
        json!({"metadata": {"finalizers": list}})
    }

    #[test]
    fn lists_merge_in_the_order_of_the_applied_one() {
        let order = |live: &[&str], applied: &[&str]| {
            merged(&finalizers(live), &finalizers(applied), Pod::schema())["metadata"]["finalizers"].clone()
        };
        assert_eq!(order(&["a", "b", "c"], &["b"]), json!(["a", "b", "c"]));
        assert_eq!(order(&["a", "b"], &["c"]), json!(["a", "b", "c"]));
        assert_eq!(order(&["a", "b"], &["b", "a"]), json!(["b", "a"]));
        assert_eq!(order(&[], &["b", "a"]), json!(["b", "a"]));
        assert_eq!(
            order(&["x", "a", "y", "b", "z"], &["a", "n", "b"]),
            json!(["x", "a", "y", "n", "b", "z"])
        );
    }

    #[test]
    fn items_merge_by_their_keys_and_the_default_of_a_key() {
        let live = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 80, "protocol": "UDP"}],
            "selector": {"a": "b"}, "type": "NodePort"}});
        let applied = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"c": "d"}}});
        assert_eq!(
            merged(&live, &applied, Service::schema()),
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}, {"port": 80, "protocol": "UDP"}],
                "selector": {"c": "d"}, "type": "NodePort"}})
        );
    }

    #[test]
    fn fields_are_taken_out_with_all_that_is_in_them() {
        let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}, "annotations": {"x": "y"}},
            "spec": {"ports": [{"port": 80, "protocol": "TCP", "nodePort": 1}, {"port": 81, "protocol": "TCP"}]}});
        let gone = json!({"f:metadata": {"f:labels": {"f:a": {}}, "f:annotations": {"f:x": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
        let left = without(&live, &Set::from_fields_v1(&gone).unwrap(), root(Service::schema())).unwrap();
        assert_eq!(
            left,
            json!({"metadata": {"labels": {"b": "2"}}, "spec": {"ports": [{"port": 81, "protocol": "TCP"}]}})
        );
    }

    #[test]
    fn what_cannot_be_applied_is_named() {
        let wrong = |value: &Value| check(value, root(Service::schema()), "").join("; ");
        assert_eq!(wrong(&json!({"spec": {"foo": 1}})), ".spec.foo: field not declared in schema");
        assert_eq!(
            wrong(&json!({"spec": {"ports": [{"port": 80}, {"port": 80, "protocol": "TCP"}]}})),
            ".spec.ports: duplicate entries for key [port=80,protocol=\"TCP\"]"
        );
        assert!(wrong(&json!({"spec": {"ports": [{"name": "x"}]}})).contains("omits key field \"port\""));
        assert_eq!(
            wrong(&finalizers(&["a", "a"])),
            ".metadata.finalizers: duplicate entries for key [=\"a\"]"
        );
    }
}
