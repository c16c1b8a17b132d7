//! A server with a store of its own on a loopback port, and kube clients for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use portolan_apiserver::pki::{Identity, Pki};
use portolan_apiserver::{ApiServer, serve, tls};
use portolan_store::Store;
use portolan_store::embedded::Embedded;
use tokio::net::TcpListener;

/// Far more than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    port: u16,
    running: Option<Running>,
}

struct Running {
    store: Arc<dyn Store>,
    stop: tokio::sync::oneshot::Sender<()>,
    done: tokio::task::JoinHandle<()>,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut cluster = Self { dir, port: 0, running: None };
        cluster.run().await;
        cluster
    }

    async fn run(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        let config = portolan_apiserver::Config::new("192.0.2.1".parse().unwrap(), self.port);
        let pki = Pki::open(&self.dir.path().join("pki")).unwrap();
        let addresses = [config.first_service_address().unwrap()];
        let tls = tls::server_config(&pki.server(&[], &addresses).unwrap(), pki.ca_pem()).unwrap();
        let url = format!("https://127.0.0.1:{}", self.port);
        pki.write_kubeconfig(&self.kubeconfig(), &url, &Identity::admin()).unwrap();
        let store: Arc<dyn Store> = Arc::new(Embedded::open(self.dir.path().join("store")).unwrap());
        let server = ApiServer::start(config, store.clone()).await.unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let done = tokio::spawn(serve(server, listener, tls, async { drop(stopped.await) }));
        self.running = Some(Running { store, stop, done });
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Ends the server and starts another on the same store and port.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    pub(crate) async fn stop(&mut self) {
        let Some(Running { store, stop, done }) = self.running.take() else { return };
        let _ = stop.send(());
        done.await.unwrap();
        // The last one closes the file, which the next one opens.
        let weak = Arc::downgrade(&store);
        drop(store);
        until("the store is closed", || weak.strong_count() == 0).await;
    }

    pub(crate) async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    pub(crate) async fn config_maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client().await)
    }
}

/// A config map with one value.
pub(crate) fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "labels": {"app": "test"}}, "data": {"value": value},
    }))
    .unwrap()
}

pub(crate) async fn create(api: &Api<ConfigMap>, name: &str, value: &str) -> ConfigMap {
    api.create(&PostParams::default(), &config_map(name, value)).await.unwrap()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !so() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not so after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Cluster {
    /// Starts again after a stop; before anybody is served, `name` is deleted and the past forgotten.
    pub(crate) async fn restart_with_gap(&mut self, name: &str) {
        let key = format!("/registry/configmaps/default/{name}");
        {
            let store = Embedded::open(self.dir.path().join("store")).unwrap();
            store.commit(portolan_store::Txn::new().delete(key.as_str())).await.unwrap();
            let now = store.revision().await.unwrap();
            store.compact(now).await.unwrap();
        }
        self.run().await;
    }
}
