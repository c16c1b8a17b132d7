//! Roles and bindings as one value, and what they allow. Pure.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use portolan_api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use portolan_api::selector::LabelQuery;
use serde::de::DeserializeOwned;

use super::Attributes;
use crate::authn::User;

/// All roles and bindings.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    cluster_roles: HashMap<String, ClusterRole>,
    cluster_bindings: Bindings,
    /// By namespace and name.
    roles: HashMap<String, HashMap<String, Role>>,
    bindings: HashMap<String, Bindings>,
}

/// The bindings of one place, found by whom they bind: a request costs what is bound to its user, not what there is.
#[derive(Debug, Default)]
struct Bindings {
    by_name: HashMap<String, Bound>,
    users: HashMap<String, BTreeSet<String>>,
    groups: HashMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Bound {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// A role that a user has, and why.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grant<'a> {
    /// Empty for cluster role bindings.
    namespace: &'a str,
    binding: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
    /// `None`: there is no such role.
    rules: Option<&'a [PolicyRule]>,
}

impl fmt::Display for Grant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, binding, role, subject, .. } = self;
        if namespace.is_empty() {
            write!(f, "ClusterRoleBinding {binding:?}")?;
        } else {
            write!(f, "RoleBinding \"{binding}/{namespace}\"")?;
        }
        write!(f, " of {} {:?} to {} ", role.kind, role.name, subject.kind)?;
        match subject.kind.as_str() {
            "ServiceAccount" => write!(f, "\"{}/{}\"", subject.name, subject.namespace),
            _ => write!(f, "{:?}", subject.name),
        }
    }
}

impl Bindings {
    fn put(&mut self, name: &str, bound: Option<Bound>, namespace: &str) {
        if let Some(old) = self.by_name.remove(name) {
            self.index(name, &old.subjects, namespace, false);
        }
        if let Some(bound) = bound {
            self.index(name, &bound.subjects, namespace, true);
            self.by_name.insert(name.into(), bound);
        }
    }

    fn index(&mut self, name: &str, subjects: &[Subject], namespace: &str, add: bool) {
        for subject in subjects {
            let (map, key) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone()),
                "ServiceAccount" => (&mut self.users, account_user(subject, namespace)),
                _ => continue,
            };
            let names = map.entry(key.clone()).or_default();
            if add {
                names.insert(name.into());
            } else {
                names.remove(name);
                if names.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }

    /// The bindings of a user, by name, each once.
    fn of<'a>(&'a self, user: &User) -> BTreeSet<&'a str> {
        let own = self.users.get(&user.name);
        let groups = user.groups.iter().filter_map(|group| self.groups.get(group));
        own.into_iter().chain(groups).flatten().map(String::as_str).collect()
    }
}

/// The user that a service account is.
fn account_user(subject: &Subject, namespace: &str) -> String {
    let namespace = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
    crate::authn::account_user(namespace, &subject.name)
}

impl Policy {
    /// Takes over an object as it is in the store; `None` if it is gone. Returns whether it was a cluster role.
    pub(crate) fn put(&mut self, key: &str, value: Option<&[u8]>) -> bool {
        let mut parts = key.trim_start_matches("/registry/").splitn(3, '/');
        let (Some(kind), Some(first)) = (parts.next(), parts.next()) else { return false };
        match (kind, parts.next()) {
            ("clusterroles", None) => set(&mut self.cluster_roles, first, value),
            ("clusterrolebindings", None) => {
                let binding = read::<ClusterRoleBinding>(value);
                let bound = binding.map(|b| Bound { role: b.role_ref, subjects: b.subjects });
                self.cluster_bindings.put(first, bound, "");
            }
            ("roles", Some(name)) => {
                set(self.roles.entry(first.into()).or_default(), name, value);
                self.roles.retain(|_, roles| !roles.is_empty());
            }
            ("rolebindings", Some(name)) => {
                let binding = read::<RoleBinding>(value);
                let bound = binding.map(|b| Bound { role: b.role_ref, subjects: b.subjects });
                self.bindings.entry(first.into()).or_default().put(name, bound, first);
                self.bindings.retain(|_, bindings| !bindings.by_name.is_empty());
            }
            _ => {}
        }
        kind == "clusterroles"
    }

