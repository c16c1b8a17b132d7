//! The rules of each kind but Services: one file per kind, each with its strategy.

pub mod apps;
pub mod config;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod networking;
pub mod node;
pub mod pod;
pub mod pod_defaults;
pub mod pod_update;
pub mod pod_validate;
pub mod pool;
pub mod rbac;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::meta::{self, NameRule};

/// Rules of kinds that have none beyond those about metadata.
pub struct Named {
    pub namespaced: bool,
    pub rule: NameRule,
}

impl Strategy for Named {
    fn validate_create(&self, object: &Value) -> FieldErrors {
        created(object, self.namespaced, self.rule)
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        updated(new, old, self.namespaced)
    }
}

/// The metadata of a new object.
pub(crate) fn created(object: &Value, namespaced: bool, rule: NameRule) -> FieldErrors {
    meta::object_meta(&meta::of(object), namespaced, rule)
}

/// The metadata of a changed object. Its name cannot have changed, and stays valid whatever the rules say now.
pub(crate) fn updated(new: &Value, old: &Value, namespaced: bool) -> FieldErrors {
    let new = meta::of(new);
    let mut errors = meta::object_meta_update(&new, &meta::of(old));
    errors.extend(meta::object_meta(&new, namespaced, |_| Vec::new()));
    errors
}

/// Reads an object into its struct. Decoding has checked the types before, so a failure is our own mistake.
pub(crate) fn read<T: DeserializeOwned>(object: &Value) -> Result<T, FieldErrors> {
    T::deserialize(object).map_err(|e| vec![FieldError::internal("", e.to_string())])
}

/// The object at a name, made if absent.
pub(crate) fn child<'a>(parent: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    parent.as_object_mut()?.entry(name).or_insert_with(|| json!({})).as_object_mut()
}

/// Sets what is absent, null or an empty string.
pub(crate) fn set_default(map: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    let absent = match map.get(name) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if absent {
        map.insert(name.to_owned(), value.into());
    }
}

/// The objects in a list, if there is one.
pub(crate) fn items_mut<'a>(
    map: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Takes a field over from the stored object, or drops it if that has none.
pub(crate) fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

/// Sets `metadata.generation`: the old one, and one more if what is wanted changed. Without an old one it starts at 1.
pub(crate) fn set_generation(new: &mut Value, old: Option<&Value>, changed: bool) {
    let generation = match old {
        None => 1,
        Some(old) => old["metadata"]["generation"].as_i64().unwrap_or(0) + i64::from(changed),
    };
    if let Some(metadata) = child(new, "metadata") {
        metadata.insert("generation".to_owned(), generation.into());
    }
}

/// Whether two objects differ in a field.
pub(crate) fn differ(new: &Value, old: &Value, field: &str) -> bool {
    new.get(field) != old.get(field)
}

/// For the status subresource: takes over the old object but for its status (and what metadata a status may change).
pub fn keep_all_but_status(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let (Some(kept_map), Some(new_map)) = (kept.as_object_mut(), new.as_object_mut()) else { return };
    match new_map.remove("status") {
        Some(status) => kept_map.insert("status".to_owned(), status),
        None => kept_map.remove("status"),
    };
    if let Some(metadata) = new_map.remove("metadata") {
        kept_map.insert("metadata".to_owned(), metadata);
    }
    *new = kept;
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::field::FieldErrors;

    /// The texts of errors, for comparison.
    pub(crate) fn texts(errors: &FieldErrors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }
}
