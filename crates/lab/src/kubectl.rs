//! The real `kubectl`, run on the control plane's host.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use portolan_netlink::netns::Netns;

use crate::error::LabError;
use crate::layout::{Host, Layout};

#[derive(Debug, Clone)]
pub struct Kubectl {
    netns: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self {
            netns: layout.netns(Host::ControlPlane),
            kubeconfig: layout.kubeconfig(),
            cache: layout.dir().join("kubectl-cache"),
        }
    }

    /// A command to be spawned inside the namespace by the caller's own means.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache);
        // Clusters talk straight to each other; a proxy of the machine is not for them.
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.arg("--cache-dir").arg(&self.cache).args(args);
        command
    }

    /// Runs to the end, whatever comes of it, with `input` on its standard input.
    pub fn output(&self, args: &[&str], input: &str) -> Result<Output, LabError> {
        let spawn = |source| LabError::Spawn { program: "kubectl".into(), source };
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = Netns::open(&self.netns)?.run(|| command.spawn())?.map_err(spawn)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that fails early does not read its input: its own message says why.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output().map_err(spawn)
    }

    /// Runs and expects success; gives the standard output.
    pub fn run(&self, args: &[&str]) -> Result<String, LabError> {
        self.run_with(args, "")
    }

    /// `kubectl apply -f -` of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String, LabError> {
        self.run_with(&["apply", "-f", "-"], manifest)
    }

    fn run_with(&self, args: &[&str], input: &str) -> Result<String, LabError> {
        let output = self.output(args, input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(LabError::Kubectl { args: args.join(" "), stderr })
    }
}
