//! The reader: a serde visitor that knows what the schema expects at each place.

use std::fmt::{self, Write as _};

use base64::Engine as _;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DEPTH_MAX, PROBLEMS_MAX, Problem};
use crate::schema::{Field, Schema, Type};
use crate::suggest;

/// Where the reader is, and what it found.
#[derive(Default)]
pub(super) struct State {
    path: Vec<Step>,
    structs: Vec<&'static str>,
    pub(super) problems: Vec<Problem>,
    pub(super) type_error: Option<String>,
}

enum Step {
    Field(&'static str),
    /// A key of a map; Go's type errors leave it out, strict errors show it.
    Key(String),
    Index(usize),
}

impl State {
    fn path_to(&self, last: &str) -> String {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) => push_name(&mut text, name),
                Step::Key(name) => push_name(&mut text, name),
                Step::Index(index) => _ = write!(text, "[{index}]"),
            }
        }
        push_name(&mut text, last);
        text
    }

    /// The path as Go's type errors print it: field names only.
    fn go_path(&self) -> String {
        let names = self.path.iter().filter_map(|step| match step {
            Step::Field(name) => Some(*name),
            Step::Key(_) | Step::Index(_) => None,
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn problem(&mut self, problem: Problem) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn unknown(&mut self, name: &str, schema: &'static Schema) {
        let path = self.path_to(name);
        let near = suggest::near_field(name, schema.fields.iter().map(|f| f.name));
        self.problem(Problem::UnknownField { path, near });
    }

    fn duplicate(&mut self, name: &str) {
        let path = self.path_to(name);
        self.problem(Problem::DuplicateField { path });
    }

    /// Keeps the first type error; reading goes on, so that bad syntax further on is found too.
    fn type_error(&mut self, error: impl FnOnce(&Self) -> String) {
        if self.type_error.is_none() {
            let text = error(self);
            self.type_error = Some(text);
        }
    }

    fn mismatch(&mut self, found: &str, wanted: &str, hint: Option<String>) {
        self.type_error(|state| {
            let place = match state.structs.last() {
                Some(name) if !state.path.is_empty() => format!("struct field {name}.{}", state.go_path()),
                _ => "value".to_owned(),
            };
            let hint = hint.map(|h| format!(" ({h})")).unwrap_or_default();
            format!("json: cannot unmarshal {found} into Go {place} of type {wanted}{hint}")
        });
    }
}

fn push_name(text: &mut String, name: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(name);
}

#[derive(Clone, Copy)]
enum Expected {
    Schema(&'static Schema),
    Type(&'static Type),
    /// Anything; only duplicates are looked for.
    Any,
}

/// Reads one value. `None` means that it was null.
pub(super) struct Seed<'a> {
    state: &'a mut State,
    ty: Expected,
    go_type: Option<&'static str>,
}

impl<'a> Seed<'a> {
    pub(super) fn of_object(state: &'a mut State, schema: &'static Schema) -> Self {
        Self { state, ty: Expected::Schema(schema), go_type: None }
    }

    /// Anything; only duplicates are looked for.
    pub(super) fn of_anything(state: &'a mut State) -> Self {
        Self { state, ty: Expected::Any, go_type: None }
    }
}

impl Seed<'_> {
    fn expected(&self) -> Expected {
        match self.ty {
            Expected::Type(Type::Any) => Expected::Any,
            Expected::Type(Type::Object(schema)) => Expected::Schema(schema()),
            other => other,
        }
    }

    fn wanted(&self) -> String {
        match (self.go_type, self.ty) {
            (Some(name), _) => name.to_owned(),
            (None, Expected::Schema(schema)) => format!("v1.{}", schema.short_name()),
            (None, Expected::Type(ty)) => go_type_name(ty),
            (None, Expected::Any) => "interface {}".to_owned(),
        }
    }

    /// A value of another JSON type than the schema's.
    fn mismatch(self, found: &str, hint: Option<String>) -> Option<Value> {
        let wanted = match self.ty {
            // These read themselves in Go, so the error does not name the field's type.
            Expected::Type(Type::Time | Type::MicroTime) => "string".to_owned(),
            Expected::Type(Type::IntOrString) => "int32".to_owned(),
            _ => self.wanted(),
        };
        self.state.mismatch(found, &wanted, hint);
        None
    }

    fn number(self, number: Number) -> Option<Value> {
        match self.expected() {
            Expected::Any | Expected::Type(Type::Double) => Some(Value::Number(number)),
            Expected::Type(Type::Int32 | Type::IntOrString) => {
                match number.as_i64().filter(|n| i32::try_from(*n).is_ok()) {
                    Some(n) => Some(n.into()),
                    None => self.mismatch(&format!("number {number}"), None),
                }
            }
            Expected::Type(Type::Int64) => match number.as_i64() {
                Some(n) => Some(n.into()),
                None => self.mismatch(&format!("number {number}"), None),
            },
            Expected::Type(Type::Quantity) => Some(Value::String(number.to_string())),
            Expected::Type(Type::String) => {
                let hint = format!("did you mean \"{number}\", in quotes?");
                self.mismatch("number", Some(hint))
            }
            _ => self.mismatch("number", None),
        }
    }

    fn text(self, text: &str) -> Option<Value> {
        match self.expected() {
            Expected::Any | Expected::Type(Type::String | Type::IntOrString) => Some(text.into()),
            Expected::Type(Type::Quantity) => {
                if !looks_like_quantity(text) {
                    self.state.type_error(|_| QUANTITY_ERROR.to_owned());
                }
                Some(text.into())
            }
            Expected::Type(Type::Bytes) => {
                if base64::engine::general_purpose::STANDARD.decode(text).is_err() {
                    self.state.type_error(|_| "illegal base64 data".to_owned());
                }
                Some(text.into())
            }
            Expected::Type(Type::Time) => self.time(text, |t| crate::Time(t).to_string()),
            Expected::Type(Type::MicroTime) => self.time(text, |t| crate::MicroTime(t).to_string()),
            Expected::Type(Type::Int32 | Type::Int64) => {
                let hint = text.parse::<i64>().ok().map(|n| format!("did you mean {n}, without quotes?"));
                self.mismatch("string", hint)
            }
            Expected::Type(Type::Bool) => {
                let hint = text.parse::<bool>().ok().map(|b| format!("did you mean {b}, without quotes?"));
                self.mismatch("string", hint)
            }
            _ => self.mismatch("string", None),
        }
    }

    fn time(self, text: &str, render: fn(jiff::Timestamp) -> String) -> Option<Value> {
        if let Ok(at) = text.parse::<jiff::Timestamp>() {
            return Some(render(at).into());
        }
        self.state.type_error(|_| {
            format!(
                "parsing time \"\\\"{text}\\\"\" as \"\\\"2006-01-02T15:04:05Z07:00\\\"\": cannot parse \
                 \"{text}\\\"\" as \"2006\""
            )
        });
        None
    }

    fn depth_is_ok<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.state.path.len() > DEPTH_MAX { Err(E::custom("exceeded max depth")) } else { Ok(()) }
    }

    fn read_struct<'de, A: MapAccess<'de>>(
        self,
        schema: &'static Schema,
        mut map: A,
    ) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let mut seen: Vec<&'static str> = Vec::with_capacity(schema.fields.len().min(16));
        let mut seen_unknown: Vec<String> = Vec::new();
        self.state.structs.push(schema.short_name());
        while let Some(name) = map.next_key::<String>()? {
            let Some(field) = schema.field(&name) else {
                map.next_value::<IgnoredAny>()?;
                if seen_unknown.contains(&name) {
                    self.state.duplicate(&name);
                } else {
                    self.state.unknown(&name, schema);
                    if seen_unknown.len() < PROBLEMS_MAX {
                        seen_unknown.push(name);
                    }
                }
                continue;
            };
            if seen.contains(&field.name) {
                self.state.duplicate(field.name);
            } else {
                seen.push(field.name);
            }
            self.state.path.push(Step::Field(field.name));
            let seed = Seed { state: self.state, ty: Expected::Type(&field.ty), go_type: field.go_type };
            let value = map.next_value_seed(seed)?;
            self.state.path.pop();
            match value {
                Some(value) if !is_absent(&value, field) => object.insert(name, value),
                _ => object.remove(&name),
            };
        }
        self.state.structs.pop();
        for field in schema.fields.iter().filter(|field| is_always_there(field)) {
            object.entry(field.name).or_insert_with(|| zero(Expected::Type(&field.ty)));
        }
        Ok(Value::Object(object))
    }

    fn read_map<'de, A: MapAccess<'de>>(self, item: Expected, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if object.contains_key(&key) {
                self.state.duplicate(&key);
            }
            self.state.path.push(Step::Key(key.clone()));
            let seed = Seed { state: self.state, ty: item, go_type: None };
            let value = map.next_value_seed(seed)?;
            self.state.path.pop();
            object.insert(key, value.unwrap_or_else(|| zero(item)));
        }
        Ok(Value::Object(object))
    }
}

