//! Metadata: names, labels, owners, finalizers, and what may never change.

use serde::Deserialize as _;
use serde_json::{Value, json};

use super::{invalid_each, name};
use crate::field::{FieldError, FieldErrors, go_quote};
use crate::meta::v1::ObjectMeta;

/// A rule for names.
pub type NameRule = fn(&str) -> Vec<String>;

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
/// Finalizers without a prefix that Kubernetes knows.
const PLAIN_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// Reads the metadata of an object. What cannot be read is empty; decoding has checked the types before.
pub fn of(object: &Value) -> ObjectMeta {
    object.get("metadata").and_then(|m| ObjectMeta::deserialize(m).ok()).unwrap_or_default()
}

/// Metadata of any object, new or changed.
pub fn object_meta(meta: &ObjectMeta, namespaced: bool, rule: NameRule) -> FieldErrors {
    let mut errors = any_meta(meta, namespaced, rule);
    known_finalizers(&mut errors, meta);
    errors
}

/// The same without what only Kubernetes' own kinds are asked for.
fn any_meta(meta: &ObjectMeta, namespaced: bool, rule: NameRule) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if !meta.generate_name.is_empty() {
        // A trailing dash is fine: five letters follow.
        let masked = mask_trailing_dash(&meta.generate_name);
        invalid_each(&mut errors, "metadata.generateName", &meta.generate_name, rule(&masked));
    }
    if meta.name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        invalid_each(&mut errors, "metadata.name", &meta.name, rule(&meta.name));
    }
    if namespaced {
        if meta.namespace.is_empty() {
            errors.push(FieldError::required("metadata.namespace", ""));
        } else {
            invalid_each(
                &mut errors,
                "metadata.namespace",
                &meta.namespace,
                name::dns1123_label(&meta.namespace),
            );
        }
    } else if !meta.namespace.is_empty() {
        errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type"));
    }
    if meta.generation < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("metadata.generation", meta.generation, detail));
    }
    labels(&mut errors, "metadata.labels", &meta.labels);
    annotations(&mut errors, meta);
    owners(&mut errors, meta);
    finalizers(&mut errors, meta);
    errors
}

fn mask_trailing_dash(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(stem) if text.len() > 1 => format!("{stem}a"),
        _ => text.to_owned(),
    }
}

/// Labels, also those somewhere else than in metadata, such as a Service's selector.
pub fn labels(errors: &mut FieldErrors, path: &str, labels: &std::collections::BTreeMap<String, String>) {
    for (key, value) in labels {
        invalid_each(errors, path, key, name::qualified(key));
        invalid_each(errors, path, value, name::label_value(value));
    }
}

fn annotations(errors: &mut FieldErrors, meta: &ObjectMeta) {
    let mut bytes = 0;
    for (key, value) in &meta.annotations {
        invalid_each(errors, "metadata.annotations", key, name::qualified(&key.to_lowercase()));
        bytes += key.len() + value.len();
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long("metadata.annotations", ANNOTATIONS_BYTES_MAX));
    }
}

fn owners(errors: &mut FieldErrors, meta: &ObjectMeta) {
    let mut controller: Option<&str> = None;
    for (i, owner) in meta.owner_references.iter().enumerate() {
        let path = format!("metadata.ownerReferences[{i}]");
        let mut needs = |field: &str, value: &str, detail: &str| {
            if value.is_empty() {
                errors.push(FieldError::invalid(format!("{path}.{field}"), value, detail));
            }
        };
        let version = owner.api_version.rsplit('/').next().unwrap_or_default();
        needs("apiVersion", version, "version must not be empty");
        needs("kind", &owner.kind, "must not be empty");
        needs("name", &owner.name, "must not be empty");
        needs("uid", &owner.uid, "must not be empty");
        if owner.controller != Some(true) {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                owner.name
            );
            errors.push(FieldError::invalid(
                "metadata.ownerReferences",
                json!(meta.owner_references),
                detail,
            ));
        } else {
            controller = Some(&owner.name);
        }
    }
}

fn finalizers(errors: &mut FieldErrors, meta: &ObjectMeta) {
    for finalizer in &meta.finalizers {
        invalid_each(errors, "metadata.finalizers", finalizer, name::qualified(finalizer));
    }
    let has = |name: &str| meta.finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid("metadata.finalizers", json!(meta.finalizers), detail));
    }
}

