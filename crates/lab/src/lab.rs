//! A lab's life: up, status, down. A crashed lab is found by its names and removed like a living one.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_netlink::netns::{self, Netns};
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::exec::{self, Place};
use crate::kubectl::Kubectl;
use crate::layout::{Host, Layout, labs_dir};
use crate::segment;

/// A process that is not ready by then has failed.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const API_PORT: u16 = 6443;
/// Where Services have addresses of both families.
const SERVICE_RANGES: &str = "10.96.0.0/12,fd00:96::/112";

#[derive(Debug, Clone)]
pub struct Options {
    pub name: String,
    pub nodes: u8,
    /// The segment and Services have IPv6 addresses as well; pods have none.
    pub ipv6: bool,
    /// The `portolan` program to run.
    pub exe: PathBuf,
    /// The mode of the nodes' proxies, if not the usual one.
    pub proxy_mode: Option<String>,
}

/// A lab that is up.
#[derive(Debug)]
pub struct Lab {
    pub layout: Layout,
    /// Of the nodes, if not the usual one.
    proxy_mode: Option<String>,
    /// From the call to the first process, and from there to all nodes ready.
    pub timings: Vec<(&'static str, Duration)>,
}

/// Kept in the lab's directory.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    layout: Layout,
    #[serde(default)]
    proxy_mode: Option<String>,
}

/// What `lab status` shows.
#[derive(Debug)]
pub struct Status {
    pub layout: Layout,
    pub hosts: Vec<(Host, Vec<u32>)>,
    pub pods: Vec<(Host, String)>,
}

impl Lab {
    /// Builds the network, starts the control plane and the nodes, and waits until all are ready. What a crashed lab
    /// of the same name left is removed first; a living one is refused.
    pub fn up(options: &Options) -> Result<Self, LabError> {
        Self::build(options, |lab| {
            let begin = Instant::now();
            lab.start_control_plane(options)?;
            lab.timings.push(("control plane ready", begin.elapsed()));
            let begin = Instant::now();
            lab.start_nodes(options)?;
            segment::reach_pods(&lab.layout, &lab.pod_ranges()?)?;
            lab.timings.push(("nodes ready", begin.elapsed()));
            Ok(())
        })
    }

    /// The hosts and the segment of a lab, and no program: for clusters of somebody else's.
    pub fn network(options: &Options) -> Result<Self, LabError> {
        Self::build(options, |_| Ok(()))
    }

