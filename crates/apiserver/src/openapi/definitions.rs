//! Schemas as OpenAPI definitions: every type that the given resources reach, with the extensions by which clients know
//! kinds, merge keys and list types.

use std::collections::BTreeMap;

use portolan_api::autoscaling::v1::Scale;
use portolan_api::meta::v1::{DeleteOptions, ListMeta, Status};
use portolan_api::resource::Resource;
use portolan_api::schema::{Field, Gvk, ListType, Schema, Type};
use serde_json::{Value, json};

use super::Dialect;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// The definition of any patch document.
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";

/// The definition of a list of a resource.
pub(super) fn list_name(resource: &Resource) -> String {
    format!("{}List", (resource.schema)().name)
}

/// All definitions that `resources` and their operations need, by name.
pub(super) fn render(resources: &[&'static Resource], dialect: Dialect) -> Value {
    let mut writer = Writer { dialect, done: BTreeMap::new(), todo: Vec::new() };
    for resource in resources {
        let schema = (resource.schema)();
        writer.todo.push(schema);
        if resource.stored {
            let list = list_of(resource, &writer);
            writer.done.insert(list_name(resource), list);
        }
    }
    writer.todo.extend([ListMeta::schema(), Status::schema(), DeleteOptions::schema()]);
    if resources.iter().any(|resource| resource.subresources.contains(&"scale")) {
        writer.todo.push(Scale::schema());
    }
    let patch =
        json!({"description": "A change of an object, in one of the patch formats.", "type": "object"});
    writer.done.insert(PATCH.to_owned(), patch);
    while let Some(schema) = writer.todo.pop() {
        if !writer.done.contains_key(schema.name) {
            let definition = writer.object(schema);
            writer.done.insert(schema.name.to_owned(), definition);
        }
    }
    Value::Object(writer.done.into_iter().collect())
}

/// A reference, as it stands in a response or a body.
pub(super) fn reference(name: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
        Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

pub(super) fn gvk_json(gvk: Gvk) -> Value {
    json!({"group": gvk.group, "kind": gvk.kind, "version": gvk.version})
}

struct Writer {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
    todo: Vec<&'static Schema>,
}

impl Writer {
    fn object(&mut self, schema: &'static Schema) -> Value {
        let mut properties = serde_json::Map::new();
        let mut required = Vec::new();
        for field in schema.fields {
            properties.insert(field.name.to_owned(), self.property(field));
            if field.required {
                required.push(field.name);
            }
        }
        let mut object = json!({"description": schema.doc, "type": "object"});
        if !properties.is_empty() {
            object["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            object["required"] = required.into();
        }
        if schema.is_atomic() {
            object["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(gvk) = schema.gvk {
            object["x-kubernetes-group-version-kind"] = json!([gvk_json(gvk)]);
        }
        object
    }

    fn property(&mut self, field: &'static Field) -> Value {
        let mut property = self.ty(&field.ty);
        if let (Dialect::V3, Some(_)) = (self.dialect, property.get("$ref")) {
            // In v3 nothing may stand beside a reference.
            property = json!({"allOf": [property]});
        }
        property["description"] = field.doc.into();
        if let Some(default) = field.default.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            property["default"] = default;
        }
        match field.list {
            ListType::None => {}
            ListType::Atomic => property["x-kubernetes-list-type"] = "atomic".into(),
            ListType::Set => property["x-kubernetes-list-type"] = "set".into(),
            ListType::Map(keys) => {
                property["x-kubernetes-list-type"] = "map".into();
                property["x-kubernetes-list-map-keys"] = keys.into();
            }
        }
        if field.atomic_map {
            property["x-kubernetes-map-type"] = "atomic".into();
        }
        if let Some(patch) = field.patch {
            property["x-kubernetes-patch-strategy"] = patch.strategy.into();
            if !patch.merge_key.is_empty() {
                property["x-kubernetes-patch-merge-key"] = patch.merge_key.into();
            }
        }
        property
    }

    fn ty(&mut self, ty: &'static Type) -> Value {
        match ty {
            Type::String => json!({"type": "string"}),
            Type::Bool => json!({"type": "boolean"}),
            Type::Int32 => json!({"type": "integer", "format": "int32"}),
            Type::Int64 => json!({"type": "integer", "format": "int64"}),
            Type::Double => json!({"type": "number", "format": "double"}),
            Type::Bytes => json!({"type": "string", "format": "byte"}),
            Type::Any => json!({"type": "object"}),
            Type::Time => {
                self.scalar(&format!("{META}.Time"), || json!({"type": "string", "format": "date-time"}))
            }
            Type::MicroTime => {
                self.scalar(&format!("{META}.MicroTime"), || json!({"type": "string", "format": "date-time"}))
            }
            Type::IntOrString => {
                let dialect = self.dialect;
                self.scalar(INT_OR_STRING, || either(dialect, "integer", Some("int-or-string")))
            }
            Type::Quantity => {
                let dialect = self.dialect;
                self.scalar(QUANTITY, || either(dialect, "number", None))
            }
            Type::StringMap => json!({"type": "object", "additionalProperties": {"type": "string"}}),
            Type::Map(value) => json!({"type": "object", "additionalProperties": self.element(value)}),
            Type::List(item) => json!({"type": "array", "items": self.element(item)}),
            Type::Object(schema) => {
                let schema = schema();
                self.todo.push(schema);
                reference(schema.name, self.dialect)
            }
        }
    }

    /// kubectl looks for the reference of an item inside `allOf`.
    fn element(&mut self, ty: &'static Type) -> Value {
        let element = self.ty(ty);
        match self.dialect {
            Dialect::V3 if element.get("$ref").is_some() => json!({"allOf": [element]}),
            _ => element,
        }
    }

    fn scalar(&mut self, name: &str, definition: impl FnOnce() -> Value) -> Value {
        if !self.done.contains_key(name) {
            self.done.insert(name.to_owned(), definition());
        }
        reference(name, self.dialect)
    }
}

/// A string, or another type where the dialect can say so.
fn either(dialect: Dialect, other: &str, format: Option<&str>) -> Value {
    let mut definition = match dialect {
        Dialect::V2 => json!({"type": "string"}),
        Dialect::V3 => json!({"oneOf": [{"type": other}, {"type": "string"}]}),
    };
    if let Some(format) = format {
        definition["format"] = format.into();
    }
    definition
}

fn list_of(resource: &Resource, writer: &Writer) -> Value {
    let refer = |name: &str| match writer.dialect {
        Dialect::V2 => reference(name, Dialect::V2),
        Dialect::V3 => json!({"allOf": [reference(name, Dialect::V3)]}),
    };
    let mut metadata = refer(ListMeta::schema().name);
    metadata["description"] = "Standard list metadata.".into();
    let gvk = json!({"group": resource.group, "kind": resource.list_kind(), "version": resource.version});
    json!({
        "description": format!("A list of {}.", resource.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
            "kind": {"type": "string", "description": "What kind of object this is."},
            "metadata": metadata,
            "items": {"type": "array", "items": refer((resource.schema)().name), "description": "The objects."},
        },
        "x-kubernetes-group-version-kind": [gvk],
    })
}
