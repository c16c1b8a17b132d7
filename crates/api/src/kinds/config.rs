//! `ConfigMap` and `Secret`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{child, created, differ, set_default, updated};
use crate::field::{FieldError, FieldErrors};
use crate::strategy::Strategy;
use crate::validate::invalid_each;
use crate::validate::name::{config_key, dns1123_subdomain};

const BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
pub struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        data(&mut errors, object, &["data", "binaryData"]);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        data(&mut errors, new, &["data", "binaryData"]);
        immutable(&mut errors, new, old, &["data", "binaryData"]);
        errors
    }
}

#[derive(Debug)]
pub struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn default(&self, object: &mut Value) {
        let Some(map) = object.as_object_mut() else { return };
        set_default(map, "type", "Opaque");
        // Text is for writing only: it is stored with the rest.
        let Some(Value::Object(text)) = map.remove("stringData") else { return };
        let Some(data) = child(object, "data") else { return };
        for (key, value) in text {
            let value = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, value.into());
        }
    }

    fn validate_create(&self, object: &Value) -> FieldErrors {
        let mut errors = created(object, true, dns1123_subdomain);
        data(&mut errors, object, &["data"]);
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> FieldErrors {
        let mut errors = updated(new, old, true);
        data(&mut errors, new, &["data"]);
        if differ(new, old, "type") {
            errors.push(FieldError::invalid("type", new["type"].clone(), "field is immutable"));
        }
        immutable(&mut errors, new, old, &["data"]);
        errors
    }
}

fn data(errors: &mut FieldErrors, object: &Value, fields: &[&str]) {
    let empty = Map::new();
    let mut bytes = 0;
    for field in fields {
        let map = object.get(*field).and_then(Value::as_object).unwrap_or(&empty);
        for (key, value) in map {
            invalid_each(errors, &format!("{field}[{key}]"), key, config_key(key));
            bytes += value.as_str().unwrap_or_default().len();
        }
    }
    if bytes > BYTES_MAX {
        errors.push(FieldError::too_long(fields[0], BYTES_MAX));
    }
}

fn immutable(errors: &mut FieldErrors, new: &Value, old: &Value, fields: &[&str]) {
    if old["immutable"] != true {
        return;
    }
    let detail = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        errors.push(FieldError::forbidden("immutable", detail));
    }
    for field in fields.iter().filter(|f| differ(new, old, f)) {
        errors.push(FieldError::forbidden(*field, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;
    use serde_json::json;

    #[test]
    fn text_of_a_secret_becomes_data() {
        let mut object = json!({"metadata": {"name": "a", "namespace": "d"}, "stringData": {"k": "v"}});
        SecretStrategy.default(&mut object);
        assert_eq!(object["data"], json!({"k": "dg=="}));
        assert_eq!(object["type"], "Opaque");
        assert!(object.get("stringData").is_none());
    }

    #[test]
    fn an_immutable_map_keeps_its_data() {
        let old = json!({"metadata": {"name": "a", "namespace": "d"}, "immutable": true, "data": {"a": "b"}});
        let mut new = old.clone();
        new["data"]["a"] = json!("c");
        assert_eq!(
            texts(&ConfigMapStrategy.validate_update(&new, &old)),
            ["data: Forbidden: field is immutable when `immutable` is set"]
        );
    }
}
