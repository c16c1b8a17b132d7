//! Where the API server is and who we are: from a kubeconfig file or from inside a pod.

use std::path::Path;

use crate::Error;

/// Everything needed to reach one API server, read and decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
    pub token_file: Option<std::path::PathBuf>,
    pub insecure_skip_tls_verify: bool,
    /// The name to expect in the server's certificate instead of the host of `server`.
    pub tls_server_name: Option<String>,
}

impl Config {
    /// A context of a kubeconfig file; `None`: the current one.
    pub fn from_kubeconfig(path: &Path, context: Option<&str>) -> Result<Config, Error> {
        let _ = (path, context);
        todo!()
    }

    /// The environment and service account files of a pod.
    pub fn in_cluster() -> Result<Config, Error> {
        todo!()
    }
}
