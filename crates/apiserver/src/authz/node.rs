//! What one node may do that its roles do not say: write itself, its own pods and its own lease, and read the secrets
//! and config maps of its own pods.

use portolan_api::resource::PODS;
use serde_json::Value;

use super::Attributes;
use crate::authn::User;
use crate::object::{self, meta};
use crate::server::ApiServer;

const PREFIX: &str = "system:node:";
const LEASES: &str = "kube-node-lease";

/// The node that a user is, if it is one.
pub(crate) fn name_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(PREFIX).filter(|name| !name.is_empty() && user.in_group("system:nodes"))
}

/// Whether the node may do it for what it is.
pub(crate) async fn allows(server: &ApiServer, node: &str, what: Attributes<'_>) -> bool {
    let Attributes::Resource { verb, group, resource, subresource, namespace, name } = what else {
        return false;
    };
    let edits = matches!(verb, "create" | "update" | "patch");
    let own = name == Some(node) || (verb == "create" && name.is_none());
    match (group, resource, subresource) {
        ("", "nodes", None | Some("status")) => edits && own,
        ("coordination.k8s.io", "leases", None) => {
            namespace == Some(LEASES) && own && (edits || matches!(verb, "get" | "delete"))
        }
        ("", "pods", Some("status")) if edits => runs(server, node, namespace, name).await,
        ("", "pods", None) if verb == "delete" => runs(server, node, namespace, name).await,
        ("", "pods", Some("eviction")) if verb == "create" => runs(server, node, namespace, name).await,
        ("", "secrets" | "configmaps", None) if verb == "get" => {
            some_pod(server, node, namespace, |pod| name.is_some_and(|name| refers(pod, resource, name)))
                .await
        }
        ("", "serviceaccounts", Some("token")) if verb == "create" => {
            let account = |pod: &Value| pod["spec"]["serviceAccountName"].as_str() == name;
            some_pod(server, node, namespace, account).await
        }
        _ => false,
    }
}

/// A new object whose name the path does not say: it must be the node's own. The error is the text for the client.
pub(crate) fn may_create(user: &User, resource: &str, namespace: &str, object: &Value) -> Result<(), String> {
    let Some(node) = name_of(user) else { return Ok(()) };
    let own = meta(object, "name") == Some(node);
    match resource {
        "nodes" if !own => {
            let name = meta(object, "name").unwrap_or_default();
            Err(format!("node {node:?} is not allowed to modify node {name:?}"))
        }
        "leases" if namespace == LEASES && !own => {
            Err("can only access node lease with the same name as the requesting node".into())
        }
        _ => Ok(()),
    }
}

async fn runs(server: &ApiServer, node: &str, namespace: Option<&str>, name: Option<&str>) -> bool {
    let (Some(namespace), Some(name)) = (namespace, name) else { return false };
    let Ok((Some(kv), _)) = server.store().get(&PODS.key(namespace, name)).await else {
        // Nothing to write to: the answer is that it is not there.
        return true;
    };
    object::to_value(&kv).is_ok_and(|pod| pod["spec"]["nodeName"] == *node)
}

async fn some_pod(
    server: &ApiServer,
    node: &str,
    namespace: Option<&str>,
    fits: impl Fn(&Value) -> bool,
) -> bool {
    let Some(namespace) = namespace else { return false };
    let Ok(page) = server.store().list(&PODS.key_prefix(Some(namespace)), None, 0, None).await else {
        return false;
    };
    let pods = page.items.iter().filter_map(|kv| object::to_value(kv).ok());
    pods.into_iter().any(|pod| pod["spec"]["nodeName"] == *node && fits(&pod))
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
        let node = User::new("system:node:n1", ["system:nodes"]);
        assert!(may_create(&node, "nodes", "", &json!({"metadata": {"name": "n1"}})).is_ok());
        assert!(may_create(&node, "nodes", "", &json!({"metadata": {"name": "n2"}})).is_err());
        assert!(may_create(&node, "leases", LEASES, &json!({"metadata": {"name": "n2"}})).is_err());
        assert!(may_create(&node, "leases", "kube-system", &json!({"metadata": {"name": "x"}})).is_ok());
    }
}
