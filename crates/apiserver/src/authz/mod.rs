//! Who may do what: a fixed table until there are roles as objects.
//!
//! `system:masters` may do everything, anonymous callers may ask for health and version, and the cluster's own parts
//! may do what they need. Everybody else is refused with Kubernetes' words.

use crate::authn::{AUTHENTICATED, MASTERS, User};

/// A request, as far as its permission is concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attributes<'a> {
    /// Objects.
    Resource {
        /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
        verb: &'a str,
        /// API group.
        group: &'a str,
        /// Plural name.
        resource: &'a str,
        /// Subresource.
        subresource: Option<&'a str>,
        /// Namespace.
        namespace: Option<&'a str>,
        /// Object.
        name: Option<&'a str>,
    },
    /// Any other path.
    Path {
        /// The method in lower case.
        verb: &'a str,
        /// The path.
        path: &'a str,
    },
}

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
const EDIT: &[&str] = &["create", "update", "patch"];

struct Rule {
    verbs: &'static [&'static str],
    group: &'static str,
    /// `RESOURCE` or `RESOURCE/SUBRESOURCE`; `*` is all.
    resources: &'static [&'static str],
}

const fn rule(
    verbs: &'static [&'static str],
    group: &'static str,
    resources: &'static [&'static str],
) -> Rule {
    Rule { verbs, group, resources }
}

/// The node agent: reads its world, keeps its node, its pods' status and its lease, reports events.
const NODE: &[Rule] = &[
    rule(READ, "*", &["*"]),
    rule(EDIT, "", &["nodes", "nodes/status", "pods/status", "events"]),
    rule(&["delete"], "", &["pods"]),
    rule(EDIT, "events.k8s.io", &["events"]),
    rule(WRITE, "coordination.k8s.io", &["leases"]),
];

/// The node proxy: reads Services, endpoints and nodes, reports events.
const PROXY: &[Rule] = &[
    rule(READ, "", &["services", "endpoints", "nodes", "namespaces"]),
    rule(READ, "discovery.k8s.io", &["endpointslices"]),
    rule(READ, "networking.k8s.io", &["servicecidrs"]),
    rule(EDIT, "", &["events"]),
    rule(EDIT, "events.k8s.io", &["events"]),
];

/// The controllers: read everything, write what they derive.
const CONTROLLERS: &[Rule] = &[
    rule(READ, "*", &["*"]),
    rule(WRITE, "", &["endpoints", "events", "pods", "serviceaccounts", "configmaps"]),
    rule(&["update", "patch"], "", &["services/status", "nodes", "nodes/status", "pods/status"]),
    rule(
        &["update", "patch", "delete"],
        "",
        &["namespaces", "namespaces/status", "namespaces/finalize", "nodes"],
    ),
    rule(&["create"], "", &["pods/binding"]),
    rule(WRITE, "events.k8s.io", &["events"]),
    rule(WRITE, "discovery.k8s.io", &["endpointslices"]),
    rule(WRITE, "networking.k8s.io", &["ipaddresses", "servicecidrs", "servicecidrs/status"]),
    rule(WRITE, "coordination.k8s.io", &["leases"]),
    rule(WRITE, "apps", &["*"]),
    rule(&["update", "patch"], "portolan.dev", &["loadbalancerpools/status"]),
    // The key that announcing nodes know each other by.
    rule(&["create"], "", &["secrets"]),
    rule(&["delete", "deletecollection"], "*", &["*"]),
];

fn rules(user: &User) -> &'static [Rule] {
    if user.in_group("system:nodes") {
        NODE
    } else {
        match user.name.as_str() {
            "system:kube-proxy" => PROXY,
            "system:kube-controller-manager" => CONTROLLERS,
            _ => &[],
        }
    }
}

/// Whether `user` may do `what`; the error is the text for the client.
pub(crate) fn authorize(user: &User, what: Attributes<'_>) -> Result<(), String> {
    if user.in_group(MASTERS) || allowed(user, what) { Ok(()) } else { Err(refusal(user, what)) }
}

