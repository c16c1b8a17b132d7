//! `metadata.managedFields`: who owns which fields, as a list of entries.

use portolan_api::Time;
use serde_json::{Map, Value};

use super::set::Set;

/// Entries of one object for writers that do not apply; the oldest ones beyond are put together.
const UPDATERS_MAX: usize = 10;
/// Who owns what the oldest writers owned.
const ANCIENT: &str = "ancient-changes";

/// How fields were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// Who writes: a name, in what way, and through which version and subresource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) name: String,
    pub(crate) operation: Operation,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
}

impl Manager {
    /// Whether both are one entry. Those who apply are one whatever the version.
    fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) manager: Manager,
    pub(crate) time: Option<Time>,
    pub(crate) fields: Set,
}

/// All entries of one object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entries(pub(crate) Vec<Entry>);

impl Entries {
    /// Reads the list; `None` if it is none.
    pub(crate) fn read(list: Option<&Value>) -> Option<Self> {
        let entries = list?.as_array()?.iter().map(read_entry).collect::<Option<Vec<_>>>()?;
        Some(Self(entries))
    }

    /// As the list in an object: sorted, without entries that own nothing. `None` if there is none left.
    pub(crate) fn write(mut self) -> Option<Value> {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.0.sort_by_cached_key(|entry| {
            let manager = &entry.manager;
            let time = entry.time.map_or(0, Time::as_second);
            let names = (manager.name.clone(), manager.api_version.clone(), manager.subresource.clone());
            (manager.operation, time, names)
        });
        (!self.0.is_empty()).then(|| self.0.iter().map(write_entry).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry of a manager.
    pub(crate) fn of(&self, manager: &Manager) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.manager.is(manager))
    }

    /// Puts a manager's entry in place of what it had.
    pub(crate) fn put(&mut self, entry: Entry) {
        self.0.retain(|other| !other.manager.is(&entry.manager));
        self.0.push(entry);
    }

    /// Takes fields from all managers but one.
    pub(crate) fn take(&mut self, fields: &Set, except: Option<&Manager>) {
        for entry in &mut self.0 {
            if except.is_none_or(|manager| !entry.manager.is(manager)) {
                entry.fields = std::mem::take(&mut entry.fields).difference(fields);
            }
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// What anyone owns.
    pub(crate) fn owned(&self) -> Set {
        self.0.iter().fold(Set::default(), |all, entry| all.union(entry.fields.clone()))
    }

    /// Puts the oldest entries of those who do not apply together, one for each version, until there are few enough.
    pub(crate) fn cap(&mut self) {
        let mut updaters: Vec<Manager> = {
            let mut found: Vec<&Entry> =
                self.0.iter().filter(|entry| entry.manager.operation == Operation::Update).collect();
            found.sort_by_key(|entry| (entry.time, entry.manager.name.clone()));
            found.into_iter().map(|entry| entry.manager.clone()).collect()
        };
        let mut over = updaters.len().saturating_sub(UPDATERS_MAX);
        let mut firsts: Vec<Manager> = Vec::new();
        for manager in updaters.drain(..) {
            if over == 0 {
                return;
            }
            let Some(first) = firsts.iter().find(|first| first.api_version == manager.api_version) else {
                firsts.push(manager);
                continue;
            };
            let bucket = Manager { name: ANCIENT.into(), subresource: String::new(), ..manager.clone() };
            let mut pour = |from: &Manager| {
                let Some(at) = self.0.iter().position(|entry| entry.manager.is(from)) else { return };
                let poured = self.0.remove(at);
                let had = self.of(&bucket).map_or_else(Set::default, |entry| entry.fields.clone());
                self.put(Entry {
                    manager: bucket.clone(),
                    time: poured.time,
                    fields: poured.fields.union(had),
                });
            };
            pour(first);
            pour(&manager);
            over -= 1;
        }
    }
}

/// Whether a list asks for an end of all tracking: it is empty, or has one empty entry.
pub(crate) fn is_reset(list: &Value) -> bool {
    match list.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Whether two lists say the same but for the times.
pub(crate) fn same_but_for_times(a: Option<&Value>, b: Option<&Value>) -> bool {
    let timeless = |list: Option<&Value>| {
        let mut entries = Entries::read(list).unwrap_or_default().0;
        for entry in &mut entries {
            entry.time = None;
        }
        Entries(entries).write()
    };
    a == b || timeless(a) == timeless(b)
}

fn read_entry(value: &Value) -> Option<Entry> {
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let operation = match value.get("operation")?.as_str()? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return None,
    };
    let manager = Manager {
        name: text("manager"),
        operation,
        api_version: text("apiVersion"),
        subresource: text("subresource"),
    };
    let fields = match value.get("fieldsV1") {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => Set::from_fields_v1(fields)?,
    };
    Some(Entry { manager, time: text("time").parse().ok(), fields })
}

fn write_entry(entry: &Entry) -> Value {
    let manager = &entry.manager;
    let mut map = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            map.insert(name.to_owned(), value.into());
        }
    };
    text("manager", &manager.name);
    text("operation", manager.operation.name());
    text("apiVersion", &manager.api_version);
    text("subresource", &manager.subresource);
    text("fieldsType", "FieldsV1");
    text("time", &entry.time.map(|time| time.to_string()).unwrap_or_default());
    map.insert("fieldsV1".into(), entry.fields.to_fields_v1());
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(name: &str, second: i64, field: &str) -> Entry {
        let manager = Manager {
            name: name.into(),
            operation: Operation::Update,
            api_version: "v1".into(),
            subresource: String::new(),
        };
        let fields = Set::from_fields_v1(&json!({ field: {} })).unwrap();
        Entry { manager, time: Some(Time::from_second(second)), fields }
    }

    #[test]
    fn the_oldest_writers_become_one() {
        let mut entries =
            Entries((0..12).map(|i| entry(&format!("m{i:02}"), i, &format!("f:{i}"))).collect());
        entries.cap();
        assert_eq!(entries.0.len(), 10);
        let ancient = entries.0.iter().find(|entry| entry.manager.name == ANCIENT).unwrap();
        assert_eq!(ancient.fields.to_fields_v1(), json!({"f:0": {}, "f:1": {}, "f:2": {}}));
        assert_eq!(ancient.time, Some(Time::from_second(2)));
        let before = entries.clone();
        entries.cap();
        assert_eq!(entries, before);
    }

    #[test]
    fn lists_are_read_and_written_and_reset() {
        let list = json!([{"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-02T03:04:05Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}, "subresource": "status"}]);
        assert_eq!(Entries::read(Some(&list)).unwrap().write(), Some(list.clone()));
        let mut later = list.clone();
        later[0]["time"] = json!("2027-01-02T03:04:05Z");
        assert!(same_but_for_times(Some(&list), Some(&later)));
        later[0]["manager"] = json!("b");
        assert!(!same_but_for_times(Some(&list), Some(&later)));
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])) && !is_reset(&list));
        assert_eq!(Entries::read(Some(&json!([{"operation": "Delete"}]))), None);
    }
}
