//! A request for objects, understood: which resource, which verb, who, with what.

use std::sync::Arc;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, Method};
use portolan_api::field::FieldError;
use portolan_api::resource::{self, Resource};
use portolan_api::selector::FieldQuery;
use portolan_api::status;
use serde_json::Value;

use crate::authn::User;
use crate::authz::grant::{self, Written};
use crate::authz::{self, Attributes, node};
use crate::errors::{ApiError, Result};
use crate::limits::FIELD_MANAGER_MAX;
use crate::managed::{Manager, Operation};
use crate::metrics::Labels;
use crate::negotiate::{self, Format, Shape};
use crate::path::ResourcePath;
use crate::query::Query;
use crate::server::ApiServer;
use crate::verbs::connect;

/// What is done to objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// One object.
    Get,
    /// Many objects.
    List,
    /// Changes from now on.
    Watch,
    /// A new object.
    Create,
    /// A whole object instead of the old one.
    Update,
    /// A part of an object.
    Patch,
    /// One object goes.
    Delete,
    /// Many objects go.
    DeleteCollection,
    /// A request is handed through to what an object stands for, whatever its method.
    Connect,
}

impl Verb {
    /// The verb as authorization knows it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Connect => "connect",
        }
    }

    /// The verb as metrics know it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Watch => "WATCH",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::DeleteCollection => "DELETECOLLECTION",
            Self::Connect => "CONNECT",
        }
    }

    /// Whether it changes objects.
    pub(crate) fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch | Self::Connect)
    }

    fn of(method: &Method, named: bool, watch: bool) -> Option<Self> {
        Some(match (method.as_str(), named) {
            ("GET" | "HEAD", _) if watch => Self::Watch,
            ("GET" | "HEAD", true) => Self::Get,
            ("GET" | "HEAD", false) => Self::List,
            ("POST", _) => Self::Create,
            ("PUT", true) => Self::Update,
            ("PATCH", true) => Self::Patch,
            ("DELETE", true) => Self::Delete,
            ("DELETE", false) => Self::DeleteCollection,
            _ => return None,
        })
    }
}

/// A request for objects.
pub(crate) struct Call {
    /// Who answers.
    pub(crate) server: Arc<ApiServer>,
    /// Who asks.
    pub(crate) user: User,
    /// What kind of objects.
    pub(crate) resource: &'static Resource,
    /// What is done.
    pub(crate) verb: Verb,
    /// In which namespace; `None` for all, and for kinds without one.
    pub(crate) namespace: Option<String>,
    /// To which object.
    pub(crate) name: Option<String>,
    /// To which part of it.
    pub(crate) subresource: Option<String>,
    /// What follows the subresource `proxy` in the path, as it was sent.
    pub(crate) beyond: String,
    /// How.
    pub(crate) query: Query,
    /// The headers, for content types.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// In what form the answer is wanted.
    pub(crate) format: Format,
}