    /// Everything that is bound to the user, everywhere and in a namespace; stops when `each` says so.
    fn visit<'a>(
        &'a self,
        user: &User,
        namespace: Option<&str>,
        mut each: impl FnMut(Grant<'a>) -> bool,
    ) -> bool {
        let in_namespace = namespace.and_then(|namespace| self.bindings.get_key_value(namespace));
        let in_namespace = in_namespace.map(|(namespace, bindings)| (namespace.as_str(), bindings));
        let places = std::iter::once(("", &self.cluster_bindings)).chain(in_namespace);
        for (namespace, bindings) in places {
            for binding in bindings.of(user) {
                let Some(bound) = bindings.by_name.get(binding) else { continue };
                let subject = bound.subjects.iter().find(|subject| is(subject, user, namespace));
                let Some(subject) = subject else { continue };
                let rules = self.find(&bound.role, namespace);
                if each(Grant { namespace, binding, role: &bound.role, subject, rules }) {
                    return true;
                }
            }
        }
        false
    }

    /// The rules of everything that is bound to the user, in a namespace or everywhere.
    pub(crate) fn rules(&self, user: &User, namespace: Option<&str>) -> Vec<&PolicyRule> {
        let mut rules = Vec::new();
        self.visit(user, namespace, |grant| {
            rules.extend(grant.rules.unwrap_or_default());
            false
        });
        rules
    }

    /// The rules of a role that a binding in `namespace` names; `None` if there is no such role.
    pub(crate) fn find(&self, role: &RoleRef, namespace: &str) -> Option<&[PolicyRule]> {
        let found = match role.kind.as_str() {
            "Role" => &self.roles.get(namespace)?.get(&role.name)?.rules,
            _ => &self.cluster_roles.get(&role.name)?.rules,
        };
        Some(found)
    }

    /// Whether some rule allows it.
    pub(crate) fn allows(&self, user: &User, what: Attributes<'_>) -> bool {
        let granted = |grant: Grant<'_>| grants(grant, what);
        self.visit(user, what.namespace(), granted)
    }

    /// What allows it, in Kubernetes' words.
    pub(crate) fn why(&self, user: &User, what: Attributes<'_>) -> Option<String> {
        let mut why = None;
        self.visit(user, what.namespace(), |grant| {
            if grants(grant, what) {
                why = Some(format!("RBAC: allowed by {grant}"));
            }
            why.is_some()
        });
        why
    }

    /// Roles that bindings of the user name and that are not there, in Kubernetes' words; empty if there are none.
    pub(crate) fn missing_roles(&self, user: &User, namespace: Option<&str>) -> String {
        let mut missing = Vec::new();
        self.visit(user, namespace, |grant| {
            if grant.rules.is_none() {
                let kind = grant.role.kind.to_lowercase();
                missing.push(format!("{kind}.rbac.authorization.k8s.io {:?} not found", grant.role.name));
            }
            false
        });
        missing.dedup();
        match missing.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        }
    }

    /// Cluster roles whose rules are not what their aggregation gives, with what they should be.
    pub(crate) fn stale(&self) -> Vec<(String, Vec<PolicyRule>)> {
        let roles = self.cluster_roles.values();
        let aggregated = roles.filter_map(|role| Some((role, aggregate(role, self.cluster_roles.values())?)));
        let stale = aggregated.filter(|(role, rules)| role.rules != *rules);
        stale.map(|(role, rules)| (role.metadata.name.clone(), rules)).collect()
    }
}

/// What cannot be read grants nothing.
fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    value.and_then(|value| serde_json::from_slice(value).ok())
}

fn set<T: DeserializeOwned>(map: &mut HashMap<String, T>, name: &str, value: Option<&[u8]>) {
    match read(value) {
        Some(object) => map.insert(name.into(), object),
        None => map.remove(name),
    };
}

fn grants(grant: Grant<'_>, what: Attributes<'_>) -> bool {
    grant.rules.unwrap_or_default().iter().any(|rule| allows(rule, what))
}

/// The rules of the roles that an aggregated role is put together from; `None` if it is none.
pub(crate) fn aggregate<'a>(
    role: &ClusterRole,
    all: impl Iterator<Item = &'a ClusterRole>,
) -> Option<Vec<PolicyRule>> {
    let selectors = &role.aggregation_rule.as_ref()?.cluster_role_selectors;
    let queries: Vec<LabelQuery> = selectors.iter().filter_map(|s| LabelQuery::of_selector(s).ok()).collect();
    let mut chosen: Vec<&ClusterRole> = all
        .filter(|other| other.metadata.name != role.metadata.name)
        .filter(|other| queries.iter().any(|query| query.matches(&other.metadata.labels)))
        .collect();
    chosen.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in chosen.into_iter().flat_map(|role| &role.rules) {
        if !rules.contains(rule) {
            rules.push(rule.clone());
        }
    }
    Some(rules)
}

