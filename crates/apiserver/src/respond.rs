//! Responses: objects and lists in the form the client asked for.
//!
//! The common case, whole objects as JSON, never parses what the store holds: bytes are copied with their resource
//! version put in. Tables, metadata and YAML go through parsed values.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Response, StatusCode};
use portolan_api::meta::v1::Status;
use portolan_api::resource::Resource;
use portolan_store::KeyValue;
use serde_json::{Map, Value, json};

use crate::body::{Body, full};
use crate::call::Call;
use crate::errors::{Result, status_json};
use crate::limits::{GZIP_BYTES_MIN, WARNING_RUNES_EACH, WARNING_RUNES_TOTAL};
use crate::negotiate::{self, Format, Shape, Syntax};
use crate::object;
use crate::table::{self, Layout};

/// Metadata of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ListMeta {
    /// Revision that the items are of.
    pub(crate) revision: u64,
    /// Token for the next page.
    pub(crate) next: Option<String>,
    /// Items after this page.
    pub(crate) remaining: Option<u64>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(next) = &self.next {
            map.insert("continue".into(), next.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            map.insert("remainingItemCount".into(), remaining.into());
        }
        Value::Object(map)
    }
}

/// An answer with one object, given as whole JSON.
pub(crate) fn object(
    call: &Call,
    code: StatusCode,
    json: Bytes,
    warnings: &[String],
) -> Result<Response<Body>> {
    let format = call.format;
    let whole = matches!(format.shape, Shape::Whole | Shape::MetadataList);
    let body = if !whole || format.syntax == Syntax::Yaml {
        let value = serde_json::from_slice(&json).unwrap_or_default();
        write(format, &shaped(call, format, value)?)
    } else if call.query.flag("pretty") == Some(true) {
        pretty(&json)
    } else {
        json
    };
    Ok(finish(call, code, body, warnings))
}

/// The outcome of a write: the object as it is now, or the refusal; either with what there is to know about the request.
pub(crate) fn written(
    call: &Call,
    outcome: Result<(StatusCode, Bytes)>,
    warnings: &[String],
) -> Result<Response<Body>> {
    match outcome {
        Ok((code, json)) => object(call, code, json, warnings),
        Err(error) => {
            let mut response = error.response();
            add_warnings(response.headers_mut(), warnings);
            Ok(response)
        }
    }
}

/// An answer with a Status.
pub(crate) fn status(call: &Call, code: StatusCode, status: &Status) -> Response<Body> {
    let bytes = Bytes::from(status_json(status));
    let body = match call.format.syntax {
        Syntax::Json => bytes,
        Syntax::Yaml => write(call.format, &serde_json::from_slice(&bytes).unwrap_or_default()),
    };
    finish(call, code, body, &[])
}

/// An answer with a list.
pub(crate) fn list(
    call: &Call,
    meta: &ListMeta,
    items: &[KeyValue],
    warnings: &[String],
) -> Result<Response<Body>> {
    let format = call.format;
    if format.shape == Shape::Whole && format.syntax == Syntax::Json {
        let mut body = whole_list(call.resource, meta, items)?;
        if call.query.flag("pretty") == Some(true) {
            body = pretty(&body);
        }
        return Ok(finish(call, StatusCode::OK, body, warnings));
    }
    let mut values = Vec::with_capacity(items.len());
    for kv in items {
        values.push(object::to_value(kv)?);
    }
    let metadata = meta.to_value();
    let value = match format.shape {
        Shape::Table => {
            let options = table_options(call, false)?;
            let now = jiff::Timestamp::now();
            let mut table = table::render(Layout::of(call.resource), &values, &metadata, options, now);
            relabel(&mut table, format);
            table
        }
        Shape::MetadataList | Shape::Metadata => json!({
            "apiVersion": format!("meta.k8s.io/{}", format.meta_version),
            "kind": "PartialObjectMetadataList",
            "metadata": metadata,
            "items": values.iter().map(|v| partial(v, format)).collect::<Vec<_>>(),
        }),
        Shape::Whole => json!({
            "apiVersion": call.resource.api_version(),
            "kind": call.resource.list_kind(),
            "metadata": metadata,
            "items": values,
        }),
    };
    Ok(finish(call, StatusCode::OK, write(format, &value), warnings))
}

fn whole_list(resource: &Resource, meta: &ListMeta, items: &[KeyValue]) -> Result<Bytes> {
    let size: usize = items.iter().map(|kv| kv.value.len() + 48).sum();
    let mut out = Vec::with_capacity(size + 256);
    let (version, kind) = (resource.api_version(), resource.list_kind());
    // Writing to a Vec does not fail; names of kinds need no escapes.
    let _ = write!(
        out,
        "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{},\"items\":[",
        meta.to_value()
    );
    for (index, kv) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        object::splice(&mut out, &kv.key, &kv.value, kv.mod_revision)?;
    }
    out.extend_from_slice(b"]}");
    Ok(out.into())
}

