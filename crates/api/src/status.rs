//! The `Status` objects with which the server refuses a request, worded as Kubernetes words them.

use std::fmt;

use crate::field::FieldError;
use crate::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};
use crate::resource::Resource;

/// A failed request, as handlers return it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusError(pub Box<Status>);

impl StatusError {
    pub fn code(&self) -> u16 {
        u16::try_from(self.0.code).unwrap_or(500)
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for StatusError {}

impl From<Status> for StatusError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

/// `services`, or `endpointslices.discovery.k8s.io`: how messages name a resource or kind.
pub fn qualified(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

fn failure(code: i32, reason: &str, message: impl Into<String>) -> Status {
    Status {
        api_version: "v1".to_owned(),
        kind: "Status".to_owned(),
        metadata: ListMeta::default(),
        status: "Failure".to_owned(),
        message: message.into(),
        reason: reason.to_owned(),
        details: None,
        code,
    }
}

/// Details that name the object by its resource.
fn about(resource: &Resource, name: &str) -> StatusDetails {
    StatusDetails {
        name: name.to_owned(),
        group: resource.group.to_owned(),
        kind: resource.plural.to_owned(),
        ..StatusDetails::default()
    }
}

fn failure_of(code: i32, reason: &str, message: String, resource: &Resource, name: &str) -> Status {
    Status { details: Some(about(resource, name)), ..failure(code, reason, message) }
}

fn cause(error: &FieldError) -> StatusCause {
    StatusCause { reason: error.kind.reason().to_owned(), message: error.body(), field: error.path.clone() }
}

/// 422: the object breaks rules.
pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Status {
    invalid_kind(resource.group, resource.kind, name, errors)
}

/// 422 for a kind that is no resource, such as `ListOptions` of `meta.k8s.io`.
pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Status {
    let message = format!("{} \"{name}\" is invalid{}", qualified(kind, group), joined(errors));
    let details = StatusDetails {
        name: name.to_owned(),
        group: group.to_owned(),
        kind: kind.to_owned(),
        causes: errors.iter().map(cause).collect(),
        ..StatusDetails::default()
    };
    Status { details: Some(details), ..failure(422, "Invalid", message) }
}

/// `: e`, or `: [e1, e2]` with each text once.
fn joined(errors: &[FieldError]) -> String {
    let mut texts: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [] => String::new(),
        [one] => format!(": {one}"),
        many => format!(": [{}]", many.join(", ")),
    }
}

/// 404: there is no such object.
pub fn not_found(resource: &Resource, name: &str) -> Status {
    let message = format!("{} \"{name}\" not found", qualified(resource.plural, resource.group));
    failure_of(404, "NotFound", message, resource, name)
}

/// 404 for a path that leads to no resource.
pub fn no_such_path() -> Status {
    let status = failure(404, "NotFound", "the server could not find the requested resource");
    Status { details: Some(StatusDetails::default()), ..status }
}

/// 409: there is one already.
pub fn already_exists(resource: &Resource, name: &str) -> Status {
    let message = format!("{} \"{name}\" already exists", qualified(resource.plural, resource.group));
    failure_of(409, "AlreadyExists", message, resource, name)
}

/// 409: there is one already, and it is on its way out.
pub fn already_exists_deleting(resource: &Resource, name: &str) -> Status {
    let mut status = already_exists(resource, name);
    status.message = format!("object is being deleted: {}", status.message);
    status
}

/// 409: generated names collided too often.
pub fn generated_name_taken(resource: &Resource, name: &str) -> Status {
    let mut status = already_exists(resource, name);
    status.message.push_str(", the server was not able to generate a unique name for the object");
    if let Some(details) = &mut status.details {
        details.retry_after_seconds = 1;
    }
    status
}

/// 409: the object moved on since it was read.
pub fn conflict(resource: &Resource, name: &str) -> Status {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    conflict_because(resource, name, why)
}

/// 409 with a reason of its own, such as a precondition.
pub fn conflict_because(resource: &Resource, name: &str, why: &str) -> Status {
    let noun = qualified(resource.plural, resource.group);
    let message = format!("Operation cannot be fulfilled on {noun} \"{name}\": {why}");
    failure_of(409, "Conflict", message, resource, name)
}

/// 403: not allowed to this user, or by a rule of the cluster.
pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Status {
    let noun = qualified(resource.plural, resource.group);
    let message = if name.is_empty() {
        format!("{noun} is forbidden: {why}")
    } else {
        format!("{noun} \"{name}\" is forbidden: {why}")
    };
    failure_of(403, "Forbidden", message, resource, name)
}

/// 403 where no resource is concerned.
pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Status {
    let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
    Status { details: Some(StatusDetails::default()), ..failure(403, "Forbidden", message) }
}

/// 401: who are you?
pub fn unauthorized() -> Status {
    failure(401, "Unauthorized", "Unauthorized")
}

/// 400: the request cannot be understood.
pub fn bad_request(message: impl Into<String>) -> Status {
    failure(400, "BadRequest", message)
}

/// 500: our fault.
pub fn internal_error(error: impl fmt::Display) -> Status {
    let error = error.to_string();
    let status = failure(500, "InternalError", format!("Internal error occurred: {error}"));
    let causes = vec![StatusCause { message: error, ..StatusCause::default() }];
    Status { details: Some(StatusDetails { causes, ..StatusDetails::default() }), ..status }
}

/// 500 with the bare text, as Kubernetes answers when an error has no type.
pub fn untyped(error: impl fmt::Display) -> Status {
    failure(500, "", error.to_string())
}

/// 405: this resource does not do that.
pub fn method_not_allowed(resource: &Resource, verb: &str) -> Status {
    let noun = qualified(resource.plural, resource.group);
    let message = format!("{verb} is not supported on resources of kind \"{noun}\"");
    let mut details = about(resource, "");
    details.name = String::new();
    Status { details: Some(details), ..failure(405, "MethodNotAllowed", message) }
}

/// 406: none of the representations asked for is offered.
pub fn not_acceptable(offered: &[&str]) -> Status {
    let message = format!("only the following media types are accepted: {}", offered.join(", "));
    failure(406, "NotAcceptable", message)
}

/// 415: the body's media type is not understood here.
pub fn unsupported_media_type(offered: &[&str]) -> Status {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        offered.join(", ")
    );
    failure(415, "UnsupportedMediaType", message)
}

/// 413: the body is too large.
pub fn too_large(message: impl Into<String>) -> Status {
    failure(413, "RequestEntityTooLarge", format!("Request entity too large: {}", message.into()))
}

/// 410: that version is gone from the store; list again.
pub fn expired(message: impl Into<String>) -> Status {
    failure(410, "Expired", message)
}

/// 504: the store has not reached the version that the request asks for.
pub fn version_too_large(wanted: u64, current: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let causes = vec![StatusCause {
        reason: "ResourceVersionTooLarge".to_owned(),
        message: "Too large resource version".to_owned(),
        field: String::new(),
    }];
    let details = StatusDetails { causes, retry_after_seconds: 1, ..StatusDetails::default() };
    Status { details: Some(details), ..failure(504, "Timeout", message) }
}

/// 504: it took too long.
pub fn timeout(message: impl fmt::Display, retry_after_seconds: i32) -> Status {
    let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
    Status { details: Some(details), ..failure(504, "Timeout", format!("Timeout: {message}")) }
}

/// 503: not now.
pub fn unavailable(message: impl Into<String>) -> Status {
    failure(503, "ServiceUnavailable", message)
}

/// 429: slow down.
pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Status {
    let details = StatusDetails { retry_after_seconds, ..StatusDetails::default() };
    Status { details: Some(details), ..failure(429, "TooManyRequests", message) }
}

/// 200 after a deletion whose answer is not the object itself.
pub fn deleted(resource: &Resource, name: &str, uid: &str) -> Status {
    let mut details = about(resource, name);
    uid.clone_into(&mut details.uid);
    Status {
        status: "Success".to_owned(),
        reason: String::new(),
        details: Some(details),
        code: 0,
        ..failure(0, "", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::find;

    #[test]
    fn refusals_read_as_kubernetes_writes_them() {
        let services = find("", "v1", "services").unwrap();
        let slices = find("discovery.k8s.io", "v1", "endpointslices").unwrap();
        let error = FieldError::required("spec.ports", "");
        let other = FieldError::forbidden("spec.ipFamilies", "may not be set for ExternalName services");
        let message = |s: Status| s.message;
        assert_eq!(
            message(invalid(services, "x", std::slice::from_ref(&error))),
            "Service \"x\" is invalid: spec.ports: Required value"
        );
        assert_eq!(
            message(invalid(slices, "x", &[error.clone(), other, error.clone()])),
            "EndpointSlice.discovery.k8s.io \"x\" is invalid: [spec.ports: Required value, \
             spec.ipFamilies: Forbidden: may not be set for ExternalName services]"
        );
        assert_eq!(message(not_found(slices, "x")), "endpointslices.discovery.k8s.io \"x\" not found");
        assert_eq!(message(already_exists(services, "x")), "services \"x\" already exists");
        assert_eq!(
            message(already_exists_deleting(services, "x")),
            "object is being deleted: services \"x\" already exists"
        );
        assert_eq!(message(forbidden(services, "x", "no")), "services \"x\" is forbidden: no");
        assert_eq!(
            message(conflict(services, "x")),
            "Operation cannot be fulfilled on services \"x\": the object has \
            been modified; please apply your changes to the latest version and try again"
        );
        assert_eq!(message(version_too_large(9, 4)), "Timeout: Too large resource version: 9, current: 4");
        assert_eq!(message(internal_error("x")), "Internal error occurred: x");
    }

    #[test]
    fn some_say_when_to_come_back() {
        let services = find("", "v1", "services").unwrap();
        let clash = generated_name_taken(services, "web-abcde");
        assert_eq!(
            clash.message,
            "services \"web-abcde\" already exists, the server was not able to generate a unique name for the object"
        );
        let cases = [
            (clash, 409, "AlreadyExists", 1),
            (timeout("slow", 5), 504, "Timeout", 5),
            (too_many_requests("later", 2), 429, "TooManyRequests", 2),
            (version_too_large(9, 4), 504, "Timeout", 1),
        ];
        for (status, code, reason, seconds) in cases {
            assert_eq!((status.code, status.reason.as_str()), (code, reason), "{}", status.message);
            assert_eq!(status.details.unwrap().retry_after_seconds, seconds);
        }
        let now = unavailable("not now");
        assert_eq!(
            (now.code, now.reason.as_str(), now.message.as_str()),
            (503, "ServiceUnavailable", "not now")
        );
        assert_eq!(timeout("slow", 0).message, "Timeout: slow");
    }

    #[test]
    fn every_kind_of_error_has_its_reason() {
        use crate::field::ErrorKind;
        let kinds = [
            (ErrorKind::Required, "FieldValueRequired"),
            (ErrorKind::Invalid, "FieldValueInvalid"),
            (ErrorKind::NotSupported, "FieldValueNotSupported"),
            (ErrorKind::Duplicate, "FieldValueDuplicate"),
            (ErrorKind::Forbidden, "FieldValueForbidden"),
            (ErrorKind::TooLong, "FieldValueTooLong"),
            (ErrorKind::TooMany, "FieldValueTooMany"),
            (ErrorKind::Internal, "InternalError"),
            (ErrorKind::TypeInvalid, "FieldValueTypeInvalid"),
            (ErrorKind::NotFound, "FieldValueNotFound"),
        ];
        for (kind, reason) in kinds {
            assert_eq!(kind.reason(), reason, "{}", kind.label());
        }
    }

    #[test]
    fn invalid_carries_its_causes() {
        let services = find("", "v1", "services").unwrap();
        let status = invalid(services, "x", &[FieldError::invalid("spec.a", 1, "bad")]);
        let details = status.details.unwrap();
        assert_eq!((status.code, status.reason.as_str(), details.kind.as_str()), (422, "Invalid", "Service"));
        assert_eq!(details.causes[0].reason, "FieldValueInvalid");
        assert_eq!(details.causes[0].message, "Invalid value: 1: bad");
        assert_eq!(details.causes[0].field, "spec.a");
    }
}
