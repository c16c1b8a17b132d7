//! Field errors: what is wrong with which field, in Kubernetes' words.
//!
//! An error renders as `path: Label: value: detail`. A hint of ours, where there is one, follows in parentheses, so that
//! the words that tools and people know stay first and unchanged.

use std::fmt::{self, Write as _};

use serde_json::Value;

use crate::suggest;

/// All errors found in one object.
pub type FieldErrors = Vec<FieldError>;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    Required,
    Invalid,
    NotSupported,
    Duplicate,
    NotFound,
    Forbidden,
    TooLong,
    TooMany,
    TypeInvalid,
    Internal,
}

impl ErrorKind {
    pub fn label(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::NotFound => "Not found",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }

    /// The `reason` of a status cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::NotFound => "FieldValueNotFound",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::Internal => "InternalError",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Internal)
    }
}

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub path: String,
    pub kind: ErrorKind,
    pub value: Value,
    pub detail: String,
    /// Our own words about the likely intent; they come last.
    pub hint: Option<String>,
}

impl FieldError {
    fn new(path: impl Into<String>, kind: ErrorKind, value: Value, detail: impl Into<String>) -> Self {
        Self { path: path.into(), kind, value, detail: detail.into(), hint: None }
    }

    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Required, Value::Null, detail)
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Invalid, value.into(), detail)
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Forbidden, Value::Null, detail)
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, ErrorKind::Duplicate, value.into(), "")
    }

    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(path, ErrorKind::NotFound, value.into(), "")
    }

    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        Self::new(path, ErrorKind::TooLong, Value::Null, format!("may not be more than {max_bytes} bytes"))
    }

    pub fn too_many(path: impl Into<String>, actual: usize, max: usize) -> Self {
        let noun = if max == 1 { "item" } else { "items" };
        Self::new(path, ErrorKind::TooMany, actual.into(), format!("must have at most {max} {noun}"))
    }

    pub fn internal(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(path, ErrorKind::Internal, Value::Null, detail)
    }

    /// A value outside of those allowed. The allowed values are shown in the order given; a near one is suggested.
    pub fn not_supported(path: impl Into<String>, value: &str, allowed: &[&str]) -> Self {
        let quoted: Vec<String> = allowed.iter().map(|v| go_quote(v)).collect();
        let detail = if quoted.is_empty() {
            String::new()
        } else {
            format!("supported values: {}", quoted.join(", "))
        };
        let mut error = Self::new(path, ErrorKind::NotSupported, value.into(), detail);
        error.hint = suggest::near_value(value, allowed).map(suggest::did_you_mean);
        error
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The text without the path: the `message` of a status cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.label().to_owned();
        if self.kind.shows_value() {
            text.push_str(": ");
            text.push_str(&go_value(&self.value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        if let Some(hint) = &self.hint {
            text.push_str(" (");
            text.push_str(hint);
            text.push(')');
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.body())
    }
}

/// A value that prints as this very text; serde's maps would sort its keys.
pub(crate) fn raw_json(text: String) -> Value {
    let mut map = serde_json::Map::new();
    map.insert(RAW.to_owned(), Value::String(text));
    Value::Object(map)
}

const RAW: &str = "\u{0}raw";

/// A value as Go prints it in these errors: strings quoted, the rest as JSON.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "\"null\"".to_owned(),
        Value::String(text) => go_quote(text),
        Value::Object(map) if map.contains_key(RAW) => map[RAW].as_str().unwrap_or_default().to_owned(),
        other => other.to_string(),
    }
}

/// Go's `%q`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => _ = write!(out, "\\x{:02x}", c as u32),
            c if c.is_control() => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_read_as_kubernetes_writes_them() {
        let cases = [
            (FieldError::required("spec.ports", ""), "spec.ports: Required value"),
            (
                FieldError::required("metadata.name", "name or generateName is required"),
                "metadata.name: Required value: name or generateName is required",
            ),
            (
                FieldError::invalid("spec.x", 0, "must be between 1 and 65535, inclusive"),
                "spec.x: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                FieldError::invalid("spec.x", json!(["a"]), "may not change once set"),
                "spec.x: Invalid value: [\"a\"]: may not change once set",
            ),
            (FieldError::invalid("spec.x", Value::Null, "gone"), "spec.x: Invalid value: \"null\": gone"),
            (
                FieldError::invalid("spec.x", "a\"b\u{1}", "bad"),
                "spec.x: Invalid value: \"a\\\"b\\x01\": bad",
            ),
            (FieldError::forbidden("spec.x", "no"), "spec.x: Forbidden: no"),
            (FieldError::duplicate("spec.x", 30080), "spec.x: Duplicate value: 30080"),
            (FieldError::too_long("spec.x", 3), "spec.x: Too long: may not be more than 3 bytes"),
            (FieldError::too_many("spec.x", 5, 3), "spec.x: Too many: 5: must have at most 3 items"),
            (FieldError::internal("spec.x", "oops"), "spec.x: Internal error: oops"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_near_value_is_suggested_after_the_usual_words() {
        let error = FieldError::not_supported("spec.sessionAffinity", "ClientIp", &["ClientIP", "None"]);
        assert_eq!(
            error.to_string(),
            "spec.sessionAffinity: Unsupported value: \"ClientIp\": supported values: \"ClientIP\", \"None\" \
             (did you mean \"ClientIP\"?)"
        );
        let error = FieldError::not_supported("spec.sessionAffinity", "Sticky", &["ClientIP", "None"]);
        assert!(error.to_string().ends_with("supported values: \"ClientIP\", \"None\""), "{error}");
    }
}
