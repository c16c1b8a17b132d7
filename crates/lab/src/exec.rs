//! Places of a lab to run something in: hosts and pods.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use portolan_netlink::netns::{self, Netns};

use crate::error::LabError;
use crate::layout::{Host, Layout};

/// A host or a pod.
#[derive(Debug)]
pub struct Place {
    pub name: String,
    pub netns: Netns,
    pub(crate) kubeconfig: PathBuf,
}

impl Place {
    /// A command that runs in the place once it is spawned through [`Place::spawn`] or [`Place::output`].
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    pub fn output(&self, command: &mut Command) -> Result<std::process::Output, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = self.netns.run(|| command.output())?;
        output.map_err(|source| LabError::Spawn { program, source })
    }

    pub fn spawn(&self, command: &mut Command) -> Result<std::process::Child, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = self.netns.run(|| command.spawn())?;
        child.map_err(|source| LabError::Spawn { program, source })
    }
}

/// Becomes `argv`, inside the place. Returns only if that fails.
pub fn enter(place: &Place, argv: &[String]) -> LabError {
    let spawn = |source| LabError::Spawn { program: argv.first().cloned().unwrap_or_default(), source };
    let Some((program, args)) = argv.split_first() else {
        return spawn(std::io::Error::other("no command given: put it after `--`"));
    };
    if let Err(source) = netns::enter(place.netns.as_fd()) {
        return spawn(source);
    }
    spawn(place.command(program).args(args).exec())
}

/// Every pod that has a namespace: its node, its name as `namespace/name`, where the namespace is mounted.
pub(crate) fn pods(layout: &Layout) -> Vec<(Host, String, PathBuf)> {
    let mut pods = Vec::new();
    for host in layout.node_hosts() {
        let Ok(entries) = fs::read_dir(layout.data_dir(host).join("pods")) else { continue };
        for entry in entries.flatten() {
            let path = entry.path().join("netns");
            if let (Some((namespace, name)), true) =
                (entry.file_name().to_string_lossy().split_once('_'), path.exists())
            {
                pods.push((host, format!("{namespace}/{name}"), path));
            }
        }
    }
    pods.sort();
    pods
}

/// `node-1`, `client`, `web-1` (a pod of namespace default) or `shop/web-1`.
pub(crate) fn find(layout: &Layout, name: &str) -> Result<Place, LabError> {
    let kubeconfig = layout.kubeconfig();
    if let Some(host) = name.parse().ok().filter(|host| layout.hosts().any(|other| other == *host)) {
        return Ok(Place { name: name.into(), netns: Netns::open(&layout.netns(host))?, kubeconfig });
    }
    let wanted = if name.contains('/') { name.to_owned() } else { format!("default/{name}") };
    let pods = pods(layout);
    if let Some((_, _, path)) = pods.iter().find(|(_, pod, _)| *pod == wanted) {
        return Ok(Place { name: name.into(), netns: Netns::open(path)?, kubeconfig });
    }
    let hosts = layout.hosts().map(|host| host.to_string());
    let places: Vec<String> = hosts.chain(pods.into_iter().map(|(_, pod, _)| pod)).collect();
    Err(LabError::NoSuchPlace { name: layout.name.clone(), place: name.into(), places: places.join(", ") })
}
