//! Strategic merge patch: objects merge, lists merge by the schema's merge key (or as sets of plain values), and
//! directives inside the patch say what cannot be said otherwise:
//!
//! - `$patch: replace | delete` in an object replaces or empties it; in an element of a list, replaces the list or
//!   deletes the elements with that key;
//! - `$retainKeys: [..]` in an object drops all other keys (unions, like a Deployment's strategy);
//! - `$deleteFromPrimitiveList/<list>: [..]` deletes plain values;
//! - `$setElementOrder/<list>: [..]` orders a list as the client has it, keeping what only the server has in its place.
//!
//! Elements new to a list come before the ones only the server has, as in Kubernetes. Start with [`apply`], then
//! [`merge_map`].

use portolan_api::schema::{Schema, Type};
use serde_json::{Map, Value};

use super::{LIST_LENGTH_MAX, PatchError, decode_object, go_print};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

pub(super) fn apply(schema: &'static Schema, current: &Value, patch: &[u8]) -> Result<Value, PatchError> {
    let patch = decode_object("", patch)?;
    let Value::Object(current) = current.clone() else {
        return Err(PatchError::Internal("the current object is not a JSON object".into()));
    };
    merge_map(current, patch, Shape::Schema(schema)).map(Value::Object)
}

/// What is known about the value being merged.
#[derive(Clone, Copy)]
enum Shape {
    Schema(&'static Schema),
    Type(&'static Type),
    /// Free-form: objects merge, lists are replaced.
    Unknown,
}

/// How one field of an object merges.
#[derive(Clone, Copy)]
struct FieldShape {
    shape: Shape,
    /// The strategy is `merge`: of lists only; objects always merge unless `replace`.
    merge: bool,
    replace: bool,
    merge_key: Option<&'static str>,
}

impl Shape {
    fn field(self, key: &str) -> FieldShape {
        let free = FieldShape { shape: Shape::Unknown, merge: false, replace: false, merge_key: None };
        let schema = match self {
            Shape::Schema(schema) => schema,
            Shape::Type(Type::Object(schema)) => schema(),
            Shape::Type(Type::Map(element)) => return FieldShape { shape: Shape::Type(element), ..free },
            Shape::Type(_) | Shape::Unknown => return free,
        };
        let Some(field) = schema.field(key) else { return free };
        let meta = field.patch.as_ref();
        let strategies = meta.map_or("", |meta| meta.strategy);
        let has = |name: &str| strategies.split(',').any(|strategy| strategy == name);
        FieldShape {
            shape: Shape::Type(&field.ty),
            merge: has("merge"),
            replace: has("replace"),
            merge_key: meta.map(|meta| meta.merge_key).filter(|key| !key.is_empty()),
        }
    }

    fn element(self) -> Shape {
        match self {
            Shape::Type(Type::List(element)) => Shape::Type(element),
            _ => Shape::Unknown,
        }
    }
}

fn merge_map(mut current: Object, mut patch: Object, shape: Shape) -> Result<Object, PatchError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => return Ok(patch),
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        // The words of the other directive that exists for lists of objects only.
        Some(directive) if directive == "merge" => {}
        Some(directive) => return Err(unknown_directive(&directive, &patch)),
    }
    retain_keys(&mut current, &mut patch)?;
    set_element_orders(&mut current, &mut patch, shape)?;
    for (key, value) in patch {
        if let Some(list) = list_name(&key, DELETE_FROM, "invalid patch format of primitive list")? {
            delete_from_list(&mut current, list, value)?;
            continue;
        }
        if value.is_null() {
            current.remove(&key);
            continue;
        }
        let field = shape.field(&key);
        let merged = merge_value(current.remove(&key), value, field)?;
        current.insert(key, merged);
    }
    Ok(current)
}

/// Merges one value. A value the object does not have yet is merged into an empty one, so that no directive of the
/// patch ends up in the object.
fn merge_value(current: Option<Value>, patch: Value, field: FieldShape) -> Result<Value, PatchError> {
    match (current, patch) {
        (Some(Value::Object(current)), Value::Object(patch)) if !field.replace => {
            merge_map(current, patch, field.shape).map(Value::Object)
        }
        (_, Value::Object(patch)) => merge_map(Object::new(), patch, field.shape).map(Value::Object),
        (Some(Value::Array(current)), Value::Array(patch)) if field.merge => {
            merge_list(current, patch, field).map(Value::Array)
        }
        (_, Value::Array(patch)) if field.merge => merge_list(Vec::new(), patch, field).map(Value::Array),
        (_, patch) => Ok(patch),
    }
}

