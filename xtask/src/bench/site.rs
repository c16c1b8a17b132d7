//! Where a benchmark runs: a network namespace with `portolan up` in it, and another behind it with a real endpoint.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipnet::IpNet;
use portolan_client::Client;
use portolan_netlink::netns::{self, Netns};
use portolan_netlink::rt::{Route, Rt, Veth, VethPeer};

use super::process;
use super::spaces::Spaces;

pub(crate) const HOST: [u8; 4] = [10, 77, 0, 1];
pub(crate) const ENDPOINT: [u8; 4] = [10, 77, 0, 2];
pub(crate) const ENDPOINT_PORT: u16 = 8080;

pub(crate) struct Site {
    child: Child,
    spaces: Spaces,
    /// From the start of the program to the line that says it is ready.
    pub(crate) ready: Duration,
}

impl Site {
    /// Builds the namespaces, moves the calling thread into the first one and starts the program there.
    pub(crate) fn start(exe: &Path) -> anyhow::Result<Self> {
        let spaces = Spaces::new()?;
        let (host, endpoint) = (spaces.create("host")?, spaces.create("endpoint")?);
        wire(&host, &endpoint)?;
        listen(&endpoint)?;
        netns::enter(host.as_fd())?;
        let begin = Instant::now();
        let log = std::fs::File::create(spaces.path().join("log"))?;
        let mut child = Command::new(exe)
            .args(["up", "--node-ip", "10.77.0.1", "--data-dir"])
            .arg(spaces.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{}: build it with `make build`", exe.display()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let ready = begin.elapsed();
        let site = Self { child, spaces, ready };
        anyhow::ensure!(!line.is_empty(), "the program did not come up:\n{}", site.log());
        Ok(site)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::from_kubeconfig(&self.spaces.path().join("data/kubeconfig"), "bench")?)
    }

    /// Resident memory of the program, in MiB.
    pub(crate) fn resident_mib(&self) -> anyhow::Result<u64> {
        Ok(process::resident_mib(self.child.id())? as u64)
    }

    /// Processor time of the program and of what it has started and reaped.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        process::processor_time(self.child.id())
    }

    pub(crate) fn threads(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?.count())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.spaces.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wire(host: &Netns, endpoint: &Netns) -> anyhow::Result<()> {
    let mut rt = Rt::open_in(host)?;
    rt.set_up("lo")?;
    rt.add_veth(&Veth {
        name: "endpoint",
        mac: None,
        mtu: None,
        peer: VethPeer { name: "eth0", mac: None, netns: Some(endpoint) },
    })?;
    rt.add_address("endpoint", IpNet::new(HOST.into(), 24)?)?;
    let mut rt = Rt::open_in(endpoint)?;
    rt.set_up("lo")?;
    rt.set_up("eth0")?;
    rt.add_address("eth0", IpNet::new(ENDPOINT.into(), 24)?)?;
    rt.add_route(&Route::via(IpNet::new(IpAddr::from([0, 0, 0, 0]), 0)?, HOST.into()))?;
    Ok(())
}

/// Accepts connections and closes them when the client does, for as long as the benchmark lives.
fn listen(endpoint: &Netns) -> anyhow::Result<()> {
    let address = SocketAddr::new(ENDPOINT.into(), ENDPOINT_PORT);
    let listener = endpoint.run(|| TcpListener::bind(address))??;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1]);
        }
    });
    Ok(())
}
