//! The environment of a container, and variables in its command line.

use std::collections::BTreeMap;

use portolan_api::core::v1::{Container, EnvVar, Pod};

/// What a pod can be told about itself while it starts.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) node_name: &'a str,
}

/// Names and values in the order of the specification; a later variable of the same name wins.
/// Fails with a text if a value comes from where this node cannot look.
pub(crate) fn environment(container: &Container, facts: &Facts<'_>) -> Result<Vec<(String, String)>, String> {
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    let mut order = Vec::new();
    if !container.env_from.is_empty() {
        return Err("envFrom is not supported by this node yet".into());
    }
    for var in &container.env {
        let Some(value) = value(var, &values, facts)? else { continue };
        if values.insert(&var.name, value).is_none() {
            order.push(var.name.as_str());
        }
    }
    Ok(order.into_iter().map(|name| (name.to_owned(), values.remove(name).unwrap_or_default())).collect())
}

fn value(var: &EnvVar, known: &BTreeMap<&str, String>, facts: &Facts<'_>) -> Result<Option<String>, String> {
    let Some(source) = &var.value_from else {
        return Ok(Some(expand(&var.value, |name| known.get(name).cloned())));
    };
    if let Some(field) = &source.field_ref {
        return self::field(&field.field_path, facts).map(Some).ok_or_else(|| {
            format!("env {}: field {:?} is not supported by this node", var.name, field.field_path)
        });
    }
    let (kind, optional) = if let Some(key) = &source.config_map_key_ref {
        ("configMapKeyRef", key.optional)
    } else if let Some(key) = &source.secret_key_ref {
        ("secretKeyRef", key.optional)
    } else {
        ("this kind of valueFrom", None)
    };
    match optional {
        Some(true) => Ok(None),
        _ => Err(format!("env {}: {kind} is not supported by this node yet", var.name)),
    }
}

fn field(path: &str, facts: &Facts<'_>) -> Option<String> {
    let meta = &facts.pod.metadata;
    let subscript = |prefix: &str| path.strip_prefix(prefix)?.strip_suffix("']");
    let value = match path {
        "metadata.name" => &meta.name,
        "metadata.namespace" => &meta.namespace,
        "metadata.uid" => &meta.uid,
        "spec.nodeName" => facts.node_name,
        "spec.serviceAccountName" => &facts.pod.spec.service_account_name,
        "status.podIP" | "status.podIPs" => facts.pod_ip,
        "status.hostIP" | "status.hostIPs" => facts.host_ip,
        _ => {
            let labels = subscript("metadata.labels['").map(|key| meta.labels.get(key));
            let annotations = subscript("metadata.annotations['").map(|key| meta.annotations.get(key));
            return labels.or(annotations).map(|value| value.cloned().unwrap_or_default());
        }
    };
    Some(value.to_owned())
}

/// Replaces `$(NAME)` where the name is known; `$$` stands for one `$`, and an unknown name stays as it is.
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            out.push_str(&lookup(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn env(env: &serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"serviceAccountName": "default"},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(json!({"name": "web", "env": env})).unwrap();
        let facts = Facts { pod: &pod, pod_ip: "10.1.0.5", host_ip: "192.0.2.1", node_name: "node-a" };
        environment(&container, &facts)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn values_fields_and_references_to_earlier_variables() {
        let from = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let found = env(&json!([
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)/$(NONE)/$$(A)"},
            {"name": "NAME", "valueFrom": from("metadata.name")},
            {"name": "SPACE", "valueFrom": from("metadata.namespace")},
            {"name": "IP", "valueFrom": from("status.podIP")},
            {"name": "HOST", "valueFrom": from("status.hostIP")},
            {"name": "NODE", "valueFrom": from("spec.nodeName")},
            {"name": "APP", "valueFrom": from("metadata.labels['app']")},
            {"name": "NOLABEL", "valueFrom": from("metadata.labels['x']")},
            {"name": "A", "value": "2"},
        ]));
        let expected = pairs(&[
            ("A", "2"),
            ("B", "1/$(NONE)/$(A)"),
            ("NAME", "web-1"),
            ("SPACE", "shop"),
            ("IP", "10.1.0.5"),
            ("HOST", "192.0.2.1"),
            ("NODE", "node-a"),
            ("APP", "web"),
            ("NOLABEL", ""),
        ]);
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn what_this_node_cannot_look_up_is_named() {
        let key = |optional| json!([{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}}]);
        assert_eq!(env(&key(false)), Err("env K: secretKeyRef is not supported by this node yet".into()));
        assert_eq!(env(&key(true)), Ok(pairs(&[])));
        let odd = json!([{"name": "K", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]);
        assert_eq!(env(&odd), Err("env K: field \"spec.x\" is not supported by this node".into()));
    }

    #[test]
    fn dollars_without_a_name_stay() {
        let none = |_: &str| None;
        for text in ["$", "a$b", "$(open", "100$$"] {
            assert_eq!(expand(text, none), text.replace("$$", "$"));
        }
    }
}