impl Call {
    /// Understands a request. Permission is checked before anything about the resource is told.
    pub(crate) async fn new(
        server: Arc<ApiServer>,
        method: &Method,
        path: ResourcePath,
        query: Query,
        user: User,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Self> {
        let watch = path.watch || (path.name.is_none() && query.flag("watch") == Some(true));
        let verb = Verb::of(method, path.name.is_some(), watch);
        let known = resource::find(&path.group, &path.version, &path.resource);
        let chosen = chosen(verb, known, &query);
        let session = path.subresource.as_deref().is_some_and(connect::is_session);
        let attributes = Attributes::Resource {
            verb: if session { "create" } else { verb.map_or("", Verb::name) },
            group: &path.group,
            resource: &path.resource,
            subresource: path.subresource.as_deref().and_then(|sub| sub.split('/').next()),
            namespace: path.namespace.as_deref(),
            name: path.name.as_deref().or(chosen.exact("metadata.name")),
            on_node: chosen.exact("spec.nodeName"),
        };
        if let Err(why) = authz::authorize(&server, &user, attributes).await {
            return Err(refused(&path, &why));
        }
        let resource = known.ok_or_else(|| ApiError::from(status::no_such_path()))?;
        check_shape(resource, &path)?;
        let method = method.as_str();
        let verb = if path.beyond.is_some() { Some(Verb::Connect) } else { verb };
        let verb = verb.ok_or_else(|| ApiError::from(status::method_not_allowed(resource, method)))?;
        let format = accepted(&headers, verb)?;
        let namespace = path.namespace.filter(|_| resource.namespaced);
        let (name, subresource, beyond) = (path.name, path.subresource, path.beyond.unwrap_or_default());
        Ok(Self {
            server,
            user,
            resource,
            verb,
            namespace,
            name,
            subresource,
            beyond,
            query,
            headers,
            body,
            format,
        })
    }

    /// The object's namespace, empty for kinds without one.
    pub(crate) fn ns(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The object's name; verbs without one never ask.
    pub(crate) fn object_name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// Who writes, by `fieldManager` or else by what the client calls itself.
    pub(crate) fn manager(&self, operation: Operation) -> Manager {
        let agent = self.headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let agent = agent.split('/').next().unwrap_or_default();
        let name = self.query.get("fieldManager").unwrap_or(agent);
        Manager {
            name: if name.is_empty() {
                "unknown".into()
            } else {
                name.chars().take(FIELD_MANAGER_MAX).collect()
            },
            operation,
            api_version: self.resource.api_version(),
            subresource: self.subresource.clone().unwrap_or_default(),
        }
    }

    /// Refuses an object that the caller may not write, for what the object says: permissions that they do not have, or
    /// what is another node's.
    pub(crate) fn may_write(&self, old: Option<&Value>, new: &Value) -> Result<()> {
        let (resource, namespace, name) = (self.resource, self.namespace.as_deref(), self.name.as_deref());
        let written = Written { resource, namespace, name, old, new };
        grant::check(self.server.policy(), &self.user, written)?;
        node::check(&self.user, self.subresource.as_deref(), written)
    }

    /// What counters call this request.
    pub(crate) fn labels(&self) -> Labels {
        Labels {
            verb: self.verb.label(),
            group: self.resource.group,
            version: self.resource.version,
            resource: self.resource.plural,
            subresource: self.subresource.clone().unwrap_or_default(),
        }
    }
}

/// The field selector of requests for many objects: it may leave no more than the caller may have. One that cannot be
/// read is refused later, and leaves everything until then.
fn chosen(verb: Option<Verb>, resource: Option<&Resource>, query: &Query) -> FieldQuery {
    let many = matches!(verb, Some(Verb::List | Verb::Watch | Verb::DeleteCollection));
    let selector = query.get("fieldSelector").filter(|_| many);
    let parsed = selector.zip(resource).and_then(|(text, resource)| FieldQuery::parse(text, resource).ok());
    parsed.unwrap_or_default()
}

/// Namespaced resources are named inside a namespace, the others outside.
fn check_shape(resource: &Resource, path: &ResourcePath) -> Result<()> {
    let inside = path.namespace.is_some();
    let whole_collection = path.name.is_none() && !inside;
    let own = resource.plural == "namespaces" && resource.group.is_empty();
    let fits = if resource.namespaced { inside || whole_collection } else { !inside || own };
    if !fits {
        return Err(status::no_such_path().into());
    }
    match &path.subresource {
        Some(sub) if !known_subresource(resource, sub) => Err(status::no_such_path().into()),
        _ => Ok(()),
    }
}

fn known_subresource(resource: &Resource, sub: &str) -> bool {
    resource.subresources.contains(&sub)
}

fn accepted(headers: &HeaderMap, verb: Verb) -> Result<Format> {
    if verb == Verb::Connect {
        // What the client accepts is for the target to know.
        return Ok(Format::JSON);
    }
    let can = |format: Format| match format.shape {
        Shape::Whole => true,
        Shape::Table => matches!(verb, Verb::Get | Verb::List | Verb::Watch),
        Shape::Metadata => verb != Verb::List,
        Shape::MetadataList => matches!(verb, Verb::List),
    };
    negotiate::accept(headers, can).ok_or_else(|| status::not_acceptable(negotiate::OFFERED).into())
}

/// 403 for a path whose resource may not even exist.
pub(crate) fn refused(path: &ResourcePath, why: &str) -> ApiError {
    let mut error = ApiError::from(status::forbidden_path("", "", ""));
    error.0.message = why.to_string();
    error.0.details = Some(portolan_api::meta::v1::StatusDetails {
        name: path.name.clone().unwrap_or_default(),
        group: path.group.clone(),
        kind: path.resource.clone(),
        ..Default::default()
    });
    error
}

/// 403 with a whole sentence.
pub(crate) fn forbidden(resource: &Resource, name: &str, why: String) -> ApiError {
    let mut error = ApiError::from(status::forbidden(resource, name, ""));
    error.0.message = why;
    error
}

/// Options that all writes have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    /// Do everything but store the result.
    pub(crate) dry_run: bool,
    /// What becomes of fields that the schema does not know.
    pub(crate) validation: Validation,
}

/// `fieldValidation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Validation {
    /// Dropped silently.
    Ignore,
    /// Dropped with a warning.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

impl WriteOptions {
    /// Reads the options of a write; `kind` is `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    pub(crate) fn read(query: &Query, kind: &str) -> Result<Self> {
        let invalid = |error| crate::errors::invalid_options(kind, error);
        let dry_run = dry_run(query.all("dryRun")).map_err(invalid)?;
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => Validation::Warn,
            Some("Ignore") => Validation::Ignore,
            Some("Strict") => Validation::Strict,
            Some(other) => {
                let allowed = &["", "Ignore", "Strict", "Warn"];
                return Err(invalid(FieldError::not_supported("fieldValidation", other, allowed)));
            }
        };
        if let Some(manager) = query.get("fieldManager") {
            if manager.len() > FIELD_MANAGER_MAX {
                return Err(invalid(FieldError::too_long("fieldManager", FIELD_MANAGER_MAX)));
            }
            if let Some((at, odd)) = manager.char_indices().find(|(_, c)| !is_printable(*c)) {
                let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
                return Err(invalid(FieldError::invalid("fieldManager", manager, detail)));
            }
        }
        Ok(Self { dry_run, validation })
    }
}

/// Of all spaces only the plain one is.
fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// `dryRun`: absent, or `All`.
pub(crate) fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> std::result::Result<bool, FieldError> {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|v| *v != "All") {
        let mut error = FieldError::not_supported("dryRun", "", &["All"]);
        error.value = values.into();
        return Err(error);
    }
    Ok(!values.is_empty())
}
