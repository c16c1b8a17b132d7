//! What changed between two objects, and which fields an object has: values in, field sets out.

use std::collections::BTreeMap;

use portolan_api::schema::{Field, Schema, Type};
use serde_json::{Map, Value};

use super::set::{Set, field_step};
use super::shape::{Items, Shape, step_to_item};

/// The fields in which one object differs from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    pub(crate) added: Set,
    pub(crate) modified: Set,
    pub(crate) removed: Set,
}

impl Diff {
    fn put(&mut self, step: &str, below: Diff) {
        self.added.put(step, below.added);
        self.modified.put(step, below.modified);
        self.removed.put(step, below.removed);
    }

    /// What is new or has another value.
    pub(crate) fn written(&self) -> Set {
        self.added.clone().union(self.modified.clone())
    }
}

/// What leads from `old` to `new`. Absent values are `None`.
pub(crate) fn compare(old: Option<&Value>, new: Option<&Value>, shape: Shape) -> Diff {
    let mut diff = Diff::default();
    let leaf = match shape {
        Shape::Leaf => true,
        Shape::Struct(_) | Shape::Map(_) => {
            match (old.and_then(Value::as_object), new.and_then(Value::as_object)) {
                (old, new) if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) => true,
                (old, new) => {
                    compare_maps(&mut diff, old, new, shape);
                    false
                }
            }
        }
        Shape::List(items, ty) => match (old.and_then(Value::as_array), new.and_then(Value::as_array)) {
            (old, new) if old.is_none_or(Vec::is_empty) && new.is_none_or(Vec::is_empty) => true,
            (old, new) => {
                compare_lists(&mut diff, (old, new), items, ty);
                false
            }
        },
    };
    match (old, new) {
        (None, Some(_)) => diff.added.member = true,
        (Some(_), None) => diff.removed.member = true,
        (Some(old), Some(new)) if leaf && old != new => diff.modified.member = true,
        _ => {}
    }
    diff
}

fn compare_maps(
    diff: &mut Diff,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    shape: Shape,
) {
    let empty = Map::new();
    let (had, has) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
    for key in had.keys().chain(has.keys().filter(|key| !had.contains_key(*key))) {
        let (below, _) = shape.below(key);
        let zero = zero_of(shape, key);
        // What Kubernetes' encoder always writes counts as there if what it is in is there.
        let before = had.get(key).or(zero.filter(|_| old.is_some()));
        let after = has.get(key).or(zero.filter(|_| new.is_some()));
        let found = compare(before, after, below);
        diff.put(&field_step(key), found);
    }
}

/// What Kubernetes writes for a field that nobody set: an empty object where it has no pointer, null for a list that
/// must be there.
pub(super) fn zero_of(shape: Shape, key: &str) -> Option<&'static Value> {
    static NULL: Value = Value::Null;
    static EMPTY: std::sync::LazyLock<Value> = std::sync::LazyLock::new(|| Value::Object(Map::new()));
    let Shape::Struct(schema) = shape else { return None };
    match schema.field(key)? {
        Field { ty: Type::Object(_), pointer: false, .. } => Some(&EMPTY),
        Field { ty: Type::List(_), required: true, .. } => Some(&NULL),
        _ => None,
    }
}

fn compare_lists(
    diff: &mut Diff,
    (old, new): (Option<&Vec<Value>>, Option<&Vec<Value>>),
    items: Items,
    ty: &'static Type,
) {
    let (had, has) = (index(old, items, ty), index(new, items, ty));
    let (none, shape) = (Vec::new(), Shape::of_type(*ty));
    for step in had.keys().chain(has.keys().filter(|step| !had.contains_key(*step))) {
        let (before, after) = (had.get(step).unwrap_or(&none), has.get(step).unwrap_or(&none));
        let found = match (before.as_slice(), after.as_slice()) {
            (&[], &[after]) => compare(None, Some(after), shape),
            (&[before], &[]) => compare(Some(before), None, shape),
            (&[before], &[after]) => compare(Some(before), Some(after), shape),
            // Items with the same keys, which some lists allow, change together.
            (before, after) => {
                let mut found = Diff::default();
                found.added.member = before.is_empty();
                found.removed.member = after.is_empty();
                found.modified.member = !before.is_empty() && !after.is_empty() && before != after;
                found
            }
        };
        diff.put(step, found);
    }
}

pub(super) type Index<'a> = BTreeMap<Box<str>, Vec<&'a Value>>;

/// Items by step. Items without their keys are nobody's.
pub(super) fn index<'a>(list: Option<&'a Vec<Value>>, items: Items, ty: &'static Type) -> Index<'a> {
    let mut index = Index::new();
    for item in list.into_iter().flatten() {
        if let Some(step) = step_to_item(items, ty, item) {
            index.entry(step).or_default().push(item);
        }
    }
    index
}

