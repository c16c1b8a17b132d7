//! Content types: which form of an answer a client accepts, and what a body is written in.
//!
//! Objects are answered in JSON or YAML, whole, as a Table, or as their metadata. Kubernetes' protobuf is understood in
//! some bodies but never spoken: clients that prefer it name JSON as their second choice and get that.

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};

use crate::protobuf::MEDIA_TYPE;

/// How bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Syntax {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

/// How a request's body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodySyntax {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// The objects themselves.
    Whole,
    /// `as=Table`
    Table,
    /// `as=PartialObjectMetadata` (one object, and each event of a watch)
    Metadata,
    /// `as=PartialObjectMetadataList`
    MetadataList,
}

/// One acceptable answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Format {
    /// JSON or YAML.
    pub(crate) syntax: Syntax,
    /// Objects, tables or metadata.
    pub(crate) shape: Shape,
    /// The version of `meta.k8s.io` that tables and metadata are labelled with.
    pub(crate) meta_version: &'static str,
}

impl Format {
    /// Plain JSON.
    pub(crate) const JSON: Self = Self { syntax: Syntax::Json, shape: Shape::Whole, meta_version: "v1" };

    /// The Content-Type of an answer of this form.
    pub(crate) fn content_type(self) -> &'static str {
        match self.syntax {
            Syntax::Json => "application/json",
            Syntax::Yaml => "application/yaml",
        }
    }
}

/// Media types of answers and bodies.
pub(crate) const OFFERED: &[&str] = &["application/json", "application/yaml"];

/// The best form the client accepts among those for which `can` says yes.
pub(crate) fn accept(headers: &HeaderMap, can: impl Fn(Format) -> bool) -> Option<Format> {
    let mut ranges: Vec<(u16, &str)> = Vec::new();
    for header in headers.get_all(ACCEPT) {
        for range in header.to_str().ok()?.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            ranges.push((quality(range), range));
        }
    }
    if ranges.is_empty() {
        return Some(Format::JSON);
    }
    // Stable: equal quality keeps the client's order.
    ranges.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    ranges.iter().filter(|(quality, _)| *quality > 0).filter_map(|(_, range)| format(range)).find(|f| can(*f))
}

/// `q` in thousandths.
fn quality(range: &str) -> u16 {
    range
        .split(';')
        .skip(1)
        .find_map(|p| p.trim().strip_prefix("q="))
        .and_then(|q| q.parse::<f32>().ok())
        .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u16)
}

fn format(range: &str) -> Option<Format> {
    let mut parts = range.split(';').map(str::trim);
    let syntax = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Syntax::Json,
        "application/yaml" => Syntax::Yaml,
        _ => return None,
    };
    let (mut shape, mut group, mut version) = (Shape::Whole, "meta.k8s.io", "v1");
    for part in parts {
        match part.split_once('=') {
            Some(("as", "Table")) => shape = Shape::Table,
            Some(("as", "PartialObjectMetadata")) => shape = Shape::Metadata,
            Some(("as", "PartialObjectMetadataList")) => shape = Shape::MetadataList,
            Some(("g", value)) => group = value,
            Some(("v", "v1")) => version = "v1",
            Some(("v", "v1beta1")) => version = "v1beta1",
            Some(("as" | "v", _)) => return None,
            _ => {}
        }
    }
    (group == "meta.k8s.io").then_some(Format { syntax, shape, meta_version: version })
}

/// The syntax of a request's body; JSON when the client does not say.
pub(crate) fn body_syntax(headers: &HeaderMap) -> Option<BodySyntax> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Some(BodySyntax::Json) };
    match value.to_str().ok()?.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => Some(BodySyntax::Json),
        "application/yaml" => Some(BodySyntax::Yaml),
        MEDIA_TYPE => Some(BodySyntax::Protobuf),
        _ => None,
    }
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok()).any(|v| {
        v.split(',').map(str::trim).any(|part| part.split(';').next() == Some("gzip") && quality(part) > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())])
    }

    #[test]
    fn clients_get_what_they_prefer() {
        let all = |_| true;
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(&headers(table), all).unwrap().shape, Shape::Table);
        assert_eq!(accept(&headers(table), |f| f.shape == Shape::Whole), Some(Format::JSON));
        assert_eq!(
            accept(&headers("application/vnd.kubernetes.protobuf, application/json"), all),
            Some(Format::JSON)
        );
        assert_eq!(accept(&headers("application/vnd.kubernetes.protobuf"), all), None);
        assert_eq!(accept(&headers("application/yaml"), all).unwrap().syntax, Syntax::Yaml);
        assert_eq!(
            accept(&headers("application/yaml;q=0.2, application/json;q=0.8"), all),
            Some(Format::JSON)
        );
        assert_eq!(accept(&headers("text/html, */*;q=0.1"), all), Some(Format::JSON));
        assert_eq!(accept(&HeaderMap::new(), all), Some(Format::JSON));
        let old = accept(&headers("application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io"), all)
            .unwrap();
        assert_eq!((old.shape, old.meta_version), (Shape::Metadata, "v1beta1"));
    }

    #[test]
    fn bodies() {
        let with = |t: &str| HeaderMap::from_iter([(CONTENT_TYPE, t.parse().unwrap())]);
        assert_eq!(body_syntax(&with("application/json; charset=utf-8")), Some(BodySyntax::Json));
        assert_eq!(body_syntax(&with("application/yaml")), Some(BodySyntax::Yaml));
        assert_eq!(body_syntax(&with("application/vnd.kubernetes.protobuf")), Some(BodySyntax::Protobuf));
        assert_eq!(body_syntax(&with("text/plain")), None);
        assert_eq!(body_syntax(&HeaderMap::new()), Some(BodySyntax::Json));
    }
}
