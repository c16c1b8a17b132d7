//! Tables: what `kubectl get` shows. The server always fills the wide form; clients hide columns of priority 1.
//!
//! Start at [`Column`] and [`Cells`]; each resource names its own pair. Cells come in the order of the columns.

mod event;
mod network;
mod rbac;
mod workload;

pub use event::{EVENT, LEASE, event, lease};
pub use network::{
    ENDPOINT_SLICE, ENDPOINTS, IP_ADDRESS, LOAD_BALANCER_POOL, SERVICE, SERVICE_CIDR, endpoint_slice,
    endpoints, ip_address, load_balancer_pool, service, service_cidr,
};
pub use rbac::{BINDING, ROLE, binding, role};
pub use workload::{
    CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD, REPLICA_SET, SCALE, SECRET, SERVICE_ACCOUNT, config_map,
    deployment, namespace, node, pod, replica_set, scale, secret, service_account,
};

use serde_json::{Value, json};

use crate::Time;

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// Always `string`: Kubernetes says so even of numbers.
    pub ty: &'static str,
    /// `name` for the column that holds the object's name, else empty.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, 1 only in the wide form.
    pub priority: i32,
}

/// The cells of one object, one per column. `now` is in seconds since 1970, for ages.
pub type Cells = fn(object: &Value, now: i64) -> Vec<Value>;

const NONE: &str = "<none>";
const UNKNOWN: &str = "<unknown>";

const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "string", format: "", description, priority: 0 }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, ty: "string", format: "", description, priority: 1 }
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    description: "Name of the object, unique within its namespace.",
    priority: 0,
};
const AGE: Column = column("Age", "Time since the object was created.");

pub static NAME_AGE: &[Column] = &[NAME, AGE];

/// The cells of kinds without columns of their own.
pub fn name_age(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// The conditions of a row: one that says so where a pod has ended, so that clients may grey it out.
pub fn row_conditions(object: &Value) -> Vec<Value> {
    if object["kind"] != "Pod" {
        return Vec::new();
    }
    let (reason, message) = match object["status"]["phase"].as_str() {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn age(object: &Value, now: i64) -> Value {
    since(object["metadata"]["creationTimestamp"].as_str(), now).into()
}

/// How long ago a time was.
fn since(time: Option<&str>, now: i64) -> String {
    match time.and_then(|t| t.parse::<Time>().ok()) {
        Some(at) => human_duration(now - at.as_second()),
        None => UNKNOWN.to_owned(),
    }
}

/// A duration in a few letters, coarser the longer it is.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `k=v,k2=v2`, or `<none>`.
fn labels(map: &Value) -> String {
    let pairs: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

fn or_none(text: &str) -> String {
    if text.is_empty() { NONE.to_owned() } else { text.to_owned() }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The items of a list, if there is one.
fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The first few, and how many more there are.
fn first_few(all: &[String], max: usize) -> String {
    let shown = all[..all.len().min(max)].join(",");
    if all.len() > max { format!("{shown} + {} more...", all.len() - max) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_get_coarser() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_name_and_an_age_are_the_least() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:01:40Z"}});
        assert_eq!(name_age(&object, 160), [json!("a"), json!("60s")]);
        assert_eq!(name_age(&json!({"metadata": {"name": "a"}}), 160)[1], UNKNOWN);
    }

    #[test]
    fn every_resource_has_a_cell_per_column() {
        for resource in crate::resource::RESOURCES {
            let object = json!({"metadata": {"name": "a"}});
            let cells = (resource.cells)(&object, 0);
            // Kubernetes sends an age for IPAddress that no column shows; so do we.
            let extra = usize::from(resource.kind == "IPAddress");
            assert_eq!(cells.len(), resource.columns.len() + extra, "{resource:?}");
        }
    }
}
