//! Announcers on a real segment: network namespaces on a bridge, kernels that ask by ARP and by Neighbour Discovery.
//!
//! The API server is one in memory. Needs root.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portolan_announce::{Config, key};
use portolan_client::paths;
use portolan_client::testing::FakeApi;
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Mac, Rt, Veth, VethPeer};
use serde_json::{Value, json};
use tokio::sync::watch;

static COUNT: AtomicU32 = AtomicU32::new(0);
const PATIENCE: Duration = Duration::from_secs(20);

struct Segment {
    dir: PathBuf,
    hosts: Vec<Netns>,
    api: Arc<FakeApi>,
}

/// The host's address on the segment, in both families.
fn ips(host: usize) -> [IpAddr; 2] {
    let last = host as u16 + 11;
    [IpAddr::from([10, 0, 0, last as u8]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])]
}

impl Segment {
    /// Hosts on one bridge; the last one is the client.
    fn new(count: usize) -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("portolan-announce-{}-{number}", std::process::id()));
        let switch = Netns::create(&dir.join("switch")).unwrap();
        let mut rt = Rt::open_in(&switch).unwrap();
        rt.add_bridge("br0").unwrap();
        rt.set_up("br0").unwrap();
        let host = |i: usize| {
            let host = Netns::create(&dir.join(format!("host-{i}"))).unwrap();
            // Neighbours are asked at once, and addresses usable at once.
            host.set_sysctl("net/ipv6/conf/all/accept_dad", "0").unwrap();
            let port = format!("port-{i}");
            let peer = VethPeer { name: "eth0", mac: None, netns: Some(&host) };
            rt.add_veth(&Veth { name: &port, mac: None, mtu: None, peer }).unwrap();
            rt.set_master(&port, Some("br0")).unwrap();
            let mut rt = Rt::open_in(&host).unwrap();
            rt.set_up("lo").unwrap();
            rt.set_up("eth0").unwrap();
            for (ip, length) in ips(i).into_iter().zip([24, 64]) {
                rt.add_address("eth0", ipnet::IpNet::new(ip, length).unwrap()).unwrap();
            }
            host
        };
        let hosts = (0..count).map(host).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let api = FakeApi::new();
        runtime.block_on(key::ensure(&api.client())).unwrap();
        Self { dir, hosts, api }
    }

    fn client(&self) -> &Netns {
        self.hosts.last().unwrap()
    }

    fn mac(&self, host: usize) -> Mac {
        Rt::open_in(&self.hosts[host]).unwrap().link("eth0").unwrap().mac.unwrap()
    }

    /// An announcer on a host, as Node `node-I`; it ends when the sender says so or is gone.
    fn announce(&self, host: usize) -> watch::Sender<bool> {
        let name = format!("node-{host}");
        self.api.put(
            &paths::NODES,
            json!({"metadata": {"name": name}, "status": {
                "addresses": [{"type": "InternalIP", "address": ips(host)[0]}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }}),
        );
        let (stop, mut stopped) = watch::channel(false);
        let config = Config::new(name, ips(host)[0]);
        let (client, netns) = (self.api.client(), self.hosts[host].try_clone().unwrap());
        // The announcer's thread and sockets are made where it runs.
        std::thread::spawn(move || {
            netns.run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(portolan_announce::run(client, config, async move {
                    let _ = stopped.wait_for(|stop| *stop).await;
                }))
            })
        });
        stop
    }

    fn service(&self, ingress: &[&str]) {
        let ingress: Vec<Value> = ingress.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        self.api.put(
            &paths::SERVICES,
            json!({"metadata": {"name": "web", "namespace": "default", "uid": "u"}, "spec": {"type": "LoadBalancer"},
                "status": {"loadBalancer": {"ingress": ingress}}}),
        );
    }

    /// Where the client's kernel finds an address, asked anew.
    fn found(&self, ip: IpAddr) -> Option<Mac> {
        let mut rt = Rt::open_in(self.client()).unwrap();
        let _ = rt.delete_neighbour("eth0", ip);
        self.knock(ip);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(200) {
            if let Some(mac) = self.known(ip) {
                return Some(mac);
            }
        }
        None
    }

    fn knock(&self, ip: IpAddr) {
        let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
        self.client()
            .run(|| {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                let _ = socket.send_to(b"knock", SocketAddr::new(ip, 9));
            })
            .unwrap();
    }

    fn known(&self, ip: IpAddr) -> Option<Mac> {
        let all = Rt::open_in(self.client()).unwrap().neighbours().unwrap();
        all.into_iter().find(|neighbour| neighbour.address == ip).and_then(|neighbour| neighbour.mac)
    }

    /// The host, other than `except`, at which the client finds the address.
    fn until_found(&self, ip: IpAddr, except: Option<usize>) -> usize {
        let begin = Instant::now();
        loop {
            let mac = self.found(ip);
            let at = (0..self.hosts.len() - 1).find(|host| mac == Some(self.mac(*host)));
            if let Some(host) = at.filter(|host| Some(*host) != except) {
                return host;
            }
            assert!(begin.elapsed() < PATIENCE, "{ip} is not found: {mac:?}");
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for name in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let _ = Netns::delete(&name.path());
        }
        let _ = std::fs::remove_dir(&self.dir);
    }
}

