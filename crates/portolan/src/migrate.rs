//! `portolan migrate`: from the data directory into etcd, in Kubernetes' own layout.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use portolan_store::embedded::Embedded;
use portolan_store::migrate::{self, Fate};
use portolan_store::{KeyValue, Store};
use serde_json::Value;

use crate::encryption::EncryptionArguments;
use crate::failure::Failure;
use crate::store::{self, EtcdArguments};
use crate::up;

/// How long Events live in etcd: kube-apiserver's default.
const EVENT_SECONDS: u64 = 3_600;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where `portolan up` keeps its state; it must not run
    #[arg(long, default_value = up::DATA_DIR)]
    data_dir: PathBuf,
    #[command(flatten)]
    etcd: EtcdArguments,
    #[command(flatten)]
    encryption: EncryptionArguments,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(start(arguments))?;
    Ok(ExitCode::SUCCESS)
}

async fn start(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.etcd.given() {
        anyhow::bail!("name the etcd to move to with --etcd-servers");
    }
    if !store::exists(&arguments.data_dir) {
        return Err(Failure::NoDataDir { path: arguments.data_dir.clone() }.into());
    }
    let data_dir = &arguments.data_dir;
    // What the data directory's own key encrypts is read, and written as the administrator's file says; else plain.
    let from: Arc<dyn Store> = Arc::new(Embedded::open(store::dir(data_dir))?);
    let own = EncryptionArguments::default();
    let from = own.wrap(from.clone(), data_dir, None)?.map_or(from, |sealed| Arc::new(sealed));
    let etcd = arguments.etcd.connect("migrate").await?;
    let sealed = arguments.encryption.wrap(etcd.clone(), data_dir, arguments.etcd.root().as_deref())?;
    let (to, encrypted): (Arc<dyn Store>, bool) = match sealed {
        Some(sealed) => (Arc::new(sealed), true),
        None => (etcd, false),
    };
    let mut strange = Vec::new();
    for kv in from.list("", None, 0, None).await?.items {
        if !is_object(&kv) {
            strange.push(kv.key);
        }
    }
    if let Some(key) = strange.first() {
        anyhow::bail!(
            "{key} and {} more are not objects as etcd should hold them; nothing was moved",
            strange.len() - 1
        );
    }
    let moved = migrate::copy(&*from, &*to, fate).await?;
    println!("{} keys are in etcd, {} of them were there before", moved.keys, moved.present);
    if !encrypted {
        println!(
            "Secrets are plain in etcd, as a kube-apiserver without --encryption-provider-config has them; with that flag, \
             here and there, they are encrypted"
        );
    }
    println!(
        "the store in {} is as it was; next: portolan up with the same --etcd flags",
        arguments.data_dir.display()
    );
    Ok(())
}

fn fate(kv: &KeyValue) -> Fate {
    if kv.key.starts_with("/registry/masterleases/") {
        // Each server makes its own.
        Fate::Leave
    } else if kv.key.starts_with("/registry/events/") {
        Fate::Lease(EVENT_SECONDS)
    } else {
        Fate::Keep
    }
}

/// What a kube-apiserver can read: JSON that says what it is, and leaves its resource version to etcd.
fn is_object(kv: &KeyValue) -> bool {
    let value: Value = serde_json::from_slice(&kv.value).unwrap_or_default();
    let text = |field: &str| value[field].as_str().is_some_and(|text| !text.is_empty());
    text("apiVersion") && text("kind") && value["metadata"].get("resourceVersion").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue { key: key.into(), value: value.to_owned().into(), create_revision: 2, mod_revision: 2 }
    }

    #[test]
    fn only_what_a_kube_apiserver_can_read_is_moved() {
        let object = |text: &str| is_object(&kv("/registry/pods/a/b", text));
        assert!(object(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}"#));
        assert!(!object(r#"{"apiVersion":"v1","kind":"Pod","metadata":{"resourceVersion":"5"}}"#));
        assert!(!object(r#"{"kind":"Pod","metadata":{}}"#));
        assert!(!object("k8s:enc:aescbc"));
        assert_eq!(fate(&kv("/registry/events/a/b", "")), Fate::Lease(3_600));
        assert_eq!(fate(&kv("/registry/masterleases/10.0.0.1", "")), Fate::Leave);
        assert_eq!(fate(&kv("/registry/eventsx/a", "")), Fate::Keep);
    }
}
