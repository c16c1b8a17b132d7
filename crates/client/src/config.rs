//! Where the API server is and who we are: from a kubeconfig file or from inside a pod.
//!
//! Everything is read, decoded and checked here, so that what is wrong is said with its file and field; the
//! transport gets bytes it can use.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;

use crate::Error;
use crate::transport::{certificates, private_key};

/// Everything needed to reach one API server, read and decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// `https://host:port`, optionally with a path.
    pub server: String,
    /// The namespace of the context, `default` if it names none.
    pub namespace: String,
    /// PEM of the authorities to trust; `None`: the system's.
    pub certificate_authority: Option<Vec<u8>>,
    /// PEM.
    pub client_certificate: Option<Vec<u8>>,
    /// PEM.
    pub client_key: Option<Vec<u8>>,
    pub token: Option<String>,
    /// A token that may be replaced while we run; read again now and then. Wins over `token`.
    pub token_file: Option<PathBuf>,
    pub insecure_skip_tls_verify: bool,
    /// The name to expect in the server's certificate instead of the host of `server`.
    pub tls_server_name: Option<String>,
}

impl std::fmt::Debug for Config {
    /// Without the secrets: configurations end up in logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("server", &self.server)
            .field("namespace", &self.namespace)
            .field("client_certificate", &self.client_certificate.is_some())
            .field("token", &(self.token.is_some() || self.token_file.is_some()))
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("tls_server_name", &self.tls_server_name)
            .finish_non_exhaustive()
    }
}

/// Where a pod finds its service account.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

impl Config {
    /// A context of a kubeconfig file; `None`: the current one.
    pub fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Config, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::Config(format!("cannot read kubeconfig {}: {e}", path.display())))?;
        let file: Kubeconfig = serde_saphyr::from_str(&text)
            .map_err(|e| Error::Config(format!("kubeconfig {}: {e}", path.display())))?;
        Reader { path }.config(&file, context)
    }

    /// The environment and service account files of a pod.
    pub fn in_cluster() -> Result<Config, Error> {
        let variable = |name: &str| {
            std::env::var(name).map_err(|_| {
                Error::Config(format!("{name} is not set: not in a pod; give a kubeconfig instead"))
            })
        };
        let host = variable("KUBERNETES_SERVICE_HOST")?;
        let port = variable("KUBERNETES_SERVICE_PORT")?;
        Config::in_pod(&host, &port, Path::new(SERVICE_ACCOUNT_DIR))
    }

    fn in_pod(host: &str, port: &str, dir: &Path) -> Result<Config, Error> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|e| Error::Config(format!("cannot read {}: {e}", path.display())))
        };
        let authority = read("ca.crt")?;
        certificates(&dir.join("ca.crt").display().to_string(), &authority)?;
        read("token")?;
        let namespace = read("namespace").ok().and_then(|n| String::from_utf8(n).ok());
        // An IPv6 address needs its brackets in a URL.
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Config {
            server: format!("https://{host}:{port}"),
            namespace: namespace.map_or_else(|| "default".to_owned(), |n| n.trim().to_owned()),
            certificate_authority: Some(authority),
            token_file: Some(dir.join("token")),
            ..Config::default()
        })
    }
}

/// The file as it is written, with the fields that we understand.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Kubeconfig {
    current_context: String,
    contexts: Vec<NamedContext>,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    #[serde(default)]
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    #[serde(default)]
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
}

