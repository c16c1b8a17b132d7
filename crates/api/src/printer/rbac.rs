//! Roles and bindings.

use serde_json::Value;

use super::{AGE, Column, NAME, age, column, name, wide};

pub static ROLE: &[Column] = &[NAME, column("Created At", "When the role was made.")];

pub fn role(object: &Value, _now: i64) -> Vec<Value> {
    vec![name(object), object["metadata"]["creationTimestamp"].clone()]
}

pub static BINDING: &[Column] = &[
    NAME,
    column("Role", "The role that is given."),
    AGE,
    wide("Users", "Users who get it."),
    wide("Groups", "Groups that get it."),
    wide("ServiceAccounts", "Service accounts that get it."),
];

pub fn binding(object: &Value, now: i64) -> Vec<Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |kind: &str| -> Value {
        let subjects = object["subjects"].as_array().into_iter().flatten().filter(|s| s["kind"] == kind);
        let names: Vec<String> = subjects
            .map(|s| match text(&s["namespace"]) {
                space if space.is_empty() => text(&s["name"]),
                space => format!("{space}/{}", text(&s["name"])),
            })
            .collect();
        names.join(", ").into()
    };
    let role = format!("{}/{}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"]));
    vec![name(object), role.into(), age(object, now), of("User"), of("Group"), of("ServiceAccount")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_binding_shows_role_and_subjects() {
        let object = json!({"metadata": {"name": "b", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "User", "name": "v"}, {"kind": "ServiceAccount", "namespace": "d", "name": "s"}]});
        assert_eq!(binding(&object, 60), ["b", "ClusterRole/view", "60s", "u, v", "", "d/s"]);
    }
}
