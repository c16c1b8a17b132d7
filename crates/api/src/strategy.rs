//! What the server does to objects of a kind between decoding and storing.
//!
//! Order of a create: `default`, `prepare_create`, `validate_create`, `warnings`, store. Of an update: `default`,
//! `prepare_update`, `validate_update`, `warnings`, store; of the status subresource likewise with its own two methods.
//! Strategies work on JSON objects that [`crate::decode`] has checked against the schema: fields have the right JSON
//! type and are never null. They set only what Kubernetes' own strategy sets: name generation, uid, timestamps,
//! resource versions and address allocation are the server's.

use serde_json::Value;

use crate::field::FieldErrors;

/// The rules of one kind.
pub trait Strategy: Send + Sync {
    /// Fills in what Kubernetes fills in when it reads an object of this kind, from a client or from the store.
    fn default(&self, _object: &mut Value) {}

    /// Drops what a client may not set on create.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Drops or keeps what a client may not change through the main resource.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// The same for the status subresource: everything but the status stays as it was.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        crate::kinds::keep_all_but_status(new, old);
    }

    fn validate_create(&self, _object: &Value) -> FieldErrors {
        Vec::new()
    }

    fn validate_update(&self, _new: &Value, _old: &Value) -> FieldErrors {
        Vec::new()
    }

    fn validate_status_update(&self, new: &Value, old: &Value) -> FieldErrors {
        self.validate_update(new, old)
    }

    /// What the client should know although the write is done.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// A warning for every request to the resource, also reads.
    fn deprecation(&self) -> Option<&'static str> {
        None
    }
}
