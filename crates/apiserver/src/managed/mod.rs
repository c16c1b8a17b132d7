//! Who owns which field: `metadata.managedFields`, and server-side apply, which stands on it.
//!
//! Pure: objects in, objects and entries out. Every write but an apply is [`track`]ed: its writer gets the fields that
//! it changed, and everybody loses the fields that were changed or removed. An [`apply`] says all that its manager wants:
//! fields that it no longer says and nobody else owns go, and fields of others that it would change are conflicts.
//! `set` is the algebra, `shape` what the schema says, `compare` and `merge` walk values along it.

mod compare;
mod conflict;
mod created;
mod entries;
mod merge;
mod set;
mod shape;
#[cfg(test)]
mod tests;
mod types;

use portolan_api::Time;
use portolan_api::meta::v1::Status;
use portolan_api::schema::Schema;
use portolan_api::status;
use serde_json::{Map, Value};

use compare::{compare, fields_of, root, with_parents};
use conflict::Conflict;
pub(crate) use entries::{Entries, Manager, Operation, same_but_for_times};
use entries::{Entry, is_reset};
use merge::{check, merge, without};
use set::Set;

/// The owner of what an object had before anyone applied to it, if nobody was recorded.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// kubectl's own manager, which takes over from client-side apply.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields of the metadata that nobody owns.
const UNOWNED_METADATA: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "clusterName",
    "generation",
    "managedFields",
    "resourceVersion",
];

/// Which top-level fields a write can change; ownership of the others stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of them.
    All,
    /// All but the status.
    NotStatus,
    /// Metadata and status.
    Status,
}

impl Scope {
    /// Only what is in scope and can be owned.
    fn limit(self, mut set: Set) -> Set {
        set.children.retain(|step, _| match &**step {
            "f:apiVersion" | "f:kind" => false,
            "f:metadata" => true,
            "f:status" => self != Self::NotStatus,
            _ => self != Self::Status,
        });
        if let Some(mut metadata) = set.children.remove("f:metadata") {
            metadata.member = false;
            metadata.children.retain(|step, _| !UNOWNED_METADATA.contains(&step.trim_start_matches("f:")));
            set.put("f:metadata", metadata);
        }
        set
    }
}

/// The entries after a write that is not an apply. `sent` are those that came with the new object, if any: a client may
/// edit them. An object that was never tracked stays so.
pub(crate) fn track(
    schema: &'static Schema,
    scope: Scope,
    manager: &Manager,
    old: Option<&Value>,
    new: &Value,
    sent: Option<&Value>,
    now: Time,
) -> Option<Value> {
    let stored = old.and_then(|old| old["metadata"].get("managedFields"));
    let mut entries = match sent {
        Some(sent) if scope != Scope::Status && is_reset(sent) => return None,
        Some(sent) if scope != Scope::Status => Entries::read(Some(sent)),
        _ => None,
    }
    .filter(|entries| !entries.is_empty())
    .or_else(|| Entries::read(stored))
    .unwrap_or_default();
    if entries.is_empty() && old.is_some() {
        return None;
    }
    let nothing = Value::Object(Map::new());
    let diff = compare(Some(old.unwrap_or(&nothing)), Some(new), root(schema));
    let written = scope.limit(diff.written());
    entries.take(&scope.limit(diff.removed).union(written.clone()), None);
    if !written.is_empty() {
        let fields = match entries.of(manager) {
            Some(entry) => written.union(entry.fields.clone()),
            None => written,
        };
        entries.put(Entry { manager: manager.clone(), time: Some(now), fields });
    }
    entries.cap();
    entries.write()
}

/// The record of a new object, as JSON; see [`track`].
pub(crate) fn begin(
    schema: &'static Schema,
    scope: Scope,
    manager: &Manager,
    new: &Value,
    sent: Option<&Value>,
    now: Time,
) -> Option<String> {
    match Entries::read(sent) {
        Some(entries) if !entries.is_empty() => {
            track(schema, scope, manager, None, new, sent, now).map(|list| list.to_string())
        }
        _ => created::record(schema, scope, manager, new, now),
    }
}

/// Which object an apply is for, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Apply<'a> {
    pub(crate) schema: &'static Schema,
    pub(crate) scope: Scope,
    pub(crate) manager: &'a Manager,
    /// Take fields from others.
    pub(crate) force: bool,
    /// `namespace/name; group/version, Kind=kind` for messages.
    pub(crate) about: &'a str,
    pub(crate) now: Time,
}

/// The live object with what `config` says, entries included. `live` is an empty object if there is none yet.
pub(crate) fn apply(how: Apply<'_>, live: &Value, config: &Value) -> Result<Value, Box<Status>> {
    let mut wrong = types::mistyped(config, how.schema);
    wrong.extend(check(config, root(how.schema), ""));
    if !wrong.is_empty() {
        let text = format!("failed to create typed patch object ({}): {}", how.about, errors(&wrong));
        return Err(status::untyped(text).into());
    }
    let (mut live, config) = (live.clone(), strip(config));
    let stored =
        live.get_mut("metadata").and_then(Value::as_object_mut).and_then(|m| m.remove("managedFields"));
    let mut entries = Entries::read(stored.as_ref()).unwrap_or_default();
    if entries.is_empty() {
        entries = credit_existing(how, &live);
    }
    let wanted = match attempt(how, &live, &config, entries.clone()) {
        Err(conflicts) if how.manager.name == KUBECTL && only_last_applied(how, &live, &conflicts) => {
            attempt(Apply { force: true, ..how }, &live, &config, entries)
        }
        other => other,
    };
    let (mut object, entries) = wanted.map_err(|conflicts| Box::new(conflict::refusal(&conflicts)))?;
    if how.manager.name == KUBECTL {
        refresh_last_applied(&mut object, &config);
    }
    if let (Some(list), Some(metadata)) = (entries.write(), object["metadata"].as_object_mut()) {
        metadata.insert("managedFields".into(), list);
    }
    Ok(object)
}

