//! Objects as bytes and as values: how they stand in the store and how they leave it.
//!
//! In the store an object is JSON without `metadata.resourceVersion`; the store's own revision of the key is the
//! resource version, so it is put in on the way out. Most reads never parse an object: the version is spliced into the
//! bytes. Start at [`splice`] and [`to_value`].

use bytes::Bytes;
use portolan_store::{KeyValue, Revision};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Stored bytes that are not an object with metadata: damage, or a foreign encoding.
#[derive(Debug, thiserror::Error)]
#[error("object at {key} is not a JSON object with metadata")]
pub(crate) struct Unreadable {
    /// The key in the store.
    pub(crate) key: String,
}

/// Appends the object with its resource version to `out`.
pub(crate) fn splice(
    out: &mut Vec<u8>,
    key: &str,
    json: &[u8],
    revision: Revision,
) -> Result<(), Unreadable> {
    use std::io::Write as _;
    let json = json.trim_ascii_end();
    let at = metadata_start(json).ok_or_else(|| Unreadable { key: key.into() })?;
    out.reserve(json.len() + 40);
    out.extend_from_slice(&json[..at]);
    let empty = json[at..].trim_ascii_start().first() == Some(&b'}');
    let _ = write!(out, "\"resourceVersion\":\"{revision}\"{}", if empty { "" } else { "," });
    out.extend_from_slice(&json[at..]);
    Ok(())
}

/// The object with its resource version, as bytes.
pub(crate) fn to_bytes(kv: &KeyValue) -> Result<Bytes, Unreadable> {
    let mut out = Vec::with_capacity(kv.value.len() + 40);
    splice(&mut out, &kv.key, &kv.value, kv.mod_revision)?;
    Ok(out.into())
}

/// The object with its resource version, parsed.
pub(crate) fn to_value(kv: &KeyValue) -> Result<Value, Unreadable> {
    parse(&kv.key, &kv.value, kv.mod_revision)
}

/// [`to_value`] with the parts of a key-value apart.
pub(crate) fn parse(key: &str, json: &[u8], revision: Revision) -> Result<Value, Unreadable> {
    let unreadable = || Unreadable { key: key.into() };
    let mut value: Value = serde_json::from_slice(json).map_err(|_| unreadable())?;
    let metadata = value.get_mut("metadata").and_then(Value::as_object_mut).ok_or_else(unreadable)?;
    metadata.insert("resourceVersion".into(), revision.to_string().into());
    Ok(value)
}

/// The bytes to store for an object: without resource version and the long-gone self link.
pub(crate) fn to_stored(value: &Value) -> Bytes {
    to_stored_with(value, None)
}

/// [`to_stored`] of an object whose `managedFields` are apart, as JSON.
pub(crate) fn to_stored_with(value: &Value, record: Option<&RawValue>) -> Bytes {
    serde_json::to_vec(&Stored { value, record, dropped: &["resourceVersion", "selfLink"] })
        .unwrap_or_default()
        .into()
}

/// [`encode`] of an object whose `managedFields` are apart, as JSON.
pub(crate) fn encode_with(value: &Value, record: Option<&RawValue>) -> Bytes {
    serde_json::to_vec(&Stored { value, record, dropped: &[] }).unwrap_or_default().into()
}

/// An object as it is written. Nothing is copied to leave out some fields or to put one in; the order of keys is the
/// same as if it had been in the value.
struct Stored<'a> {
    value: &'a Value,
    record: Option<&'a RawValue>,
    dropped: &'a [&'a str],
}

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(object) = self.value.as_object() else { return self.value.serialize(serializer) };
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in object {
            match value.as_object().filter(|_| key == "metadata") {
                Some(metadata) => map.serialize_entry(key, &StoredMetadata(metadata, self))?,
                None => map.serialize_entry(key, value)?,
            }
        }
        map.end()
    }
}

struct StoredMetadata<'a>(&'a serde_json::Map<String, Value>, &'a Stored<'a>);