fn allowed(user: &User, what: Attributes<'_>) -> bool {
    match what {
        Attributes::Path { verb, path } => {
            let open = matches!(path, "/healthz" | "/livez" | "/readyz" | "/version" | "/version/");
            let known = path == "/api"
                || path == "/apis"
                || path == "/metrics"
                || ["/api/", "/apis/", "/openapi/", "/healthz/", "/livez/", "/readyz/"]
                    .iter()
                    .any(|prefix| path.starts_with(prefix));
            verb == "get" && (open || (known && user.in_group(AUTHENTICATED)))
        }
        Attributes::Resource { verb, group, resource, subresource, .. } => rules(user).iter().any(|rule| {
            rule.verbs.contains(&verb)
                && (rule.group == "*" || rule.group == group)
                && rule.resources.iter().any(|r| names(r, resource, subresource))
        }),
    }
}

fn names(pattern: &str, resource: &str, subresource: Option<&str>) -> bool {
    match subresource {
        _ if pattern == "*" => true,
        None => pattern == resource,
        Some(sub) => pattern
            .strip_prefix(resource)
            .and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| rest == sub),
    }
}

fn refusal(user: &User, what: Attributes<'_>) -> String {
    match what {
        Attributes::Path { verb, path } => {
            format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name)
        }
        Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
            let kind = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
            let subject = name.map_or_else(|| kind.clone(), |name| format!("{kind} {name:?}"));
            let full = subresource.map_or(resource.to_string(), |sub| format!("{resource}/{sub}"));
            let place = namespace.map_or("at the cluster scope".to_string(), |namespace| {
                format!("in the namespace {namespace:?}")
            });
            format!(
                "{subject} is forbidden: User {:?} cannot {verb} resource {full:?} in API group {group:?} {place}",
                user.name
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<'a>(verb: &'a str, group: &'a str, resource: &'a str, sub: Option<&'a str>) -> Attributes<'a> {
        Attributes::Resource {
            verb,
            group,
            resource,
            subresource: sub,
            namespace: Some("default"),
            name: None,
        }
    }

    #[test]
    fn parts_of_the_cluster_get_what_they_need() {
        let node = User::new("system:node:n1", ["system:nodes"]);
        let proxy = User::new("system:kube-proxy", [""; 0]);
        let controllers = User::new("system:kube-controller-manager", [""; 0]);
        assert!(authorize(&node, ask("patch", "", "pods", Some("status"))).is_ok());
        assert!(authorize(&node, ask("create", "", "services", None)).is_err());
        assert!(authorize(&node, ask("update", "", "services", Some("status"))).is_err());
        assert!(authorize(&proxy, ask("watch", "discovery.k8s.io", "endpointslices", None)).is_ok());
        assert!(authorize(&proxy, ask("list", "", "pods", None)).is_err());
        assert!(authorize(&proxy, ask("delete", "", "services", None)).is_err());
        assert!(authorize(&controllers, ask("create", "discovery.k8s.io", "endpointslices", None)).is_ok());
        assert!(authorize(&controllers, ask("update", "", "services", None)).is_err());
    }

    #[test]
    fn strangers_see_health_and_version_only() {
        let anonymous = User::anonymous();
        let path = |path| Attributes::Path { verb: "get", path };
        assert!(authorize(&anonymous, path("/readyz")).is_ok());
        assert!(authorize(&anonymous, path("/version")).is_ok());
        assert_eq!(
            authorize(&anonymous, path("/metrics")).unwrap_err(),
            "forbidden: User \"system:anonymous\" cannot get path \"/metrics\""
        );
        assert!(authorize(&User::new("someone", [""; 0]), path("/apis/apps/v1")).is_ok());
    }

    #[test]
    fn refusals_read_as_kubernetes_words_them() {
        let user = User::new("jane", ["dev"]);
        assert_eq!(
            authorize(&user, ask("list", "", "services", None)).unwrap_err(),
            "services is forbidden: User \"jane\" cannot list resource \"services\" in API group \"\" in the namespace \"default\""
        );
        let what = Attributes::Resource {
            verb: "get",
            group: "networking.k8s.io",
            resource: "servicecidrs",
            subresource: None,
            namespace: None,
            name: Some("kubernetes"),
        };
        assert_eq!(
            authorize(&user, what).unwrap_err(),
            "servicecidrs.networking.k8s.io \"kubernetes\" is forbidden: User \"jane\" cannot get resource \"servicecidrs\" in API group \"networking.k8s.io\" at the cluster scope"
        );
    }
}
