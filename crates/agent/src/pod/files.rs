//! Writes the files that a pod finds under `/etc` in place of the node's.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use portolan_api::core::v1::Pod;

use super::{hosts, resolv};
use crate::Config;
use crate::process::Mounts;
use crate::state_dir::PodDir;

/// The node's file, for pods that share its network.
const HOSTS: &str = "/etc/hosts";

/// Writes them, and says where each appears. The complaints are for the user.
pub(crate) fn write(
    pod: &Pod,
    ips: &[IpAddr],
    config: &Config,
    dir: &PodDir,
) -> Result<(Mounts, Vec<resolv::Complaint>), String> {
    let names = &config.names;
    let hostname = hosts::hostname(pod, &config.node_name, names)?;
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let node = resolv::Resolver::parse(&read(&names.resolv_conf));
    let (resolver, complaints) = resolv::of(pod, names, &node);
    let mut files = vec![
        ("resolv.conf", resolver.render()),
        ("hosts", hosts::file(pod, ips, names, &read(Path::new(HOSTS)))),
    ];
    if !pod.spec.host_network {
        files.push(("hostname", hostname + "\n"));
    }
    let etc = dir.etc();
    let said = |error: std::io::Error| format!("{}: {error}", etc.display());
    fs::create_dir_all(&etc).map_err(said)?;
    let mut mounts = Mounts::default();
    for (name, text) in files {
        let path = etc.join(name);
        fs::write(&path, text).map_err(said)?;
        // Mounting looks the path up later, from wherever the agent is then.
        let path = path.canonicalize().map_err(said)?;
        mounts.add(&path, &format!("/etc/{name}")).map_err(said)?;
    }
    Ok((mounts, complaints))
}