const FOUR: &str = "10.0.0.240";
const SIX: &str = "fd00::240";

#[test]
fn kernels_find_addresses_of_both_families_and_hear_of_every_move() {
    let segment = Segment::new(3);
    let stops = [segment.announce(0), segment.announce(1)];
    segment.service(&[FOUR, SIX]);
    for ip in [FOUR, SIX].map(|text| text.parse::<IpAddr>().unwrap()) {
        let owner = segment.until_found(ip, None);
        assert_eq!(segment.known(ip), Some(segment.mac(owner)));
    }
    // Switches that listen for reports pass questions on to the owner.
    let groups = |host: usize| {
        let read = || std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
        segment.hosts[host].run(read).unwrap()
    };
    let six = SIX.parse().unwrap();
    let owner = segment.until_found(six, None);
    let group = "ff0200000000000000000001ff000240";
    assert!(groups(owner).contains(group), "{}", groups(owner));
    assert!(!groups(1 - owner).contains(group));
    // What the owner of the IPv6 address hands over, the client's kernel learns without asking again.
    let begin = Instant::now();
    stops[owner].send(true).unwrap();
    let other = segment.mac(1 - owner);
    while segment.known(six) != Some(other) {
        // A stale entry is confirmed by use; an announcement has replaced it by then.
        assert!(begin.elapsed() < PATIENCE, "{:?}", segment.known(six));
    }
    println!("planned move of an IPv6 address: {:?}", begin.elapsed());
    assert_eq!(segment.until_found(FOUR.parse().unwrap(), None), 1 - owner);
    // An address that no Service has any more is answered by nobody.
    segment.service(&[FOUR]);
    let begin = Instant::now();
    while segment.found(six).is_some() {
        assert!(begin.elapsed() < PATIENCE);
    }
}

#[test]
fn a_stranger_with_an_ipv6_address_keeps_it() {
    let segment = Segment::new(2);
    let mut rt = Rt::open_in(segment.client()).unwrap();
    rt.add_address("eth0", format!("{SIX}/64").parse().unwrap()).unwrap();
    let _stop = segment.announce(0);
    segment.service(&[SIX]);
    let begin = Instant::now();
    let conflict = || {
        let events = segment.api.all(&paths::EVENTS);
        events.into_iter().find(|event| event["reason"] == "AddressConflict")
    };
    let event = loop {
        if let Some(event) = conflict() {
            break event;
        }
        assert!(begin.elapsed() < PATIENCE, "{:?}", segment.api.all(&paths::EVENTS));
        std::thread::yield_now();
    };
    let message = event["message"].as_str().unwrap();
    assert!(message.contains(&segment.mac(1).to_string()), "{message}");
}

#[test]
fn a_pool_says_on_which_links_its_addresses_are_announced() {
    let segment = Segment::new(2);
    let pool = |interface: &str| {
        let spec = json!({"addresses": ["10.0.0.240/32"], "interfaces": [interface]});
        segment.api.put(&paths::LOAD_BALANCER_POOLS, json!({"metadata": {"name": "main"}, "spec": spec}));
    };
    pool("eth9");
    let _stop = segment.announce(0);
    segment.service(&[FOUR]);
    let begin = Instant::now();
    let said = || {
        let events = segment.api.all(&paths::EVENTS);
        events.into_iter().find(|event| event["reason"] == "announceFailed")
    };
    let event = loop {
        if let Some(event) = said() {
            break event;
        }
        assert!(begin.elapsed() < PATIENCE, "{:?}", segment.api.all(&paths::EVENTS));
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(event["message"].as_str().unwrap().contains("name one in spec.interfaces"), "{event}");
    let four = FOUR.parse().unwrap();
    assert_eq!(segment.found(four), None, "the link of its network is not the one that the pool names");
    pool("eth0");
    assert_eq!(segment.until_found(four, None), 0);
}
