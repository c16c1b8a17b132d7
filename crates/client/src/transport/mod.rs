//! How a request gets to an API server and its answer comes back.

mod https;
mod stream;
mod tls;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;

use crate::Error;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A response body: complete for most verbs, endless for a watch. Dropping it ends the request.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

pub use https::HttpTransport;
pub use tls::unverified_tls;
pub(crate) use tls::{certificates, private_key};

/// One way to reach an API server. Requests carry a path and query only (`/api/v1/nodes?limit=500`);
/// the transport adds the authority and the credentials.
pub trait Transport: Send + Sync + 'static {
    fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>>;
}
