//! The v2 document as protobuf: `openapi.v2.Document` of gnostic, the form in which kubectl up to 1.26 reads it.
//!
//! The numbers are the field numbers of gnostic's OpenAPIv2.proto. Only what our own documents contain is encoded; a
//! test compares the two forms. Start with [`encode`].

use serde_json::{Map, Value};

use super::protobuf::Message;

type Object = Map<String, Value>;

/// Encodes a v2 document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, text(document, "swagger"));
    let mut info = Message::default();
    info.text(1, text(&document["info"], "title")).text(2, text(&document["info"], "version"));
    message.message(2, info);
    let mut paths = Message::default();
    for (name, item) in entries(&document["paths"]) {
        paths.message(2, named(name, path_item(item)));
    }
    message.message(8, paths);
    message.message(9, named_schemas(&document["definitions"]));
    message.into_bytes()
}

/// Every `Named...` message: the key is field 1, the value field 2.
fn named(name: &str, value: Message) -> Message {
    let mut message = Message::default();
    message.text(1, name).message(2, value);
    message
}

/// `Definitions` and `Properties` are the same: a map of schemas.
fn named_schemas(map: &Value) -> Message {
    let mut message = Message::default();
    for (name, value) in entries(map) {
        message.message(1, named(name, schema(value)));
    }
    message
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        if let Some(found) = item.get(method) {
            message.message(field, operation(found));
        }
    }
    for found in list(item, "parameters") {
        message.message(9, parameter(found));
    }
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    texts(&mut message, 1, operation, "tags");
    message.text(3, text(operation, "description")).text(5, text(operation, "operationId"));
    texts(&mut message, 6, operation, "produces");
    texts(&mut message, 7, operation, "consumes");
    for found in list(operation, "parameters") {
        message.message(8, parameter(found));
    }
    let mut responses = Message::default();
    for (code, found) in entries(&operation["responses"]) {
        let mut schema_item = Message::default();
        schema_item.message(1, schema(&found["schema"]));
        let mut response = Message::default();
        response.text(1, text(found, "description")).message(2, schema_item);
        let mut value = Message::default();
        value.message(1, response);
        responses.message(1, named(code, value));
    }
    message.message(9, responses);
    extensions(&mut message, 13, operation);
    message
}

/// `ParametersItem`, down through its three wrappers.
fn parameter(parameter: &Value) -> Message {
    let required = parameter["required"] == true;
    let mut inner = Message::default();
    let mut wrapper = Message::default();
    if parameter["in"] == "body" {
        inner.text(1, text(parameter, "description")).text(2, text(parameter, "name")).text(3, "body");
        inner.flag(4, required).message(5, schema(&parameter["schema"]));
        wrapper.message(1, inner);
    } else {
        let in_path = parameter["in"] == "path";
        inner.flag(1, required).text(2, text(parameter, "in")).text(3, text(parameter, "description"));
        inner.text(4, text(parameter, "name"));
        // Query parameters have one field more in between (allow_empty_value).
        let (ty, unique, sub_schema) = if in_path { (5, 19, 4) } else { (6, 20, 3) };
        inner.text(ty, text(parameter, "type")).flag(unique, parameter["uniqueItems"] == true);
        let mut non_body = Message::default();
        non_body.message(sub_schema, inner);
        wrapper.message(2, non_body);
    }
    let mut item = Message::default();
    item.message(1, wrapper);
    item
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default();
    message
        .text(1, text(schema, "$ref"))
        .text(2, text(schema, "format"))
        .text(4, text(schema, "description"));
    if let Some(default) = schema.get("default") {
        message.message(5, any(default));
    }
    texts(&mut message, 19, schema, "required");
    if let Some(values) = schema.get("additionalProperties") {
        let mut item = Message::default();
        item.message(1, self::schema(values));
        message.message(21, item);
    }
    if let Some(ty) = schema["type"].as_str() {
        let mut item = Message::default();
        item.text(1, ty);
        message.message(22, item);
    }
    if let Some(items) = schema.get("items") {
        let mut item = Message::default();
        item.message(1, self::schema(items));
        message.message(23, item);
    }
    if let Some(properties) = schema.get("properties") {
        message.message(25, named_schemas(properties));
    }
    extensions(&mut message, 31, schema);
    message
}

fn extensions(message: &mut Message, field: u32, object: &Value) {
    for (name, value) in entries(object).filter(|(name, _)| name.starts_with("x-")) {
        message.message(field, named(name, any(value)));
    }
}

/// A free value is YAML text; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, &value.to_string());
    message
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Object::iter)
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn texts(message: &mut Message, field: u32, value: &Value, name: &str) {
    for text in list(value, name).iter().filter_map(Value::as_str) {
        message.text(field, text);
    }
}
