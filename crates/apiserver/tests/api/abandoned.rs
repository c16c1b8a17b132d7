//! Clients that go away while their writes are under way, a store that cannot say what became of a write, and one in which
//! every name is taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode};
use portolan_apiserver::{ApiServer, Config};
use portolan_store::embedded::Embedded;
use portolan_store::{Commit, Error, KeyValue, Op, Page, Revision, Store, Txn, Watch};
use serde_json::json;
use tokio::sync::watch;

use crate::common::{PATIENCE, admin, reply};

/// A store that carries out writes of Services when the gate opens, whether or not anybody waits for them; or at once,
/// and then cannot say so.
struct Gated {
    inner: Arc<Embedded>,
    open: watch::Sender<bool>,
    forgetful: AtomicBool,
    /// Writes of what is called [`CROWDED`], all of which find their name taken.
    crowd: AtomicUsize,
}

const CROWDED: &str = "/registry/configmaps/default/crowd-";

impl Store for Gated {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<(Option<KeyValue>, Revision), Error>> {
        self.inner.get(key)
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<Page, Error>> {
        self.inner.list(prefix, after, limit, at)
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Commit, Error>> {
        if let Some(op) = txn.ops.iter().find(|op| op.key().starts_with(CROWDED)) {
            self.crowd.fetch_add(1, Ordering::SeqCst);
            let key = op.key().clone();
            let value = Bytes::from_static(br#"{"metadata":{}}"#);
            let other = KeyValue { key: key.clone(), value, create_revision: 1, mod_revision: 1 };
            return async { Ok(Commit::Conflict { current: vec![(key, Some(other))] }) }.boxed();
        }
        let service = |op: &Op| op.key().starts_with("/registry/services/specs/");
        if !txn.ops.iter().any(service) {
            return self.inner.commit(txn);
        }
        let (inner, mut open) = (self.inner.clone(), self.open.subscribe());
        let task = tokio::spawn(async move {
            let _ = open.wait_for(|open| *open).await;
            inner.commit(txn).await
        });
        let forgetful = self.forgetful.load(Ordering::SeqCst);
        async move {
            let outcome = task.await.expect("commits");
            if forgetful { Err(Error::Unknown("forgotten".into())) } else { outcome }
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, Error>> {
        self.inner.watch(prefix, after)
    }

    fn revision(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        self.inner.revision()
    }

    fn compact(&self, before: Revision) -> BoxFuture<'_, Result<(), Error>> {
        self.inner.compact(before)
    }
}

/// A server with a single node port to give.
async fn start() -> (tempfile::TempDir, Arc<Gated>, Arc<ApiServer>) {
    let dir = tempfile::tempdir().unwrap();
    let inner = Arc::new(Embedded::open(dir.path()).unwrap());
    let store = Arc::new(Gated {
        inner,
        open: watch::Sender::new(true),
        forgetful: AtomicBool::new(false),
        crowd: AtomicUsize::new(0),
    });
    let config = Config { node_ports: 30000..=30000, ..Config::new([192, 0, 2, 1].into(), 6443) };
    let server = ApiServer::start(config, store.clone()).await.unwrap();
    (dir, store, server)
}

fn create(name: &str) -> Request<Bytes> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "type": "NodePort", "ports": [{ "port": 80 }] },
    });
    let mut request = Request::new(Bytes::from(service.to_string()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/api/v1/namespaces/default/services".parse().unwrap();
    request.headers_mut().insert("content-type", "application/json".parse().unwrap());
    request.extensions_mut().insert(admin());
    request
}

async fn until_stored(store: &Gated, name: &str) {
    let key = format!("/registry/services/specs/default/{name}");
    let stored = async {
        while store.get(&key).await.unwrap().0.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("it is stored");
}

#[tokio::test]
async fn the_port_of_a_service_whose_client_has_gone_is_not_given_again() {
    let (_dir, store, server) = start().await;
    store.open.send_replace(false);
    let mut request = server.handle(create("a"));
    // Until the write is at the store; then the client goes.
    let reserved = async {
        while store.open.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut request => panic!("the gate is closed"),
        () = reserved => {}
    }
    drop(request);
    store.open.send_replace(true);
    until_stored(&store, "a").await;
    for _ in 0..20 {
        let response = server.handle(create("b")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "the only port is taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_port_of_a_service_that_may_have_been_written_is_not_given_again() {
    let (_dir, store, server) = start().await;
    store.forgetful.store(true, Ordering::SeqCst);
    let response = server.handle(create("a")).await;
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    store.forgetful.store(false, Ordering::SeqCst);
    until_stored(&store, "a").await;
    for _ in 0..20 {
        let response = server.handle(create("b")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "the only port is taken");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn eight_generated_names_are_tried() {
    let (_dir, store, server) = start().await;
    let mut request = create("");
    *request.uri_mut() = "/api/v1/namespaces/default/configmaps".parse().unwrap();
    *request.body_mut() = json!({ "metadata": { "generateName": "crowd-" } }).to_string().into();
    let (code, reason, message) = reply(server.handle(request).await).await.refusal();
    assert_eq!((code, &*reason, store.crowd.load(Ordering::SeqCst)), (409, "AlreadyExists", 8));
    let end = "already exists, the server was not able to generate a unique name for the object";
    assert!(message.starts_with("configmaps \"crowd-") && message.ends_with(end), "{message}");
}
