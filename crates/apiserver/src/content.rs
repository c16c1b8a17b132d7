//! Bodies of writes: bytes in JSON, YAML or protobuf become an object of the resource's kind, or a refusal in Kubernetes' words.

use bytes::Bytes;
use portolan_api::decode::{self, DecodeError, Decoded, Problem};
use portolan_api::resource::{self, Resource};
use portolan_api::status;
use serde::Deserialize;
use serde_json::Value;

use crate::call::{Call, Validation};
use crate::errors::{ApiError, Result};
use crate::negotiate::{self, BodySyntax, OFFERED};
use crate::protobuf::{self, ProtobufError};
use crate::yaml;

/// Names of the group version and kind in a body.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TypeMeta {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
}

/// The object in the body of `call`. Warnings about dropped fields are added to `warnings`.
pub(crate) fn object(call: &Call, validation: Validation, warnings: &mut Vec<String>) -> Result<Value> {
    let json = json(call).map_err(|error| match error {
        Unread::Status(error) => error,
        Unread::Text(text) => {
            ApiError::from(status::bad_request(unrecognized(call.resource, &call.body, &text)))
        }
    })?;
    check_type(call.resource, &json, &call.body)?;
    let decoded = decode::decode(&json, (call.resource.schema)())
        .map_err(|error| undecodable(call.resource, &call.body, error))?;
    let is_yaml = negotiate::body_syntax(&call.headers) == Some(BodySyntax::Yaml);
    let twice =
        if is_yaml && validation != Validation::Ignore { yaml::keys_twice(&call.body) } else { Vec::new() };
    if !twice.is_empty() && validation == Validation::Strict {
        let mut problems = vec![yaml::strict_error(&twice)];
        problems.extend(decoded.problems.iter().map(Problem::to_string));
        let error = decode::strict_error(&problems);
        return Err(status::bad_request(decode::cannot_be_handled(call.resource, error)).into());
    }
    warnings.extend(twice);
    accept(call.resource, decoded, validation, warnings)
}

/// Applies `fieldValidation` to what decoding found, and completes the object's own apiVersion and kind.
pub(crate) fn accept(
    resource: &Resource,
    decoded: Decoded,
    validation: Validation,
    warnings: &mut Vec<String>,
) -> Result<Value> {
    let Decoded { mut value, problems } = decoded;
    match validation {
        Validation::Strict if !problems.is_empty() => {
            let error = decode::strict_error(&problems);
            return Err(status::bad_request(decode::cannot_be_handled(resource, error)).into());
        }
        Validation::Warn => warnings.extend(problems.iter().map(Problem::to_string)),
        Validation::Ignore | Validation::Strict => {}
    }
    value["apiVersion"] = resource.api_version().into();
    value["kind"] = resource.kind.into();
    Ok(value)
}

/// A small body that is not a resource, such as `DeleteOptions`; `None` if there is no body.
pub(crate) fn options<T: for<'de> Deserialize<'de>>(call: &Call, kind: &str) -> Result<Option<T>> {
    if call.body.is_empty() {
        return Ok(None);
    }
    let bad = |error: String| {
        let text = format!("{kind} in version \"v1\" cannot be handled as a {kind}: {error}");
        ApiError::from(status::bad_request(text))
    };
    let json = json(call).map_err(|error| match error {
        Unread::Status(error) => error,
        Unread::Text(text) => bad(text),
    })?;
    serde_json::from_slice(&json).map(Some).map_err(|error| bad(error.to_string()))
}

/// Why a body did not become JSON.
enum Unread {
    Status(ApiError),
    Text(String),
}

/// The body as JSON, whatever it was written in. JSON itself is not looked at.
fn json(call: &Call) -> std::result::Result<Bytes, Unread> {
    match negotiate::body_syntax(&call.headers) {
        Some(BodySyntax::Json) => Ok(call.body.clone()),
        Some(BodySyntax::Yaml) => match yaml::value(&call.body) {
            Ok(value) => Ok(crate::object::encode(&value)),
            Err(error) => Err(Unread::Text(format!("yaml: {error}"))),
        },
        Some(BodySyntax::Protobuf) => match protobuf::decode(&call.body) {
            Ok(value) => Ok(crate::object::encode(&value)),
            Err(error @ ProtobufError::UnknownKind { .. }) => {
                let mut status = status::unsupported_media_type(OFFERED);
                status.message = error.to_string();
                Err(Unread::Status(status.into()))
            }
            Err(error) => Err(Unread::Text(error.to_string())),
        },
        None => Err(Unread::Status(status::unsupported_media_type(OFFERED).into())),
    }
}

