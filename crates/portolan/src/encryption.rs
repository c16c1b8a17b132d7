//! How Secrets are encrypted in the store: kube-apiserver's `EncryptionConfiguration`, as far as AES-GCM goes.
//!
//! Without a file of the administrator's there is one in the data directory with a key of its own. A kube-apiserver that
//! gets the same file reads what we wrote, and the other way round.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use portolan_store::Store;
use portolan_store::sealed::{Seal, SealKey, Sealed};
use serde::Deserialize;

use crate::up::pki_dir;

const FILE: &str = "encryption.yaml";
const KIND: &str = "EncryptionConfiguration";

#[derive(Debug, Clone, Default, Args)]
pub(crate) struct EncryptionArguments {
    /// Which Secrets are encrypted in the store, and with which keys; otherwise pki/encryption.yaml in the data directory,
    /// made at the first start. With etcd nothing is encrypted unless this says so
    #[arg(long)]
    encryption_provider_config: Option<PathBuf>,
}

impl EncryptionArguments {
    /// Puts encryption in front of a store: of an etcd where keys begin with `etcd_root`, or else of the data directory, whose
    /// own file counts where the administrator gives none.
    pub(crate) fn wrap(
        &self,
        store: Arc<dyn Store>,
        data_dir: &Path,
        etcd_root: Option<&str>,
    ) -> anyhow::Result<Option<Sealed>> {
        let path = match &self.encryption_provider_config {
            Some(path) => path.clone(),
            None if etcd_root.is_none() => {
                let path = pki_dir(data_dir).join(FILE);
                if !path.exists() {
                    make(&path).with_context(|| path.display().to_string())?;
                }
                path
            }
            None => return Ok(None),
        };
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut seal = read(&text).with_context(|| format!("{} cannot be used", path.display()))?;
        seal.root = etcd_root.map(ToOwned::to_owned);
        Ok(Some(Sealed::new(store, seal)))
    }

    /// [`wrap`](Self::wrap), and everything that is there is encrypted as the file says now.
    pub(crate) async fn open(
        &self,
        store: Arc<dyn Store>,
        data_dir: &Path,
        etcd_root: Option<&str>,
    ) -> anyhow::Result<Arc<dyn Store>> {
        let Some(sealed) = self.wrap(store.clone(), data_dir, etcd_root)? else { return Ok(store) };
        let count = sealed.reseal().await?;
        if count > 0 {
            tracing::info!(count, "Secrets are encrypted anew, as the encryption configuration says now");
        }
        Ok(Arc::new(sealed))
    }
}

/// A file with one key, which only its owner reads.
fn make(path: &Path) -> std::io::Result<()> {
    let secret = BASE64.encode(rand::random::<[u8; 32]>());
    let text = format!(
        "# The key of the Secrets in the store: without it they are lost. To change it, put another key before this one\n\
         # and restart; everything is then encrypted anew, and this one can go.\n\
         apiVersion: apiserver.config.k8s.io/v1\nkind: {KIND}\nresources:\n- resources: [secrets]\n  providers:\n  \
         - aesgcm:\n      keys:\n      - {{name: key1, secret: {secret}}}\n  - identity: {{}}\n"
    );
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    // Before anything is encrypted with it, the key itself must survive a loss of power.
    path.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    resources: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

/// One entry: the provider's name and its settings.
type Provider = BTreeMap<String, serde_json::Value>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

fn read(text: &str) -> anyhow::Result<Seal> {
    let configuration: Configuration = serde_saphyr::from_str(text)
        .map_err(|error| anyhow::anyhow!("{}", error.to_string().lines().next().unwrap_or_default()))?;
    let Configuration { api_version, kind, resources } = configuration;
    if api_version != "apiserver.config.k8s.io/v1" || kind != KIND {
        bail!("it is {kind} of {api_version}, not {KIND} of apiserver.config.k8s.io/v1");
    }
    let [entry] = resources.as_slice() else {
        bail!("resources: it must have one entry, for secrets");
    };
    if entry.resources != ["secrets"] {
        bail!(
            "resources[0].resources: {:?} must be [\"secrets\"]: nothing else is encrypted",
            entry.resources
        );
    }
    let mut seal = Seal {
        prefixes: vec!["/registry/secrets/".into()],
        keys: Vec::new(),
        write_plain: false,
        root: None,
    };
    for (index, provider) in entry.providers.iter().enumerate() {
        let path = format!("resources[0].providers[{index}]");
        match provider.iter().next().filter(|_| provider.len() == 1) {
            Some((name, settings)) if name == "aesgcm" => {
                let keys: Keys = serde_json::from_value(settings.clone()).with_context(|| path.clone())?;
                for key in &keys.keys {
                    let secret = BASE64.decode(key.secret.trim());
                    let secret =
                        secret.map_err(|_| anyhow::anyhow!("{path}: key {:?} is not base64", key.name))?;
                    let made = SealKey::new(&key.name, &secret);
                    seal.keys.push(made.with_context(|| format!("{path}: key {:?}", key.name))?);
                }
            }
            Some((name, _)) if name == "identity" => seal.write_plain |= index == 0,
            _ => bail!("{path}: only aesgcm and identity are understood"),
        }
    }
    if entry.providers.is_empty() || seal.keys.is_empty() && !seal.write_plain {
        bail!("resources[0].providers: a key of aesgcm is needed, or identity as the first");
    }
    Ok(seal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_file_that_is_made_can_be_read_and_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pki").join(FILE);
        make(&path).unwrap();
        let seal = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((seal.keys.len(), seal.write_plain), (1, false));
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn files_that_ask_for_more_are_refused_by_field() {
        let file = |resources: &str, providers: &str| {
            let head = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: {KIND}\nresources:\n");
            read(&format!("{head}- resources: [{resources}]\n  providers:\n{providers}"))
        };
        let key = format!("  - aesgcm: {{keys: [{{name: a, secret: {}}}]}}\n", BASE64.encode([1; 32]));
        assert!(file("secrets", &key).is_ok());
        assert!(file("secrets", &format!("  - identity: {{}}\n{key}")).unwrap().write_plain);
        for (resources, providers, says) in [
            ("secrets, configmaps", key.as_str(), "resources[0].resources"),
            ("secrets", "  - secretbox: {keys: []}\n", "providers[0]"),
            ("secrets", "  - aesgcm: {keys: [{name: a, secret: AAAA}]}\n", "\"a\""),
            ("secrets", "  - aesgcm: {keys: [{name: a, secret: '%'}]}\n", "not base64"),
            ("secrets", "  - aesgcm: {keys: []}\n", "a key of aesgcm is needed"),
        ] {
            let error = format!("{:#}", file(resources, providers).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
        assert!(read("kind: Pod").is_err());
    }
}
