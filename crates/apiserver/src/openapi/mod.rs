//! OpenAPI documents of what is served, from the schemas and the list of resources: `v3` (one document per group
//! version and an index) and `v2` (one document, as JSON and as protobuf for older kubectl). Built once.

use crate::document::Document;

/// All OpenAPI documents.
pub struct OpenApi {}

impl OpenApi {
    pub fn new() -> OpenApi {
        todo!()
    }
    /// The document at `path` (`/openapi/v2`, `/openapi/v3`, `/openapi/v3/api/v1`, `/openapi/v3/apis/G/V`) in the form
    /// the Accept header asks for. None: no such path. (406 does not occur: JSON is the fallback.)
    pub fn get(&self, path: &str, accept: &str) -> Option<&Document> {
        todo!("{path} {accept}")
    }
}
