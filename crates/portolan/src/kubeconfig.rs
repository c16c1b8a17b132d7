//! `portolan kubeconfig`: access for a person or a program, signed by the control plane's own authority.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use portolan_apiserver::pki::{Identity, Pki};

use crate::failure::Failure;
use crate::up;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where `portolan up` keeps its state
    #[arg(long, default_value = up::DATA_DIR)]
    data_dir: PathBuf,
    /// The name the holder has to the API server
    #[arg(long)]
    user: String,
    /// A group the holder is in; may be given several times
    #[arg(long = "group")]
    groups: Vec<String>,
    /// The API server's URL; otherwise the one that `portolan up` last wrote
    #[arg(long)]
    server: Option<String>,
    /// A file to write instead of the standard output
    #[arg(long)]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pki_dir = up::pki_dir(&arguments.data_dir);
    if !pki_dir.exists() {
        return Err(Failure::NoDataDir { path: arguments.data_dir.clone() }.into());
    }
    let pki = Pki::open(&pki_dir)?;
    let server = match &arguments.server {
        Some(server) => server.clone(),
        None => up::server_url(&arguments.data_dir)?,
    };
    let identity = Identity {
        file: file_name(&arguments.user, &arguments.groups),
        user: arguments.user.clone(),
        groups: arguments.groups.clone(),
    };
    match &arguments.output {
        Some(path) => pki.write_kubeconfig(path, &server, &identity)?,
        None => print!("{}", pki.kubeconfig(&server, &identity)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Names and groups hold what a file name must not: the file is named after their hash.
fn file_name(user: &str, groups: &[String]) -> String {
    let mut hash = DefaultHasher::new();
    (user, groups).hash(&mut hash);
    format!("issued-{:016x}", hash.finish())
}