    fn build(
        options: &Options,
        start: impl FnOnce(&mut Self) -> Result<(), LabError>,
    ) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        let layout = Layout::new(&options.name, options.nodes)?;
        if is_alive(&layout) {
            return Err(LabError::AlreadyUp { name: layout.name });
        }
        remove(&layout.name)?;
        let mut lab = Self { layout, proxy_mode: options.proxy_mode.clone(), timings: Vec::new() };
        let unfinished = Unfinished(lab.layout.clone());
        lab.build_network(options)?;
        start(&mut lab)?;
        std::mem::forget(unfinished);
        Ok(lab)
    }

    /// Finds a lab that is up.
    pub fn find(name: &str) -> Result<Self, LabError> {
        let missing = || LabError::NoSuchLab { name: name.into() };
        let path = Layout::new(name, 1)?.description();
        let text = fs::read_to_string(path).map_err(|_| missing())?;
        let description: Description = serde_json::from_str(&text).map_err(|_| missing())?;
        let Description { layout, proxy_mode } = description;
        Ok(Self { layout, proxy_mode, timings: Vec::new() })
    }

    /// Ends everything of the lab; a lab that is not there is no error. Says whether there was one.
    pub fn down(name: &str) -> Result<bool, LabError> {
        Layout::new(name, 1)?;
        remove(name)
    }

    pub fn status(&self) -> Status {
        let processes =
            |host| Netns::open(&self.layout.netns(host)).map(|n| n.processes()).unwrap_or_default();
        let hosts = self.layout.hosts().map(|host| (host, processes(host))).collect();
        let pods = exec::pods(&self.layout).into_iter().map(|(host, pod, _)| (host, pod)).collect();
        Status { layout: self.layout.clone(), hosts, pods }
    }

    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.layout)
    }

    /// A host or a pod by name, to run something in.
    pub fn place(&self, name: &str) -> Result<Place, LabError> {
        exec::find(&self.layout, name)
    }

    pub fn host(&self, host: Host) -> Result<Netns, LabError> {
        Ok(Netns::open(&self.layout.netns(host))?)
    }

    fn build_network(&mut self, options: &Options) -> Result<(), LabError> {
        let begin = Instant::now();
        let dir = self.layout.dir();
        fs::create_dir_all(&dir).map_err(LabError::file(&dir))?;
        segment::build(&self.layout, options.ipv6)?;
        self.describe()?;
        self.timings.push(("network", begin.elapsed()));
        Ok(())
    }

    /// Which node has which addresses for its pods.
    fn pod_ranges(&self) -> Result<Vec<(Host, IpNet)>, LabError> {
        let columns = r#"jsonpath={range .items[*]}{.metadata.name} {.spec.podCIDR}{"\n"}{end}"#;
        let nodes = self.kubectl().run(&["get", "nodes", "-o", columns])?;
        let range = |line: &str| {
            let (name, range) = line.split_once(' ')?;
            Some((name.parse().ok()?, range.parse().ok()?))
        };
        Ok(nodes.lines().filter_map(range).collect())
    }

    fn describe(&self) -> Result<(), LabError> {
        let path = self.layout.description();
        let description = Description { layout: self.layout.clone(), proxy_mode: self.proxy_mode.clone() };
        let text = serde_json::json!(description).to_string();
        fs::write(&path, text).map_err(LabError::file(&path))
    }

    fn start_control_plane(&self, options: &Options) -> Result<(), LabError> {
        let host = Host::ControlPlane;
        let mut command = Command::new(&options.exe);
        command.args(["up", "--control-plane", "--node-name", "control-plane"]);
        command.args(["--node-ip", &host.address().to_string(), "--secure-port", &API_PORT.to_string()]);
        // Nothing of a lab leaves its namespaces.
        command.args(["--dns-upstream", "none"]);
        if options.ipv6 {
            command.args(["--service-cluster-ip-range", SERVICE_RANGES]);
        }
        command.arg("--data-dir").arg(self.layout.data_dir(host));
        wait_ready(self.spawn(host, command)?)
    }

    fn start_nodes(&self, options: &Options) -> Result<(), LabError> {
        let spawn = |host| self.spawn_node(&options.exe, host);
        let starting: Vec<Starting> = self.layout.node_hosts().map(spawn).collect::<Result<_, _>>()?;
        starting.into_iter().try_for_each(wait_ready)
    }

    /// Starts a node's process again after it has ended, in the mode that it had, and waits until it is ready.
    pub fn start_node(&self, exe: &Path, number: u8) -> Result<(), LabError> {
        wait_ready(self.spawn_node(exe, Host::Node(number))?)
    }

    fn spawn_node(&self, exe: &Path, host: Host) -> Result<Starting, LabError> {
        let data_dir = self.layout.data_dir(host);
        fs::create_dir_all(&data_dir).map_err(LabError::file(&data_dir))?;
        let kubeconfig = data_dir.join("kubeconfig");
        self.issue_kubeconfig(exe, host, &kubeconfig)?;
        let mut command = Command::new(exe);
        command.args(["node", "--node-name", &host.to_string(), "--node-ip", &host.address().to_string()]);
        command.arg("--kubeconfig").arg(kubeconfig).arg("--data-dir").arg(data_dir);
        if let Some(mode) = &self.proxy_mode {
            command.args(["--proxy-mode", mode]);
        }
        self.spawn(host, command)
    }

    /// An identity limited to its node, signed by the control plane's authority.
    fn issue_kubeconfig(&self, exe: &Path, host: Host, path: &Path) -> Result<(), LabError> {
        let spawn = |source| LabError::Spawn { program: exe.display().to_string(), source };
        let mut command = Command::new(exe);
        command.arg("kubeconfig").arg("--data-dir").arg(self.layout.data_dir(Host::ControlPlane));
        command
            .args(["--user", &format!("system:node:{host}"), "--group", "system:nodes", "--output"])
            .arg(path);
        let output = command.output().map_err(spawn)?;
        if output.status.success() {
            return Ok(());
        }
        let tail = String::from_utf8_lossy(&output.stderr).into_owned();
        let what = format!("the kubeconfig of {host}");
        Err(LabError::NotReady { what, why: output.status.to_string(), log: self.layout.log(host), tail })
    }

    /// Starts a program in the host's namespace; its standard error is the host's log.
    fn spawn(&self, host: Host, mut command: Command) -> Result<Starting, LabError> {
        let log = self.layout.log(host);
        let file = File::create(&log).map_err(LabError::file(&log))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        // Not a member of the terminal's group: an interrupt at the terminal is for the command, not for the lab.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let program = command.get_program().to_string_lossy().into_owned();
        let spawned = self.host(host)?.run(|| command.spawn())?;
        let child = spawned.map_err(|source| LabError::Spawn { program, source })?;
        Ok(Starting { host, child, log })
    }
}

