//! Nobody hands out more than they have: a role may only be written by who may do all that it allows, and a binding by
//! who may do all that its role allows; or by who may `escalate` and `bind`.

use std::fmt::Write as _;

use portolan_api::rbac::v1::{PolicyRule, RoleRef};
use portolan_api::resource::Resource;
use serde_json::Value;

use super::policy::uncovered;
use super::{Attributes, Shared};
use crate::authn::{MASTERS, User};
use crate::object::meta;

/// Whether `user` may write `new` in place of `old`. The error is the text for the client.
pub(crate) fn check(
    policy: &Shared,
    user: &User,
    resource: &Resource,
    namespace: Option<&str>,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), String> {
    if resource.group != portolan_api::kinds::rbac::GROUP || user.in_group(MASTERS) {
        return Ok(());
    }
    let unchanged =
        |fields: &[&str]| old.is_some_and(|old| fields.iter().all(|field| old.get(field) == new.get(field)));
    let may = |verb, resource, name| {
        let group = portolan_api::kinds::rbac::GROUP;
        policy
            .allows(user, Attributes::Resource { verb, group, resource, subresource: None, namespace, name })
    };
    let wanted: Vec<PolicyRule> = if resource.plural.ends_with("bindings") {
        let role: RoleRef = serde_json::from_value(new["roleRef"].clone()).unwrap_or_default();
        let roles = if role.kind == "Role" { "roles" } else { "clusterroles" };
        if unchanged(&["roleRef", "subjects"]) || may("bind", roles, Some(&role.name)) {
            return Ok(());
        }
        policy.rules_of(&role, namespace.unwrap_or_default())
    } else {
        if unchanged(&["rules", "aggregationRule"]) || may("escalate", resource.plural, meta(new, "name")) {
            return Ok(());
        }
        if new.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
            // It may come to contain anything.
            let anything = |non_resource| PolicyRule {
                verbs: vec!["*".into()],
                api_groups: if non_resource { Vec::new() } else { vec!["*".into()] },
                resources: if non_resource { Vec::new() } else { vec!["*".into()] },
                non_resource_urls: if non_resource { vec!["*".into()] } else { Vec::new() },
                ..PolicyRule::default()
            };
            vec![anything(false), anything(true)]
        } else {
            serde_json::from_value(new["rules"].clone()).unwrap_or_default()
        }
    };
    let held = policy.rules(user, namespace);
    let missing = uncovered(&held.iter().collect::<Vec<_>>(), &wanted);
    if missing.is_empty() { Ok(()) } else { Err(refusal(user, &missing)) }
}

fn refusal(user: &User, missing: &[PolicyRule]) -> String {
    let quoted = |list: &[String]| list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>();
    let groups = quoted(&user.groups).join(" ");
    let mut text = format!(
        "user {:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:",
        user.name
    );
    for rule in missing {
        let parts = [
            ("APIGroups", &rule.api_groups),
            ("Resources", &rule.resources),
            ("ResourceNames", &rule.resource_names),
            ("NonResourceURLs", &rule.non_resource_urls),
            ("Verbs", &rule.verbs),
        ];
        let parts = parts.iter().filter(|(_, list)| !list.is_empty());
        let parts: Vec<String> =
            parts.map(|(name, list)| format!("{name}:[{}]", quoted(list).join(" "))).collect();
        // Writing to a String does not fail.
        let _ = write!(text, "\n{{{}}}", parts.join(", "));
    }
    text
}
