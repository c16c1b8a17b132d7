//! OpenAPI documents of what is served, from the schemas and the list of resources: v3 (an index and one document per
//! group version) and v2 (one document, as JSON and as protobuf, which older kubectl insists on). Built once.
//!
//! `definitions` renders schemas, `paths` operations, both in the dialect asked for; `v2_proto` re-encodes the finished
//! v2 document. Start with [`OpenApi`].

mod definitions;
mod paths;
mod protobuf;
#[cfg(test)]
mod tests;
mod v2_proto;

use std::collections::HashMap;

use portolan_api::resource::{RESOURCES, Resource};
use serde_json::{Value, json};

use crate::document::{Document, hash};

/// What documents of both versions say about themselves.
const TITLE: &str = "Portolan";
const VERSION: &str = env!("CARGO_PKG_VERSION");

const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Which OpenAPI a fragment is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V2,
    V3,
}

/// All OpenAPI documents.
pub struct OpenApi {
    v2_json: Document,
    v2_protobuf: Document,
    /// By path.
    v3: HashMap<String, Document>,
}

impl Default for OpenApi {
    fn default() -> OpenApi {
        OpenApi::new()
    }
}

impl OpenApi {
    /// Builds everything: some milliseconds of work and a few megabytes, so best done when first asked.
    pub fn new() -> OpenApi {
        let v2 = v2();
        let v2_protobuf = Document::new(V2_PROTOBUF, v2_proto::encode(&v2));
        let mut v3 = HashMap::new();
        let mut index = serde_json::Map::new();
        for resources in by_group_version(RESOURCES) {
            let root = resources[0].root_path();
            let document = Document::json(&v3_of(&resources));
            // The hash lets clients keep the document for ever.
            let url = format!("/openapi/v3{root}?hash={}", hash(&document.body));
            index.insert(root.trim_start_matches('/').to_owned(), json!({"serverRelativeURL": url}));
            v3.insert(format!("/openapi/v3{root}"), document);
        }
        v3.insert("/openapi/v3".to_owned(), Document::json(&json!({"paths": index})));
        OpenApi { v2_json: Document::json(&v2), v2_protobuf, v3 }
    }

    /// The document at `path` (`/openapi/v2`, `/openapi/v3`, `/openapi/v3/api/v1`, `/openapi/v3/apis/G/V`) in the form
    /// the Accept header asks for. None: no such path. (406 does not occur: JSON is the fallback.)
    pub fn get(&self, path: &str, accept: &str) -> Option<&Document> {
        match path {
            "/openapi/v2" if prefers_protobuf(accept) => Some(&self.v2_protobuf),
            "/openapi/v2" => Some(&self.v2_json),
            _ => self.v3.get(path),
        }
    }
}

fn by_group_version(resources: &[&'static Resource]) -> Vec<Vec<&'static Resource>> {
    let mut all: Vec<Vec<&'static Resource>> = Vec::new();
    for resource in resources {
        match all.iter_mut().find(|group| group[0].root_path() == resource.root_path()) {
            Some(group) => group.push(resource),
            None => all.push(vec![resource]),
        }
    }
    all
}

fn v2() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths::render(RESOURCES, Dialect::V2),
        "definitions": definitions::render(RESOURCES, Dialect::V2),
    })
}

fn v3_of(resources: &[&'static Resource]) -> Value {
    json!({
        "openapi": "3.0.0",
        "info": {"title": TITLE, "version": VERSION},
        "paths": paths::render(resources, Dialect::V3),
        "components": {"schemas": definitions::render(resources, Dialect::V3)},
    })
}

/// Clients write the version with an `@`, newer ones with a dot.
fn prefers_protobuf(accept: &str) -> bool {
    let first = accept.split(',').map(|range| range.split(';').next().unwrap_or_default().trim()).find(
        |media_type| {
            media_type.starts_with("application/com.github.proto-openapi.spec.v2")
                || matches!(*media_type, "application/json" | "*/*" | "application/*")
        },
    );
    first.is_some_and(|media_type| media_type.ends_with("+protobuf"))
}
