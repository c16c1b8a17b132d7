//! The rules of each kind: one file per kind, each with its strategy.

use serde_json::Value;

use crate::strategy::Strategy;

/// Rules of kinds that need none of their own.
#[derive(Debug)]
pub struct Plain;

impl Strategy for Plain {}

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
