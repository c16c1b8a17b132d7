//! From the loss of the node that answers for an address to the next connect that succeeds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use portolan_client::{Patch, Subresource, paths};
use portolan_lab::Host;
use portolan_lab::load::{Load, Manner, Repeats};
use portolan_netlink::rt::Rt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Bench, Group, Measured, PATIENCE};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 240));
const PORT: u16 = 8080;
/// Before and after what happens, the client goes on for so long.
const AROUND: Duration = Duration::from_millis(300);
/// An address that has not moved for so long stays: longer than a node is in doubt after it was frozen once.
const SETTLED: Duration = Duration::from_millis(1500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// All processes of the node are killed, and its link is cut, as when its power fails.
    Power,
    /// The node's process stops, and its kernel goes on: only who asks for the address anew notices.
    Freeze,
    Partition,
    /// The node is cordoned, as `kubectl drain` does first.
    Drain,
    /// The node's process is asked to end, as in a rolling update.
    Stop,
}

impl Loss {
    const ALL: [(Self, &str); 5] = [
        (Self::Power, "unplanned: the node's power fails"),
        (Self::Partition, "unplanned: its link is cut"),
        (Self::Drain, "planned: it is drained"),
        (Self::Stop, "planned: its process is stopped"),
        // Last: a node that was frozen several times is in doubt for longer, and addresses move when it is trusted again.
        (Self::Freeze, "unplanned: its process freezes; a client that comes anew"),
    ];
}

pub(super) fn measure(bench: &Bench, runs: usize) -> anyhow::Result<Vec<Measured>> {
    let place = bench.lab.lab.place("server")?;
    let mut command = place.command(&bench.exe.to_string_lossy());
    let mut server = place.spawn(command.args(["echo", "--http", &PORT.to_string()]))?;
    bench.runtime.block_on(announce(bench))?;
    let mut all = Vec::new();
    for (loss, name) in Loss::ALL {
        let mut gaps = Vec::new();
        let (mut failed, mut connects, mut unanswered) = (0, 0, 0);
        for _ in 0..runs {
            let outcome = bench.one(loss)?;
            gaps.push(outcome.gap);
            failed += outcome.failed;
            connects += outcome.connects;
            unanswered += outcome.unanswered;
        }
        println!("{name}: {failed} of {connects} connects failed, {unanswered} first packets lost");
        all.push(Measured::new(Group::Failover, name, &gaps));
    }
    server.kill()?;
    server.wait()?;
    Ok(all)
}

async fn announce(bench: &Bench) -> anyhow::Result<()> {
    let pool = json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "LoadBalancerPool", "metadata": {"name": "failover"},
        "spec": {"addresses": [format!("{ADDRESS}/32")]},
    });
    let _: Value = bench.client.create(&paths::LOAD_BALANCER_POOLS, None, &pool).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "failover"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": PORT}]},
    });
    let _: Value = bench.client.create(&paths::SERVICES, Some("default"), &service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "failover", "labels": {"kubernetes.io/service-name": "failover"}},
        "endpoints": [{"addresses": [Host::Server.ip()]}], "ports": [{"port": PORT, "protocol": "TCP"}],
    });
    let _: Value = bench.client.create(&paths::ENDPOINT_SLICES, Some("default"), &slice).await?;
    Ok(())
}

struct Outcome {
    gap: Duration,
    failed: usize,
    connects: usize,
    unanswered: u64,
}

fn vip() -> SocketAddr {
    SocketAddr::new(ADDRESS, 80)
}

impl Bench {
    fn one(&self, loss: Loss) -> anyhow::Result<Outcome> {
        let owner = self.settled()?;
        let client = self.lab.lab.host(Host::Client)?;
        let manner = match loss {
            Loss::Freeze => Manner::Newcomer,
            Loss::Power | Loss::Partition => Manner::Hasty,
            Loss::Drain | Loss::Stop => Manner::Patient,
        };
        let before = Repeats::of(&client)?;
        let load = Load::start(client.try_clone()?, vip(), manner);
        std::thread::sleep(AROUND);
        let begin = Instant::now();
        self.lose(loss, owner)?;
        self.until(|now| now.is_some_and(|now| now != owner), "the address does not move")?;
        std::thread::sleep(AROUND);
        let seen = load.end()?;
        let unanswered = Repeats::of(&client)?.unanswered_since(before);
        self.mend(loss, owner)?;
        let (failed, connects) = (seen.failures().len(), seen.count());
        Ok(Outcome { gap: seen.longest_gap(begin), failed, connects, unanswered })
    }

