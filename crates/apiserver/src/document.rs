//! Documents that are built once and sent often: discovery and OpenAPI.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// One answer, ready to be sent.
#[derive(Debug, Clone)]
pub struct Document {
    pub content_type: &'static str,
    /// A hash of the body, in quotes.
    pub etag: String,
    pub body: Bytes,
}

impl Document {
    pub(crate) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Document {
        let body = body.into();
        let etag = format!("\"{}\"", hash(&body));
        Document { content_type, etag, body }
    }

    pub(crate) fn json(value: &Value) -> Document {
        Document::new("application/json", value.to_string())
    }
}

/// SHA-256 in upper-case hex, as Kubernetes writes its hashes.
pub(crate) fn hash(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        _ = write!(text, "{byte:02X}");
    }
    text
}
