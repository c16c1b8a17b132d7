//! Which kinds live in namespaces, and what a namespace looks like without its finalizer.

use serde::Deserialize;
use serde_json::Value;

/// The finalizer that this controller stands for.
pub const FINALIZER: &str = "kubernetes";

/// The answer of `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceList {
    pub resources: Vec<ResourceEntry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResourceEntry {
    pub name: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

/// The answer of `/apis`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupList {
    pub groups: Vec<Group>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    pub preferred_version: GroupVersion,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupVersion {
    pub group_version: String,
}

/// The paths of what can be listed and deleted in a namespace, for one group at `prefix`.
pub fn collections(prefix: &str, list: &ResourceList, namespace: &str) -> Vec<String> {
    let has = |entry: &ResourceEntry, verb: &str| entry.verbs.iter().any(|known| known == verb);
    list.resources
        .iter()
        .filter(|entry| {
            entry.namespaced && !entry.name.contains('/') && has(entry, "list") && has(entry, "delete")
        })
        .map(|entry| format!("{prefix}/namespaces/{namespace}/{}", entry.name))
        .collect()
}

/// The namespace without this controller's finalizer; `None` when it is not there.
pub fn without_finalizer(mut namespace: Value) -> Option<Value> {
    let finalizers = namespace.get_mut("spec")?.get_mut("finalizers")?.as_array_mut()?;
    let before = finalizers.len();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    (finalizers.len() < before).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn collections_are_what_can_be_listed_and_deleted() {
        let list: ResourceList = serde_json::from_value(json!({ "resources": [
            { "name": "pods", "namespaced": true, "verbs": ["list", "delete"] },
            { "name": "pods/status", "namespaced": true, "verbs": ["get", "list", "delete"] },
            { "name": "nodes", "namespaced": false, "verbs": ["list", "delete"] },
            { "name": "bindings", "namespaced": true, "verbs": ["create"] },
        ] }))
        .unwrap();
        assert_eq!(collections("/api/v1", &list, "a"), ["/api/v1/namespaces/a/pods"]);
    }

    #[test]
    fn only_the_own_finalizer_goes() {
        let namespace = json!({ "spec": { "finalizers": ["kubernetes", "other/one"] } });
        assert_eq!(without_finalizer(namespace), Some(json!({ "spec": { "finalizers": ["other/one"] } })));
        assert_eq!(without_finalizer(json!({ "spec": { "finalizers": ["other/one"] } })), None);
        assert_eq!(without_finalizer(json!({ "metadata": {} })), None);
    }
}