    fn lose(&self, loss: Loss, node: u8) -> anyhow::Result<()> {
        match loss {
            Loss::Power => {
                self.link(node, false)?;
                self.lab.lab.host(Host::Node(node))?.kill_processes(PATIENCE)?;
            }
            Loss::Freeze => self.signal(node, Signal::STOP)?,
            Loss::Partition => self.link(node, false)?,
            Loss::Drain => self.cordon(node, true)?,
            Loss::Stop => self.signal(node, Signal::TERM)?,
        }
        Ok(())
    }

    fn mend(&self, loss: Loss, node: u8) -> anyhow::Result<()> {
        match loss {
            Loss::Power => {
                self.link(node, true)?;
                self.lab.lab.start_node(&self.exe, node)?;
            }
            Loss::Freeze => self.signal(node, Signal::CONT)?,
            Loss::Partition => self.link(node, true)?,
            Loss::Drain => self.cordon(node, false)?,
            Loss::Stop => {
                // It hands over first, and takes its time to end.
                let begin = Instant::now();
                while !self.lab.lab.host(Host::Node(node))?.processes().is_empty() {
                    anyhow::ensure!(begin.elapsed() < PATIENCE, "node-{node} does not end");
                    std::thread::sleep(Duration::from_millis(10));
                }
                self.lab.lab.start_node(&self.exe, node)?;
            }
        }
        Ok(())
    }

    fn link(&self, node: u8, there: bool) -> anyhow::Result<()> {
        let mut rt = Rt::open_in(&self.lab.lab.host(Host::Segment)?)?;
        let port = format!("node-{node}");
        if there {
            rt.set_up(&port)?;
        } else {
            rt.set_down(&port)?;
        }
        Ok(())
    }

    fn signal(&self, node: u8, signal: Signal) -> anyhow::Result<()> {
        for pid in self.lab.lab.host(Host::Node(node))?.processes() {
            kill_process(Pid::from_raw(pid as i32).context("process 0")?, signal)?;
        }
        Ok(())
    }

    fn cordon(&self, node: u8, cordoned: bool) -> anyhow::Result<()> {
        let patch = json!({"spec": {"unschedulable": cordoned}});
        let name = format!("node-{node}");
        let patched = self.client.patch(&paths::NODES, None, &name, Subresource::None, Patch::Merge(&patch));
        let _: Value = self.runtime.block_on(patched)?;
        Ok(())
    }

    /// The node that the client's kernel finds the address at.
    fn owner(&self) -> anyhow::Result<Option<u8>> {
        let _ = TcpStream::connect_timeout(&vip(), AROUND);
        let neighbours = Rt::open()?.neighbours()?;
        let mac = neighbours.iter().find(|n| n.address == ADDRESS).and_then(|n| n.mac);
        for node in 1..=self.lab.lab.layout.nodes {
            let link = Rt::open_in(&self.lab.lab.host(Host::Node(node))?)?.link("eth0")?;
            if mac.is_some() && link.mac == mac {
                return Ok(Some(node));
            }
        }
        Ok(None)
    }

    fn until(&self, satisfies: impl Fn(Option<u8>) -> bool, complaint: &str) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !satisfies(self.owner()?) {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "{complaint}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The owner when it has not changed for a while.
    fn settled(&self) -> anyhow::Result<u8> {
        let begin = Instant::now();
        let mut since = (self.owner()?, Instant::now());
        loop {
            let now = self.owner()?;
            if now != since.0 {
                since = (now, Instant::now());
            }
            if let Some(owner) = now.filter(|_| since.1.elapsed() >= SETTLED) {
                return Ok(owner);
            }
            anyhow::ensure!(begin.elapsed() < PATIENCE, "{ADDRESS} does not come to rest");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