/// Resolves references and paths of one file.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn config(&self, file: &Kubeconfig, context: Option<&str>) -> Result<Config, Error> {
        let name = context.unwrap_or(&file.current_context);
        if name.is_empty() {
            return Err(self.error("current-context", "is not set"));
        }
        let context = file.contexts.iter().find(|c| c.name == name);
        let context = &context.ok_or_else(|| self.error("contexts", &format!("has no {name:?}")))?.context;
        let cluster = self.cluster(file, name, &context.cluster)?;
        let namespace = context.namespace.clone().filter(|n| !n.is_empty());
        let base = Config { namespace: namespace.unwrap_or_else(|| "default".to_owned()), ..cluster };
        if context.user.is_empty() {
            return Ok(base);
        }
        self.user(file, name, &context.user, base)
    }

    fn cluster(&self, file: &Kubeconfig, context: &str, name: &str) -> Result<Config, Error> {
        let cluster = file.clusters.iter().find(|c| c.name == name).ok_or_else(|| {
            self.error(
                &format!("contexts[{context}].context.cluster"),
                &format!("names no cluster: {name:?}"),
            )
        })?;
        let cluster = &cluster.cluster;
        let field = |f: &str| format!("clusters[{name}].cluster.{f}");
        if cluster.server.is_empty() {
            return Err(self.error(&field("server"), "is not set"));
        }
        let authority = self.bytes(
            &field("certificate-authority"),
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        )?;
        self.check_certificates(authority.as_ref())?;
        Ok(Config {
            server: cluster.server.clone(),
            certificate_authority: authority.map(|a| a.bytes),
            insecure_skip_tls_verify: cluster.insecure_skip_tls_verify,
            tls_server_name: cluster.tls_server_name.clone().filter(|n| !n.is_empty()),
            ..Config::default()
        })
    }

    fn user(&self, file: &Kubeconfig, context: &str, name: &str, base: Config) -> Result<Config, Error> {
        let user = file.users.iter().find(|u| u.name == name).ok_or_else(|| {
            self.error(&format!("contexts[{context}].context.user"), &format!("names no user: {name:?}"))
        })?;
        let user = &user.user;
        let field = |f: &str| format!("users[{name}].user.{f}");
        for (plugin, present) in
            [("exec", user.exec.is_some()), ("auth-provider", user.auth_provider.is_some())]
        {
            if present {
                return Err(
                    self.error(&field(plugin), "is not supported: use a client certificate or a token")
                );
            }
        }
        let certificate = self.bytes(
            &field("client-certificate"),
            user.client_certificate_data.as_deref(),
            user.client_certificate.as_deref(),
        )?;
        self.check_certificates(certificate.as_ref())?;
        let key =
            self.bytes(&field("client-key"), user.client_key_data.as_deref(), user.client_key.as_deref())?;
        if let Some(key) = &key {
            private_key(&self.label(&key.field), &key.bytes)?;
        }
        if certificate.is_some() != key.is_some() {
            let (has, lacks) = if key.is_some() { ("key", "certificate") } else { ("certificate", "key") };
            return Err(
                self.error(&field(&format!("client-{has}")), &format!("is set but client-{lacks} is not"))
            );
        }
        let set = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        Ok(Config {
            client_certificate: certificate.map(|c| c.bytes),
            client_key: key.map(|k| k.bytes),
            token: set(&user.token),
            token_file: set(&user.token_file).map(|f| self.resolve(&f)),
            ..base
        })
    }

    /// A field that is given inline (and then wins) or as a file.
    fn bytes(&self, field: &str, data: Option<&str>, file: Option<&str>) -> Result<Option<Material>, Error> {
        if let Some(data) = data.filter(|d| !d.is_empty()) {
            let field = format!("{field}-data");
            let compact: String = data.split_ascii_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(compact)
                .map_err(|e| self.error(&field, &format!("is not base64: {e}")))?;
            return Ok(Some(Material { field, bytes }));
        }
        let Some(file) = file.filter(|f| !f.is_empty()) else { return Ok(None) };
        let path = self.resolve(file);
        let bytes = std::fs::read(&path)
            .map_err(|e| self.error(field, &format!("cannot read {}: {e}", path.display())))?;
        Ok(Some(Material { field: field.to_owned(), bytes }))
    }

    fn check_certificates(&self, material: Option<&Material>) -> Result<(), Error> {
        let Some(material) = material else { return Ok(()) };
        certificates(&self.label(&material.field), &material.bytes).map(|_| ())
    }

    /// Paths are relative to the file that names them.
    fn resolve(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new(".")).join(file)
    }

    fn label(&self, field: &str) -> String {
        format!("kubeconfig {}: {field}", self.path.display())
    }

    fn error(&self, field: &str, text: &str) -> Error {
        Error::Config(format!("{} {text}", self.label(field)))
    }
}

/// Decoded bytes, and the field they came from.
struct Material {
    field: String,
    bytes: Vec<u8>,
}

#[cfg(test)]
mod tests;
