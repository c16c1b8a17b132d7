//! What one node may do for being that node, as Kubernetes' node authorizer and node restriction have it: write itself, its
//! own pods' status and its own leases, and read its own pods and what they refer to.
//!
//! [`allows`] decides by the request alone, [`check`] and [`check_pod`] by the objects. What all nodes may read is a role:
//! see `defaults`.

use portolan_api::resource::PODS;
use portolan_store::KeyValue;
use serde_json::Value;

use super::Attributes;
use super::grant::Written;
use crate::accounts::ROOT_CA;
use crate::authn::User;
use crate::errors::Result as Answer;
use crate::object::{self, meta};
use crate::server::ApiServer;

const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";
/// Where nodes that announce load-balancer addresses have a lease of this name each.
const ANNOUNCERS: (&str, &str) = ("kube-system", "portolan-announcer-");
/// Labels with these domains say what a node is, and workloads trust them: a node sets none but those below.
const GUARDED: &[&str] = &["kubernetes.io", "k8s.io"];
const OWN_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];
const OWN_DOMAINS: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];

/// The node that a user is, if it is one.
pub(crate) fn name_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|name| !name.is_empty() && user.in_group("system:nodes"))
}

/// Whether the node may do it for what it is. The error is the reason for the client, which may be empty.
pub(crate) async fn allows(server: &ApiServer, node: &str, what: Attributes<'_>) -> Result<(), String> {
    let Attributes::Resource { verb, group, resource, subresource, namespace, name, on_node } = what else {
        return Err(String::new());
    };
    let edits = matches!(verb, "create" | "update" | "patch");
    let when = |allowed: bool, why: &str| if allowed { Ok(()) } else { Err(why.to_string()) };
    let unrelated = || format!("no relationship found between node '{node}' and this object");
    match (group, resource, subresource) {
        ("", "nodes", None | Some("status")) => when(edits || verb == "get", ""),
        ("", "pods", Some("status")) if verb == "get" => {
            when(runs(server, node, namespace, name).await, &unrelated())
        }
        ("", "pods", Some("status")) => when(matches!(verb, "update" | "patch"), ""),
        ("", "pods", Some("eviction")) => when(verb == "create", ""),
        ("", "pods", None) => match verb {
            "delete" => Ok(()),
            "get" => when(runs(server, node, namespace, name).await, &unrelated()),
            "list" | "watch" => {
                let why = "can only list/watch pods with spec.nodeName field selector";
                when(on_node == Some(node), why)
            }
            _ => Err(String::new()),
        },
        ("coordination.k8s.io", "leases", None) => lease(node, verb, namespace, name),
        // Every pod uses it, and it is no secret: not worth a look at all pods for each that starts.
        ("", "configmaps", None) if verb == "get" && name == Some(ROOT_CA) => Ok(()),
        ("", "secrets" | "configmaps", None) => {
            let (Some(namespace), Some(name), "get") = (namespace, name, verb) else {
                return Err("can only get individual resources of this type".into());
            };
            when(used(server, node, resource, namespace, name).await, &unrelated())
        }
        ("", "serviceaccounts", Some("token")) => {
            when(verb == "create" && name.is_some(), "can only create tokens for individual service accounts")
        }
        _ => Err(String::new()),
    }
}

fn lease(node: &str, verb: &str, namespace: Option<&str>, name: Option<&str>) -> Result<(), String> {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    // The name of a new one is in the object: see `check`.
    let own = match (namespace, name) {
        (Some(LEASES), name) => name.is_none_or(|name| name == node),
        (namespace, name) if namespace == Some(ANNOUNCERS.0) => {
            name.is_none_or(|name| name.strip_prefix(ANNOUNCERS.1) == Some(node))
        }
        _ => return Err(format!("can only access leases in the {LEASES:?} system namespace")),
    };
    let why = "can only access node lease with the same name as the requesting node";
    if own { Ok(()) } else { Err(why.into()) }
}

/// Whether a user, if it is a node, may write this for what it says.
pub(crate) fn check(user: &User, subresource: Option<&str>, write: Written<'_>) -> Answer<()> {
    let Some(node) = name_of(user) else { return Ok(()) };
    let Written { resource, new, old, .. } = write;
    if old.is_some_and(|old| meta(new, "resourceVersion") != meta(old, "resourceVersion"))
        && meta(new, "resourceVersion").is_some()
    {
        // It was made from an older object, whose differences are nobody's wish: the answer is a conflict.
        return Ok(());
    }
    let name = write.name.or(meta(new, "name")).unwrap_or_default();
    let why = match (resource.group, resource.plural) {
        ("", "nodes") if name != node => {
            format!("node {node:?} is not allowed to modify node {name:?}")
        }
        ("", "nodes") => return own_node(node, subresource, write),
        ("coordination.k8s.io", "leases") => {
            let verb = if old.is_some() { "update" } else { "create" };
            return lease(node, verb, write.namespace, Some(name)).map_err(|why| write.forbidden(&why));
        }
        ("", "pods") if subresource == Some("status") => {
            let old = old.unwrap_or(&Value::Null);
            if old["spec"]["nodeName"] != *node {
                format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
            } else if old["metadata"]["labels"] != new["metadata"]["labels"] {
                format!("node {node:?} cannot update labels through pod status")
            } else {
                return Ok(());
            }
        }
        _ => return Ok(()),
    };
    Err(write.forbidden(&why))
}

