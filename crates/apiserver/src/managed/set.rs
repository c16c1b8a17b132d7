//! Sets of fields: trees whose steps are the keys of `fieldsV1`.
//!
//! A step is `f:NAME` (a field or a key of a map), `k:{..}` (an item of a list, by its keys), `v:..` (an item of a set)
//! or `i:N`. A node is in the set itself (a *member*), or is only on the way to nodes that are.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of fields. The root is never a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// Whether the field at this node is in the set.
    pub(crate) member: bool,
    /// What lies below it.
    pub(crate) children: BTreeMap<Box<str>, Set>,
}

impl Set {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Puts what lies below one step in place; nothing if that is empty.
    pub(crate) fn put(&mut self, step: &str, below: Set) {
        if !below.is_empty() {
            self.children.insert(step.into(), below);
        }
    }

    /// What is in either.
    #[must_use]
    pub(crate) fn union(mut self, other: Set) -> Set {
        self.member |= other.member;
        for (step, theirs) in other.children {
            let ours = self.children.remove(&step).unwrap_or_default();
            self.children.insert(step, ours.union(theirs));
        }
        self
    }

    /// What is in both.
    #[must_use]
    pub(crate) fn intersection(&self, other: &Set) -> Set {
        let mut both = Set { member: self.member && other.member, children: BTreeMap::new() };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                both.put(step, ours.intersection(theirs));
            }
        }
        both
    }

    /// What is here and not there.
    #[must_use]
    pub(crate) fn difference(mut self, other: &Set) -> Set {
        self.member &= !other.member;
        for (step, theirs) in &other.children {
            if let Some(ours) = self.children.remove(step) {
                self.put(step, ours.difference(theirs));
            }
        }
        self
    }

    /// Every member, as the steps that lead to it; a node before what lies below it.
    pub(crate) fn paths(&self) -> Vec<Vec<&str>> {
        let (mut paths, mut way) = (Vec::new(), Vec::new());
        self.walk(&mut way, &mut paths);
        paths
    }

    fn walk<'a>(&'a self, way: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) {
        for below in [false, true] {
            for (step, child) in &self.children {
                way.push(step);
                if below {
                    child.walk(way, paths);
                } else if child.member {
                    paths.push(way.clone());
                }
                way.pop();
            }
        }
    }

    /// As `fieldsV1`.
    pub(crate) fn to_fields_v1(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (step, child) in &self.children {
            map.insert((**step).to_owned(), child.to_fields_v1());
        }
        Value::Object(map)
    }

    /// From `fieldsV1`; `None` if it is not that.
    pub(crate) fn from_fields_v1(value: &Value) -> Option<Set> {
        let mut root = Set::default();
        for (step, below) in value.as_object()? {
            // The root as a member says nothing.
            if step != "." {
                root.children.insert(canonical(step)?, Self::node(below)?);
            }
        }
        Some(root)
    }

    fn node(value: &Value) -> Option<Set> {
        let map = value.as_object()?;
        let mut set = Set { member: map.is_empty(), children: BTreeMap::new() };
        for (step, below) in map {
            if step == "." {
                set.member = true;
            } else {
                set.children.insert(canonical(step)?, Self::node(below)?);
            }
        }
        Some(set)
    }
}

/// A step in the one spelling that is compared: other servers may order keys otherwise.
fn canonical(step: &str) -> Option<Box<str>> {
    let (kind, rest) = step.split_once(':')?;
    match kind {
        "f" => Some(step.into()),
        "i" => rest.parse::<usize>().ok().map(|_| step.into()),
        "k" => serde_json::from_str::<Map<String, Value>>(rest).ok().map(|keys| key_step(&keys)),
        "v" => serde_json::from_str::<Value>(rest).ok().map(|value| item_step(&value)),
        _ => None,
    }
}

/// `f:NAME`.
pub(crate) fn field_step(name: &str) -> Box<str> {
    format!("f:{name}").into()
}

/// `k:{..}`, the keys in order.
pub(crate) fn key_step(keys: &Map<String, Value>) -> Box<str> {
    // A map with string keys is always JSON.
    format!("k:{}", serde_json::to_string(keys).unwrap_or_default()).into()
}

