//! Checks shared by all kinds: names, addresses, metadata. Each answers with Kubernetes' own words.

pub mod ip;
pub mod meta;
pub mod name;

use crate::field::{FieldError, FieldErrors};

pub(crate) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Adds one Invalid error per message.
pub(crate) fn invalid_each(errors: &mut FieldErrors, path: &str, value: &str, messages: Vec<String>) {
    errors.extend(messages.into_iter().map(|m| FieldError::invalid(path, value, m)));
}

/// A port number, 1 to 65535.
pub(crate) fn port(errors: &mut FieldErrors, path: impl Into<String>, port: i32) {
    if !(1..=65535).contains(&port) {
        errors.push(FieldError::invalid(path, port, "must be between 1 and 65535, inclusive"));
    }
}

/// A protocol that is required.
pub(crate) fn protocol(errors: &mut FieldErrors, path: String, value: &str) {
    if value.is_empty() {
        errors.push(FieldError::required(path, ""));
    } else if !PROTOCOLS.contains(&value) {
        errors.push(FieldError::not_supported(path, value, PROTOCOLS));
    }
}
