//! Network namespaces that a trace looks into: the node's, where the rules are, and the source's, where a probe starts.
//!
//! Usually one of them is the namespace that the program runs in. In a lab the others can be entered too.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portolan_lab::Lab;
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::Rt;

/// Where nodes keep the namespaces of their pods, unless told otherwise.
const POD_DIRS: [&str; 2] = ["/var/lib/portolan/node/pods", "/var/lib/portolan-node/pods"];

pub(crate) struct Places {
    lab: Option<Lab>,
    addresses: Vec<IpAddr>,
}

impl Places {
    /// The lab is the one whose kubeconfig is used.
    pub(crate) fn new(kubeconfig: &Path) -> Self {
        let addresses = Rt::open().and_then(|mut rt| rt.addresses()).unwrap_or_default();
        let addresses = addresses.into_iter().map(|address| address.net.addr()).collect();
        Self { lab: lab_of(kubeconfig), addresses }
    }

    fn is_here(&self, addresses: &[IpAddr]) -> bool {
        addresses.iter().any(|ip| self.addresses.contains(ip))
    }

    /// The node's namespace, or how to get there.
    pub(crate) fn node(&self, name: &str, addresses: &[IpAddr]) -> Result<Netns, String> {
        if self.is_here(addresses) {
            return Netns::current().map_err(|error| error.to_string());
        }
        if let Some(lab) = &self.lab {
            return lab.place(name).map(|place| place.netns).map_err(|error| error.to_string());
        }
        Err(format!("this is not node {name}; run it there (as root)"))
    }

    /// The namespace that the source sends from, or how to get there.
    pub(crate) fn source(
        &self,
        name: Option<&str>,
        address: IpAddr,
        asked: Option<&Path>,
    ) -> Result<Netns, String> {
        if let Some(path) = asked {
            return Netns::open(path).map_err(|error| error.to_string());
        }
        if self.is_here(&[address]) {
            return Netns::current().map_err(|error| error.to_string());
        }
        if let (Some(lab), Some(name)) = (&self.lab, name)
            && let Ok(place) = lab.place(name)
        {
            return Ok(place.netns);
        }
        if let Some((namespace, pod)) = name.and_then(|name| name.split_once('/')) {
            let paths =
                POD_DIRS.map(|dir| PathBuf::from(dir).join(format!("{namespace}_{pod}")).join("netns"));
            if let Some(netns) = paths.iter().find_map(|path| Netns::open(path).ok()) {
                return Ok(netns);
            }
        }
        Err(format!(
            "nothing here has the address {address}: run it where that is, or name that network namespace with \
             --probe-netns (for a pod: /proc/PID/ns/net of one of its processes)"
        ))
    }

    /// Where the API server can be reached from, if not from here.
    pub(crate) fn api(&self) -> Option<Netns> {
        Some(self.lab.as_ref()?.place("control-plane").ok()?.netns)
    }

    /// The command that runs this trace in a place of the lab.
    pub(crate) fn how(&self, place: &str) -> Option<String> {
        let name = &self.lab.as_ref()?.layout.name;
        let flag = if name == "lab" { String::new() } else { format!("--name {name} ") };
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Some(format!("portolan lab exec {flag}{place} -- portolan {}", arguments.join(" ")))
    }
}

/// `/run/portolan/labs/NAME/...`
fn lab_of(kubeconfig: &Path) -> Option<Lab> {
    let path = kubeconfig.canonicalize().ok()?;
    let name = path.strip_prefix("/run/portolan/labs").ok()?.components().next()?;
    Lab::find(name.as_os_str().to_str()?).ok()
}
