//! What the server itself sets and keeps in an object's metadata.
//!
//! Rules of single kinds are strategies in `portolan_api`; rules for the fields' content are their validation. Here is
//! what Kubernetes' generic registry does: identity, times, generated names, resource versions as preconditions.

use portolan_api::Time;
use portolan_api::resource::Resource;
use portolan_api::status;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::errors::{ApiError, Result};
use crate::limits::GENERATE_NAME_BASE_MAX;
use crate::object::{meta, meta_mut};

/// Letters of generated names: no vowels and no look-alikes, so that no words come out.
const NAME_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Makes a decoded object new: its own identity and no past. The name is left to [`name`].
pub(crate) fn begin(object: &mut Value) -> Result<()> {
    if meta(object, "resourceVersion").is_some_and(|version| version != "0") {
        return Err(status::untyped("resourceVersion should not be set on objects to be created").into());
    }
    let metadata = meta_mut(object);
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"]
    {
        metadata.remove(field);
    }
    metadata.insert("uid".into(), uid().into());
    metadata.insert("creationTimestamp".into(), Time::now().to_string().into());
    Ok(())
}

/// Puts the object into the namespace of the request.
pub(crate) fn place(object: &mut Value, namespace: Option<&str>) -> Result<()> {
    let own = meta(object, "namespace").map(str::to_string);
    match (namespace, own) {
        (Some(wanted), Some(own)) if own != wanted => Err(status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )
        .into()),
        (Some(wanted), _) => {
            meta_mut(object).insert("namespace".into(), wanted.into());
            Ok(())
        }
        (None, _) => {
            meta_mut(object).remove("namespace");
            Ok(())
        }
    }
}

/// The base of a generated name, if the object wants one.
pub(crate) fn generate_base(object: &Value) -> Option<String> {
    match (meta(object, "name"), meta(object, "generateName")) {
        (None, Some(base)) => Some(base.chars().take(GENERATE_NAME_BASE_MAX).collect()),
        _ => None,
    }
}

/// A name from its base and five random letters.
pub(crate) fn generate_name(base: &str) -> String {
    let mut rng = rand::rng();
    let tail: String =
        (0..5).map(|_| char::from(NAME_LETTERS[rng.random_range(0..NAME_LETTERS.len())])).collect();
    format!("{base}{tail}")
}

/// A random (version 4) UUID.
pub(crate) fn uid() -> String {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = crate::object::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Checks the identity that an update carries against the stored object, and keeps what a client cannot change.
pub(crate) fn carry_over(resource: &Resource, name: &str, new: &mut Value, old: &Value) -> Result<()> {
    check_version(resource, name, new, old)?;
    let old_uid = meta(old, "uid").unwrap_or_default();
    if let Some(uid) = meta(new, "uid").filter(|uid| *uid != old_uid) {
        return Err(wrong_uid(resource, name, old, uid));
    }
    let metadata = meta_mut(new);
    metadata.remove("managedFields");
    metadata.remove("selfLink");
    // Never a client's: these always stay as stored.
    for field in ["uid", "resourceVersion", "generation", "creationTimestamp"] {
        keep(metadata, old, field);
    }
    // It can be set by a deletion only: where there is none, a client's is the validation's to refuse.
    if old["metadata"].get("deletionTimestamp").is_some() {
        keep(metadata, old, "deletionTimestamp");
    }
    // Left out means unchanged; a different value is refused likewise.
    if metadata.get("deletionGracePeriodSeconds").is_none_or(Value::is_null) {
        keep(metadata, old, "deletionGracePeriodSeconds");
    }
    Ok(())
}

fn keep(metadata: &mut serde_json::Map<String, Value>, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => metadata.insert(field.into(), value.clone()),
        None => metadata.remove(field),
    };
}

fn check_version(resource: &Resource, name: &str, new: &Value, old: &Value) -> Result<()> {
    match meta(new, "resourceVersion").filter(|version| *version != "0") {
        None if resource.unconditional_update => Ok(()),
        None => {
            let detail = "must be specified for an update";
            let error = portolan_api::field::FieldError::invalid("metadata.resourceVersion", 0, detail);
            Err(status::invalid(resource, name, &[error]).into())
        }
        Some(version) if Some(version) == meta(old, "resourceVersion") => Ok(()),
        Some(_) => Err(status::conflict(resource, name).into()),
    }
}

/// 409: the object with that name is another one by now.
fn wrong_uid(resource: &Resource, name: &str, old: &Value, uid: &str) -> ApiError {
    let key = resource.key(meta(old, "namespace").unwrap_or_default(), name);
    let actual = meta(old, "uid").unwrap_or_default();
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: Precondition \
         failed: UID in precondition: {uid}, UID in object meta: {actual}"
    );
    status::conflict_because(resource, name, &why).into()
}

/// Marks an object as being deleted, `grace` seconds from now.
pub(crate) fn mark_deleted(object: &mut Value, grace: i64) {
    let at = Time::from_second(Time::now().as_second() + grace.max(0));
    let metadata = meta_mut(object);
    metadata.insert("deletionTimestamp".into(), at.to_string().into());
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace.max(0)));
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64).filter(|g| *g > 0) {
        metadata.insert("generation".into(), (generation + 1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::{LEASES, SERVICES};

    #[test]
    fn generated_names_and_uids() {
        let base = generate_base(&json!({"metadata": {"generateName": "x".repeat(80)}})).unwrap();
        assert_eq!(generate_name(&base).len(), 63);
        assert_eq!(generate_base(&json!({"metadata": {"generateName": "a-", "name": "b"}})), None);
        let (one, two) = (uid(), uid());
        assert_ne!(one, two);
        assert_eq!((one.len(), &one[14..15]), (36, "4"));
    }

    #[test]
    fn a_client_cannot_rewrite_identity() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "5", "generation": 3,
            "creationTimestamp": "t", "deletionTimestamp": "d"}});
        let mut new = json!({"metadata": {"name": "a", "generation": 9, "managedFields": []}});
        carry_over(&SERVICES, "a", &mut new, &old).unwrap();
        assert_eq!(new, old);
        let mut stale = json!({"metadata": {"resourceVersion": "4"}});
        assert!(carry_over(&SERVICES, "a", &mut stale, &old).unwrap_err().is("Conflict"));
        let mut other = json!({"metadata": {"uid": "v"}});
        assert!(carry_over(&SERVICES, "a", &mut other, &old).unwrap_err().is("Conflict"));
        let mut blind = json!({"metadata": {}});
        assert!(carry_over(&LEASES, "a", &mut blind, &old).unwrap_err().is("Invalid"));
    }

    #[test]
    fn new_objects_have_no_past() {
        let mut object = json!({"metadata": {"name": "a", "uid": "theirs", "deletionTimestamp": "x"}});
        begin(&mut object).unwrap();
        assert_ne!(object["metadata"]["uid"], "theirs");
        assert_eq!(object["metadata"].get("deletionTimestamp"), None);
        assert!(begin(&mut json!({"metadata": {"resourceVersion": "7"}})).is_err());
    }
}