fn is(subject: &Subject, user: &User, namespace: &str) -> bool {
    match subject.kind.as_str() {
        "User" => subject.name == user.name,
        "Group" => user.in_group(&subject.name),
        "ServiceAccount" => account_user(subject, namespace) == user.name,
        _ => false,
    }
}

fn has(list: &[String], text: &str) -> bool {
    list.iter().any(|item| item == "*" || item == text)
}

/// Whether one rule allows it.
pub(crate) fn allows(rule: &PolicyRule, what: Attributes<'_>) -> bool {
    match what {
        Attributes::Path { verb, path } => {
            has(&rule.verbs, verb) && rule.non_resource_urls.iter().any(|url| url_matches(url, path))
        }
        Attributes::Resource { verb, group, resource, subresource, name, .. } => {
            has(&rule.verbs, verb)
                && has(&rule.api_groups, group)
                && rule.resources.iter().any(|pattern| resource_matches(pattern, resource, subresource))
                && (rule.resource_names.is_empty()
                    || rule.resource_names.iter().any(|n| n == name.unwrap_or("")))
        }
    }
}

fn url_matches(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

fn resource_matches(pattern: &str, resource: &str, subresource: Option<&str>) -> bool {
    match (pattern.split_once('/'), subresource) {
        _ if pattern == "*" => true,
        (None, None) => pattern == resource,
        (Some((main, sub)), Some(subresource)) => (main == "*" || main == resource) && sub == subresource,
        _ => false,
    }
}

/// What `wanted` would allow and `held` does not, as rules for one resource or path each.
pub(crate) fn uncovered(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let covered = |single: &PolicyRule| held.iter().any(|rule| covers(rule, single));
    let mut missing: Vec<PolicyRule> = Vec::new();
    for mut single in wanted.iter().flat_map(singles).filter(|single| !covered(single)) {
        let verbs = std::mem::take(&mut single.verbs);
        let but_for_verbs = |rule: &PolicyRule| PolicyRule { verbs: Vec::new(), ..rule.clone() } == single;
        match missing.iter_mut().find(|rule| but_for_verbs(rule)) {
            Some(rule) => rule.verbs.extend(verbs),
            None => missing.push(PolicyRule { verbs, ..single }),
        }
    }
    missing
}

fn singles(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let mut singles = Vec::new();
    for verb in &rule.verbs {
        let verbs = one(verb);
        for url in &rule.non_resource_urls {
            singles.push(PolicyRule {
                verbs: verbs.clone(),
                non_resource_urls: one(url),
                ..PolicyRule::default()
            });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let (api_groups, resources) = (one(group), one(resource));
                let single =
                    PolicyRule { verbs: verbs.clone(), api_groups, resources, ..PolicyRule::default() };
                if rule.resource_names.is_empty() {
                    singles.push(single);
                } else {
                    let named = |name| PolicyRule { resource_names: one(name), ..single.clone() };
                    singles.extend(rule.resource_names.iter().map(named));
                }
            }
        }
    }
    singles
}

