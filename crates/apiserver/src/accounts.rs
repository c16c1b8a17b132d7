//! Service accounts where Kubernetes has them: `default` in every namespace, the authority's certificate beside it, and in
//! every pod the account, its token and that certificate.
//!
//! Tokens themselves are [`crate::tokens`]'; nodes ask for them and put them into containers.

use std::sync::Weak;

use futures_util::stream::{SelectAll, StreamExt as _, unfold};
use portolan_api::resource::{CONFIG_MAPS, NAMESPACES, Resource, SERVICE_ACCOUNTS};
use portolan_api::status;
use portolan_store::Event;
use serde_json::{Map, Value, json};

use crate::errors::Result;
use crate::limits::{ACCOUNTS_RETRY_PAUSE, POD_TOKEN_SECONDS};
use crate::metadata::generate_name;
use crate::object::{self, meta};
use crate::server::ApiServer;
use crate::write::{At, Part};

const DEFAULT: &str = "default";
/// Where pods find the authority's certificate.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";
/// Where clients in pods look for their access.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME: &str = "kube-api-access-";

/// Makes what every namespace has. Not when the namespace is going: what fails for that reason is no failure.
pub(crate) async fn furnish(server: &ApiServer, namespace: &str) -> Result<()> {
    let metadata = |name: &str| json!({ "name": name, "namespace": namespace });
    let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(DEFAULT) });
    make(server, &SERVICE_ACCOUNTS, account).await?;
    let certificate = &server.config().root_ca;
    if certificate.is_empty() {
        return Ok(());
    }
    let mut about = metadata(ROOT_CA);
    about["annotations"] = json!({
        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
    });
    let data = json!({ "ca.crt": certificate });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data });
    make(server, &CONFIG_MAPS, map).await?;
    renew(server, namespace, certificate).await
}

/// The authority's certificate is another when it was renewed.
async fn renew(server: &ApiServer, namespace: &str, certificate: &str) -> Result<()> {
    let at = At { resource: &CONFIG_MAPS, namespace, name: ROOT_CA };
    let Some(kv) = server.store().get(&at.key()).await?.0 else { return Ok(()) };
    if object::to_value(&kv)?["data"]["ca.crt"] == certificate {
        return Ok(());
    }
    let change = &mut |old: &Value| {
        let mut new = old.clone();
        new["data"] = json!({ "ca.crt": certificate });
        Ok(new)
    };
    match server.change(at, Part::Main, false, &mut Vec::new(), change).await {
        Err(error) if !error.is("NotFound") => Err(error),
        _ => Ok(()),
    }
}

async fn make(server: &ApiServer, resource: &'static Resource, object: Value) -> Result<()> {
    let text = |field| meta(&object, field).unwrap_or_default();
    let key = resource.key(text("namespace"), text("name"));
    if server.store().get(&key).await?.0.is_some() {
        return Ok(());
    }
    match server.insert(resource, object, false, &mut Vec::new()).await {
        Err(error) if ["AlreadyExists", "NotFound", "Forbidden"].iter().any(|reason| error.is(reason)) => {
            Ok(())
        }
        made => made.map(drop),
    }
}

/// Furnishes every namespace, and again what somebody deletes, until the server goes. Every server of a cluster may run
/// this: what is there stays as it is.
pub(crate) async fn run(server: Weak<ApiServer>) {
    loop {
        let Some(strong) = server.upgrade() else { return };
        let mut stopped = strong.stopped();
        let outcome = tokio::select! {
            outcome = follow(&strong) => outcome,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        drop(strong);
        if let Err(error) = outcome {
            tracing::warn!(error = %error.0.message, "service accounts cannot be followed; trying again");
        }
        tokio::time::sleep(ACCOUNTS_RETRY_PAUSE).await;
    }
}

async fn follow(server: &ApiServer) -> Result<()> {
    let page = server.store().list(&NAMESPACES.key_prefix(None), None, 0, None).await?;
    let mut watches = SelectAll::new();
    for resource in [&NAMESPACES, &SERVICE_ACCOUNTS, &CONFIG_MAPS] {
        let watch = server.store().watch(&resource.key_prefix(None), page.revision).await?;
        let events = unfold(watch, |mut watch| async move { Some((watch.next().await?, watch)) });
        watches.push(Box::pin(events));
    }
    for kv in &page.items {
        furnish(server, kv.key.rsplit('/').next().unwrap_or_default()).await?;
    }
    while let Some(events) = watches.next().await {
        for event in &*events? {
            if let Some(namespace) = bare(event) {
                furnish(server, namespace).await?;
            }
        }
    }
    Ok(())
}

/// The namespace that an event leaves without something: it is new, or what it had was deleted.
fn bare(event: &Event) -> Option<&str> {
    let key = event.key.strip_prefix("/registry/")?;
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["namespaces", name] if event.value.is_some() && event.previous.is_none() => Some(name),
        ["serviceaccounts", namespace, DEFAULT] | ["configmaps", namespace, ROOT_CA]
            if event.value.is_none() =>
        {
            Some(namespace)
        }
        _ => None,
    }
}