/// The fields that an object names: its leaves, the items of its lists, and its empty objects.
pub(crate) fn fields_of(value: &Value, shape: Shape) -> Set {
    let mut set = Set::default();
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Object(map)) => {
            for (key, value) in map {
                let (below, declared) = shape.below(key);
                let mut found = fields_of(value, below);
                found.member |= !declared || value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.put(&field_step(key), found);
            }
        }
        (Shape::List(items, ty), Value::Array(list)) => {
            for (step, found) in index(Some(list), items, ty) {
                let mut below = match found.as_slice() {
                    [item] => fields_of(item, Shape::of_type(*ty)),
                    _ => Set::default(),
                };
                below.member = true;
                set.put(&step, below);
            }
        }
        (Shape::Leaf, _) => set.member = true,
        _ => {}
    }
    set
}

/// The set, with every declared field that leads to a member as a member too.
#[must_use]
pub(crate) fn with_parents(mut set: Set, shape: Shape) -> Set {
    for (step, child) in &mut set.children {
        let (below, declared) = shape.below_step(step);
        let mut whole = with_parents(std::mem::take(child), below);
        whole.member |= declared && !whole.children.is_empty();
        *child = whole;
    }
    set
}

/// The shape of whole objects of a schema.
pub(crate) fn root(schema: &'static Schema) -> Shape {
    Shape::Struct(schema)
}

#[cfg(test)]
mod tests {
    use portolan_api::apps::v1::Deployment;
    use portolan_api::core::v1::{Pod, Service};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_service_adds_what_it_names_and_no_more() {
        let old = json!({});
        let new = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"selector": {"app": "x"},
            "ports": [{"port": 80, "protocol": "TCP"}], "type": "ClusterIP"}});
        let diff = compare(Some(&old), Some(&new), root(Service::schema()));
        assert_eq!(
            diff.added.to_fields_v1(),
            json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}}, "f:spec": {"f:selector": {}, "f:type": {},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}, "f:protocol": {}}}}})
        );
        assert!(diff.modified.is_empty() && diff.removed.is_empty());
        let back = compare(Some(&new), Some(&old), root(Service::schema()));
        assert_eq!(back.removed, diff.added);
    }

    #[test]
    fn what_kubernetes_always_writes_is_not_new() {
        let new = json!({"spec": {"strategy": {"type": "Recreate"}, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "resources": {}}]}}}});
        let diff = compare(Some(&json!({})), Some(&new), root(Deployment::schema()));
        assert_eq!(
            diff.added.to_fields_v1(),
            json!({"f:spec": {"f:strategy": {"f:type": {}}, "f:selector": {},
                "f:template": {"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"x\"}": {".": {}, "f:name": {}, "f:resources": {}}}}}}})
        );
    }

    #[test]
    fn a_changed_port_is_one_field() {
        let service = |target: u16, name: &str| json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": target}, {"port": 443, "name": name}]}});
        let diff = compare(Some(&service(80, "a")), Some(&service(81, "a")), root(Service::schema()));
        let key = "k:{\"port\":80,\"protocol\":\"TCP\"}";
        assert_eq!(diff.modified.to_fields_v1(), json!({"f:spec": {"f:ports": {key: {"f:targetPort": {}}}}}));
        assert!(diff.added.is_empty() && diff.removed.is_empty());
    }

    #[test]
    fn items_with_the_same_keys_change_together() {
        let pod = |second: &str| json!({"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": second}]}]}});
        let diff = compare(Some(&pod("2")), Some(&pod("3")), root(Pod::schema()));
        let env = json!({"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {"f:env": {"k:{\"name\":\"A\"}": {}}}}}});
        assert_eq!(diff.modified.to_fields_v1(), env);
    }

    #[test]
    fn an_applied_object_names_its_leaves_and_items() {
        let config = json!({"metadata": {"finalizers": ["a/b"], "labels": {"x": "y"}}, "spec": {"selector": {"a": "b"},
            "sessionAffinityConfig": {}, "ports": [{"port": 80}]}});
        assert_eq!(
            fields_of(&config, root(Service::schema())).to_fields_v1(),
            json!({"f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}, "f:labels": {"f:x": {}}},
                "f:spec": {"f:selector": {}, "f:sessionAffinityConfig": {},
                    "f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}})
        );
        let set = with_parents(fields_of(&config, root(Service::schema())), root(Service::schema()));
        assert!(set.children["f:spec"].member && set.children["f:spec"].children["f:ports"].member);
    }
}