/// The list that a directive key such as `$setElementOrder/ports` is about; None if the key is no such directive.
fn list_name<'a>(key: &'a str, prefix: &str, malformed: &str) -> Result<Option<&'a str>, PatchError> {
    let Some(rest) = key.strip_prefix(prefix) else { return Ok(None) };
    match rest.strip_prefix('/') {
        Some(name) => Ok(Some(name)),
        None => Err(PatchError::BadRequest(malformed.into())),
    }
}

fn delete_from_list(current: &mut Object, list: &str, values: Value) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return Err(PatchError::BadRequest("invalid patch format of primitive list".into()));
    };
    if let Some(Value::Array(existing)) = current.get_mut(list) {
        existing.retain(|element| !values.contains(element));
    }
    Ok(())
}

fn retain_keys(current: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let malformed = || PatchError::BadRequest("invalid patch format of retainKeys".into());
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = directive else { return Err(malformed()) };
    let retained = |key: &str| keys.iter().any(|retained| retained == key);
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !retained(key)) {
        return Err(malformed());
    }
    current.retain(|key, _| retained(key));
    Ok(())
}

/// Merges every list for which the patch has a `$setElementOrder`, and removes both from the patch.
fn set_element_orders(current: &mut Object, patch: &mut Object, shape: Shape) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let malformed = "invalid patch format of setElementOrder list";
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::BadRequest(malformed.into()));
        };
        let Some(name) = list_name(&directive, SET_ORDER, malformed)? else { continue };
        let field = shape.field(name);
        // A null in the patch deletes the list; the main loop does that.
        if patch.get(name).is_some_and(Value::is_null) {
            continue;
        }
        let live = take_list(current, name)?;
        let changes = take_list(patch, name)?;
        let Some(serving) = live.clone().or_else(|| changes.as_ref().map(|_| Vec::new())) else { continue };
        let merged = match changes {
            None => serving,
            Some(changes) => {
                check_order(&changes, &order, field.merge_key)?;
                match merge_value(Some(Value::Array(serving)), Value::Array(changes), field)? {
                    Value::Array(merged) => merged,
                    _ => Vec::new(),
                }
            }
        };
        let live = live.unwrap_or_default();
        current.insert(name.to_owned(), Value::Array(arrange(merged, &order, &live, field.merge_key)?));
    }
    Ok(())
}

fn take_list(object: &mut Object, name: &str) -> Result<Option<Vec<Value>>, PatchError> {
    match object.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(_) => Err(PatchError::Internal(format!("expected a list in {name}"))),
    }
}

/// The elements that the patch sets must all be in the order directive, in the same order.
fn check_order(changes: &[Value], order: &[Value], merge_key: Option<&str>) -> Result<(), PatchError> {
    if order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for change in changes.iter().filter(|change| change.get(DIRECTIVE).is_none()) {
        let wanted = key_of(change, merge_key)?;
        if !rest.any(|ordered| key_of(ordered, merge_key).is_ok_and(|key| key == wanted)) {
            return Err(PatchError::Internal(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                Value::from(changes.to_vec()),
                Value::from(order.to_vec())
            )));
        }
    }
    Ok(())
}

fn merge_list(current: Vec<Value>, patch: Vec<Value>, field: FieldShape) -> Result<Vec<Value>, PatchError> {
    if current.len() + patch.len() > LIST_LENGTH_MAX {
        return Err(PatchError::TooLarge(format!(
            "lists of more than {LIST_LENGTH_MAX} elements are not merged"
        )));
    }
    if current.iter().chain(&patch).any(Value::is_array) {
        return Err(PatchError::DoesNotApply { detail: "lists of lists are not supported".into() });
    }
    let objects = current.iter().chain(&patch).filter(|element| element.is_object()).count();
    if objects == 0 {
        return merge_plain(&current, &patch);
    }
    if objects != current.len() + patch.len() {
        let both = go_print(&Value::Array(vec![Value::Array(current), Value::Array(patch)]));
        return Err(PatchError::Internal(format!("list element types are not identical: {both}")));
    }
    let Some(merge_key) = field.merge_key else {
        return Err(PatchError::Internal("cannot merge lists without merge key for type struct".into()));
    };
    merge_objects(current, patch, merge_key, field.shape.element())
}