fn errors(wrong: &[String]) -> String {
    match wrong {
        [one] => one.clone(),
        many => {
            format!("errors:\n{}", many.iter().map(|text| format!("  {text}")).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Without what only the server sets; a resource version stays, as a condition.
fn strip(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "creationTimestamp", "selfLink", "generation"] {
            metadata.remove(field);
        }
    }
    config
}

/// An object that nobody was recorded for: what is there belongs to the time before.
fn credit_existing(how: Apply<'_>, live: &Value) -> Entries {
    let nothing = Value::Object(Map::new());
    let fields = how.scope.limit(compare(Some(&nothing), Some(live), root(how.schema)).added);
    let manager = Manager {
        name: BEFORE_FIRST_APPLY.into(),
        operation: Operation::Update,
        api_version: how.manager.api_version.clone(),
        subresource: how.manager.subresource.clone(),
    };
    let mut entries = Entries::default();
    if !fields.is_empty() {
        entries.put(Entry { manager, time: Some(how.now), fields });
    }
    entries
}

fn attempt(
    how: Apply<'_>,
    live: &Value,
    config: &Value,
    mut entries: Entries,
) -> Result<(Value, Entries), Vec<Conflict>> {
    let shape = root(how.schema);
    let last = entries.of(how.manager).cloned();
    let wanted = how.scope.limit(fields_of(config, shape));
    let merged = merge(Some(live), Some(config), shape).unwrap_or_default();
    entries.put(Entry {
        manager: how.manager.clone(),
        time: last.as_ref().and_then(|e| e.time),
        fields: wanted.clone(),
    });
    let object = match &last {
        // What nobody can own, such as the name, is said by the manager all the same.
        Some(last) => prune(&merged, &last.fields, entries.owned().union(fields_of(config, shape)), shape),
        None => merged,
    };
    let diff = compare(Some(live), Some(&object), shape);
    let written = how.scope.limit(diff.written());
    if !how.force {
        let conflicts: Vec<Conflict> = entries
            .0
            .iter()
            .filter(|entry| entry.manager != *how.manager && !same_applier(&entry.manager, how.manager))
            .map(|entry| Conflict {
                manager: entry.manager.clone(),
                fields: entry.fields.intersection(&written),
            })
            .filter(|conflict| !conflict.fields.is_empty())
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
    }
    let removed = how.scope.limit(diff.removed);
    let changed = !written.is_empty() || !removed.is_empty();
    entries.take(&removed.union(written), Some(how.manager));
    if changed || last.is_none_or(|last| last.fields != wanted) {
        entries.put(Entry { manager: how.manager.clone(), time: Some(how.now), fields: wanted });
    }
    Ok((object, entries))
}

fn same_applier(a: &Manager, b: &Manager) -> bool {
    a.operation == Operation::Apply
        && b.operation == Operation::Apply
        && a.name == b.name
        && a.subresource == b.subresource
}

/// Takes out what the manager applied last time and now nobody owns. An item of a list goes with all that is in it.
fn prune(merged: &Value, last: &Set, owned: Set, shape: shape::Shape) -> Value {
    let whole = |value: &Value| with_parents(fields_of(value, shape), shape);
    let last = with_parents(last.clone(), shape);
    let owned = with_parents(owned, shape);
    let all = whole(merged);
    let left = without(merged, &last, shape).map_or_else(Set::default, |left| whole(&left));
    // Put back what somebody owns, then what lies in it though the manager never had it.
    let gone = all.clone().difference(&left.union(owned));
    let left = without(merged, &gone, shape).map_or_else(Set::default, |left| whole(&left));
    let gone = all.difference(&left).intersection(&last);
    without(merged, &gone, shape).unwrap_or_else(|| Value::Object(Map::new()))
}

/// Whether all conflicts are about what client-side apply wrote last and nobody changed since.
fn only_last_applied(how: Apply<'_>, live: &Value, conflicts: &[Conflict]) -> bool {
    let text = live["metadata"]["annotations"][LAST_APPLIED].as_str();
    let Some(last) = text.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return false };
    let shape = root(how.schema);
    let diff = compare(Some(&last), Some(live), shape);
    let allowed = fields_of(&last, shape).difference(&diff.written()).difference(&diff.removed);
    conflicts.iter().all(|conflict| conflict.fields.clone().difference(&allowed).is_empty())
}

/// Those who still use client-side apply find what was applied last.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    if object["metadata"]["annotations"].get(LAST_APPLIED).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    object["metadata"]["annotations"][LAST_APPLIED] = format!("{config}\n").into();
}