/// Nodes do not decide what is scheduled on them: taints and guarded labels are others' to set.
fn own_node(node: &str, subresource: Option<&str>, write: Written<'_>) -> Answer<()> {
    let labels = |object: Option<&Value>| {
        let labels = object.and_then(|object| object["metadata"]["labels"].as_object());
        labels.cloned().unwrap_or_default()
    };
    let (had, has) = (labels(write.old), labels(Some(write.new)));
    let changed = had.keys().chain(has.keys()).filter(|key| had.get(*key) != has.get(*key));
    let mut forbidden: Vec<&str> = changed.map(String::as_str).filter(|key| is_guarded(key)).collect();
    forbidden.sort_unstable();
    forbidden.dedup();
    let verb = if write.old.is_some() { "modify" } else { "set" };
    if !forbidden.is_empty() {
        let list = forbidden.join(", ");
        let why = format!("is not allowed to {verb} the following labels: {list}");
        return Err(write.forbidden(&format!("node {node:?} {why}")));
    }
    let Some(old) = write.old else { return Ok(()) };
    let none = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    let differs = |a: &Value, b: &Value| a != b && !(none(a) && none(b));
    // Through the status the spec stays as it is, whatever is sent.
    if subresource.is_none() && differs(&old["spec"]["taints"], &write.new["spec"]["taints"]) {
        return Err(write.forbidden(&format!("node {node:?} is not allowed to modify taints")));
    }
    if differs(&old["metadata"]["ownerReferences"], &write.new["metadata"]["ownerReferences"]) {
        return Err(write.forbidden(&format!("node {node:?} is not allowed to modify ownerReferences")));
    }
    Ok(())
}

fn is_guarded(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within =
        |outer: &str| domain.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    GUARDED.iter().any(|outer| within(outer))
        && !OWN_LABELS.contains(&label)
        && !OWN_DOMAINS.iter().any(|outer| within(outer))
}

/// Whether a user, if it is a node, may make a pod go.
pub(crate) async fn check_pod(
    server: &ApiServer,
    user: &User,
    act: &str,
    namespace: &str,
    name: &str,
) -> Answer<()> {
    let Some(node) = name_of(user) else { return Ok(()) };
    if runs(server, node, Some(namespace), Some(name)).await {
        return Ok(());
    }
    let why = format!("node {node:?} can only {act} pods with spec.nodeName set to itself");
    Err(portolan_api::status::forbidden(&PODS, name, &why).into())
}

/// Whether the pod is the node's. One that is not there is anybody's: the answer is that it is not there.
async fn runs(server: &ApiServer, node: &str, namespace: Option<&str>, name: Option<&str>) -> bool {
    let (Some(namespace), Some(name)) = (namespace, name) else { return false };
    match server.store().get(&PODS.key(namespace, name)).await {
        Ok((Some(kv), _)) => object::to_value(&kv).is_ok_and(|pod| pod["spec"]["nodeName"] == *node),
        Ok((None, _)) => true,
        Err(_) => false,
    }
}

/// Whether a pod of the node uses the secret or config map.
async fn used(server: &ApiServer, node: &str, resource: &str, namespace: &str, name: &str) -> bool {
    let Ok(page) = server.store().list(&PODS.key_prefix(Some(namespace)), None, 0, None).await else {
        return false;
    };
    // Most pods are of other nodes or of another name: they need not be read.
    let quoted = [format!("\"{node}\""), format!("\"{name}\"")];
    let says = |kv: &&KeyValue| {
        std::str::from_utf8(&kv.value).is_ok_and(|text| quoted.iter().all(|word| text.contains(word)))
    };
    let mut pods = page.items.iter().filter(says).filter_map(|kv| object::to_value(kv).ok());
    pods.any(|pod| pod["spec"]["nodeName"] == *node && refers(&pod, resource, name))
}

