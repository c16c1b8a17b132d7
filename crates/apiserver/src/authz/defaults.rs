//! The roles and bindings that every cluster has, as Kubernetes makes them, for the kinds that are served here.
//!
//! Made at start where they are missing; rules and subjects that an administrator took away come back, unless the
//! object says `rbac.authorization.kubernetes.io/autoupdate: "false"`.

use futures_util::future::try_join_all;
use portolan_api::rbac::v1::ClusterRole;
use portolan_api::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use serde_json::{Map, Value, json};

use super::policy::aggregate;
use crate::errors::Result;
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::write::{At, Part};

const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = portolan_api::kinds::rbac::GROUP;

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const EDIT: &[&str] = &["create", "patch", "update"];
const EVERY: &[&str] = &["*"];

fn rule(verbs: &[&str], group: &str, resources: &[&str]) -> Value {
    json!({ "verbs": verbs, "apiGroups": [group], "resources": resources })
}

fn urls(urls: &[&str]) -> Value {
    json!({ "verbs": ["get"], "nonResourceURLs": urls })
}

fn events() -> [Value; 2] {
    [rule(EDIT, "", &["events"]), rule(EDIT, "events.k8s.io", &["events"])]
}

/// Name, labels that put it into others, and rules.
type RoleOf = (&'static str, &'static [&'static str], Vec<Value>);

fn roles() -> Vec<RoleOf> {
    let mut all: Vec<RoleOf> = vec![
        (
            "cluster-admin",
            &[],
            vec![rule(EVERY, "*", EVERY), json!({ "verbs": EVERY, "nonResourceURLs": EVERY })],
        ),
        (
            "system:public-info-viewer",
            &[],
            vec![urls(&["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        ),
        (
            "system:discovery",
            &[],
            vec![urls(&[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ])],
        ),
        (
            "system:monitoring",
            &[],
            vec![urls(&[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/*",
                "/readyz",
                "/readyz/*",
            ])],
        ),
        (
            "system:basic-user",
            &[],
            vec![
                rule(
                    &["create"],
                    "authorization.k8s.io",
                    &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
                ),
                rule(&["create"], "authentication.k8s.io", &["selfsubjectreviews"]),
            ],
        ),
        (
            "system:auth-delegator",
            &[],
            vec![
                rule(&["create"], "authentication.k8s.io", &["tokenreviews"]),
                rule(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
            ],
        ),
        (
            "system:service-account-issuer-discovery",
            &[],
            vec![urls(&[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ])],
        ),
        ("system:aggregate-to-view", &["view"], view()),
        ("system:aggregate-to-edit", &["edit"], edit()),
        (
            "system:aggregate-to-admin",
            &["admin"],
            vec![
                rule(&["create"], "authorization.k8s.io", &["localsubjectaccessreviews"]),
                rule(&[WRITE, READ].concat(), GROUP, &["roles", "rolebindings"]),
            ],
        ),
    ];
    all.extend(parts_of_the_cluster());
    all
}

fn view() -> Vec<Value> {
    vec![
        rule(
            READ,
            "",
            &["configmaps", "endpoints", "pods", "serviceaccounts", "services", "services/status"],
        ),
        rule(READ, "", &["bindings", "events", "namespaces", "namespaces/status", "pods/log", "pods/status"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "events.k8s.io", &["events"]),
        rule(
            READ,
            "apps",
            &[
                "deployments",
                "deployments/scale",
                "deployments/status",
                "replicasets",
                "replicasets/scale",
                "replicasets/status",
            ],
        ),
    ]
}

fn edit() -> Vec<Value> {
    vec![
        rule(
            READ,
            "",
            &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
        ),
        rule(&["impersonate"], "", &["serviceaccounts"]),
        rule(WRITE, "", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
        rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
        rule(
            WRITE,
            "",
            &["configmaps", "events", "secrets", "serviceaccounts", "services", "services/proxy"],
        ),
        rule(WRITE, "apps", &["deployments", "deployments/scale", "replicasets", "replicasets/scale"]),
        rule(&[WRITE, READ].concat(), "coordination.k8s.io", &["leases"]),
    ]
}

fn parts_of_the_cluster() -> Vec<RoleOf> {
    let mut proxier = vec![
        rule(READ, "", &["endpoints", "namespaces", "nodes", "services"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "networking.k8s.io", &["servicecidrs"]),
    ];
    proxier.extend(events());
    let dns = vec![
        rule(READ, "", &["endpoints", "namespaces", "nodes", "pods", "services"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
    ];
    vec![
        ("system:node-proxier", &[], proxier),
        ("system:kube-dns", &[], dns),
        ("system:kube-controller-manager", &[], controllers()),
        ("system:node", &[], own_node()),
        ("portolan:node", &[], node()),
    ]
}

/// What every node reads, and that it reports events.
fn node() -> Vec<Value> {
    let mut rules = vec![
        rule(READ, "", &["endpoints", "namespaces", "nodes", "services"]),
        rule(READ, "discovery.k8s.io", &["endpointslices"]),
        rule(READ, "networking.k8s.io", &["servicecidrs"]),
        rule(READ, "portolan.dev", &["loadbalancerpools"]),
    ];
    rules.extend(events());
    rules
}

/// What a node may do besides, but to its own objects only. Nobody is bound to it, as in Kubernetes: a role cannot say
/// "its own", so `authz::node` decides; this tells readers of the roles.
fn own_node() -> Vec<Value> {
    vec![
        rule(EDIT, "", &["nodes", "nodes/status"]),
        rule(&["delete", "get", "list", "watch"], "", &["pods"]),
        rule(&["patch", "update"], "", &["pods/status"]),
        rule(&["create"], "", &["pods/eviction", "serviceaccounts/token"]),
        rule(&["get"], "", &["configmaps", "secrets"]),
        rule(&["create", "delete", "get", "patch", "update"], "coordination.k8s.io", &["leases"]),
    ]
}

/// The controllers read everything and write what they derive.
fn controllers() -> Vec<Value> {
    vec![
        rule(READ, "*", EVERY),
        rule(&["delete", "deletecollection"], "*", EVERY),
        rule(EDIT, "", &["configmaps", "endpoints", "events", "pods", "serviceaccounts"]),
        rule(&["patch", "update"], "", &["services/status", "nodes", "nodes/status", "pods/status"]),
        rule(&["patch", "update"], "", &["namespaces", "namespaces/finalize", "namespaces/status"]),
        rule(&["create"], "", &["bindings", "pods/binding"]),
        rule(EDIT, "events.k8s.io", &["events"]),
        rule(EDIT, "discovery.k8s.io", &["endpointslices"]),
        rule(EDIT, "networking.k8s.io", &["ipaddresses", "servicecidrs", "servicecidrs/status"]),
        rule(EDIT, "coordination.k8s.io", &["leases"]),
        rule(EDIT, "apps", EVERY),
        rule(&["patch", "update"], "portolan.dev", &["loadbalancerpools/status"]),
        // The key that announcing nodes know each other by.
        rule(&["create"], "", &["secrets"]),
    ]
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { AUTO_UPDATE: "true" },
    })
}

fn object(kind: &str, name: &str, rest: &Value) -> Value {
    let mut object = json!({ "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(name) });
    let fields = rest.as_object().cloned().unwrap_or_default();
    object.as_object_mut().unwrap_or(&mut Map::new()).extend(fields);
    object
}

fn cluster_roles() -> Vec<Value> {
    let aggregate_to = |part: &str| format!("rbac.authorization.k8s.io/aggregate-to-{part}");
    let mut all: Vec<Value> = roles()
        .into_iter()
        .map(|(name, into, rules)| {
            let mut role = object("ClusterRole", name, &json!({ "rules": rules }));
            for part in into {
                role["metadata"]["labels"][aggregate_to(part)] = "true".into();
            }
            role
        })
        .collect();
    for (name, into) in [("view", Some("edit")), ("edit", Some("admin")), ("admin", None)] {
        let selector = json!({ "matchLabels": { aggregate_to(name): "true" } });
        let rest = json!({ "aggregationRule": { "clusterRoleSelectors": [selector] }, "rules": [] });
        let mut role = object("ClusterRole", name, &rest);
        if let Some(part) = into {
            role["metadata"]["labels"][aggregate_to(part)] = "true".into();
        }
        // Put together here as the follower would do it, so that it finds nothing to do.
        let typed: Vec<ClusterRole> =
            all.iter().filter_map(|role| serde_json::from_value(role.clone()).ok()).collect();
        if let Ok(own) = serde_json::from_value::<ClusterRole>(role.clone()) {
            role["rules"] = json!(aggregate(&own, typed.iter()).unwrap_or_default());
        }
        all.push(role);
    }
    all
}

fn cluster_bindings() -> Vec<Value> {
    let group = |name: &str| json!({ "kind": "Group", "apiGroup": GROUP, "name": name });
    let user = |name: &str| json!({ "kind": "User", "apiGroup": GROUP, "name": name });
    let (known, unknown) = ("system:authenticated", "system:unauthenticated");
    [
        ("cluster-admin", "cluster-admin", vec![group("system:masters")]),
        ("system:basic-user", "system:basic-user", vec![group(known)]),
        ("system:discovery", "system:discovery", vec![group(known)]),
        ("system:monitoring", "system:monitoring", vec![group("system:monitoring")]),
        ("system:public-info-viewer", "system:public-info-viewer", vec![group(known), group(unknown)]),
        ("system:node-proxier", "system:node-proxier", vec![user("system:kube-proxy")]),
        ("system:kube-dns", "system:kube-dns", vec![account("kube-dns")]),
        (
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            vec![group("system:serviceaccounts")],
        ),
        ("system:node", "system:node", Vec::new()),
        (
            "system:kube-controller-manager",
            "system:kube-controller-manager",
            vec![user("system:kube-controller-manager")],
        ),
        ("portolan:node", "portolan:node", vec![group("system:nodes")]),
    ]
    .into_iter()
    .map(|(name, role, subjects)| {
        let reference = json!({ "apiGroup": GROUP, "kind": "ClusterRole", "name": role });
        object("ClusterRoleBinding", name, &json!({ "roleRef": reference, "subjects": subjects }))
    })
    .collect()
}

/// Roles of `kube-system`, each with who has it.
fn namespaced() -> (Vec<Value>, Vec<Value>) {
    let mut key = rule(READ, "", &["secrets"]);
    key["resourceNames"] = json!(["portolan-announce"]);
    let nodes = json!({ "kind": "Group", "apiGroup": GROUP, "name": "system:nodes" });
    // The Service that leads to cluster DNS, and its slices.
    let dns = vec![rule(EDIT, "", &["services"]), rule(EDIT, "discovery.k8s.io", &["endpointslices"])];
    [
        // Nodes that announce addresses share a key, and see by leases which others do.
        ("portolan:announcer", vec![key, rule(READ, "coordination.k8s.io", &["leases"])], nodes),
        ("portolan:dns", dns, account("kube-dns")),
    ]
    .into_iter()
    .map(|(name, rules, subject)| {
        let reference = json!({ "apiGroup": GROUP, "kind": "Role", "name": name });
        let role = object("Role", name, &json!({ "rules": rules }));
        let rest = json!({ "roleRef": reference, "subjects": [subject] });
        (in_system(role), in_system(object("RoleBinding", name, &rest)))
    })
    .unzip()
}

fn in_system(mut object: Value) -> Value {
    object["metadata"]["namespace"] = "kube-system".into();
    object
}

fn account(name: &str) -> Value {
    json!({ "kind": "ServiceAccount", "namespace": "kube-system", "name": name })
}

/// Makes what is missing and mends what lost rules or subjects.
pub(crate) async fn bootstrap(server: &ApiServer) -> Result<()> {
    let (roles, bindings) = namespaced();
    let all = [
        (&CLUSTER_ROLES, cluster_roles()),
        (&CLUSTER_ROLE_BINDINGS, cluster_bindings()),
        (&ROLES, roles),
        (&ROLE_BINDINGS, bindings),
    ];
    let each =
        all.into_iter().flat_map(|(resource, list)| list.into_iter().map(move |object| (resource, object)));
    // All at once: the store makes many writes durable together.
    try_join_all(each.map(|(resource, object)| ensure(server, resource, object))).await.map(drop)
}

async fn ensure(server: &ApiServer, resource: &'static Resource, wanted: Value) -> Result<()> {
    let text = |field| meta(&wanted, field).unwrap_or_default();
    let at = At { resource, namespace: text("namespace"), name: text("name") };
    let Some(kv) = server.store().get(&at.key()).await?.0 else {
        return match server.insert(resource, wanted.clone(), false, &mut Vec::new()).await {
            Err(error) if !error.is("AlreadyExists") => Err(error),
            _ => Ok(()),
        };
    };
    let old = object::to_value(&kv)?;
    if mended(&old, &wanted).is_none() {
        return Ok(());
    }
    let change = &mut |old: &Value| Ok(mended(old, &wanted).unwrap_or_else(|| old.clone()));
    server.change(at, Part::Main, false, &mut Vec::new(), change).await.map(drop)
}

/// The object with the rules and subjects it should have; `None` if it has them, or is not to be touched.
fn mended(old: &Value, wanted: &Value) -> Option<Value> {
    let is_left_alone =
        old["metadata"]["annotations"][AUTO_UPDATE] == "false" || old.get("aggregationRule").is_some();
    if is_left_alone {
        return None;
    }
    let mut new = old.clone();
    for field in ["rules", "subjects"] {
        let mut list = old[field].as_array().cloned().unwrap_or_default();
        let missing = wanted[field].as_array().into_iter().flatten().filter(|item| !list.contains(item));
        let missing: Vec<Value> = missing.cloned().collect();
        if !missing.is_empty() {
            list.extend(missing);
            new[field] = list.into();
        }
    }
    (new != *old).then_some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_contain_what_they_are_put_together_from() {
        let roles = cluster_roles();
        let find = |name: &str| roles.iter().find(|role| role["metadata"]["name"] == name).unwrap();
        let rules = |name: &str| find(name)["rules"].as_array().unwrap().clone();
        for rule in rules("view") {
            assert!(rules("edit").contains(&rule) && rules("admin").contains(&rule), "{rule}");
        }
        assert!(rules("admin").len() > rules("edit").len() && rules("edit").len() > rules("view").len());
        assert!(!find("view")["rules"].to_string().contains("secrets"));
    }

    #[test]
    fn lost_rules_come_back_and_own_ones_stay() {
        let wanted = &cluster_roles()[1];
        assert_eq!(mended(wanted, wanted), None);
        let mut changed = wanted.clone();
        changed["rules"] = json!([rule(READ, "", &["pods"])]);
        assert_eq!(mended(&changed, wanted).unwrap()["rules"].as_array().unwrap().len(), 2);
        changed["metadata"]["annotations"][AUTO_UPDATE] = "false".into();
        assert_eq!(mended(&changed, wanted), None);
    }
}