/// A lab that does not come up goes, but for the logs, which the error points at.
struct Unfinished(Layout);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = remove_all_but_logs(&self.0) {
            eprintln!("lab {}: {error}", self.0.name);
        }
    }
}

struct Starting {
    host: Host,
    child: Child,
    log: PathBuf,
}

/// A process says one line on its standard output when it is ready.
fn wait_ready(mut starting: Starting) -> Result<(), LabError> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = starting.child.stdout.take() {
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
    }
    let why = match receiver.recv_timeout(READY_TIMEOUT) {
        Ok(line) if !line.is_empty() => return Ok(()),
        Ok(_) => match starting.child.wait() {
            Ok(status) => format!("it ended with {status}"),
            Err(error) => error.to_string(),
        },
        Err(_) => format!("it was not ready within {READY_TIMEOUT:?}"),
    };
    let text = fs::read_to_string(&starting.log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(12)..].join("\n");
    Err(LabError::NotReady { what: starting.host.to_string(), why, log: starting.log, tail })
}

fn is_alive(layout: &Layout) -> bool {
    Netns::open(&layout.netns(Host::ControlPlane)).is_ok_and(|netns| !netns.processes().is_empty())
}

/// The namespaces of a lab, whatever its description says: a crashed one may have none.
fn namespaces(name: &str) -> Vec<PathBuf> {
    let prefix = format!("portolan-{name}.");
    let Ok(entries) = fs::read_dir(netns::IP_NETNS_DIR) else { return Vec::new() };
    let ours = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    entries.flatten().filter(ours).map(|entry| entry.path()).collect()
}

/// Pods' namespaces, mounted below the nodes' data directories.
fn pod_mounts(dir: &Path) -> Vec<PathBuf> {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else { return Vec::new() };
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

fn end_processes(name: &str) -> Result<(), LabError> {
    let dir = labs_dir().join(name);
    for path in namespaces(name).into_iter().chain(pod_mounts(&dir)) {
        if let Ok(netns) = Netns::open(&path) {
            netns.kill_processes(KILL_PATIENCE)?;
        }
    }
    // Of the agents that were just killed. One that cannot go yet goes with the next lab.
    drop(portolan_netlink::cgroup::sweep());
    Ok(())
}

/// Ends the processes and removes the namespaces. Says whether there were any.
fn remove_network(name: &str) -> Result<bool, LabError> {
    end_processes(name)?;
    let paths = [pod_mounts(&labs_dir().join(name)), namespaces(name)].concat();
    paths.iter().try_for_each(|path| Netns::delete(path))?;
    Ok(!paths.is_empty())
}

fn remove_all_but_logs(layout: &Layout) -> Result<(), LabError> {
    remove_network(&layout.name)?;
    let dir = layout.dir();
    let logs: Vec<PathBuf> = layout.hosts().map(|host| layout.log(host)).collect();
    for entry in fs::read_dir(&dir).map_err(LabError::file(&dir))?.flatten() {
        let path = entry.path();
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
            _ if logs.contains(&path) => Ok(()),
            _ => fs::remove_file(&path),
        };
        removed.map_err(LabError::file(&path))?;
    }
    Ok(())
}

fn remove(name: &str) -> Result<bool, LabError> {
    let mut found = remove_network(name)?;
    let dir = labs_dir().join(name);
    found |= dir.exists();
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(LabError::file(&dir))?;
    }
    Ok(found)
}
