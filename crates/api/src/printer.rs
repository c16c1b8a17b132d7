//! Tables: what `kubectl get` shows.

use serde_json::Value;

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, or `integer` for cells that are numbers.
    pub ty: &'static str,
    /// `name` for the column that holds the object's name, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only in the wide form.
    pub priority: i32,
}

/// The cells of one object, one per column. `now` is in seconds since 1970, for ages.
pub type Cells = fn(object: &Value, now: i64) -> Vec<Value>;

const fn column(name: &'static str, priority: i32) -> Column {
    Column { name, ty: "string", format: "", description: "", priority }
}

const NAME: Column = Column { name: "Name", ty: "string", format: "name", description: "", priority: 0 };

pub static NAME_AGE: &[Column] = &[NAME, column("Age", 0)];

/// The cells of kinds without columns of their own.
pub fn name_age(object: &Value, _now: i64) -> Vec<Value> {
    vec![object["metadata"]["name"].clone(), Value::from("<unknown>")]
}
