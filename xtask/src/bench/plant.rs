//! A control plane, a node, and two pods of that node, each in a network namespace. The proxy of the node is a process
//! of its own: `portolan proxy`, as kube-proxy is, or `portolan node`, which is the agent besides.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use portolan_client::{Client, Patch, Subresource, paths};
use portolan_netlink::netns::{self, Netns};
use portolan_netlink::rt::{Route, Rt, Veth, VethPeer};
use serde_json::{Value, json};

use super::spaces::Spaces;

const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Within the cluster's pod range, and beyond what the node gets of it for pods of its own.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 250, 2);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 244, 251, 2);
const NAME: &str = "bench";
const CLUSTER_CIDR: &str = "10.244.0.0/16";
const SERVICE_CIDR: &str = "10.96.0.0/12";
const PATIENCE: Duration = Duration::from_mins(10);
/// What the process frees after its first sync it gives back within this time.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A process that ends with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Plant {
    exe: PathBuf,
    node: Netns,
    pub(crate) client: Netns,
    pub(crate) server: Netns,
    _control: Process,
    spaces: Spaces,
}

impl Plant {
    /// Builds it all and starts the control plane. The calling thread moves to the node.
    pub(crate) fn start(exe: &Path) -> anyhow::Result<Self> {
        let spaces = Spaces::new()?;
        let space = |name: &str| -> anyhow::Result<Netns> {
            let netns = spaces.create(name)?;
            Rt::open_in(&netns)?.set_up("lo")?;
            Ok(netns)
        };
        let [control, node, client, server] =
            [space("control")?, space("node")?, space("client")?, space("server")?];
        node.set_sysctl("net/ipv4/ip_forward", "1")?;
        attach(&node, &control, "control", NODE, CONTROL)?;
        for (pod, name, address) in [(&client, "client", CLIENT), (&server, "server", SERVER)] {
            let [a, b, c, _] = address.octets();
            attach(&node, pod, name, Ipv4Addr::new(a, b, c, 1), address)?;
        }
        let mut rt = Rt::open_in(&node)?;
        let mut services = Route::on_link(SERVICE_CIDR.parse()?, rt.link("lo")?.index);
        services.source = Some(NODE.into());
        rt.add_route(&services)?;
        netns::enter(node.as_fd())?;
        let log = std::fs::File::create(spaces.path().join("control.log"))?;
        let mut command = Command::new(exe);
        command.args(["up", "--control-plane", "--node-ip", &CONTROL.to_string(), "--data-dir"]);
        command.arg(spaces.path().join("data")).stdout(Stdio::piped()).stderr(log);
        let child = control.run(|| command.spawn())?;
        let mut child = Process(child.with_context(|| format!("cannot start {}", exe.display()))?);
        let mut line = String::new();
        if let Some(stdout) = child.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let log = || std::fs::read_to_string(spaces.path().join("control.log")).unwrap_or_default();
        anyhow::ensure!(!line.is_empty(), "the control plane did not come up:\n{}", log());
        Ok(Self { exe: exe.to_owned(), node, client, server, _control: child, spaces })
    }

    pub(crate) fn api(&self) -> anyhow::Result<Client> {
        Ok(Client::from_kubeconfig(&self.spaces.path().join("data/kubeconfig"), "bench")?)
    }