/// A set of plain values: the patch adds.
fn merge_plain(current: &[Value], patch: &[Value]) -> Result<Vec<Value>, PatchError> {
    let mut merged: Vec<Value> = Vec::with_capacity(current.len() + patch.len());
    for element in current.iter().chain(patch) {
        if !merged.contains(element) {
            merged.push(element.clone());
        }
    }
    arrange(merged, patch, current, None)
}

fn merge_objects(
    mut current: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &'static str,
    element: Shape,
) -> Result<Vec<Value>, PatchError> {
    let mut changes = Vec::with_capacity(patch.len());
    let mut replace = false;
    for mut change in patch {
        match change.as_object_mut().and_then(|object| object.remove(DIRECTIVE)) {
            None => changes.push(change),
            Some(directive) if directive == "replace" => replace = true,
            Some(directive) if directive == "delete" => {
                let key = key_of(&change, Some(merge_key))?.clone();
                current.retain(|element| element.get(merge_key) != Some(&key));
            }
            Some(directive) if directive == "merge" => {
                return Err(PatchError::Internal(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            Some(directive) => return Err(unknown_directive(&directive, &change)),
        }
    }
    if replace {
        current.clear();
    }
    let live = current.clone();
    let order = changes.clone();
    let mut merged = current;
    for change in changes {
        let key = key_of(&change, Some(merge_key))?;
        let position = merged.iter().position(|element| element.get(merge_key) == Some(key));
        let target = position.map(|position| std::mem::take(&mut merged[position]));
        let field = FieldShape { shape: element, merge: false, replace: false, merge_key: None };
        let value = merge_value(target, change, field)?;
        match position {
            Some(position) => merged[position] = value,
            None => merged.push(value),
        }
    }
    arrange(merged, &order, &live, Some(merge_key))
}

/// Orders a merged list: the elements named by `order` as it has them, the others as `live` has them, and the two
/// woven together by where `live` has both; where it does not, the elements of `order` come first.
fn arrange(
    merged: Vec<Value>,
    order: &[Value],
    live: &[Value],
    merge_key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let index_in = |list: &[Value], element: &Value| -> Option<usize> {
        let key = key_of(element, merge_key).ok()?;
        list.iter().position(|other| key_of(other, merge_key).is_ok_and(|other| other == key))
    };
    let mut ordered = Vec::new();
    let mut others = Vec::new();
    for element in merged {
        key_of(&element, merge_key)?;
        match index_in(order, &element) {
            Some(index) => ordered.push((index, index_in(live, &element), element)),
            None => others.push((index_in(live, &element), element)),
        }
    }
    ordered.sort_by_key(|(index, ..)| *index);
    others.sort_by_key(|(index, _)| *index);

    let mut result = Vec::with_capacity(ordered.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, here, element) in ordered {
        while let Some((there, _)) = others.peek()
            && let (Some(there), Some(here)) = (there, here)
            && *there < here
            && let Some((_, other)) = others.next()
        {
            result.push(other);
        }
        result.push(element);
    }
    result.extend(others.map(|(_, element)| element));
    Ok(result)
}

/// What identifies an element: its merge key's value, or the plain value itself.
fn key_of<'a>(element: &'a Value, merge_key: Option<&str>) -> Result<&'a Value, PatchError> {
    match merge_key {
        None => Ok(element),
        Some(key) => element.get(key).ok_or_else(|| {
            PatchError::Internal(format!("map: {element} does not contain declared merge key: {key}"))
        }),
    }
}

fn unknown_directive(directive: &Value, map: &impl serde::Serialize) -> PatchError {
    let map = serde_json::to_string(map).unwrap_or_default();
    PatchError::Internal(format!("unknown patch type: {directive} in map: {map}"))
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
#[path = "strategic_tests.rs"]
mod tests;
