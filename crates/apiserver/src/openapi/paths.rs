//! Operations: what may be done to each resource, at which path, with which parameters. Clients look here for the
//! parameters a server knows (kubectl for `fieldValidation` and `dryRun` of PATCH) and for the kind behind a path.

use portolan_api::autoscaling::v1::Scale;
use portolan_api::meta::v1::{DeleteOptions, Status};
use portolan_api::resource::{Resource, is_act};
use serde_json::{Value, json};

use super::Dialect;
use super::definitions::{self, gvk_json, reference};

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Send bookmarks, which carry only a resource version."),
    ("continue", "string", "Token of the previous page."),
    ("fieldSelector", "string", "Only objects whose fields match."),
    ("labelSelector", "string", "Only objects whose labels match."),
    ("limit", "integer", "The most objects of one page."),
    ("resourceVersion", "string", "How new the answer has to be."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Begin a watch with the present objects."),
    ("timeoutSeconds", "integer", "How long the call may take."),
    ("watch", "boolean", "Send changes as they happen."),
];

const WRITE: &[Parameter] = &[
    ("dryRun", "string", "All: do everything but store the result."),
    ("fieldManager", "string", "Who is making the change."),
    ("fieldValidation", "string", "What to do about unknown and duplicate fields: Ignore, Warn or Strict."),
];

const FORCE: Parameter = ("force", "boolean", "Take fields over from other managers; for apply patches.");

const DELETE: &[Parameter] = &[
    ("dryRun", "string", "All: do everything but store the result."),
    ("gracePeriodSeconds", "integer", "Time the object is given to end."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

const PATH: Parameter = ("path", "string", "The path that the target is asked for.");

const PRETTY: Parameter = ("pretty", "string", "Indent the answer.");

const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// All paths of `resources`.
pub(super) fn render(resources: &[&'static Resource], dialect: Dialect) -> Value {
    let mut paths = serde_json::Map::new();
    for resource in resources {
        let writer = Writer { resource, dialect };
        let placeholder = resource.namespaced.then_some("{namespace}");
        let collection = resource.collection_path(placeholder);
        if !resource.stored {
            let parameters = placeholder.map(|_| "namespace");
            paths.insert(collection, writer.path(parameters.as_slice(), &[writer.create()]));
            continue;
        }
        if resource.namespaced {
            let all = writer.path(&[], &[writer.list("ForAllNamespaces")]);
            paths.insert(resource.collection_path(None), all);
        }
        let item = format!("{collection}/{{name}}");
        paths.insert(
            collection,
            writer.path(placeholder.map(|_| "namespace").as_slice(), &writer.collection()),
        );
        let parameters: &[&str] = if resource.namespaced { &["name", "namespace"] } else { &["name"] };
        paths.insert(item.clone(), writer.path(parameters, &writer.item("")));
        for subresource in resource.subresources.iter().filter(|subresource| !is_act(subresource)) {
            paths.insert(format!("{item}/{subresource}"), writer.path(parameters, &writer.item(subresource)));
        }
        if resource.subresources.contains(&"proxy") {
            paths.insert(format!("{item}/proxy"), writer.path(parameters, &writer.proxy("")));
            let parameters = [parameters, &["path"]].concat();
            paths.insert(
                format!("{item}/proxy/{{path}}"),
                writer.path(&parameters, &writer.proxy("WithPath")),
            );
        }
    }
    Value::Object(paths)
}

/// One operation, in no dialect yet.
struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    parameters: Vec<Parameter>,
    /// Definition of the body, and its content types.
    body: Option<(String, &'static [&'static str])>,
    /// Definition of the answer; empty where it is somebody else's, and may be anything.
    answer: String,
}

struct Writer<'a> {
    resource: &'a Resource,
    dialect: Dialect,
}

