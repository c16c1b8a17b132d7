//! Endpoints come and go by the API, as fast as it answers, while clients connect and talk. Every endpoint is alive all
//! the time, so every connection must succeed; and nothing may leave a node, or reach a client, half translated.
//!
//! `PORTOLAN_SOAK_SECONDS` says how long.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_client::{Client, Patch, Subresource, paths};
use portolan_lab::Host;
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, at, settles, web_pod};

const SECONDS: u64 = 8;
/// An answer on one machine takes well under a millisecond, and a SYN is sent again after a second.
const ANSWER: Duration = Duration::from_millis(900);
const STABLE: [&str; 2] = ["stable-1", "stable-2"];
const FLAPPING: [&str; 2] = ["flapping-1", "flapping-2"];
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: soak}
spec:
  type: NodePort
  ports:
  - {name: line, port: 9000, nodePort: 32010}
  - {name: datagram, port: 9001, protocol: UDP, nodePort: 32011}
";

/// What leaves a node for a ClusterIP was not translated.
const NODE_WITNESS: &str = "add table ip witness; \
    add chain ip witness out { type filter hook postrouting priority 300; }; \
    add rule ip witness out ip daddr 10.96.0.0/12 counter";
/// Clients talk to the Service only: what comes from a pod, or from an endpoint's port, was not translated back. An
/// answer that is on its way when its UDP flow is forgotten may be such; TCP connections are never forgotten.
const CLIENT_WITNESS: &str = "add table ip witness; \
    add chain ip witness in { type filter hook input priority 300; }; \
    add rule ip witness in ip saddr 10.244.0.0/16 tcp sport 9000 counter; \
    add rule ip witness in ip saddr 10.0.0.0/24 tcp sport 9000 counter";

#[derive(Debug, Default)]
struct Tally {
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// A UDP flow: who served it, in order, and what went wrong while a stable endpoint did.
#[derive(Debug, Default)]
struct Flow {
    servers: Vec<String>,
    datagrams: u64,
    broken: Vec<String>,
}

impl Flow {
    fn is_at_stable(&self) -> bool {
        self.servers.last().is_some_and(|server| STABLE.contains(&server.as_str()))
    }
}

struct Soak {
    bed: Bed,
    stop: AtomicBool,
}

impl Soak {
    fn new(mode: Option<&str>) -> Self {
        let bed = Bed::up_in(2, mode);
        let places = [("stable-1", 1), ("stable-2", 2), ("flapping-1", 1), ("flapping-2", 2), ("shell", 1)];
        let pods = places.map(|(name, node)| web_pod(name, "app: soak", Some(&format!("node-{node}"))));
        bed.apply(&(pods.concat() + "---" + SERVICE));
        bed.wait_ready("app=soak");
        for (place, witness) in [
            ("node-1", NODE_WITNESS),
            ("node-2", NODE_WITNESS),
            ("shell", CLIENT_WITNESS),
            ("client", CLIENT_WITNESS),
        ] {
            nft(&bed, place, &[witness]);
        }
        Self { bed, stop: AtomicBool::new(false) }
    }

    fn endpoints(&self, pods: &[&str], ready: bool) -> Value {
        let one = |pod: &&str| json!({"addresses": [self.bed.pod_ip(pod)], "conditions": {"ready": ready}});
        pods.iter().map(one).collect()
    }

    /// Changes the flapping slice until the time is over; leaves it empty. How often it did.
    fn flap(&self, time: Duration) -> u64 {
        let ready = |pods: &[&str]| self.endpoints(pods, true);
        let states = [
            ready(&FLAPPING),
            ready(&FLAPPING[..1]),
            self.endpoints(&FLAPPING, false),
            ready(&FLAPPING[1..]),
            json!([]),
        ];
        self.with_api(async |client| {
            let (begin, mut changes) = (Instant::now(), 0);
            while begin.elapsed() < time {
                for state in &states {
                    set_endpoints(&client, state).await;
                    changes += 1;
                }
            }
            changes
        })
    }

    fn with_api<T: Send>(&self, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
        let kubeconfig = self.bed.lab.layout.kubeconfig();
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let client = async { work(Client::from_kubeconfig(&kubeconfig, "soak").unwrap()).await };
            runtime.block_on(client)
        };
        self.bed.lab.place("control-plane").unwrap().netns.run(work).unwrap()
    }

    /// Makes the slices and waits until the Service answers.
    fn begin(&self) {
        self.with_api(async |client| {
            create_slice(&client, "stable", &self.endpoints(&STABLE, true)).await;
            // Some flows begin there, and must move on.
            create_slice(&client, "flapping", &self.endpoints(&FLAPPING, true)).await;
        });
        let to = at(self.bed.cluster_ip("soak"), 9000);
        settles(|| self.bed.line("shell", to), |answer| answer.text().is_some());
        settles(|| self.bed.line("client", at(Host::Node(1).ip(), 32010)), |a| a.text().is_some());
    }

    fn connects(&self, from: &str, to: SocketAddr) -> Tally {
        let mut tally = Tally::default();
        let work = || {
            while !self.stop.load(Ordering::Relaxed) {
                match connect(to) {
                    Ok(server) => *tally.answers.entry(server).or_default() += 1,
                    Err(error) => tally.failures.push(error.to_string()),
                }
            }
        };
        self.bed.lab.place(from).unwrap().netns.run(work).unwrap();
        tally
    }