/// One whole object in the shape of `format`.
pub(crate) fn shaped(call: &Call, format: Format, value: Value) -> Result<Value> {
    Ok(match format.shape {
        Shape::Whole | Shape::MetadataList => value,
        Shape::Metadata => partial(&value, format),
        Shape::Table => tabled(call, format, value, false)?,
    })
}

/// One whole object as a Table of one row.
pub(crate) fn tabled(call: &Call, format: Format, value: Value, no_headers: bool) -> Result<Value> {
    let metadata = json!({ "resourceVersion": value["metadata"]["resourceVersion"] });
    let options = table_options(call, no_headers)?;
    let now = jiff::Timestamp::now();
    let layout = if value["kind"] == "Scale" { Layout::SCALE } else { Layout::of(call.resource) };
    let mut table = table::render(layout, &[value], &metadata, options, now);
    relabel(&mut table, format);
    Ok(table)
}

/// An object's metadata alone.
pub(crate) fn partial(value: &Value, format: Format) -> Value {
    json!({
        "apiVersion": format!("meta.k8s.io/{}", format.meta_version),
        "kind": "PartialObjectMetadata",
        "metadata": value["metadata"],
    })
}

fn relabel(table: &mut Value, format: Format) {
    if format.meta_version != "v1" {
        table["apiVersion"] = format!("meta.k8s.io/{}", format.meta_version).into();
    }
}

fn table_options(call: &Call, no_headers: bool) -> Result<table::Options> {
    let include_object = match call.query.get("includeObject") {
        None => table::IncludeObject::default(),
        Some(text) => table::IncludeObject::parse(text).ok_or_else(|| {
            let allowed = &["Metadata", "None", "Object"];
            let error = portolan_api::field::FieldError::not_supported("includeObject", text, allowed);
            crate::errors::invalid_options("TableOptions", error)
        })?,
    };
    Ok(table::Options { include_object, no_headers })
}

fn write(format: Format, value: &Value) -> Bytes {
    match format.syntax {
        Syntax::Json => object::encode(value),
        Syntax::Yaml => serde_saphyr::to_string(value).unwrap_or_default().into(),
    }
}

fn pretty(json: &[u8]) -> Bytes {
    let value: Value = serde_json::from_slice(json).unwrap_or_default();
    let mut out = serde_json::to_vec_pretty(&value).unwrap_or_default();
    out.push(b'\n');
    out.into()
}

fn finish(call: &Call, code: StatusCode, body: Bytes, warnings: &[String]) -> Response<Body> {
    let (body, zipped) = zip(&call.headers, body);
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(call.format.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if zipped {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    add_warnings(headers, warnings);
    response
}

/// Compresses a large body for a client that takes it.
pub(crate) fn zip(headers: &HeaderMap, body: Bytes) -> (Bytes, bool) {
    if body.len() < GZIP_BYTES_MIN || !negotiate::accepts_gzip(headers) {
        return (body, false);
    }
    // The fastest level: on a local network time matters more than the last few percent.
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(zipped) => (zipped.into(), true),
        Err(_) => (body, false),
    }
}

/// One `Warning` header per distinct text, as RFC 7234 section 5.5 has them. Too much text is cut.
pub(crate) fn add_warnings(headers: &mut HeaderMap, warnings: &[String]) {
    let mut distinct: Vec<&str> = Vec::new();
    for text in warnings {
        if !distinct.contains(&text.as_str()) {
            distinct.push(text);
        }
    }
    let total: usize = distinct.iter().map(|text| text.chars().count()).sum();
    let mut left = WARNING_RUNES_TOTAL;
    for text in distinct {
        let text: String = if total > WARNING_RUNES_TOTAL {
            text.chars().take(WARNING_RUNES_EACH).collect()
        } else {
            text.to_string()
        };
        let length = text.chars().count();
        if length > left {
            break;
        }
        left -= length;
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
}

/// The same for one text, before those that are there.
pub(crate) fn add_warning_first(headers: &mut HeaderMap, text: &str) {
    let name = HeaderName::from_static("warning");
    let others: Vec<HeaderValue> = headers.get_all(&name).iter().cloned().collect();
    headers.remove(&name);
    add_warnings(headers, &[text.to_owned()]);
    for other in others {
        headers.append(name.clone(), other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_quoted_once_and_bounded() {
        let mut headers = HeaderMap::new();
        let twice = "unknown field \"spec.foo\"".to_string();
        add_warnings(&mut headers, &[twice.clone(), twice]);
        assert_eq!(headers.get_all("warning").iter().count(), 1);
        assert_eq!(headers["warning"], r#"299 - "unknown field \"spec.foo\"""#);
        let many: Vec<String> = (0..100).map(|i| format!("{i:0>300}")).collect();
        let mut headers = HeaderMap::new();
        add_warnings(&mut headers, &many);
        let shown: usize = headers.get_all("warning").iter().map(|v| v.len() - 8).sum();
        assert!(shown <= WARNING_RUNES_TOTAL && shown > WARNING_RUNES_TOTAL / 2, "{shown}");
    }
}
