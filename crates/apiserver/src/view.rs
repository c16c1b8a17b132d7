//! Kinds that are another form of objects stored as a kind of another group: what is read is turned into the form asked
//! for as it leaves the store, and back on its way in. Everything between sees one form only.

use bytes::Bytes;
use portolan_api::resource::Resource;
use portolan_store::KeyValue;
use serde_json::Value;

use crate::object;

/// The stored object as `resource` shows it.
pub(crate) fn shown(resource: &Resource, mut kv: KeyValue) -> KeyValue {
    kv.value = shown_bytes(resource, &kv.value);
    kv
}

/// [`shown`] of the bytes alone. What is no object stays as it is: whoever reads it says so.
pub(crate) fn shown_bytes(resource: &Resource, stored: &Bytes) -> Bytes {
    let Some(view) = resource.view else { return stored.clone() };
    turned(stored, view.shown)
}

/// What is to be stored for an object of `resource`.
pub(crate) fn stored(resource: &Resource, shown: Bytes) -> Bytes {
    let Some(view) = resource.view else { return shown };
    turned(&shown, view.stored)
}

fn turned(bytes: &Bytes, turn: fn(&mut Value)) -> Bytes {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) => {
            turn(&mut value);
            object::encode(&value)
        }
        Err(_) => bytes.clone(),
    }
}
