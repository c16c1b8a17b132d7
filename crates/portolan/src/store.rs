//! Where a control plane keeps its objects: in its data directory, or in etcd.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use portolan_store::Store;
use portolan_store::embedded::Embedded;
use portolan_store::etcd::{Config, Etcd, TlsFiles};

/// Which etcd. The flags are kube-apiserver's.
#[derive(Debug, Clone, Args)]
pub(crate) struct EtcdArguments {
    /// Keep all objects in this etcd, as https://HOST:PORT of each member, and share them with other control planes
    #[arg(long = "etcd-servers", value_delimiter = ',')]
    servers: Vec<String>,
    /// Who signed etcd's certificates (PEM)
    #[arg(long = "etcd-cafile")]
    ca: Option<PathBuf>,
    /// The certificate that etcd knows us by (PEM)
    #[arg(long = "etcd-certfile")]
    certificate: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long = "etcd-keyfile")]
    key: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(long = "etcd-prefix", default_value = "/registry")]
    prefix: String,
}

impl EtcdArguments {
    /// Whether there is an etcd at all.
    pub(crate) fn given(&self) -> bool {
        !self.servers.is_empty()
    }

    /// What keys begin with in etcd; `None` without one.
    pub(crate) fn root(&self) -> Option<String> {
        self.given().then(|| format!("/{}", self.prefix.trim_matches('/')))
    }

    /// Connects under a name that no other process has on this etcd.
    pub(crate) async fn connect(&self, identity: &str) -> anyhow::Result<Arc<Etcd>> {
        let config = Config {
            tls: TlsFiles {
                ca: self.ca.clone(),
                certificate: self.certificate.clone(),
                key: self.key.clone(),
            },
            prefix: self.prefix.clone(),
            ..Config::new(self.servers.clone(), identity)
        };
        Ok(Etcd::connect(config).await?)
    }

    /// The store of a control plane.
    pub(crate) async fn open(&self, data_dir: &Path, identity: &str) -> anyhow::Result<Arc<dyn Store>> {
        if !self.given() {
            return Ok(Arc::new(Embedded::open(dir(data_dir))?));
        }
        let etcd = self.connect(identity).await?;
        etcd.compact_regularly();
        Ok(etcd)
    }
}

/// The embedded store's own directory.
pub(crate) fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("store")
}

/// Whether there is an embedded store.
pub(crate) fn exists(data_dir: &Path) -> bool {
    dir(data_dir).join("store.redb").exists()
}
