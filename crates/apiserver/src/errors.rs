//! Failures as clients see them: Status objects as responses.
//!
//! Verbs return [`ApiError`]; the texts are made by `portolan_api::status`. Here are the conversions from the errors of
//! the layers below, and the way from a Status to a response.

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use portolan_api::field::FieldError;
use portolan_api::meta::v1::Status;
use portolan_api::status::{self, StatusError};

use crate::alloc::AllocError;
use crate::body::{Body, full};
use crate::limits::BODY_BYTES_MAX;

/// A refusal or failure: a Status of its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ApiError(pub Box<Status>);

/// What verbs return.
pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    /// The HTTP code.
    pub(crate) fn code(&self) -> StatusCode {
        let code = u16::try_from(self.0.code).ok();
        code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the reason is `reason`.
    pub(crate) fn is(&self, reason: &str) -> bool {
        self.0.reason == reason
    }

    /// The failure as a response.
    pub(crate) fn response(&self) -> Response<Body> {
        let mut response = Response::new(full(status_json(&self.0)));
        *response.status_mut() = self.code();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let retry = self.0.details.as_ref().map_or(0, |d| d.retry_after_seconds);
        if retry > 0 {
            headers.insert(RETRY_AFTER, retry.into());
        }
        response
    }
}

/// A Status as JSON, `metadata` included as Kubernetes always does.
pub(crate) fn status_json(status: &Status) -> Vec<u8> {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if value.get("metadata").is_none() {
        value["metadata"] = serde_json::json!({});
    }
    serde_json::to_vec(&value).unwrap_or_default()
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl From<StatusError> for ApiError {
    fn from(error: StatusError) -> Self {
        Self(error.0)
    }
}

impl From<crate::object::Unreadable> for ApiError {
    fn from(error: crate::object::Unreadable) -> Self {
        status::internal_error(error).into()
    }
}

impl From<crate::query::BadQuery> for ApiError {
    fn from(error: crate::query::BadQuery) -> Self {
        status::bad_request(error.0).into()
    }
}

impl From<portolan_store::Error> for ApiError {
    fn from(error: portolan_store::Error) -> Self {
        use portolan_store::Error as Store;
        match error {
            Store::Compacted { .. } => {
                status::expired("The resourceVersion for the provided list is too old.").into()
            }
            Store::Invalid(text) => status::too_large(text).into(),
            Store::Unavailable(text) => {
                tracing::warn!(%text, "store is unavailable");
                status::unavailable("the store is unavailable; the server's log says why").into()
            }
            Store::Unknown(text) => {
                tracing::warn!(%text, "the outcome of a write is unknown");
                status::timeout("the store did not answer; the write may or may not have happened", 0).into()
            }
            error @ Store::Full(_) => {
                tracing::warn!(%error, "nothing can be written");
                status::unavailable("the store's disk is full; nothing was written").into()
            }
            other => status::internal_error(other).into(),
        }
    }
}

/// What a failed allocation says about the Service `name`.
pub(crate) fn allocation(error: AllocError, name: &str) -> ApiError {
    match error {
        AllocError::Invalid(errors) => status::invalid_kind("", "Service", name, &errors).into(),
        AllocError::Internal(text) => status::internal_error(text).into(),
        AllocError::Plain(text) => status::untyped(text).into(),
        AllocError::Store(text) => status::unavailable(text).into(),
    }
}

/// 422 for the options of a request, such as `ListOptions`.
pub(crate) fn invalid_options(kind: &str, error: FieldError) -> ApiError {
    status::invalid_kind("meta.k8s.io", kind, "", &[error]).into()
}

/// 413: the body is too large.
pub(crate) fn too_large() -> ApiError {
    status::too_large(format!("limit is {BODY_BYTES_MAX}")).into()
}