/// Gives a new pod its service account, and access to the API where pod and account do not refuse it.
pub(crate) async fn admit(server: &ApiServer, pod: &mut Value) -> Result<()> {
    let (namespace, name) = (text(pod, "namespace"), text(pod, "name"));
    let Some(spec) = pod.get_mut("spec").and_then(Value::as_object_mut) else { return Ok(()) };
    let account = spec.get("serviceAccountName").and_then(Value::as_str).unwrap_or_default();
    let account = if account.is_empty() { DEFAULT.to_string() } else { account.to_string() };
    for field in ["serviceAccountName", "serviceAccount"] {
        spec.insert(field.into(), account.clone().into());
    }
    let key = SERVICE_ACCOUNTS.key(&namespace, &account);
    let mut found = server.store().get(&key).await?.0;
    if found.is_none() && account == DEFAULT {
        // The namespace is so new that nobody has come by.
        furnish(server, &namespace).await?;
        found = server.store().get(&key).await?.0;
    }
    let Some(kv) = found else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
        );
        return Err(status::forbidden(&portolan_api::resource::PODS, &name, &why).into());
    };
    let wish = |object: &Value| object.get("automountServiceAccountToken").and_then(Value::as_bool);
    let automount = spec.get("automountServiceAccountToken").and_then(Value::as_bool);
    let automount = match automount {
        Some(automount) => automount,
        None => wish(&object::to_value(&kv)?).unwrap_or(true),
    };
    if automount && server.config().token_keys.is_some() {
        mount(spec);
    }
    Ok(())
}

fn text(object: &Value, field: &str) -> String {
    meta(object, field).unwrap_or_default().to_string()
}

/// Mounts the volume with the token into every container that has nothing else there.
fn mount(spec: &mut Map<String, Value>) {
    let volume = generate_name(VOLUME);
    let mut mounted = false;
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(json!({ "name": volume, "mountPath": MOUNT_PATH, "readOnly": true }));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    let own = json!({ "apiVersion": "v1", "fieldPath": "metadata.namespace" });
    let sources = json!([
        { "serviceAccountToken": { "path": "token", "expirationSeconds": POD_TOKEN_SECONDS } },
        { "configMap": { "name": ROOT_CA, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": own }] } },
    ]);
    let volume = json!({ "name": volume, "projected": { "defaultMode": 0o644, "sources": sources } });
    if let Some(volumes) = spec.entry("volumes").or_insert_with(|| json!([])).as_array_mut() {
        volumes.push(volume);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_get_the_token_unless_something_is_there() {
        let own = json!([{"name": "own", "mountPath": MOUNT_PATH}]);
        let mut spec = json!({"containers": [{"name": "a"}, {"name": "b", "volumeMounts": own}]});
        mount(spec.as_object_mut().unwrap());
        let volume = spec["volumes"][0]["name"].as_str().unwrap();
        assert!(volume.starts_with(VOLUME) && volume.len() == VOLUME.len() + 5);
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
        assert_eq!(spec["containers"][1]["volumeMounts"], own);
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 1);
        let mut spec = json!({"containers": [{"name": "b", "volumeMounts": own}]});
        mount(spec.as_object_mut().unwrap());
        assert!(spec.get("volumes").is_none());
    }
}
