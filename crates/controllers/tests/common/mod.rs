//! What tests of controllers at work against an API server in memory share.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use portolan_client::{Body, Client, Transport};
use portolan_controllers::Config;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// All controllers, until it is dropped.
pub(crate) struct Running(JoinHandle<()>);

impl Running {
    pub(crate) fn start(transport: impl Transport, config: Config) -> Self {
        let client = Client::from_transport(Arc::new(transport), "controllers");
        Self(tokio::spawn(portolan_controllers::run(client, config, std::future::pending())))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Nodes are given an hour before they count as gone: nobody renews their leases.
pub(crate) fn config() -> Config {
    Config { node_grace: Duration::from_hours(1), ..Config::default() }
}

/// Waits until the condition holds; on failure says what was there instead.
pub(crate) async fn eventually<T: Debug>(what: &str, look: impl Fn() -> Result<(), T>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Err(found) = look() {
        assert!(Instant::now() < deadline, "{what}: {found:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) fn answer(code: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = code;
    response
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "metadata": { "name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.10", "ipFamilies": ["IPv4"], "selector": { "app": name },
            "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 8080 }],
        },
    })
}
