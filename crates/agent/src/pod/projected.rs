//! Projected volumes: a pod's token, the authority's certificate, and what the pod says of itself, as files in a directory
//! that containers find where they mount it. Tokens are renewed long before they end.
//!
//! Other kinds of volumes are not served; what mounts them finds the node's files.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use portolan_api::core::v1::{ConfigMap, Container, Pod, Volume};
use portolan_client::{Client, paths};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::process::Mounts;
use crate::state_dir::PodDir;

/// Where every container looks for access to the API. The node gets an empty directory there, to mount on.
const ACCESS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Kubernetes' own choice: a token is renewed after so much of its life, and at the latest after so long.
const RENEW_AFTER: f64 = 0.8;
const RENEW_AFTER_MAX: Duration = Duration::from_hours(24);
/// What a token lives that says nothing of it.
const SECONDS_DEFAULT: u64 = 3600;
/// Pause after a renewal that failed. There is a fifth of the token's life for it.
const RENEW_RETRY: Duration = Duration::from_secs(15);

/// The volumes of one pod. Dropped, it renews nothing any more.
#[derive(Debug, Default)]
pub(crate) struct Projected {
    /// By volume.
    dirs: Vec<(String, PathBuf)>,
    renewal: Option<JoinHandle<()>>,
}

impl Drop for Projected {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

impl Projected {
    /// Fetches and writes everything. The error is for the user.
    pub(crate) async fn make(client: &Client, pod: &Arc<Pod>, dir: &PodDir) -> Result<Self, String> {
        let mut made = Self::default();
        for volume in pod.spec.volumes.iter().filter(|volume| volume.projected.is_some()) {
            let path = dir.volume(&volume.name);
            let ready = fs::create_dir_all(&path).and_then(|()| path.canonicalize());
            let path = ready.map_err(|error| failed(volume, &error))?;
            made.dirs.push((volume.name.clone(), path));
        }
        let renew = write_all(client, pod, &made.dirs).await?;
        if let Some(wait) = renew {
            let (client, pod, dirs) = (client.clone(), pod.clone(), made.dirs.clone());
            made.renewal = Some(tokio::spawn(keep(client, pod, dirs, wait)));
        }
        Ok(made)
    }

    /// What a container finds, besides what every container of the pod finds.
    pub(crate) fn mounts(&self, container: &Container, common: &Arc<Mounts>) -> Arc<Mounts> {
        let mut mounts = (**common).clone();
        let mut own = false;
        for mount in &container.volume_mounts {
            let Some((_, dir)) = self.dirs.iter().find(|(name, _)| *name == mount.name) else { continue };
            if mount.mount_path == ACCESS {
                // Without it there is nothing to mount on, and the container does without, as without any directory.
                drop(fs::create_dir_all(ACCESS));
            }
            own |= mounts.add(dir, &mount.mount_path).is_ok();
        }
        if own { Arc::new(mounts) } else { common.clone() }
    }
}

/// Renews until it is aborted.
async fn keep(client: Client, pod: Arc<Pod>, dirs: Vec<(String, PathBuf)>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        wait = match write_all(&client, &pod, &dirs).await {
            Ok(Some(next)) => next,
            Ok(None) => return,
            Err(error) => {
                let meta = &pod.metadata;
                tracing::warn!(namespace = %meta.namespace, pod = %meta.name, %error, "cannot renew a token");
                RENEW_RETRY
            }
        };
    }
}

/// Writes all volumes; gives the time until some token is to be renewed.
async fn write_all(
    client: &Client,
    pod: &Pod,
    dirs: &[(String, PathBuf)],
) -> Result<Option<Duration>, String> {
    let mut renew: Option<Duration> = None;
    for (name, dir) in dirs {
        let Some(volume) = pod.spec.volumes.iter().find(|volume| volume.name == *name) else { continue };
        let sources = volume.projected.as_ref().and_then(|projected| projected["sources"].as_array());
        for source in sources.into_iter().flatten() {
            let wait = write(client, pod, dir, source).await.map_err(|error| failed(volume, &error))?;
            renew = [renew, wait].into_iter().flatten().min();
        }
    }
    Ok(renew)
}

fn failed(volume: &Volume, error: &dyn std::fmt::Display) -> String {
    format!("MountVolume.SetUp failed for volume {:?} : {error}", volume.name)
}

