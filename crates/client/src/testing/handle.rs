//! From a request to the objects and back.

// Refusals are rare and carry all of what the client is told.
#![allow(clippy::result_large_err)]

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Inner;
use super::objects::{Id, Scope, now};
use super::select::Selector;
use crate::{Body, BoxError, Status};

/// What a path names.
struct Route {
    collection: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
}

type Query = HashMap<String, String>;

/// An answer that is not an error.
enum Answer {
    Object(StatusCode, Value),
    Watch(mpsc::UnboundedReceiver<String>),
}

impl Inner {
    pub(super) fn respond(&mut self, request: &Request<Bytes>) -> Response<Body> {
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        self.requests.push(format!("{} {path}", request.method()));
        let outcome = match self.failures.pop_front() {
            Some(failure) => Err(failure),
            None => self.answer(request),
        };
        if outcome.is_ok() && request.method() != Method::GET {
            self.writes.push(format!("{} {}", request.method(), request.uri().path()));
        }
        match outcome {
            Ok(Answer::Object(code, object)) => json_response(code, &object),
            Ok(Answer::Watch(lines)) => watch_response(lines),
            Err(status) => {
                let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut body = serde_json::to_value(&status).unwrap_or_default();
                body["kind"] = "Status".into();
                body["apiVersion"] = "v1".into();
                body["status"] = "Failure".into();
                json_response(code, &body)
            }
        }
    }

    fn answer(&mut self, request: &Request<Bytes>) -> Result<Answer, Status> {
        let route = route(request.uri().path()).ok_or_else(|| status(404, "NotFound", "no such path"))?;
        let query = query(request.uri().query().unwrap_or_default());
        let body = || {
            serde_json::from_slice::<Value>(request.body())
                .map_err(|e| status(400, "BadRequest", &format!("the body is not JSON: {e}")))
        };
        match (request.method(), route.name.clone()) {
            (&Method::GET, None) if query.contains_key("watch") => self.watch(route, &query),
            (&Method::GET, None) => self.list(route, &query),
            (&Method::POST, None) => self.create(&route, body()?),
            (&Method::GET, Some(name)) => {
                let id = route.id(name);
                let object = self.objects.get(&id).cloned().ok_or_else(|| not_found(&id))?;
                Ok(Answer::Object(StatusCode::OK, object))
            }
            (&Method::PUT, Some(name)) => self.update(&route, &route.id(name), body()?),
            (&Method::PATCH, Some(name)) => self.patch(&route, &route.id(name), request, &body()?),
            (&Method::DELETE, Some(name)) => {
                let options = if request.body().is_empty() { Value::Null } else { body()? };
                self.delete(&route.id(name), &options)
            }
            _ => Err(status(405, "MethodNotAllowed", "the fake does not know this verb here")),
        }
    }

    fn watch(&mut self, route: Route, query: &Query) -> Result<Answer, Status> {
        let after = query.get("resourceVersion").filter(|v| !v.is_empty() && *v != "0");
        let after = after.map(|v| v.parse()).transpose();
        let after = after.map_err(|_| status(400, "BadRequest", "invalid resource version"))?;
        let lines = self.objects.watch(route.scope(query), after);
        lines.map(Answer::Watch).ok_or_else(|| status(410, "Expired", "too old resource version"))
    }

