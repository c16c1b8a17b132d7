//! What a schema says about ownership: which values are owned as a whole and which part by part.

use portolan_api::schema::{Field, ListType, Schema, Type};
use serde_json::{Map, Value};

use super::set::{item_step, key_step};

/// A value, as far as ownership is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Owned as a whole.
    Leaf,
    /// Fields with names of their own.
    Struct(&'static Schema),
    /// Free keys, all of one type.
    Map(&'static Type),
    /// Items found by their keys, or that are their own keys.
    List(Items, &'static Type),
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Items {
    Set,
    Map(&'static [&'static str]),
}

impl Shape {
    /// The shape of one field's value.
    pub(crate) fn of_field(field: &'static Field) -> Self {
        match (field.ty, field.list) {
            (Type::List(item), ListType::Map(keys)) => Self::List(Items::Map(keys), item),
            (Type::List(item), ListType::Set) => Self::List(Items::Set, item),
            _ if field.atomic_map => Self::Leaf,
            (ty, _) => Self::of_type(ty),
        }
    }

    /// The shape of a value about which only its type is known: an item, or a value of a map.
    pub(crate) fn of_type(ty: Type) -> Self {
        match ty {
            Type::StringMap => Self::Map(&Type::String),
            Type::Map(value) => Self::Map(value),
            Type::Object(schema) if !schema().is_atomic() => Self::Struct(schema()),
            _ => Self::Leaf,
        }
    }

    /// The shape below one key of an object of this shape, and whether the key is a declared field.
    pub(crate) fn below(self, key: &str) -> (Self, bool) {
        match self {
            Self::Struct(schema) => {
                schema.field(key).map_or((Self::Leaf, false), |field| (Self::of_field(field), true))
            }
            Self::Map(value) => (Self::of_type(*value), false),
            Self::Leaf | Self::List(..) => (Self::Leaf, false),
        }
    }

    /// The shape below a step of a field set.
    pub(crate) fn below_step(self, step: &str) -> (Self, bool) {
        match (self, step.strip_prefix("f:")) {
            (Self::List(_, item), _) => (Self::of_type(*item), false),
            (shape, Some(name)) => shape.below(name),
            (_, None) => (Self::Leaf, false),
        }
    }
}

/// The step to an item of a list; `None` if the item lacks its keys.
pub(crate) fn step_to_item(items: Items, ty: &'static Type, item: &Value) -> Option<Box<str>> {
    let Items::Map(keys) = items else { return Some(item_step(item)) };
    let mut found = Map::new();
    for key in keys {
        let value =
            item.get(*key).filter(|value| !value.is_null()).cloned().or_else(|| default_of(ty, key))?;
        found.insert((*key).to_owned(), value);
    }
    Some(key_step(&found))
}

/// The default that the schema states for a key, such as `TCP` for a protocol.
fn default_of(ty: &'static Type, key: &str) -> Option<Value> {
    serde_json::from_str(ty.schema()?.field(key)?.default?).ok()
}