/// Finalizers of Kubernetes' own kinds are known ones or have a prefix.
fn known_finalizers(errors: &mut FieldErrors, meta: &ObjectMeta) {
    for (i, finalizer) in meta.finalizers.iter().enumerate() {
        let odd = !finalizer.contains('/') && !PLAIN_FINALIZERS.contains(&finalizer.as_str());
        if odd && name::qualified(finalizer).is_empty() {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            let path = format!("metadata.finalizers[{i}]");
            errors.push(FieldError::invalid(path, finalizer.as_str(), detail));
        }
    }
}

/// What the registry looks at in every update, of whatever part of whatever kind, before the kind's own rules. Those look
/// at it again, and each looks twice at labels: a refusal has as many causes for one error, as with Kubernetes.
pub fn common_update(new: &Value, old: &Value, namespaced: bool) -> FieldErrors {
    let (new, old) = (of(new), of(old));
    let mut errors = any_meta(&new, namespaced, name::path_segment);
    errors.extend(object_meta_update(&new, &old));
    errors
}

/// What must stay the same from the stored object to the new one.
pub fn object_meta_update(new: &ObjectMeta, old: &ObjectMeta) -> FieldErrors {
    let mut errors = FieldErrors::new();
    if old.deletion_timestamp.is_some() {
        let added: Vec<String> =
            new.finalizers.iter().filter(|f| !old.finalizers.contains(f)).map(|f| go_quote(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    let mut immutable = |field: &str, same: bool, value: Value| {
        if !same {
            errors.push(FieldError::invalid(format!("metadata.{field}"), value, "field is immutable"));
        }
    };
    immutable("name", new.name == old.name, json!(new.name));
    immutable("namespace", new.namespace == old.namespace, json!(new.namespace));
    immutable("uid", new.uid == old.uid, json!(new.uid));
    immutable(
        "creationTimestamp",
        new.creation_timestamp == old.creation_timestamp,
        json!(new.creation_timestamp),
    );
    immutable(
        "deletionTimestamp",
        new.deletion_timestamp == old.deletion_timestamp,
        json!(new.deletion_timestamp),
    );
    immutable(
        "deletionGracePeriodSeconds",
        new.deletion_grace_period_seconds == old.deletion_grace_period_seconds,
        json!(new.deletion_grace_period_seconds),
    );
    if new.generation < old.generation {
        errors.push(FieldError::invalid("metadata.generation", new.generation, "must not be decremented"));
    }
    labels(&mut errors, "metadata.labels", &new.labels);
    annotations(&mut errors, new);
    owners(&mut errors, new);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;

    fn check(meta: &Value) -> Vec<String> {
        let meta = of(&json!({ "metadata": meta }));
        object_meta(&meta, true, name::dns1123_subdomain).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metadata_is_refused_in_kubernetes_words() {
        assert_eq!(
            check(&json!({"namespace": "d"})),
            ["metadata.name: Required value: name or generateName is required"]
        );
        assert!(check(&json!({"name": "web-x1", "generateName": "web-", "namespace": "d"})).is_empty());
        assert_eq!(check(&json!({"name": "a"})), ["metadata.namespace: Required value"]);
        assert_eq!(
            check(&json!({"name": "a", "namespace": "d", "finalizers": ["x"]})),
            [
                "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully \
             qualified"
            ]
        );
        assert_eq!(
            check(&json!({"name": "a", "namespace": "d", "labels": {"k": "a b"}}))[0],
            "metadata.labels: Invalid value: \"a b\": a valid label must be an empty string or consist of \
             alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
             'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
        );
    }

    #[test]
    fn what_identifies_an_object_never_changes() {
        let old = ObjectMeta { name: "a".into(), uid: "1".into(), ..ObjectMeta::default() };
        let new = ObjectMeta { name: "a".into(), uid: "2".into(), ..ObjectMeta::default() };
        let errors = object_meta_update(&new, &old);
        assert_eq!(errors[0].to_string(), "metadata.uid: Invalid value: \"2\": field is immutable");
    }

    #[test]
    fn a_dying_object_gets_no_new_finalizers() {
        let at = Some(Time::from_second(1));
        let old = ObjectMeta { deletion_timestamp: at, ..ObjectMeta::default() };
        let new = ObjectMeta { finalizers: vec!["a/b".into()], ..old.clone() };
        assert_eq!(
            object_meta_update(&new, &old)[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
             new finalizers []string{\"a/b\"}"
        );
    }
}
