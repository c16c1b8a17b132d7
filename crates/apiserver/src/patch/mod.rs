//! Patches: the current object and a patch document in, the patched object out. No store, no HTTP, no validation of
//! the result: the verb layer decodes the result strictly against the schema, as it does for any write.
//!
//! Start with [`apply`]. `json` is RFC 6902 and RFC 7386; `strategic` is Kubernetes' own merge, driven by the merge
//! keys of the schema; `strict` finds what strict decoding refuses in the patch document itself, `convert` what does not
//! fit the schema afterwards.

mod convert;
mod json;
mod strategic;
mod strict;

use portolan_api::schema::Schema;
use serde_json::Value;

pub(crate) use convert::misfit;
pub(crate) use strict::{go_print, problems, shown};

/// The most operations one JSON patch may have (Kubernetes' limit).
const JSON_PATCH_OPERATIONS_MAX: usize = 10_000;
/// The most bytes that the `copy` operations of one JSON patch may add together: without it a short patch doubles the
/// object again and again.
const JSON_PATCH_COPY_BYTES_MAX: usize = 3 << 20;
/// The deepest nesting of a patched object. Objects of known kinds nest less than 30 deep; serde's parser stops at 128.
const DEPTH_MAX: usize = 128;
/// The longest list a strategic merge works on: matching elements takes time with the square of the length. Long lists
/// of the API (endpoints of a slice) are replaced, not merged.
const LIST_LENGTH_MAX: usize = 4_000;

/// The patch formats, by content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`
    Strategic,
    /// `application/apply-patch+yaml` (and `+json`)
    Apply,
}

const SUPPORTED: &str = "application/json-patch+json, application/merge-patch+json, \
     application/strategic-merge-patch+json, application/apply-patch+yaml";

impl Kind {
    /// The format named by a Content-Type header; its parameters are ignored.
    pub fn from_content_type(value: &str) -> Result<Kind, PatchError> {
        let media_type = value.split(';').next().unwrap_or_default().trim();
        match media_type.to_ascii_lowercase().as_str() {
            "application/json-patch+json" => Ok(Kind::Json),
            "application/merge-patch+json" => Ok(Kind::Merge),
            "application/strategic-merge-patch+json" => Ok(Kind::Strategic),
            "application/apply-patch+yaml" | "application/apply-patch+json" => Ok(Kind::Apply),
            _ => Err(PatchError::Unsupported(format!(
                "the body of the request was in an unknown format - accepted media types include: {SUPPORTED}"
            ))),
        }
    }
}

/// Why a patch was refused. [`PatchError::code`] and [`PatchError::reason`] go into the Status, the text of the error
/// is its message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch document itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The document is right but does not apply to this object. Kubernetes tells the client only this sentence; the
    /// detail is for the log.
    #[error("the server rejected our request due to an error in our request")]
    DoesNotApply { detail: String },
    #[error("{0}")]
    TooLarge(String),
    #[error("{0}")]
    Unsupported(String),
    /// The object and the patch disagree about shapes. Kubernetes answers these with a bare error.
    #[error("{0}")]
    Internal(String),
}

impl PatchError {
    /// The HTTP status.
    pub fn code(&self) -> u16 {
        match self {
            PatchError::BadRequest(_) => 400,
            PatchError::DoesNotApply { .. } => 422,
            PatchError::TooLarge(_) => 413,
            PatchError::Unsupported(_) => 415,
            PatchError::Internal(_) => 500,
        }
    }

    /// The Status reason; empty where Kubernetes gives none.
    pub fn reason(&self) -> &'static str {
        match self {
            PatchError::BadRequest(_) => "BadRequest",
            PatchError::DoesNotApply { .. } => "Invalid",
            PatchError::TooLarge(_) => "RequestEntityTooLarge",
            PatchError::Unsupported(_) => "UnsupportedMediaType",
            PatchError::Internal(_) => "",
        }
    }
}

/// Applies `patch`, a document of the given kind, to `current`, an object of the given schema.
pub fn apply(
    kind: Kind,
    schema: &'static Schema,
    current: &Value,
    patch: &[u8],
) -> Result<Value, PatchError> {
    match kind {
        Kind::Json => json::apply_operations(current, patch),
        Kind::Merge => json::apply_merge(current, patch),
        Kind::Strategic => strategic::apply(schema, current, patch),
        // What has owners of its fields goes through `managed` instead.
        Kind::Apply => Err(PatchError::Unsupported("server-side apply is not supported here".into())),
    }
}

/// What a patch document that cannot be read is told; a strategic patch is told it without these words.
const UNDECODABLE: &str = "error decoding patch: ";

/// The patch document as an object, with the words Kubernetes uses when it is not one, after `prefix`.
fn decode_object(prefix: &str, patch: &[u8]) -> Result<serde_json::Map<String, Value>, PatchError> {
    match decode(prefix, patch)? {
        Value::Object(map) => Ok(map),
        other => Err(bad_root(prefix, &other, "map[string]interface {}")),
    }
}

fn decode(prefix: &str, patch: &[u8]) -> Result<Value, PatchError> {
    serde_json::from_slice(patch).map_err(|error| {
        let text = if error.is_eof() { "unexpected end of JSON input".into() } else { error.to_string() };
        PatchError::BadRequest(format!("{prefix}{text}"))
    })
}

fn bad_root(prefix: &str, found: &Value, wanted: &str) -> PatchError {
    let found = json_type(found);
    PatchError::BadRequest(format!("{prefix}json: cannot unmarshal {found} into Go value of type {wanted}"))
}

/// What Go's JSON reader calls a value.
pub(crate) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::core::v1::Service;

    #[test]
    fn formats_are_told_apart_by_content_type() {
        assert_eq!(Kind::from_content_type("application/merge-patch+json; charset=utf-8"), Ok(Kind::Merge));
        assert_eq!(Kind::from_content_type("application/strategic-merge-patch+json"), Ok(Kind::Strategic));
        assert_eq!(Kind::from_content_type("application/json").map_err(|error| error.code()), Err(415));
        let refused = apply(Kind::Apply, Service::schema(), &Value::Null, b"{}").unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (415, "UnsupportedMediaType"));
    }
}
