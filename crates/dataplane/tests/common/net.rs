//! A node, its pods, a pod elsewhere and an outside client, each in a network namespace made here.
//!
//! Every host but the node has one link, to the node, and the node as its gateway. Servers answer with their name and
//! the address they saw the client at.

#![allow(dead_code, unreachable_pub, reason = "each test file includes this one and uses its own part")]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use portolan_forward::Protocol;
use portolan_netlink::netns::{IP_NETNS_DIR, Netns};
use portolan_netlink::nft::Socket;
use portolan_netlink::rt::{Route, Rt, Veth, VethPeer};

use crate::common::ip;

/// How long to wait for what should come, on a machine that is busy with other things.
pub const PATIENT: Duration = Duration::from_secs(10);
/// How long to wait for what should not come. Answers take well under a millisecond.
pub const IMPATIENT: Duration = Duration::from_millis(150);

pub const NODE_ADDRESSES: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];

/// A namespace under a name that `ip netns exec` knows, removed at the end.
struct Space {
    path: PathBuf,
    netns: Netns,
    rt: Rt,
}

impl Space {
    fn new(role: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ptdp-{}-{}-{role}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(IP_NETNS_DIR).join(name);
        let netns = Netns::create(&path).expect("network namespaces need root");
        let mut rt = Rt::open_in(&netns).unwrap();
        rt.set_up("lo").unwrap();
        Self { path, netns, rt }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if thread::panicking() && std::env::var_os("PORTOLAN_TEST_KEEP").is_some() {
            let name = self.path.file_name().unwrap_or_default();
            eprintln!("kept: ip netns exec {} bash", name.to_string_lossy());
            return;
        }
        drop(Netns::delete(&self.path));
    }
}

pub struct Host {
    pub name: &'static str,
    pub addresses: [IpAddr; 2],
    /// The node's end of the host's link.
    pub interface: Arc<str>,
    space: Space,
}

pub struct Net {
    pub node: Host,
    pub hosts: Vec<Host>,
    stop: Arc<AtomicBool>,
}

/// What a client saw.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seen {
    Answer { server: String, client: IpAddr },
    Refused,
    Nothing,
}

impl Net {
    /// Hosts by name with their addresses.
    pub fn new(hosts: &[(&'static str, [&str; 2])]) -> Self {
        let node_addresses = NODE_ADDRESSES.map(ip);
        let mut node = Host {
            name: "node",
            addresses: node_addresses,
            interface: "lo".into(),
            space: Space::new("node"),
        };
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv4/icmp_msgs_per_sec", "1000000"),
            ("net/ipv4/icmp_msgs_burst", "1000000"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ] {
            node.space.netns.set_sysctl(key, value).unwrap();
        }
        let mut net_hosts = Vec::new();
        for (index, (name, addresses)) in hosts.iter().enumerate() {
            net_hosts.push(attach(&mut node, index, name, addresses.map(ip)));
        }
        let outside = node.space.rt.link(&net_hosts[0].interface).unwrap().index;
        for all in ["0.0.0.0/0", "::/0"] {
            node.space.rt.add_route(&Route::on_link(all.parse().unwrap(), outside)).unwrap();
        }
        Self { node, hosts: net_hosts, stop: Arc::default() }
    }

    /// A socket on the node's ruleset.
    pub fn nft(&self) -> Socket {
        self.node.space.netns.run(Socket::open).unwrap().unwrap()
    }

    /// What `work` returns inside a host's namespace.
    pub fn within<T: Send>(&self, host: &str, work: impl FnOnce() -> T + Send) -> T {
        self.host(host).space.netns.run(work).unwrap()
    }

    /// Runs a program in a host's namespace and gives what it says.
    pub fn run(&self, host: &str, command: &str) -> String {
        let mut words = command.split_whitespace();
        let program = words.next().unwrap();
        let output = self.within(host, || Command::new(program).args(words).output());
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Loads a ruleset of somebody else's into the node.
    pub fn nft_load(&self, ruleset: &str) {
        self.nft_feed(&["-f", "-"], ruleset);
    }

    /// Lets `nft` parse a ruleset without loading it.
    pub fn nft_check(&self, ruleset: &str) {
        self.nft_feed(&["--check", "-f", "-"], ruleset);
    }

    fn nft_feed(&self, args: &[&str], ruleset: &str) {
        let output = self.within("node", || {
            let mut nft = Command::new("nft");
            let mut nft = nft.args(args).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
            nft.stdin.take().unwrap().write_all(ruleset.as_bytes())?;
            nft.wait_with_output()
        });
        let output = output.expect("the tests need the nft tool");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What `nft list ...` says on the node.
    pub fn nft_list(&self, what: &[&str]) -> String {
        let run = || Command::new("nft").arg("list").args(what).output();
        let output = self.within("node", run).expect("the tests need the nft tool");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn host(&self, name: &str) -> &Host {
        std::iter::once(&self.node).chain(&self.hosts).find(|host| host.name == name).unwrap()
    }

    /// Listens on all addresses of a host, both families, TCP and UDP.
    pub fn serve(&self, host: &str, port: u16) {
        let host = self.host(host);
        for address in host.addresses {
            let to = SocketAddr::new(address, port);
            let bind = || Ok::<_, io::Error>((TcpListener::bind(to)?, UdpSocket::bind(to)?));
            let (tcp, udp) = host.space.netns.run(bind).unwrap().unwrap();
            self.spawn_tcp(host.name, tcp);
            self.spawn_udp(host.name, udp);
        }
    }

    fn spawn_tcp(&self, name: &'static str, listener: TcpListener) {
        let stop = self.stop.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().map(|peer| peer.ip().to_canonical());
                drop(peer.and_then(|peer| stream.write_all(format!("{name} {peer}").as_bytes())));
            }
        });
    }

    fn spawn_udp(&self, name: &'static str, socket: UdpSocket) {
        socket.set_read_timeout(Some(IMPATIENT)).unwrap();
        let stop = self.stop.clone();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
                drop(socket.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer));
            }
        });
    }

    /// One new connection from a host.
    pub fn connect(&self, from: &str, protocol: Protocol, to: SocketAddr) -> Seen {
        self.connect_all(from, protocol, to, 1, PATIENT).remove(0)
    }

    /// One new TCP connection from a host's port.
    pub fn connect_from(&self, from: &str, port: u16, to: SocketAddr) -> Seen {
        self.within(from, || {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            let any: IpAddr =
                if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            socket.bind(&SocketAddr::new(any, port).into()).unwrap();
            let connected = socket.connect_timeout(&to.into(), PATIENT);
            seen(connected.and_then(|()| answer(socket.into(), PATIENT)))
        })
    }

    /// So many new connections from a host, one after the other.
    pub fn connect_all(
        &self,
        from: &str,
        protocol: Protocol,
        to: SocketAddr,
        count: usize,
        patience: Duration,
    ) -> Vec<Seen> {
        let netns = &self.host(from).space.netns;
        let one = || match protocol {
            Protocol::Tcp => tcp(to, patience),
            Protocol::Udp => udp(to, patience),
            Protocol::Sctp => unimplemented!("the kernel under test need not have SCTP sockets"),
        };
        netns.run(|| (0..count).map(|_| seen(one())).collect()).unwrap()
    }
}