    /// Talks on one flow, and goes on after the flapping until a stable endpoint answers.
    fn flow(&self, from: &str, to: SocketAddr) -> Flow {
        let mut flow = Flow::default();
        let work = || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket.connect(to).unwrap();
            let mut deadline = None;
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    let deadline = deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                    if flow.is_at_stable() || Instant::now() > *deadline {
                        return;
                    }
                }
                let answer = datagram(&socket);
                flow.datagrams += 1;
                if flow.is_at_stable() && answer.as_ref().ok() != flow.servers.last() {
                    flow.broken.push(format!("{answer:?} after {:?}", flow.servers));
                }
                if let Ok(server) = answer
                    && flow.servers.last() != Some(&server)
                {
                    flow.servers.push(server);
                }
            }
        };
        self.bed.lab.place(from).unwrap().netns.run(work).unwrap();
        flow
    }
}

/// One connection: who answered.
fn connect(to: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    // Ends by a reset: no port is left in TIME-WAIT.
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    name(&line)
}

fn datagram(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 512];
    socket.send(b"who is there?")?;
    let length = socket.recv(&mut buffer)?;
    name(&String::from_utf8_lossy(&buffer[..length]))
}

/// `name=stable-1 ip=... peer=...`
fn name(line: &str) -> io::Result<String> {
    let name = line.split_whitespace().find_map(|word| word.strip_prefix("name="));
    name.map(str::to_owned).ok_or_else(|| io::Error::other(format!("an answer without a name: {line:?}")))
}

async fn create_slice(client: &Client, name: &str, endpoints: &Value) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("soak-{name}"), "labels": {"kubernetes.io/service-name": "soak"}},
        "endpoints": endpoints,
        "ports": [{"name": "line", "port": 9000}, {"name": "datagram", "port": 9001, "protocol": "UDP"}],
    });
    let _: Value = client.create(&paths::ENDPOINT_SLICES, Some("default"), &slice).await.unwrap();
}

async fn set_endpoints(client: &Client, endpoints: &Value) {
    let patch = json!({"endpoints": endpoints});
    let patch = Patch::Merge(&patch);
    let slices = &paths::ENDPOINT_SLICES;
    let _: Value =
        client.patch(slices, Some("default"), "soak-flapping", Subresource::None, patch).await.unwrap();
}

fn nft(bed: &Bed, place: &str, args: &[&str]) -> String {
    let output = bed.lab.place(place).unwrap().output(Command::new("nft").args(args)).unwrap();
    assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn ct_4_nothing_fails_and_nothing_is_half_translated_while_endpoints_flap() {
    soak(None);
}

#[test]
fn ct_4_nor_in_mode_iptables() {
    soak(Some("iptables"));
}

fn soak(mode: Option<&str>) {
    let seconds = std::env::var("PORTOLAN_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let soak = Soak::new(mode);
    soak.begin();
    let ip: IpAddr = soak.bed.cluster_ip("soak");
    let node_port = |port| at(Host::Node(1).ip(), port);
    let (tallies, flows, changes) = std::thread::scope(|scope| {
        let soak = &soak;
        let flapping = scope.spawn(move || soak.flap(Duration::from_secs(seconds.unwrap_or(SECONDS))));
        let tallies = [("shell", at(ip, 9000)), ("client", node_port(32010)), ("node-2", at(ip, 9000))]
            .map(|(from, to)| scope.spawn(move || (from, soak.connects(from, to))));
        let flows = [("shell", at(ip, 9001)), ("client", node_port(32011))]
            .into_iter()
            .flat_map(|flow| [flow; 6])
            .map(|(from, to)| scope.spawn(move || (from, soak.flow(from, to))))
            .collect::<Vec<_>>();
        let changes = flapping.join().unwrap();
        soak.stop.store(true, Ordering::Relaxed);
        let tallies = tallies.map(|tally| tally.join().unwrap());
        (tallies, flows.into_iter().map(|flow| flow.join().unwrap()).collect::<Vec<_>>(), changes)
    });
    println!("{changes} changes");
    for (from, tally) in &tallies {
        println!("{from}: {:?}", tally.answers);
        assert!(tally.failures.is_empty(), "from {from}: {:?} beside {:?}", tally.failures, tally.answers);
        assert!(
            STABLE.iter().all(|pod| tally.answers.contains_key(*pod)),
            "from {from}: {:?}",
            tally.answers
        );
    }
    for (from, flow) in &flows {
        println!("{from}: {} datagrams, {:?}", flow.datagrams, flow.servers);
        assert!(flow.broken.is_empty(), "from {from}: {:?}", flow.broken);
        assert!(flow.is_at_stable(), "from {from}: {flow:?}");
    }
    assert!(changes > 20, "{changes} changes");
    let flapped =
        tallies.iter().any(|(_, tally)| FLAPPING.iter().any(|pod| tally.answers.contains_key(*pod)));
    assert!(flapped, "the changes never took effect: {tallies:?}");
    for place in ["node-1", "node-2", "shell", "client"] {
        let listing = nft(&soak.bed, place, &["list", "table", "ip", "witness"]);
        let seen = listing.matches("counter packets").count() - listing.matches("counter packets 0 ").count();
        assert_eq!(seen, 0, "half translated at {place}:\n{listing}");
    }
}