/// The type into which Go reads an object's own words about its type.
const GO_TYPE_META: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// The body must say that it is what the path says it is, or say nothing.
fn check_type(resource: &Resource, json: &[u8], body: &[u8]) -> Result<()> {
    let bad = |text: String| Err(status::bad_request(text).into());
    let unread = |text: String| {
        bad(unrecognized(resource, body, &format!("couldn't get version/kind; json parse error: {text}")))
    };
    let meta: TypeMeta = match serde_json::from_slice(json) {
        // A list would do for a struct here, but not for Go.
        Ok(_) if json.trim_ascii_start().starts_with(b"[") => {
            return unread(format!("json: cannot unmarshal array into Go value of type {GO_TYPE_META}"));
        }
        Ok(meta) => meta,
        Err(error) => return unread(go_error(json, &error)),
    };
    let expected = resource.api_version();
    let version = if meta.api_version.is_empty() { &expected } else { &meta.api_version };
    let kind = if meta.kind.is_empty() { resource.kind } else { &meta.kind };
    let short = version.rsplit('/').next().unwrap_or(version);
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    if resource::find_kind(group, short, kind).is_none() {
        return bad(format!(
            "{kind} in version {short:?} cannot be handled as a {}: no kind {kind:?} is registered for version {version:?} in \
             scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            resource.kind
        ));
    }
    if *version != expected {
        return bad(format!(
            "the API version in the data ({version}) does not match the expected API version ({expected})"
        ));
    }
    if kind != resource.kind {
        // What it would have become is of the package named after its group.
        let package = resource.group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
        return bad(format!(
            "{kind} in version {short:?} cannot be handled as a {0}: converting ({short}.{kind}) to ({package}.{0}): unknown \
             conversion",
            resource.kind
        ));
    }
    Ok(())
}

fn undecodable(resource: &Resource, body: &[u8], error: DecodeError) -> ApiError {
    match error {
        DecodeError::TooLarge => crate::errors::too_large(),
        DecodeError::Type(text) => status::bad_request(decode::cannot_be_handled(resource, text)).into(),
        DecodeError::Syntax(text) => status::bad_request(unrecognized(resource, body, &text)).into(),
    }
}

fn unrecognized(resource: &Resource, body: &[u8], error: &str) -> String {
    format!(
        "the object provided is unrecognized (must be of type {}): {error} ({})",
        resource.kind,
        excerpt(body)
    )
}

/// The beginning of a body, as Kubernetes shows it: JSON as text, anything else in hexadecimal.
fn excerpt(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let (head, more) = if body.len() > SHOWN { (&body[..SHOWN], " ...") } else { (body, "") };
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(head)),
        Some(_) => {
            format!("{}{more}", crate::object::hex(head))
        }
    }
}

/// The words of Go's JSON parser for a syntax error at the place where ours stopped.
fn go_error(json: &[u8], error: &serde_json::Error) -> String {
    if error.is_eof() || json.trim_ascii().is_empty() {
        return "unexpected end of JSON input".into();
    }
    if error.is_data() {
        return error.to_string();
    }
    let line_start = json
        .split_inclusive(|byte| *byte == b'\n')
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum::<usize>();
    let at = (line_start + error.column()).saturating_sub(1);
    match json.get(at) {
        Some(byte) => {
            format!("invalid character {:?} {}", char::from(*byte), looking_for(&error.to_string()))
        }
        None => "unexpected end of JSON input".into(),
    }
}

fn looking_for(text: &str) -> &'static str {
    if text.starts_with("key must be a string") || text.contains("trailing comma") {
        "looking for beginning of object key string"
    } else if text.contains("expected `:`") {
        "after object key"
    } else if text.contains("`,` or `}`") {
        "after object key:value pair"
    } else if text.contains("`,` or `]`") {
        "after array element"
    } else if text.starts_with("trailing characters") {
        "after top-level value"
    } else {
        "looking for beginning of value"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::SERVICES;

    fn check(json: &str) -> String {
        check_type(&SERVICES, json.as_bytes(), json.as_bytes()).unwrap_err().0.message.clone()
    }

    #[test]
    fn bodies_of_another_type_are_refused() {
        assert_eq!(
            check(r#"{"apiVersion":"apps/v1","kind":"Deployment"}"#),
            "the API version in the data (apps/v1) does not match the expected API version (v1)"
        );
        assert_eq!(
            check(r#"{"apiVersion":"v1","kind":"Pod"}"#),
            "Pod in version \"v1\" cannot be handled as a Service: converting (v1.Pod) to (core.Service): unknown conversion"
        );
        assert_eq!(
            check(r#"{"apiVersion":"apps/v1","kind":"Service"}"#),
            "Service in version \"v1\" cannot be handled as a Service: no kind \"Service\" is registered for version \"apps/v1\" \
             in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        assert_eq!(
            check("[]"),
            "the object provided is unrecognized (must be of type Service): couldn't get version/kind; json parse error: json: \
             cannot unmarshal array into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind \
             string \"json:\\\"kind,omitempty\\\"\" } (5b5d)"
        );
        assert!(check_type(&SERVICES, b"{}", b"{}").is_ok());
    }

    #[test]
    fn malformed_json_is_refused_in_gos_words() {
        let prefix = "the object provided is unrecognized (must be of type Service): couldn't get version/kind; json parse error: ";
        let body = r#"{"kind": x}"#;
        let want = format!("{prefix}invalid character 'x' looking for beginning of value ({body})");
        assert_eq!(check(body), want);
        assert_eq!(check(""), format!("{prefix}unexpected end of JSON input (<empty>)"));
        assert_eq!(check(r#"{"a""#), format!("{prefix}unexpected end of JSON input ({{\"a\")"));
        let want = format!("{prefix}invalid character 'n' looking for beginning of value (6e6f)");
        assert_eq!(check("no"), want.replace("'n' looking", "'o' looking"));
    }
}