/// `v:..`.
pub(crate) fn item_step(value: &Value) -> Box<str> {
    format!("v:{value}").into()
}

/// A path as people read it: `.spec.ports[port=80,protocol="TCP"].targetPort`.
pub(crate) fn display(path: &[&str]) -> String {
    let mut text = String::new();
    for step in path {
        match step.split_once(':') {
            Some(("f", name)) => text.extend([".", name]),
            Some(("k", keys)) => text.push_str(&brackets(keys)),
            Some(("v", value)) => text.extend(["[=", value, "]"]),
            Some((_, rest)) => text.extend(["[", rest, "]"]),
            None => text.push_str(step),
        }
    }
    text
}

/// `[port=80,protocol="TCP"]` from the keys as JSON.
pub(crate) fn brackets(keys: &str) -> String {
    let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
    let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("[{}]", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: &Value) -> Set {
        Set::from_fields_v1(value).unwrap()
    }

    #[test]
    fn fields_v1_is_read_and_written() {
        let fields = json!({"f:spec": {"f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            "f:finalizers": {"v:\"a\"": {}}, "f:type": {}}});
        assert_eq!(set(&fields).to_fields_v1(), fields);
        let swapped = json!({"f:p": {"k:{\"protocol\":\"TCP\", \"port\":80}": {}}});
        let wanted = json!({"f:p": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {}}});
        assert_eq!(set(&swapped).to_fields_v1(), wanted);
        for bad in
            [json!(null), json!({"x:a": {}}), json!({"f:a": 1}), json!({"k:no": {}}), json!({"i:-1": {}})]
        {
            assert_eq!(Set::from_fields_v1(&bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_read_as_kubernetes_writes_them() {
        let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:targetPort": {}}},
            "f:x": {"v:\"a\"": {}, "i:3": {}}, "f:type": {}}});
        let fields = set(&fields);
        let shown: Vec<String> = fields.paths().iter().map(|path| display(path)).collect();
        assert_eq!(
            shown,
            [
                ".spec.type",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].targetPort",
                ".spec.x[3]",
                ".spec.x[=\"a\"]"
            ]
        );
    }

    fn any_set() -> impl Strategy<Value = Set> {
        let node = any::<bool>().prop_map(|member| Set { member, children: BTreeMap::new() });
        let tree = node.prop_recursive(4, 24, 4, |inner| {
            let step = prop::sample::select(vec!["f:a", "f:b", "k:{\"n\":1}", "v:\"x\"", "i:0"]);
            (any::<bool>(), prop::collection::vec((step, inner), 0..4)).prop_map(|(member, below)| {
                let mut set = Set { member, children: BTreeMap::new() };
                for (step, child) in below {
                    set.put(step, child);
                }
                set
            })
        });
        tree.prop_map(|mut set| {
            set.member = false;
            set
        })
    }

    proptest! {
        #[test]
        fn sets_obey_the_laws_of_sets(a in any_set(), b in any_set(), c in any_set()) {
            let union = |x: &Set, y: &Set| x.clone().union(y.clone());
            let minus = |x: &Set, y: &Set| x.clone().difference(y);
            prop_assert_eq!(union(&a, &b), union(&b, &a));
            prop_assert_eq!(union(&union(&a, &b), &c), union(&a, &union(&b, &c)));
            prop_assert_eq!(a.intersection(&b), b.intersection(&a));
            prop_assert_eq!(union(&a, &a), a.clone());
            prop_assert_eq!(a.intersection(&a), a.clone());
            prop_assert!(minus(&a, &a).is_empty());
            prop_assert_eq!(union(&minus(&a, &b), &a.intersection(&b)), a.clone());
            prop_assert!(minus(&a, &b).intersection(&b).is_empty());
            prop_assert_eq!(minus(&union(&a, &b), &c), union(&minus(&a, &c), &minus(&b, &c)));
            prop_assert_eq!(a.paths().len() + b.paths().len(), union(&a, &b).paths().len() + a.intersection(&b).paths().len());
            prop_assert_eq!(Set::from_fields_v1(&a.to_fields_v1()), Some(a));
        }
    }
}
