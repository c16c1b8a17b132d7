//! A configuration file that changes starts the process anew, in its place: same process number, same arguments.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::read;

/// Files mounted from a `ConfigMap` are swapped by links to links: reading the text is surer than any notification, and a
/// small file read once a second costs nothing.
const LOOK: Duration = Duration::from_secs(1);

/// A file and the text it had at the start.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    text: String,
}

impl Watched {
    pub(crate) fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), text: std::fs::read_to_string(path)? })
    }

    /// Waits until the file has another, valid text. One that cannot be used is told of, and the process goes on with
    /// what it has.
    pub(crate) async fn changed(self) {
        let mut last = self.text;
        loop {
            tokio::time::sleep(LOOK).await;
            // While a file is being replaced it may be missing for a moment.
            let Ok(text) = std::fs::read_to_string(&self.path) else { continue };
            if text == last {
                continue;
            }
            match usable(&text) {
                Ok(()) => {
                    tracing::info!(path = %self.path.display(), "content of the proxy server's configuration file was updated");
                    return;
                }
                Err(error) => {
                    tracing::error!(path = %self.path.display(), "the configuration file changed to something that cannot be used; the old one stays in force: {error}");
                }
            }
            last = text;
        }
    }
}

fn usable(text: &str) -> Result<(), String> {
    let read = read::parse(text).map_err(|problems| problems.join("; "))?;
    super::settings(&read.configuration).map(drop).map_err(|error| error.to_string())
}

/// Becomes this program with the same arguments. Returns only if that fails.
pub(crate) fn again() -> std::io::Error {
    let mut arguments = std::env::args_os();
    // The file may have been replaced by an update: what runs now goes on.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).exec()
}