impl Writer<'_> {
    fn collection(&self) -> Vec<Operation> {
        let mut delete_parameters = DELETE.to_vec();
        let selects = |parameter: &&Parameter| !matches!(parameter.0, "watch" | "allowWatchBookmarks");
        delete_parameters.extend(LIST.iter().filter(selects));
        vec![
            self.list(""),
            self.create(),
            Operation {
                method: "delete",
                action: "deletecollection",
                id: self.id("delete", "Collection", ""),
                parameters: delete_parameters,
                body: Some((DeleteOptions::schema().name.to_owned(), &["*/*"])),
                answer: Status::schema().name.to_owned(),
            },
        ]
    }

    fn create(&self) -> Operation {
        let kind = (self.resource.schema)().name;
        Operation {
            method: "post",
            action: "post",
            id: self.id("create", "", ""),
            parameters: WRITE.to_vec(),
            body: Some((kind.to_owned(), &["*/*"])),
            answer: kind.to_owned(),
        }
    }

    fn list(&self, suffix: &str) -> Operation {
        Operation {
            method: "get",
            action: "list",
            id: if suffix.is_empty() { self.id("list", "", "") } else { self.id_of_all("list", suffix) },
            parameters: LIST.to_vec(),
            body: None,
            answer: definitions::list_name(self.resource),
        }
    }

    /// The operations on one object, or on a subresource of it.
    fn item(&self, subresource: &str) -> Vec<Operation> {
        let own = if subresource == "scale" { Scale::schema() } else { (self.resource.schema)() };
        let kind = own.name.to_owned();
        let operation = |method, verb, parameters: &[Parameter], body| Operation {
            method,
            action: method,
            id: self.id(verb, "", subresource),
            parameters: parameters.to_vec(),
            body,
            answer: kind.clone(),
        };
        let mut patch_parameters = WRITE.to_vec();
        patch_parameters.push(FORCE);
        let patch_body = Some((definitions::PATCH.to_owned(), PATCH_TYPES));
        let object: Option<(String, &[&str])> = Some((kind.clone(), &["*/*"]));
        let replace = operation("put", "replace", WRITE, object);
        if subresource == "finalize" {
            return vec![replace];
        }
        let mut operations = vec![
            operation("get", "read", &[], None),
            replace,
            operation("patch", "patch", &patch_parameters, patch_body),
        ];
        if subresource.is_empty() {
            let options: Option<(String, &[&str])> =
                Some((DeleteOptions::schema().name.to_owned(), &["*/*"]));
            let mut delete = operation("delete", "delete", DELETE, options);
            if !self.resource.returns_deleted {
                Status::schema().name.clone_into(&mut delete.answer);
            }
            operations.push(delete);
        }
        operations
    }

    /// What is handed through, `WithPath` or without.
    fn proxy(&self, suffix: &str) -> Vec<Operation> {
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        let operation = |method: &'static str| Operation {
            method,
            action: "connect",
            id: format!("connect{}{}{scope}{}Proxy{suffix}", self.group(), title(method), self.resource.kind),
            parameters: vec![PATH],
            body: None,
            answer: String::new(),
        };
        ["delete", "get", "head", "options", "patch", "post", "put"].map(operation).into()
    }

    /// `readCoreV1NamespacedServiceStatus`
    fn id(&self, verb: &str, infix: &str, subresource: &str) -> String {
        let scope = if self.resource.namespaced { "Namespaced" } else { "" };
        format!("{verb}{}{infix}{scope}{}{}", self.group(), self.resource.kind, title(subresource))
    }

    /// `listCoreV1ServiceForAllNamespaces`
    fn id_of_all(&self, verb: &str, suffix: &str) -> String {
        format!("{verb}{}{}{suffix}", self.group(), self.resource.kind)
    }

    fn group(&self) -> String {
        let group = self.resource.group.split('.').next().unwrap_or_default();
        let group = if group.is_empty() { "core" } else { group };
        format!("{}{}", title(group), title(self.resource.version))
    }

    fn path(&self, parameters: &[&str], operations: &[Operation]) -> Value {
        let mut path = json!({});
        for operation in operations {
            path[operation.method] = self.operation(operation);
        }
        let mut shared: Vec<Value> = parameters.iter().map(|name| self.path_parameter(name)).collect();
        shared.push(self.query_parameter(PRETTY));
        path["parameters"] = shared.into();
        path
    }

    fn operation(&self, operation: &Operation) -> Value {
        let group = if self.resource.group.is_empty() { "core" } else { self.resource.group };
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|parameter| self.query_parameter(*parameter)).collect();
        let connects = operation.answer.is_empty();
        let answer =
            if connects { json!({"type": "string"}) } else { reference(&operation.answer, self.dialect) };
        let mut kind = gvk_json(self.resource.gvk());
        if connects {
            kind["kind"] = format!("{}ProxyOptions", self.resource.kind).into();
        }
        let mut rendered = json!({
            "operationId": operation.id,
            "tags": [format!("{}_{}", group.split('.').next().unwrap_or_default(), self.resource.version)],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": kind,
        });
        match self.dialect {
            Dialect::V2 => {
                if let Some((body, types)) = &operation.body {
                    let required = operation.method != "delete";
                    let schema = reference(body, self.dialect);
                    parameters
                        .push(json!({"name": "body", "in": "body", "required": required, "schema": schema}));
                    rendered["consumes"] = (*types).into();
                }
                rendered["produces"] =
                    if connects { json!(["*/*"]) } else { json!(["application/json", "application/yaml"]) };
                rendered["responses"] = json!({"200": {"description": "OK", "schema": answer}});
            }
            Dialect::V3 => {
                if let Some((body, types)) = &operation.body {
                    let schema = json!({"schema": reference(body, self.dialect)});
                    let content: serde_json::Map<String, Value> =
                        types.iter().map(|name| ((*name).to_owned(), schema.clone())).collect();
                    rendered["requestBody"] = json!({"content": content});
                }
                let content = if connects { "*/*" } else { "application/json" };
                let content = json!({content: {"schema": answer}});
                rendered["responses"] = json!({"200": {"description": "OK", "content": content}});
            }
        }
        if !parameters.is_empty() {
            rendered["parameters"] = parameters.into();
        }
        rendered
    }

    fn path_parameter(&self, name: &str) -> Value {
        let description = match name {
            "namespace" => "Namespace of the object.".to_owned(),
            "path" => "The path that the target is asked for.".to_owned(),
            _ => format!("Name of the {}.", self.resource.kind),
        };
        let mut parameter = self.parameter(name, "string", &description);
        parameter["in"] = "path".into();
        parameter["required"] = true.into();
        parameter
    }

    fn query_parameter(&self, (name, ty, description): Parameter) -> Value {
        let mut parameter = self.parameter(name, ty, description);
        parameter["in"] = "query".into();
        parameter
    }

    fn parameter(&self, name: &str, ty: &str, description: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"name": name, "description": description, "type": ty, "uniqueItems": true}),
            Dialect::V3 => {
                json!({"name": name, "description": description, "schema": {"type": ty, "uniqueItems": true}})
            }
        }
    }
}

fn title(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}