    fn list(&self, route: Route, query: &Query) -> Result<Answer, Status> {
        let scope = route.scope(query);
        let limit = query.get("limit").and_then(|l| l.parse().ok()).filter(|l| *l > 0).unwrap_or(usize::MAX);
        let mut version = self.objects.version();
        let mut after = None;
        // version / namespace / name of the last item. The content is the current one, not the first page's.
        if let Some(token) = query.get("continue").filter(|t| !t.is_empty()) {
            let mut parts = token.splitn(3, '/');
            version = parts.next().and_then(|v| v.parse().ok()).unwrap_or(0);
            after = Some((
                parts.next().unwrap_or_default().to_owned(),
                parts.next().unwrap_or_default().to_owned(),
            ));
            if version < self.objects.oldest() {
                return Err(status(410, "Expired", "The provided continue parameter is too old"));
            }
        }
        let beyond = |id: &Id| after.as_ref().is_none_or(|a| (&id.namespace, &id.name) > (&a.0, &a.1));
        let mut items = self
            .objects
            .collection(&scope.collection)
            .filter(|(id, object)| scope.covers(id) && scope.selector.matches(object) && beyond(id));
        let page: Vec<_> = items.by_ref().take(limit).collect();
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        if let Some((last, _)) = page.last().filter(|_| items.next().is_some()) {
            metadata["continue"] = format!("{version}/{}/{}", last.namespace, last.name).into();
        }
        let items: Vec<_> = page.into_iter().map(|(_, object)| object).collect();
        let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items });
        Ok(Answer::Object(StatusCode::OK, list))
    }

    fn create(&mut self, route: &Route, mut object: Value) -> Result<Answer, Status> {
        let meta = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (mut name, base) = (meta("name"), meta("generateName"));
        if name.is_empty() && !base.is_empty() {
            name = format!("{base}{:05}", self.objects.version());
        }
        if name.is_empty() {
            return Err(status(
                422,
                "Invalid",
                "metadata.name: Required value: name or generateName is required",
            ));
        }
        if let Some(namespace) = &route.namespace {
            object["metadata"]["namespace"] = namespace.as_str().into();
        }
        let id = route.id(name);
        if self.objects.get(&id).is_some() {
            return Err(status(
                409,
                "AlreadyExists",
                &format!("{} {:?} already exists", id.collection, id.name),
            ));
        }
        Ok(Answer::Object(StatusCode::CREATED, self.objects.put(id, object)))
    }

    fn update(&mut self, route: &Route, id: &Id, sent: Value) -> Result<Answer, Status> {
        let old = self.objects.get(id).cloned().ok_or_else(|| not_found(id))?;
        check_version(&old, sent["metadata"]["resourceVersion"].as_str(), id)?;
        let new = if route.subresource.as_deref() == Some("status") {
            with_status(old, &sent["status"])
        } else {
            with_status(sent, &old["status"])
        };
        Ok(Answer::Object(StatusCode::OK, self.store(id, new)))
    }

    /// Store an update; an object that is being deleted goes when its last finalizer does.
    fn store(&mut self, id: &Id, new: Value) -> Value {
        let finalized = has_text(&new, "deletionTimestamp")
            && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && new["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0;
        let stored = self.objects.put(id.clone(), new);
        if finalized {
            self.objects.remove(id);
        }
        stored
    }

    fn patch(
        &mut self,
        route: &Route,
        id: &Id,
        request: &Request<Bytes>,
        patch: &Value,
    ) -> Result<Answer, Status> {
        let kind = request.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        if kind.starts_with("application/json-patch") {
            return Err(status(415, "UnsupportedMediaType", "the fake does not know JSON patch"));
        }
        let Some(old) = self.objects.get(id).cloned() else {
            if kind.starts_with("application/apply-patch") && route.subresource.is_none() {
                return self.create(route, patch.clone());
            }
            return Err(not_found(id));
        };
        check_version(&old, patch["metadata"]["resourceVersion"].as_str(), id)?;
        let mut merged = old.clone();
        merge(&mut merged, patch);
        let new = if route.subresource.as_deref() == Some("status") {
            with_status(old, &merged["status"])
        } else {
            with_status(merged, &old["status"])
        };
        Ok(Answer::Object(StatusCode::OK, self.store(id, new)))
    }

    fn delete(&mut self, id: &Id, options: &Value) -> Result<Answer, Status> {
        let old = self.objects.get(id).cloned().ok_or_else(|| not_found(id))?;
        check_version(&old, options["preconditions"]["resourceVersion"].as_str(), id)?;
        if let Some(uid) = options["preconditions"]["uid"].as_str()
            && old["metadata"]["uid"] != uid
        {
            return Err(status(409, "Conflict", "the UID in the precondition does not match"));
        }
        let finalizers = old["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let grace = grace_seconds(id, &old, options);
        if !finalizers && grace == 0 {
            let last = self.objects.remove(id).unwrap_or_default();
            return Ok(Answer::Object(StatusCode::OK, last));
        }
        let mut new = old;
        if !has_text(&new, "deletionTimestamp") {
            new["metadata"]["deletionTimestamp"] = now(grace).into();
        }
        new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        Ok(Answer::Object(StatusCode::OK, self.objects.put(id.clone(), new)))
    }
}

/// Pods on a node are given time; their agent deletes them for good with 0.
fn grace_seconds(id: &Id, object: &Value, options: &Value) -> i64 {
    let scheduled = object["spec"]["nodeName"].as_str().is_some_and(|n| !n.is_empty());
    if id.collection != "/api/v1/pods" || !scheduled {
        return 0;
    }
    let asked = options["gracePeriodSeconds"].as_i64();
    asked.or(object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
}

impl Route {
    fn id(&self, name: String) -> Id {
        let namespace = self.namespace.clone().unwrap_or_default();
        Id { collection: self.collection.clone(), namespace, name }
    }

    fn scope(self, query: &Query) -> Scope {
        let text = |name: &str| query.get(name).map(String::as_str);
        let selector = Selector::parse(text("labelSelector"), text("fieldSelector"));
        Scope { collection: self.collection, namespace: self.namespace, selector }
    }
}

fn route(path: &str) -> Option<Route> {
    let segments: Vec<String> = path.trim_matches('/').split('/').map(unescape).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (base, rest) = match segments.as_slice() {
        ["api", version, rest @ ..] => (format!("/api/{version}"), rest),
        ["apis", group, version, rest @ ..] => (format!("/apis/{group}/{version}"), rest),
        _ => return None,
    };
    let (namespace, rest) = match rest {
        // Deeper than a namespace's own subresources: something in the namespace.
        ["namespaces", _, "status" | "finalize"] => (None, rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some((*namespace).to_owned()), rest),
        rest => (None, rest),
    };
    let at = |index: usize| rest.get(index).map(|s| (*s).to_owned());
    (1..=3).contains(&rest.len()).then(|| Route {
        collection: format!("{base}/{}", rest[0]),
        namespace,
        name: at(1),
        subresource: at(2),
    })
}

fn query(text: &str) -> Query {
    let pairs = text.split('&').filter(|p| !p.is_empty());
    pairs.map(|p| p.split_once('=').unwrap_or((p, ""))).map(|(k, v)| (unescape(k), unescape(v))).collect()
}

fn unescape(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
            let digits = std::str::from_utf8(&digits).unwrap_or("00");
            out.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
        } else {
            out.push(byte);
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn check_version(old: &Value, sent: Option<&str>, id: &Id) -> Result<(), Status> {
    match sent {
        Some(sent) if !sent.is_empty() && old["metadata"]["resourceVersion"] != sent => Err(status(
            409,
            "Conflict",
            &format!("Operation cannot be fulfilled on {:?}: the object has been modified", id.name),
        )),
        _ => Ok(()),
    }
}

fn with_status(mut object: Value, status: &Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        if status.is_null() {
            fields.remove("status");
        } else {
            fields.insert("status".into(), status.clone());
        }
    }
    object
}

fn has_text(object: &Value, field: &str) -> bool {
    object["metadata"][field].as_str().is_some_and(|t| !t.is_empty())
}

/// RFC 7396, and of Kubernetes' strategic form that values are taken out of lists.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
            target[list].as_array_mut().unwrap_or(&mut Vec::new()).retain(|item| !gone.contains(item));
        } else if !value.is_null() {
            merge(&mut target[name], value);
        } else if let Some(fields) = target.as_object_mut() {
            fields.remove(name);
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Status {
    Status { code, reason: reason.into(), message: message.into(), details: None }
}

fn not_found(id: &Id) -> Status {
    status(404, "NotFound", &format!("{} {:?} not found", id.collection, id.name))
}

fn json_response(code: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}

fn watch_response(lines: mpsc::UnboundedReceiver<String>) -> Response<Body> {
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(line))), lines))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}