impl Serialize for StoredMetadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const RECORD: &str = "managedFields";
        let Self(metadata, Stored { record, dropped, .. }) = self;
        let mut record = *record;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in metadata.iter().filter(|(key, _)| !dropped.contains(&key.as_str())) {
            if key.as_str() > RECORD
                && let Some(record) = record.take()
            {
                map.serialize_entry(RECORD, record)?;
            }
            map.serialize_entry(key, value)?;
        }
        if let Some(record) = record {
            map.serialize_entry(RECORD, record)?;
        }
        map.end()
    }
}

/// A value as compact JSON.
pub(crate) fn encode(value: &Value) -> Bytes {
    // A Value has string keys only and holds no value that JSON lacks: writing it to memory cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Where the content of the top-level `metadata` object begins: just after its brace.
fn metadata_start(json: &[u8]) -> Option<usize> {
    let (mut depth, mut at) = (0usize, 0);
    while at < json.len() {
        match json[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = string_end(json, at + 1)?;
                if depth == 1
                    && &json[at + 1..end] == b"metadata"
                    && let Some(start) = opens_object(json, end + 1)
                {
                    return Some(start);
                }
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Index of the quote that ends the string whose content starts at `at`.
fn string_end(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match json.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// `: {` at `at`, blanks allowed: the index after the brace.
fn opens_object(json: &[u8], at: usize) -> Option<usize> {
    let blank = |mut at: usize| {
        while json.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let colon = blank(at);
    if json.get(colon) != Some(&b':') {
        return None;
    }
    let brace = blank(colon + 1);
    (json.get(brace) == Some(&b'{')).then_some(brace + 1)
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        // Writing to a String does not fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Text of `metadata.FIELD`.
pub(crate) fn meta<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get("metadata")?.get(field)?.as_str().filter(|text| !text.is_empty())
}

/// The metadata of an object, made if it is missing.
pub(crate) fn meta_mut(value: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(serde_json::Map::new());
    }
    let metadata = &mut value["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    metadata.as_object_mut().expect("made an object just now")
}

/// Whether the object has finalizers.
pub(crate) fn has_finalizers(value: &Value) -> bool {
    value["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spliced(json: &str) -> Option<String> {
        let mut out = Vec::new();
        splice(&mut out, "/k", json.as_bytes(), 7).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_version_goes_into_the_top_metadata() {
        assert_eq!(
            spliced(r#"{"data":{"metadata":{"x":"}"}},"k":"metadata","metadata":{"name":"a"}}"#).unwrap(),
            r#"{"data":{"metadata":{"x":"}"}},"k":"metadata","metadata":{"resourceVersion":"7","name":"a"}}"#
        );
        assert_eq!(spliced("{\"metadata\" : { }}\n").unwrap(), r#"{"metadata" : {"resourceVersion":"7" }}"#);
        assert_eq!(
            spliced(r#"{"a":"\"metadata\":{","metadata":{"b":1}}"#).unwrap(),
            r#"{"a":"\"metadata\":{","metadata":{"resourceVersion":"7","b":1}}"#
        );
        for bad in
            ["", "{}", "k8s\0binary", r#"{"metadata":"x"}"#, r#"{"spec":{"metadata":{}}}"#, r#"{"a"#, "]]"]
        {
            assert_eq!(spliced(bad), None, "{bad}");
        }
    }

    #[test]
    fn stored_bytes_hold_no_version() {
        let value = json!({"metadata": {"name": "a", "resourceVersion": "5", "selfLink": "/x"}});
        assert_eq!(&to_stored(&value)[..], br#"{"metadata":{"name":"a"}}"#);
        let record = RawValue::from_string("[1]".into()).unwrap();
        let mut whole = json!({"kind": "x", "metadata": {"labels": {}, "name": "a", "resourceVersion": "5"}});
        let apart = to_stored_with(&whole, Some(&record));
        whole["metadata"]["managedFields"] = json!([1]);
        assert_eq!(apart, to_stored(&whole));
        assert_eq!(parse("/k", &to_stored(&value), 9).unwrap()["metadata"]["resourceVersion"], "9");
    }
}