    pub(crate) fn node_sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        Ok(self.node.set_sysctl(key, value)?)
    }

    /// The Node object that the proxy looks for.
    pub(crate) async fn register(&self, client: &Client) -> anyhow::Result<()> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}});
        let _: Value = client.create(&paths::NODES, None, &node).await?;
        let addresses = json!([{"type": "InternalIP", "address": NODE.to_string()}]);
        let status = json!({"status": {"addresses": addresses}});
        let patch = Patch::Merge(&status);
        let _: Value = client.patch(&paths::NODES, None, NAME, Subresource::Status, patch).await?;
        Ok(())
    }

    /// Starts the proxy alone and waits until the kernel is in step.
    pub(crate) fn start_proxy(&self) -> anyhow::Result<Proxy> {
        let mut command = Command::new(&self.exe);
        command.args(["proxy", "--hostname-override", NAME, "--cluster-cidr", CLUSTER_CIDR, "--kubeconfig"]);
        command.arg(self.kubeconfig()?);
        Proxy::start(&self.node, command)
    }

    /// The same with the agent in the same process.
    pub(crate) fn start_node(&self) -> anyhow::Result<Proxy> {
        let mut command = Command::new(&self.exe);
        command.args(["node", "--node-name", NAME, "--node-ip", &NODE.to_string(), "--kubeconfig"]);
        command.arg(self.kubeconfig()?).arg("--data-dir").arg(self.spaces.path().join("node-data"));
        Proxy::start(&self.node, command)
    }

    fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let kubeconfig = self.spaces.path().join("node.kubeconfig");
        let issued = Command::new(&self.exe)
            .args([
                "kubeconfig",
                "--user",
                &format!("system:node:{NAME}"),
                "--group",
                "system:nodes",
                "--data-dir",
            ])
            .arg(self.spaces.path().join("data"))
            .arg("--output")
            .arg(&kubeconfig)
            .status()?;
        anyhow::ensure!(issued.success(), "no kubeconfig was issued");
        Ok(kubeconfig)
    }
}

fn attach(
    node: &Netns,
    other: &Netns,
    name: &str,
    gateway: Ipv4Addr,
    address: Ipv4Addr,
) -> anyhow::Result<()> {
    let mut near = Rt::open_in(node)?;
    near.add_veth(&Veth {
        name,
        mac: None,
        mtu: None,
        peer: VethPeer { name: "eth0", mac: None, netns: Some(other) },
    })?;
    near.add_address(name, IpNet::new(gateway.into(), 24)?)?;
    let mut far = Rt::open_in(other)?;
    far.set_up("eth0")?;
    far.add_address("eth0", IpNet::new(address.into(), 24)?)?;
    far.add_route(&Route::via(IpNet::new(Ipv4Addr::UNSPECIFIED.into(), 0)?, gateway.into()))?;
    Ok(())
}

/// A running proxy and what it said of its first sync.
pub(crate) struct Proxy {
    process: Process,
    /// From the start of the process to the kernel in step: reading the API included.
    pub(crate) from_start: Duration,
    /// The sync alone.
    pub(crate) sync: Duration,
    pub(crate) operations: u64,
}

impl Proxy {
    fn start(node: &Netns, mut command: Command) -> anyhow::Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::piped()).env("NO_COLOR", "1");
        let begin = Instant::now();
        let mut process = Process(node.run(|| command.spawn())??);
        let stderr = process.0.stderr.take().context("no standard error")?;
        let (said, says) = mpsc::channel();
        // Goes on reading, as the process would stop at a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let in_step = line.contains("in step with the kernel");
                if in_step || line.contains("WARN") || line.contains("ERROR") {
                    let _ = said.send((Instant::now(), in_step, line));
                }
            }
        });
        loop {
            let (at, in_step, line) = says.recv_timeout(PATIENCE).context("the proxy never was in step")?;
            if !in_step {
                eprintln!("proxy: {line}");
                continue;
            }
            let sync = Duration::from_millis(field(&line, "took_ms")?);
            let operations = field(&line, "operations")?;
            return Ok(Self { process, from_start: at - begin, sync, operations });
        }
    }

    /// As [`Proxy::memory_mib`], once the first sync is digested.
    pub(crate) fn settled_memory_mib(&self) -> anyhow::Result<(f64, f64)> {
        std::thread::sleep(SETTLED_AFTER);
        self.memory_mib()
    }

    /// Resident memory now and at its peak, in MiB.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<(f64, f64)> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id()))?;
        let of = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
            Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
        };
        Ok((of("VmRSS:")?, of("VmHWM:")?))
    }
}

/// `name=17` of a log line.
fn field(line: &str, name: &str) -> anyhow::Result<u64> {
    let (_, rest) = line.split_once(&format!("{name}=")).with_context(|| format!("{name}: {line}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

pub(crate) fn server(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER.into(), port)
}