/// How long a connection took: until it was there, and until the answer was.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    pub connect: Duration,
    pub answer: Duration,
}

impl Net {
    /// So many new TCP connections from a host, one after the other, each timed.
    pub fn times(&self, from: &str, to: SocketAddr, count: usize) -> Vec<Took> {
        let one = || {
            let begin = Instant::now();
            let mut stream = TcpStream::connect_timeout(&to, PATIENT).unwrap();
            let connect = begin.elapsed();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            Took { connect, answer: begin.elapsed() }
        };
        self.within(from, || (0..count).map(|_| one()).collect())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn attach(node: &mut Host, index: usize, name: &'static str, addresses: [IpAddr; 2]) -> Host {
    let mut space = Space::new(name);
    let interface = format!("{}{index}", if name.starts_with("pod") { "veth" } else { "net" });
    let peer = VethPeer { name: "eth0", mac: None, netns: Some(&space.netns) };
    node.space.rt.add_veth(&Veth { name: &interface, mac: None, mtu: None, peer }).unwrap();
    space.rt.set_up("eth0").unwrap();
    // A packet that goes back where it came from makes the node send a redirect, once its link-local address is beyond
    // doubt: a second or two later. Clients shall not take the address for one of their own link then.
    for family in ["ipv4", "ipv6"] {
        space.netns.set_sysctl(&format!("net/{family}/conf/eth0/accept_redirects"), "0").unwrap();
        space.netns.set_sysctl(&format!("net/{family}/conf/all/accept_redirects"), "0").unwrap();
    }
    let near = node.space.rt.link(&interface).unwrap().index;
    let far = space.rt.link("eth0").unwrap().index;
    for (address, gateway) in addresses.into_iter().zip(node.addresses) {
        node.space.rt.add_address(&interface, IpNet::from(gateway)).unwrap();
        node.space.rt.add_route(&Route::on_link(IpNet::from(address), near)).unwrap();
        space.rt.add_address("eth0", IpNet::from(address)).unwrap();
        space.rt.add_route(&Route::on_link(IpNet::from(gateway), far)).unwrap();
        let all = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        let route = Route { link: Some(far), ..Route::via(all.parse().unwrap(), gateway) };
        space.rt.add_route(&route).unwrap();
    }
    Host { name, addresses, interface: interface.into(), space }
}

fn tcp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    answer(TcpStream::connect_timeout(&to, patience)?, patience)
}

fn answer(mut stream: TcpStream, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.set_read_timeout(Some(patience))?;
    socket.connect(to)?;
    // When the node refuses its own packet, sending it already fails, without saying why; receiving tells.
    match socket.send(b"?") {
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
        _ => {}
    }
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

fn seen(result: io::Result<String>) -> Seen {
    match result {
        Ok(answer) => {
            let (server, client) = answer.split_once(' ').expect("servers say two words");
            Seen::Answer { server: server.to_owned(), client: ip(client) }
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Seen::Refused,
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            Seen::Nothing
        }
        Err(error) => panic!("an error that no policy explains: {error}"),
    }
}