fn covers(rule: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |held: &[String], wanted: &[String]| wanted.iter().all(|text| has(held, text));
    let resources = |wanted: &String| {
        has(&rule.resources, wanted)
            || wanted.split_once('/').is_some_and(|(_, sub)| rule.resources.contains(&format!("*/{sub}")))
    };
    let urls = |wanted: &String| rule.non_resource_urls.iter().any(|url| url_matches(url, wanted));
    let names = rule.resource_names.is_empty()
        || (!single.resource_names.is_empty()
            && single.resource_names.iter().all(|name| rule.resource_names.contains(name)));
    all(&rule.verbs, &single.verbs)
        && all(&rule.api_groups, &single.api_groups)
        && single.resources.iter().all(resources)
        && single.non_resource_urls.iter().all(urls)
        && names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: &Value) -> PolicyRule {
        serde_json::from_value(value.clone()).unwrap()
    }

    fn ask<'a>(
        verb: &'a str,
        resource: &'a str,
        subresource: Option<&'a str>,
        name: Option<&'a str>,
    ) -> Attributes<'a> {
        Attributes::Resource {
            verb,
            group: "",
            resource,
            subresource,
            namespace: Some("shop"),
            name,
            on_node: None,
        }
    }

    #[test]
    fn rules_match_verbs_groups_resources_and_names() {
        let pods = rule(
            &json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"], "resourceNames": ["a"]}),
        );
        assert!(allows(&pods, ask("get", "pods", None, Some("a"))));
        assert!(!allows(&pods, ask("get", "pods", None, Some("b"))));
        assert!(!allows(&pods, ask("get", "pods", None, None)));
        assert!(!allows(&pods, ask("get", "pods", Some("log"), Some("a"))));
        assert!(allows(&pods, ask("get", "anything", Some("scale"), Some("a"))));
        assert!(!allows(&pods, ask("list", "pods", None, Some("a"))));
        let all = rule(&json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        assert!(allows(&all, ask("get", "pods", Some("log"), None)));
        let urls = rule(&json!({"verbs": ["get"], "nonResourceURLs": ["/api/*", "/healthz"]}));
        let path = |path| allows(&urls, Attributes::Path { verb: "get", path });
        assert!(path("/api/v1") && path("/healthz") && !path("/healthz/x") && !path("/api"));
    }

    /// Rule, question, answer: the cases of Kubernetes' own definition.
    #[test]
    fn every_part_of_a_rule_has_its_wildcard_and_no_other() {
        let object = |verbs, groups, resources, names| {
            rule(
                &json!({"verbs": [verbs], "apiGroups": [groups], "resources": [resources], "resourceNames": names}),
            )
        };
        let none: [&str; 0] = [];
        let get = |resource, sub, name| ask("get", resource, sub, name);
        let of_apps = Attributes::Resource {
            verb: "get",
            group: "apps",
            resource: "pods",
            subresource: None,
            namespace: None,
            name: None,
            on_node: None,
        };
        for (allowed, rule, question) in [
            (true, object("*", "", "pods", json!(none)), ask("escalate", "pods", None, None)),
            (false, object("get", "", "pods", json!(none)), ask("*", "pods", None, None)),
            (true, object("get", "*", "pods", json!(none)), of_apps),
            (false, object("get", "", "pods", json!(none)), of_apps),
            (true, object("get", "", "*", json!(none)), get("pods", Some("log"), None)),
            (true, object("get", "", "pods/log", json!(none)), get("pods", Some("log"), None)),
            (false, object("get", "", "pods/log", json!(none)), get("pods", None, None)),
            (false, object("get", "", "pods", json!(none)), get("pods", Some("log"), None)),
            (true, object("get", "", "*/log", json!(none)), get("pods", Some("log"), None)),
            (false, object("get", "", "*/log", json!(none)), get("pods", Some("status"), None)),
            (false, object("get", "", "pods/*", json!(none)), get("pods", Some("log"), None)),
            (true, object("get", "", "pods", json!(["a", "b"])), get("pods", None, Some("b"))),
            (false, object("get", "", "pods", json!(["a"])), get("pods", None, None)),
            (false, object("get", "", "pods", json!(["*"])), get("pods", None, Some("a"))),
        ] {
            assert_eq!(allows(&rule, question), allowed, "{rule:?} {question:?}");
        }
        for (allowed, pattern, path) in [
            (true, "*", "/anything/at/all"),
            (true, "/logs/*", "/logs/"),
            (true, "/logs*", "/logsome"),
            (false, "/logs/*", "/logs"),
            (false, "/*/x", "/a/x"),
            (false, "/logs", "/logs/"),
        ] {
            let rule = rule(&json!({"verbs": ["get"], "nonResourceURLs": [pattern]}));
            assert_eq!(allows(&rule, Attributes::Path { verb: "get", path }), allowed, "{pattern} {path}");
            assert!(
                !allows(&rule, Attributes::Path { verb: "post", path })
                    && !allows(&rule, get("pods", None, None))
            );
        }
    }

    fn policy() -> Policy {
        let mut policy = Policy::default();
        let mut put = |key: &str, value: Value| {
            policy.put(&format!("/registry/{key}"), Some(value.to_string().as_bytes()))
        };
        put(
            "clusterroles/view",
            json!({"metadata": {"name": "view"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        );
        put(
            "roles/shop/own",
            json!({"metadata": {"name": "own"}, "rules": [{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}]}),
        );
        put(
            "rolebindings/shop/a",
            json!({"metadata": {"name": "a"}, "roleRef": {"kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "Group", "name": "dev"}, {"kind": "ServiceAccount", "name": "robot"}]}),
        );
        put(
            "rolebindings/shop/b",
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "own"},
            "subjects": [{"kind": "User", "name": "ann"}]}),
        );
        policy
    }

    #[test]
    fn bindings_give_roles_where_they_are() {
        let mut policy = policy();
        let (ann, robot) =
            (User::new("ann", ["dev"]), User::new("system:serviceaccount:shop:robot", [""; 0]));
        let elsewhere = Attributes::Resource {
            verb: "get",
            group: "",
            resource: "pods",
            subresource: None,
            namespace: Some("else"),
            name: None,
            on_node: None,
        };
        for user in [&ann, &robot] {
            assert!(policy.allows(user, ask("get", "pods", None, None)));
            assert!(!policy.allows(user, elsewhere));
        }
        assert!(policy.allows(&ann, ask("delete", "pods", None, None)));
        assert!(!policy.allows(&robot, ask("delete", "pods", None, None)));
        assert!(
            !policy.allows(
                &User::new("system:serviceaccount:else:robot", [""; 0]),
                ask("get", "pods", None, None)
            )
        );
        policy.put("/registry/rolebindings/shop/a", None);
        assert!(!policy.allows(&robot, ask("get", "pods", None, None)));
    }

    #[test]
    fn aggregated_roles_follow_their_parts() {
        let mut policy = policy();
        let role = json!({"metadata": {"name": "sum"}, "rules": [], "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "yes"}}]}});
        policy.put("/registry/clusterroles/sum", Some(role.to_string().as_bytes()));
        assert!(policy.stale().is_empty());
        let part = json!({"metadata": {"name": "part", "labels": {"part": "yes"}}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]});
        policy.put("/registry/clusterroles/part", Some(part.to_string().as_bytes()));
        let stale = policy.stale();
        assert_eq!(
            (stale.len(), stale[0].0.as_str(), stale[0].1[0].resources[0].as_str()),
            (1, "sum", "nodes")
        );
    }

    #[test]
    fn what_is_not_held_is_named() {
        let held =
            rule(&json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/status"]}));
        let wanted = rule(
            &json!({"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
        );
        let missing = uncovered(&[&held], &[wanted]);
        assert_eq!((missing.len(), missing[0].verbs[0].as_str()), (1, "delete"));
        let status = rule(&json!({"verbs": ["get"], "apiGroups": [""], "resources": ["nodes/status"]}));
        assert!(uncovered(&[&held], &[status]).is_empty());
        let named = rule(
            &json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}),
        );
        assert_eq!(uncovered(&[&named], &[held]).len(), 2);
    }

    fn any_rule() -> impl Strategy<Value = PolicyRule> {
        let some = |from: &'static [&'static str]| prop::collection::vec(prop::sample::select(from), 1..3);
        let names = prop::collection::vec(prop::sample::select(&["a", "b"][..]), 0..2);
        (some(&["get", "list", "*"]), some(&["", "apps", "*"]), some(&["pods", "pods/status", "*/status", "*"]), names).prop_map(
            |(verbs, groups, resources, names)| rule(&json!({"verbs": verbs, "apiGroups": groups, "resources": resources, "resourceNames": names})),
        )
    }

    proptest! {
        /// Nobody gains by a role that passes the check: what it allows was allowed before.
        #[test]
        fn what_is_covered_allows_nothing_new(held in any_rule(), wanted in any_rule()) {
            if !uncovered(&[&held], std::slice::from_ref(&wanted)).is_empty() {
                return Ok(());
            }
            for verb in ["get", "list", "watch"] {
                for group in ["", "apps", "x"] {
                    for (resource, subresource) in [("pods", None), ("pods", Some("status")), ("nodes", Some("status")), ("nodes", None)] {
                        for name in [None, Some("a"), Some("b"), Some("c")] {
                            let what = Attributes::Resource { verb, group, resource, subresource, namespace: None, name, on_node: None };
                            prop_assert!(!allows(&wanted, what) || allows(&held, what), "{:?}", what);
                        }
                    }
                }
            }
        }
    }
}