/// Whether a pod uses a secret or config map of that name, anywhere in its spec.
fn refers(pod: &Value, resource: &str, name: &str) -> bool {
    let keys: &[&str] = if resource == "secrets" {
        &["secret", "secretRef", "secretKeyRef"]
    } else {
        &["configMap", "configMapRef", "configMapKeyRef"]
    };
    let mut todo = vec![&pod["spec"]];
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let named = keys.contains(&key.as_str())
                        && (value["name"] == *name || value["secretName"] == *name);
                    let pulls = resource == "secrets" && key == "imagePullSecrets";
                    let pulled = || value.as_array().into_iter().flatten().any(|item| item["name"] == *name);
                    if named || (pulls && pulled()) {
                        return true;
                    }
                    todo.push(value);
                }
            }
            Value::Array(list) => todo.extend(list),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_wherever_they_are() {
        let pod = json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "volumes": [{"secret": {"secretName": "vol"}}, {"configMap": {"name": "conf"}},
                {"projected": {"sources": [{"secret": {"name": "proj"}}]}}],
            "containers": [{"envFrom": [{"secretRef": {"name": "env"}}],
                "env": [{"valueFrom": {"configMapKeyRef": {"name": "key", "key": "k"}}}]}],
        }});
        for name in ["pull", "vol", "proj", "env"] {
            assert!(refers(&pod, "secrets", name), "{name}");
            assert!(!refers(&pod, "configmaps", name), "{name}");
        }
        for name in ["conf", "key"] {
            assert!(refers(&pod, "configmaps", name) && !refers(&pod, "secrets", name), "{name}");
        }
    }

    #[test]
    fn only_users_of_the_group_are_nodes() {
        assert_eq!(name_of(&User::new("system:node:n1", ["system:nodes"])), Some("n1"));
        assert_eq!(name_of(&User::new("system:node:n1", [""; 0])), None);
        assert_eq!(name_of(&User::new("system:node:", ["system:nodes"])), None);
    }

    fn answer(
        resource: &'static portolan_api::resource::Resource,
        subresource: Option<&str>,
        namespace: Option<&str>,
        old: Option<&Value>,
        new: &Value,
    ) -> String {
        let node = User::new("system:node:n1", ["system:nodes"]);
        let name = old.and_then(|old| meta(old, "name"));
        let written = Written { resource, namespace, name, old, new };
        match check(&node, subresource, written) {
            Ok(()) => "yes".into(),
            Err(error) => error.0.message.split_once(": ").unwrap_or_default().1.to_string(),
        }
    }

    #[test]
    fn a_node_writes_itself_and_nothing_that_others_decide() {
        use portolan_api::resource::NODES;
        let own = json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1", "a": "b"}}});
        let other = json!({"metadata": {"name": "n2"}});
        assert_eq!(answer(&NODES, None, None, None, &own), "yes");
        assert_eq!(
            answer(&NODES, None, None, None, &other),
            "node \"n1\" is not allowed to modify node \"n2\""
        );
        assert_eq!(
            answer(&NODES, Some("status"), None, Some(&other), &other),
            "node \"n1\" is not allowed to modify node \"n2\""
        );
        let mut labelled = own.clone();
        labelled["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = "".into();
        labelled["metadata"]["labels"]["x.node.kubernetes.io/own"] = "".into();
        assert_eq!(
            answer(&NODES, None, None, Some(&own), &labelled),
            "node \"n1\" is not allowed to modify the following labels: node-role.kubernetes.io/control-plane"
        );
        let mut tainted = own.clone();
        tainted["spec"] = json!({"taints": []});
        assert_eq!(answer(&NODES, None, None, Some(&own), &tainted), "yes");
        tainted["spec"]["taints"] = json!([{"key": "k"}]);
        assert_eq!(
            answer(&NODES, None, None, Some(&own), &tainted),
            "node \"n1\" is not allowed to modify taints"
        );
        assert_eq!(answer(&NODES, Some("status"), None, Some(&own), &tainted), "yes");
        let (mut old, mut stale) = (own.clone(), tainted.clone());
        old["metadata"]["resourceVersion"] = "8".into();
        stale["metadata"]["resourceVersion"] = "7".into();
        assert_eq!(answer(&NODES, None, None, Some(&old), &stale), "yes", "a conflict comes of it");
    }

    #[test]
    fn a_node_writes_its_own_leases_and_the_status_of_its_own_pods() {
        use portolan_api::resource::LEASES as KIND;
        let named = |name: &str| json!({"metadata": {"name": name}});
        let only = "can only access node lease with the same name as the requesting node";
        assert_eq!(answer(&KIND, None, Some(LEASES), None, &named("n1")), "yes");
        assert_eq!(answer(&KIND, None, Some(LEASES), None, &named("n2")), only);
        assert_eq!(answer(&KIND, None, Some("kube-system"), None, &named("portolan-announcer-n1")), "yes");
        assert_eq!(answer(&KIND, None, Some("kube-system"), None, &named("portolan-controllers")), only);
        let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
        let status = |old: &Value, new: &Value| answer(&PODS, Some("status"), Some("d"), Some(old), new);
        assert_eq!(status(&pod("n1"), &pod("n1")), "yes");
        assert_eq!(
            status(&pod("n2"), &pod("n1")),
            "node \"n1\" can only update pod status for pods with spec.nodeName set to itself"
        );
        let mut labelled = pod("n1");
        labelled["metadata"]["labels"] = json!({"app": "x"});
        assert_eq!(status(&pod("n1"), &labelled), "node \"n1\" cannot update labels through pod status");
    }
}
