//! Nobody hands out more than they have: a role may only be written by who may do all that it allows, and a binding by
//! who may do all that its role allows; or by who may `escalate` and `bind`.

use std::fmt::Write as _;

use portolan_api::kinds::rbac::GROUP;
use portolan_api::rbac::v1::{PolicyRule, RoleRef};
use portolan_api::resource::{CLUSTER_ROLES, ROLES, Resource};
use portolan_api::status;
use serde_json::Value;

use super::policy::uncovered;
use super::{Attributes, Shared};
use crate::authn::{MASTERS, User};
use crate::errors::{ApiError, Result};
use crate::object::meta;

/// A write of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<&'a str>,
    /// The name in the path; a new object has none there.
    pub(crate) name: Option<&'a str>,
    pub(crate) old: Option<&'a Value>,
    pub(crate) new: &'a Value,
}

impl Written<'_> {
    /// 403 for a reason.
    pub(crate) fn forbidden(&self, why: &str) -> ApiError {
        status::forbidden(self.resource, meta(self.new, "name").unwrap_or_default(), why).into()
    }

    fn keeps(&self, fields: &[&str]) -> bool {
        self.old.is_some_and(|old| fields.iter().all(|field| old.get(field) == self.new.get(field)))
    }
}

/// Whether `user` may write it.
pub(crate) fn check(policy: &Shared, user: &User, write: Written<'_>) -> Result<()> {
    let Written { resource, namespace, name, new, .. } = write;
    if resource.group != GROUP || user.in_group(MASTERS) {
        return Ok(());
    }
    let may = |verb, resource, name| {
        let (subresource, on_node) = (None, None);
        let what =
            Attributes::Resource { verb, group: GROUP, resource, subresource, namespace, name, on_node };
        policy.allows(user, what)
    };
    let wanted: Vec<PolicyRule> = if resource.plural.ends_with("bindings") {
        let role: RoleRef = serde_json::from_value(new["roleRef"].clone()).unwrap_or_default();
        let of = if role.kind == "Role" { &ROLES } else { &CLUSTER_ROLES };
        if write.keeps(&["roleRef", "subjects"]) || may("bind", of.plural, Some(&role.name)) {
            return Ok(());
        }
        let rules = policy.rules_of(&role, namespace.unwrap_or_default());
        rules.ok_or_else(|| status::not_found(of, &role.name))?
    } else if write.keeps(&["rules", "aggregationRule"]) || may("escalate", resource.plural, name) {
        return Ok(());
    } else if new.get("aggregationRule").is_some_and(|rule| !rule.is_null()) {
        anything()
    } else {
        serde_json::from_value(new["rules"].clone()).unwrap_or_default()
    };
    let (held, _) = policy.rules(user, namespace);
    let missing = uncovered(&held.iter().collect::<Vec<_>>(), &wanted);
    if missing.is_empty() { Ok(()) } else { Err(write.forbidden(&refusal(user, &missing))) }
}

/// What a role may come to contain whose parts others write.
fn anything() -> Vec<PolicyRule> {
    let all = || vec!["*".to_string()];
    let objects = PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() };
    vec![objects, PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() }]
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
