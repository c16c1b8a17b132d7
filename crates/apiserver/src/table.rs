//! Server-side tables (`as=Table;g=meta.k8s.io;v=v1`): objects in, a meta.k8s.io/v1 Table out. The columns and cells of
//! each kind are the api crate's printer; here is the envelope around them. The server always sends the wide form;
//! clients hide columns of priority 1.

use jiff::Timestamp;
use portolan_api::printer::{self, Cells, Column};
use portolan_api::resource::Resource;
use serde_json::{Value, json};

/// `includeObject` of the request: what each row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter's value; None for an unknown one.
    pub fn parse(value: &str) -> Option<IncludeObject> {
        match value {
            "None" => Some(IncludeObject::None),
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    pub include_object: IncludeObject,
    /// True for every table of a watch but the first.
    pub no_headers: bool,
}

/// What the rows of a table show: the columns of a kind and how an object fills them.
#[derive(Clone, Copy)]
pub struct Layout {
    pub columns: &'static [Column],
    pub cells: Cells,
}

impl Layout {
    /// Of the objects that a resource holds.
    pub fn of(resource: &Resource) -> Self {
        Self { columns: resource.columns, cells: resource.cells }
    }

    /// Of `scale`, whatever it scales.
    pub const SCALE: Self = Self { columns: printer::SCALE, cells: printer::scale };
}

/// One Table for `items`. `list_metadata` is the metadata of the list (resourceVersion, continue, remainingItemCount),
/// or for a single object its resourceVersion as `{"resourceVersion": ..}`.
pub fn render(
    layout: Layout,
    items: &[Value],
    list_metadata: &Value,
    options: Options,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = items.iter().map(|item| row(layout, item, options.include_object, now)).collect();
    let columns = if options.no_headers { Value::Null } else { columns(layout) };
    let mut metadata = json!({});
    for key in ["resourceVersion", "continue", "remainingItemCount"] {
        if let Some(value) = list_metadata.get(key) {
            metadata[key] = value.clone();
        }
    }
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

fn columns(layout: Layout) -> Value {
    let columns = layout.columns.iter().map(|column| {
        json!({
            "name": column.name,
            "type": column.ty,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        })
    });
    columns.collect()
}

fn row(layout: Layout, item: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({"cells": (layout.cells)(item, now.as_second())});
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": item["metadata"],
            });
        }
        IncludeObject::Object => row["object"] = item.clone(),
    }
    if let Some(condition) = completed(item) {
        row["conditions"] = json!([condition]);
    }
    row
}

/// Rows of finished pods say so, for clients that grey them out.
fn completed(item: &Value) -> Option<Value> {
    let phase = item.pointer("/status/phase").filter(|_| item["kind"] == "Pod")?.as_str()?;
    let (reason, message) = match phase {
        "Succeeded" => ("Succeeded", "The pod has completed successfully."),
        "Failed" => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": reason, "message": message}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_api::resource::{PODS, SERVICES};

    fn service() -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "resourceVersion": "7"}, "spec": {"type": "ClusterIP"}})
    }

    fn table(options: Options) -> Value {
        let metadata =
            json!({"resourceVersion": "9", "continue": "c", "remainingItemCount": 3, "selfLink": "x"});
        render(Layout::of(&SERVICES), &[service()], &metadata, options, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn rows_have_a_cell_for_every_column() {
        let table = table(Options::default());
        assert_eq!(
            table["metadata"],
            json!({"resourceVersion": "9", "continue": "c", "remainingItemCount": 3})
        );
        let columns = table["columnDefinitions"].as_array().unwrap();
        assert_eq!(columns[0]["name"], "Name");
        assert_eq!(columns[0]["format"], "name");
        assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns.len());
        assert_eq!(table["rows"][0]["cells"][0], "web");
    }

    #[test]
    fn rows_carry_what_was_asked_for() {
        let object = |include_object| {
            table(Options { include_object, no_headers: false })["rows"][0]["object"].clone()
        };
        assert_eq!(object(IncludeObject::None), Value::Null);
        assert_eq!(object(IncludeObject::Metadata)["kind"], "PartialObjectMetadata");
        assert_eq!(object(IncludeObject::Metadata)["metadata"]["name"], "web");
        assert_eq!(object(IncludeObject::Object), service());
        assert_eq!(IncludeObject::parse("Some"), None);
    }

    #[test]
    fn later_tables_of_a_watch_have_no_columns() {
        assert_eq!(
            table(Options { no_headers: true, ..Options::default() })["columnDefinitions"],
            Value::Null
        );
    }

    #[test]
    fn finished_pods_are_marked() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "job"}, "status": {"phase": "Succeeded"}});
        let table = render(Layout::of(&PODS), &[pod], &json!({}), Options::default(), Timestamp::UNIX_EPOCH);
        assert_eq!(table["rows"][0]["conditions"][0]["type"], "Completed");
    }
}
