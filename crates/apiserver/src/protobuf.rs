//! Objects in Kubernetes' protobuf, read into the same values as JSON: bodies of clients that write it, and values in etcd
//! that a kube-apiserver wrote.
//!
//! Only reading: every such client takes JSON as the answer, and every server JSON from etcd. `fields.txt` names the fields
//! of each message by their numbers; `scripts/protobuf-tables` makes it. Start at [`decode`].

mod fields;
pub(crate) mod stored;
mod wire;

use serde_json::{Map, Value};

use fields::{Field, Message, Presence, Type, messages};
use wire::{Wire, field, utf8};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// First bytes of every such object.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// Messages nest no deeper in the kinds served here; an object that does is hostile.
const DEPTH_MAX: usize = 24;

/// Why an object was not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// Not the envelope, or cut off.
    #[error("it is not valid protobuf")]
    Malformed,
    /// A kind that is not served here.
    #[error("{kind} of {api_version} is not understood in protobuf; send it as application/json")]
    UnknownKind {
        /// Its version.
        api_version: String,
        /// Its kind.
        kind: String,
    },
}

use ProtobufError::Malformed;

/// The object. Fields that the tables lack are from another version of Kubernetes and left out, as its own servers do.
pub(crate) fn decode(object: &[u8]) -> Result<Value, ProtobufError> {
    let mut rest = object.strip_prefix(MAGIC).ok_or(Malformed)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Bytes(mut meta)) => {
                while !meta.is_empty() {
                    match field(&mut meta)? {
                        (1, Wire::Bytes(bytes)) => api_version = utf8(bytes)?,
                        (2, Wire::Bytes(bytes)) => kind = utf8(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let api_version = current(&api_version, &kind).map_or(api_version, str::to_owned);
    let Some(message) = messages().of_kind(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("kind".into(), kind.into());
    object.insert("apiVersion".into(), api_version.into());
    read(raw, message, 0, &mut object)?;
    Ok(Value::Object(object))
}

/// The version that took over from an older one without changing the kind: what older servers keep in etcd.
fn current(api_version: &str, kind: &str) -> Option<&'static str> {
    match (api_version, kind) {
        ("coordination.k8s.io/v1beta1", "Lease") => Some("coordination.k8s.io/v1"),
        ("rbac.authorization.k8s.io/v1beta1", _) => Some("rbac.authorization.k8s.io/v1"),
        _ => None,
    }
}

/// Reads the fields of a message into `out`.
fn read(
    mut rest: &[u8],
    message: &Message,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(Malformed);
    }
    while !rest.is_empty() {
        let (number, wire) = field(&mut rest)?;
        let Some(field) = message.field(number) else { continue };
        match (&field.ty, wire) {
            (Type::Message(inner), Wire::Bytes(bytes)) if field.inline => {
                read(bytes, messages().at(*inner), depth + 1, out)?;
            }
            (Type::Map(of), Wire::Bytes(bytes)) => {
                let (key, value) = entry(bytes, of, depth)?;
                let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                map[key] = value;
            }
            (ty, wire) => {
                let value = value(wire, ty, depth)?;
                if field.list {
                    let items = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                    items.as_array_mut().ok_or(Malformed)?.push(value);
                } else if says_something(field, &value) {
                    out.insert(field.name.into(), value);
                }
            }
        }
    }
    Ok(())
}

/// Whether JSON has the field. Go writes empty fields to protobuf that it leaves out of JSON.
fn says_something(field: &Field, value: &Value) -> bool {
    field.presence != Presence::WhenSet
        || match value {
            Value::Null => false,
            Value::Bool(flag) => *flag,
            // A port that is 0 is written: the field is an object to Go, and not left out.
            Value::Number(number) => number.as_i64() != Some(0) || matches!(field.ty, Type::IntOrString),
            Value::String(text) => !text.is_empty(),
            Value::Array(_) | Value::Object(_) => true,
        }
}

fn value(wire: Wire<'_>, ty: &Type, depth: usize) -> Result<Value, ProtobufError> {
    use base64::Engine as _;
    Ok(match (ty, wire) {
        (Type::Text, Wire::Bytes(bytes)) => utf8(bytes)?.into(),
        (Type::Int, Wire::Number(number)) => (number as i64).into(),
        (Type::Bool, Wire::Number(number)) => (number != 0).into(),
        (Type::Bytes, Wire::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        (Type::Time, Wire::Bytes(bytes)) => time(bytes)?
            .map_or(Value::Null, |(seconds, _)| portolan_api::Time::from_second(seconds).to_string().into()),
        (Type::MicroTime, Wire::Bytes(bytes)) => match time(bytes)? {
            Some((seconds, nanoseconds)) => micro_time(seconds, nanoseconds)?,
            None => Value::Null,
        },
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Quantity, Wire::Bytes(bytes)) => first_bytes(bytes)?.map(utf8).transpose()?.into(),
        (Type::Raw, Wire::Bytes(bytes)) => match first_bytes(bytes)?.filter(|raw| !raw.is_empty()) {
            Some(raw) => serde_json::from_slice(raw).map_err(|_| Malformed)?,
            None => Value::Null,
        },
        (Type::Texts, Wire::Bytes(mut rest)) => {
            let mut items = Vec::new();
            while !rest.is_empty() {
                if let (1, Wire::Bytes(bytes)) = field(&mut rest)? {
                    items.push(utf8(bytes)?.into());
                }
            }
            Value::Array(items)
        }
        (Type::Message(message), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            read(bytes, messages().at(*message), depth + 1, &mut object)?;
            Value::Object(object)
        }
        _ => return Err(Malformed),
    })
}

/// An entry of a map: a message of key 1 and value 2.
fn entry(mut rest: &[u8], of: &Type, depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut bytes) = (String::new(), &[][..]);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Bytes(bytes)) => key = utf8(bytes)?,
            (2, Wire::Bytes(value)) => bytes = value,
            _ => {}
        }
    }
    Ok((key, value(Wire::Bytes(bytes), of, depth)?))
}

/// Seconds and nanoseconds since 1970; without either it is no time.
fn time(mut rest: &[u8]) -> Result<Option<(i64, i32)>, ProtobufError> {
    let (mut seconds, mut nanoseconds) = (None, 0);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Number(number)) => seconds = Some(number as i64),
            (2, Wire::Number(number)) => nanoseconds = number as i32,
            _ => {}
        }
    }
    Ok(seconds.map(|seconds| (seconds, nanoseconds)))
}

/// With six digits after the second, as Go writes it.
fn micro_time(seconds: i64, nanoseconds: i32) -> Result<Value, ProtobufError> {
    let at = jiff::Timestamp::new(seconds, nanoseconds).map_err(|_| Malformed)?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into())
}

/// Type (0 number, 1 text), number, text.
fn int_or_string(mut rest: &[u8]) -> Result<Value, ProtobufError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Wire::Number(kind)) => is_text = kind == 1,
            (2, Wire::Number(value)) => number = value as i64,
            (3, Wire::Bytes(bytes)) => text = utf8(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

/// The field 1 of a message, where that is all there is.
fn first_bytes(mut rest: &[u8]) -> Result<Option<&[u8]>, ProtobufError> {
    let mut found = None;
    while !rest.is_empty() {
        if let (1, Wire::Bytes(bytes)) = field(&mut rest)? {
            found = Some(bytes);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
