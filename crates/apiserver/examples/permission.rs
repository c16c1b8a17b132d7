//! What a decision by roles costs: a small read as the administrator, who may do everything, and as users of roles, in a
//! cluster with as many bindings as given (1,000 unless said otherwise).
//!
//! `cargo run --release -p portolan-apiserver --example permission [BINDINGS]`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot set up its world must stop")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request};
use portolan_apiserver::{ApiServer, Config, User};
use portolan_store::embedded::Embedded;
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;
const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const READ: &str = "/api/v1/namespaces/default/serviceaccounts/default";

async fn send(server: &Arc<ApiServer>, user: &User, method: Method, path: &str, body: &Value) -> u16 {
    let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(user.clone());
    server.handle(request).await.status().as_u16()
}

async fn measure(server: &Arc<ApiServer>, user: &User, path: &str, code: u16) -> f64 {
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(send(server, user, Method::GET, path, &Value::Null).await, code);
    }
    begin.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let count: u32 = std::env::args().nth(1).map_or(1_000, |text| text.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path()).unwrap());
    let config = Config::new(IpAddr::from([192, 0, 2, 1]), 6443);
    let server = ApiServer::start(config, store).await.unwrap();
    let admin = User::new("admin", ["system:masters"]);
    let create = async |number: u32| {
        let binding = json!({
            "metadata": { "name": format!("b{number}") },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
            "subjects": [{ "kind": "User", "name": format!("user-{number}") }],
        });
        assert_eq!(send(&server, &admin, Method::POST, BINDINGS, &binding).await, 201);
    };
    let mut number = 0;
    while number < count {
        let end = (number + 64).min(count);
        futures_util::future::join_all((number..end).map(&create)).await;
        number = end;
    }
    println!("{count} bindings of other users; microseconds per request, of {ROUNDS}");
    let user = User::new("user-0", ["dev", "ops"]);
    let controllers = User::new("system:kube-controller-manager", [""; 0]);
    let nobody = User::new("nobody", ["dev"]);
    for (who, user, code) in [
        ("administrator", &admin, 200),
        ("view", &user, 200),
        ("controllers", &controllers, 200),
        ("refused", &nobody, 403),
    ] {
        println!("{who:>14} {:8.2}", measure(&server, user, READ, code).await);
    }
}