/// One source of a volume.
async fn write(client: &Client, pod: &Pod, dir: &Path, source: &Value) -> Result<Option<Duration>, String> {
    let namespace = Some(pod.metadata.namespace.as_str());
    if let Some(wish) = source.get("serviceAccountToken") {
        let account = &pod.spec.service_account_name;
        let request = token_request(pod, wish);
        let answer: Value = client
            .act(&paths::SERVICE_ACCOUNTS, namespace, account, "token", &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        let token = answer["status"]["token"].as_str().unwrap_or_default();
        put(dir, wish["path"].as_str().unwrap_or("token"), token)?;
        // The server may give it another life than was asked for.
        let asked = || wish["expirationSeconds"].as_u64().unwrap_or(SECONDS_DEFAULT);
        let seconds = answer["spec"]["expirationSeconds"].as_u64().unwrap_or_else(asked);
        let wait = Duration::from_secs(seconds).mul_f64(RENEW_AFTER).min(RENEW_AFTER_MAX);
        return Ok(Some(wait));
    }
    if let Some(wish) = source.get("configMap") {
        let name = wish["name"].as_str().unwrap_or_default();
        let map = match client.get::<ConfigMap>(&paths::CONFIG_MAPS, namespace, name).await {
            Err(error) if error.is_not_found() && wish["optional"] == true => return Ok(None),
            found => found.map_err(|error| format!("configmap {name:?}: {error}"))?,
        };
        let Some(items) = wish["items"].as_array() else {
            return map.data.iter().try_for_each(|(key, text)| put(dir, key, text)).map(|()| None);
        };
        for item in items {
            let key = item["key"].as_str().unwrap_or_default();
            let text = map.data.get(key);
            let text = text.ok_or_else(|| format!("references non-existent config key: {key}"))?;
            put(dir, item["path"].as_str().unwrap_or(key), text)?;
        }
    }
    for item in source["downwardAPI"]["items"].as_array().into_iter().flatten() {
        let field = item["fieldRef"]["fieldPath"].as_str().unwrap_or_default();
        let text = match field {
            "metadata.name" => &pod.metadata.name,
            "metadata.namespace" => &pod.metadata.namespace,
            "metadata.uid" => &pod.metadata.uid,
            other => return Err(format!("field {other:?} cannot be projected")),
        };
        put(dir, item["path"].as_str().unwrap_or_default(), text)?;
    }
    Ok(None)
}

fn token_request(pod: &Pod, wish: &Value) -> Value {
    let meta = &pod.metadata;
    let mut request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "expirationSeconds": wish["expirationSeconds"].as_u64().unwrap_or(SECONDS_DEFAULT),
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid },
        },
    });
    if let Some(audience) = wish["audience"].as_str().filter(|audience| !audience.is_empty()) {
        request["spec"]["audiences"] = json!([audience]);
    }
    request
}

/// Writes a file whole: a reader sees the old text or the new one.
fn put(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    let relative = Path::new(name);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !plain {
        return Err(format!("path {name:?} leads out of the volume"));
    }
    let path = dir.join(relative);
    let fresh = path.with_file_name(format!(".{}.new", relative.file_name().unwrap_or_default().display()));
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = made.and_then(|()| fs::write(&fresh, text)).and_then(|()| fs::rename(&fresh, &path));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use futures_util::future::{BoxFuture, ready};
    use http_body_util::{BodyExt as _, Full};
    use portolan_client::{Body, Error, Key, Transport};

    use super::*;
    use crate::state_dir::StateDir;

    /// Answers each request for a token with a new one, which lives for a second however long one was asked for.
    #[derive(Default)]
    struct Issuer(AtomicUsize);

    impl Transport for Issuer {
        fn call(&self, request: http::Request<Bytes>) -> BoxFuture<'_, Result<http::Response<Body>, Error>> {
            let path = request.uri().path();
            assert!(path.ends_with("/namespaces/ns/serviceaccounts/robot/token"), "{path}");
            let mut answer: Value = serde_json::from_slice(request.body()).unwrap();
            assert_eq!(answer["spec"]["expirationSeconds"], 3607);
            answer["spec"]["expirationSeconds"] = 1.into();
            let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
            answer["status"] = json!({ "token": format!("token-{number}") });
            let body = Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {});
            Box::pin(ready(Ok(http::Response::new(body.boxed_unsync()))))
        }
    }

    /// Changes of a file, until so many were seen.
    async fn versions(file: &Path, count: usize) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        let looking = async {
            while seen.len() < count {
                // It is never missing and never half written.
                let text = fs::read_to_string(file).unwrap();
                if seen.last() != Some(&text) {
                    seen.push(text);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), looking).await.expect("the token is renewed");
        seen
    }

    #[tokio::test]
    async fn a_token_is_renewed_in_its_file_before_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let pod_dir = state.pod(&Key::new("ns", "web"));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "ns", "uid": "u" },
            "spec": { "serviceAccountName": "robot", "containers": [], "volumes": [{
                "name": "access",
                "projected": { "sources": [{ "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } }] },
            }] },
        }))
        .unwrap();
        let issuer = Arc::new(Issuer::default());
        let client = Client::from_transport(issuer.clone(), "test");
        let made = Projected::make(&client, &Arc::new(pod), &pod_dir).await.unwrap();
        let file = pod_dir.volume("access").join("token");
        assert_eq!(versions(&file, 3).await, ["token-1", "token-2", "token-3"]);
        // With the pod ends the renewal.
        drop(made);
        tokio::task::yield_now().await;
        let asked = issuer.0.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(issuer.0.load(Ordering::SeqCst), asked);
    }

    #[test]
    fn files_stay_in_their_volume_and_change_whole() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "a/token", "one").unwrap();
        put(dir.path(), "a/token", "two").unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a/token")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
        for bad in ["", "../x", "/etc/x", "a/../../x"] {
            assert!(put(dir.path(), bad, "x").is_err(), "{bad}");
        }
    }
}
