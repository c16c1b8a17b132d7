//! The environment of a container, and variables in its command line.

use std::collections::{HashMap, HashSet};

use portolan_api::core::v1::{Container, EnvVar, Pod};

use super::sources::{EnvFrom, Source, Sources};

/// What a pod can be told about itself while it starts.
#[derive(Debug, Clone)]
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) pod_ip: &'a str,
    pub(crate) host_ip: &'a str,
    pub(crate) node_name: &'a str,
}

/// What the environment is made of besides the pod itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given {
    /// Variables about Services; whatever the container says itself goes before them.
    pub(crate) services: Vec<(String, String)>,
    pub(crate) sources: Sources,
}

/// Names and values in the order of the specification; a later variable of the same name wins.
/// Fails with a text if a value comes from where there is nothing.
pub(crate) fn environment(
    container: &Container,
    facts: &Facts<'_>,
    given: &Given,
) -> Result<Vec<(String, String)>, String> {
    let mut known = Known::default();
    for from in EnvFrom::list(container) {
        let Some(source) = from.source() else { continue };
        match given.sources.get(&source).and_then(Option::as_ref) {
            Some(values) => {
                for (key, value) in values.iter().filter(|(key, _)| is_name(key)) {
                    known.set(&format!("{}{key}", from.prefix), value.clone());
                }
            }
            None if from.is_optional() => {}
            None => return Err(source.not_found()),
        }
    }
    for var in &container.env {
        if let Some(value) = value(var, &known, facts, given)? {
            known.set(&var.name, value);
        }
    }
    let mut list = known.into_list();
    let own: HashSet<String> = list.iter().map(|(name, _)| name.clone()).collect();
    list.extend(given.services.iter().filter(|(name, _)| !own.contains(name)).cloned());
    Ok(list)
}

/// What can stand before a `=` in an environment.
fn is_name(key: &str) -> bool {
    !key.is_empty() && !key.contains(['=', '\0'])
}

/// The variables so far.
#[derive(Debug, Default)]
struct Known {
    values: HashMap<String, String>,
    order: Vec<String>,
}

impl Known {
    fn set(&mut self, name: &str, value: String) {
        if self.values.insert(name.to_owned(), value).is_none() {
            self.order.push(name.to_owned());
        }
    }

    fn get(&self, name: &str, given: &Given) -> Option<String> {
        let service = || given.services.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        self.values.get(name).or_else(service).cloned()
    }

    fn into_list(mut self) -> Vec<(String, String)> {
        let value = |name: String| {
            let value = self.values.remove(&name).unwrap_or_default();
            (name, value)
        };
        self.order.into_iter().map(value).collect()
    }
}

fn value(var: &EnvVar, known: &Known, facts: &Facts<'_>, given: &Given) -> Result<Option<String>, String> {
    let Some(from) = &var.value_from else {
        return Ok(Some(expand(&var.value, |name| known.get(name, given))));
    };
    if let Some(field) = &from.field_ref {
        return self::field(&field.field_path, facts).map(Some).ok_or_else(|| {
            format!("env {}: field {:?} is not supported by this node", var.name, field.field_path)
        });
    }
    let key = from.config_map_key_ref.as_ref().or(from.secret_key_ref.as_ref());
    let (Some(source), Some(key)) = (Source::of(from), key) else {
        return Err(format!("env {}: this kind of valueFrom is not supported by this node yet", var.name));
    };
    let values = given.sources.get(&source).and_then(Option::as_ref);
    match values.map(|values| values.get(&key.key)) {
        Some(Some(value)) => Ok(Some(value.clone())),
        _ if key.optional == Some(true) => Ok(None),
        None => Err(source.not_found()),
        Some(None) => {
            let (kind, name) = match &source {
                Source::ConfigMap(name) => ("ConfigMap", name),
                Source::Secret(name) => ("Secret", name),
            };
            Err(format!("couldn't find key {} in {kind} {}/{name}", key.key, facts.pod.metadata.namespace))
        }
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
        of(&json!({"name": "web", "env": env}), &Given::default())
    }

    fn of(container: &serde_json::Value, given: &Given) -> Result<Vec<(String, String)>, String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
            "spec": {"serviceAccountName": "default"},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(container.clone()).unwrap();
        let facts = Facts { pod: &pod, pod_ip: "10.1.0.5", host_ip: "192.0.2.1", node_name: "node-a" };
        environment(&container, &facts, given)
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
    fn what_cannot_be_looked_up_is_named() {
        let key = |optional| json!([{"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": optional}}}]);
        assert_eq!(env(&key(false)), Err("secret \"s\" not found".into()));
        assert_eq!(env(&key(true)), Ok(pairs(&[])));
        let odd = json!([{"name": "K", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]);
        assert_eq!(env(&odd), Err("env K: field \"spec.x\" is not supported by this node".into()));
    }

    fn given() -> Given {
        let values = |list: &[(&str, &str)]| Some(pairs(list).into_iter().collect());
        Given {
            services: pairs(&[("DB_SERVICE_HOST", "10.96.0.5"), ("B", "service")]),
            sources: [
                (Source::ConfigMap("settings".into()), values(&[("A", "1"), ("B", "2"), ("a=b", "x")])),
                (Source::Secret("key".into()), values(&[("pass", "word")])),
                (Source::ConfigMap("none".into()), None),
            ]
            .into(),
        }
    }

    #[test]
    fn keys_of_objects_become_variables() {
        let container = json!({"name": "web",
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P_", "secretRef": {"name": "key"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [{"name": "A", "value": "own $(P_pass)"},
                    {"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "pass"}}},
                    {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}},
                    {"name": "URL", "value": "tcp://$(DB_SERVICE_HOST)"}]});
        let expected = pairs(&[
            ("A", "own word"),
            ("B", "2"),
            ("P_pass", "word"),
            ("WORD", "word"),
            ("URL", "tcp://10.96.0.5"),
            ("DB_SERVICE_HOST", "10.96.0.5"),
        ]);
        assert_eq!(of(&container, &given()), Ok(expected));
    }

    #[test]
    fn what_is_missing_is_said_in_kubelets_words() {
        let from = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "none"}}]});
        assert_eq!(of(&from, &given()), Err("configmap \"none\" not found".into()));
        let key = json!({"name": "c", "env": [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "key", "key": "x"}}}]});
        assert_eq!(of(&key, &given()), Err("couldn't find key x in Secret shop/key".into()));
    }

    #[test]
    fn dollars_without_a_name_stay() {
        let none = |_: &str| None;
        for text in ["$", "a$b", "$(open", "100$$"] {
            assert_eq!(expand(text, none), text.replace("$$", "$"));
        }
    }
}