const QUANTITY_ERROR: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

fn looks_like_quantity(text: &str) -> bool {
    let rest = text.trim_start_matches(['+', '-']);
    let suffix = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let tail = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    rest.len() > suffix.len()
        && text.len() - rest.len() <= 1
        && tail.trim_start_matches(['+', '-']).chars().all(|c| c.is_ascii_digit())
}

const STRING: &Type = &Type::String;

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(match self.ty {
            Expected::Any => Some(Value::Null),
            _ => None,
        })
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.visit_unit()
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(match self.expected() {
            Expected::Any | Expected::Type(Type::Bool) => Some(value.into()),
            Expected::Type(Type::String) => {
                let hint = format!("did you mean \"{value}\", in quotes?");
                self.mismatch("bool", Some(hint))
            }
            _ => self.mismatch("bool", None),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Number::from_f64(value).and_then(|n| self.number(n)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(self.text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        self.depth_is_ok::<A::Error>()?;
        let item = match self.expected() {
            Expected::Type(Type::List(item)) => Expected::Type(item),
            Expected::Any => Expected::Any,
            _ => {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(self.mismatch("array", None));
            }
        };
        let mut items = Vec::new();
        loop {
            self.state.path.push(Step::Index(items.len()));
            let value = seq.next_element_seed(Seed { state: self.state, ty: item, go_type: None })?;
            self.state.path.pop();
            match value {
                Some(value) => items.push(value.unwrap_or_else(|| zero(item))),
                None => return Ok(Some(Value::Array(items))),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        self.depth_is_ok::<A::Error>()?;
        match self.expected() {
            Expected::Schema(schema) => self.read_struct(schema, map).map(Some),
            Expected::Type(Type::StringMap) => self.read_map(Expected::Type(STRING), map).map(Some),
            Expected::Type(Type::Map(item)) => self.read_map(Expected::Type(item), map).map(Some),
            Expected::Any => self.read_map(Expected::Any, map).map(Some),
            Expected::Type(_) => {
                while map.next_entry::<String, IgnoredAny>().map_err(A::Error::custom)?.is_some() {}
                Ok(self.mismatch("object", None))
            }
        }
    }
}

/// What `null` means where something must stand: an item of a list, a value of a map.
fn zero(expected: Expected) -> Value {
    match expected {
        Expected::Schema(_) => Value::Object(Map::new()),
        Expected::Any | Expected::Type(Type::Any) => Value::Null,
        Expected::Type(ty) => match ty {
            Type::Bool => false.into(),
            Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => 0.into(),
            Type::StringMap | Type::Map(_) | Type::Object(_) => Value::Object(Map::new()),
            Type::List(_) => Value::Array(Vec::new()),
            _ => "".into(),
        },
    }
}

/// Whether Kubernetes' own encoder writes the field even where nobody set it: strict clients rely on it.
fn is_always_there(field: &Field) -> bool {
    field.required
        && field.keep_empty
        && !field.pointer
        && matches!(field.ty, Type::String | Type::Bool | Type::Int32 | Type::Int64)
}

/// Whether Kubernetes' own encoder would leave the field out.
fn is_absent(value: &Value, field: &Field) -> bool {
    if field.pointer || field.keep_empty {
        return false;
    }
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => !matches!(field.ty, Type::IntOrString) && n.as_i64() == Some(0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(field.ty, Type::StringMap | Type::Map(_)),
    }
}

/// The name of a type in Go, as type errors print it.
fn go_type_name(ty: &Type) -> String {
    match ty {
        Type::String | Type::Quantity => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Double => "float64".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Any => "interface {}".to_owned(),
        Type::StringMap => "map[string]string".to_owned(),
        Type::Map(item) => format!("map[string]{}", go_type_name(item)),
        Type::List(item) => format!("[]{}", go_type_name(item)),
        Type::Object(schema) => format!("v1.{}", schema().short_name()),
    }
}
