//! IPVS itself: the kernel and the fake of it refuse the same things, and `ipvsadm` sees what we wrote.

use std::fmt::Write as _;
use std::net::IpAddr;

use portolan_netlink::ipvs::{Destination, Fake, Ipvs, Op, Server, ServerKey, Socket, Timeouts};

use super::common::{in_kernel, ip};
use super::net::Net;

const STEPS: u32 = 600;

fn net() -> Net {
    Net::new(&[("outside", ["203.0.113.50", "2001:db8:113::50"])])
}

fn key(n: u32) -> ServerKey {
    match n % 4 {
        0 => ServerKey::Address { address: ip("10.0.0.1"), protocol: 6, port: 80 },
        1 => ServerKey::Address { address: ip("10.0.0.1"), protocol: 17, port: 53 },
        2 => ServerKey::Address { address: ip("fd00::1"), protocol: 6, port: 80 },
        _ => ServerKey::Mark { ipv6: false, mark: 7 },
    }
}

fn server(n: u32) -> Server {
    let scheduler = ["rr", "wlc", "mh", "sh", "nonesuch"][(n / 4 % 5) as usize];
    Server {
        key: key(n),
        scheduler: scheduler.into(),
        persistence: (n / 20).is_multiple_of(2).then_some(300),
    }
}

fn destination(n: u32) -> Destination {
    let address: IpAddr = ip(["10.1.0.1", "10.1.0.2", "fd00:1::1"][(n / 4 % 3) as usize]);
    Destination { address, port: 8080, weight: [0, 1, 7, u32::MAX][(n / 12 % 4) as usize] }
}

fn op(n: u32) -> Op {
    let (kind, n) = (n % 8, n / 8);
    let to = destination(n);
    match kind {
        0 | 1 => Op::NewServer(server(n)),
        2 => Op::SetServer(server(n)),
        3 if n % 3 == 0 => Op::DelServer(key(n)),
        3 => Op::SetTimeouts(Timeouts { tcp: n % 900, tcp_fin: n % 7, udp: 0 }),
        4 | 5 => Op::NewDestination(key(n), to),
        6 => Op::SetDestination(key(n), to),
        _ => Op::DelDestination(key(n), to.address, to.port),
    }
}

/// Everything that can be read back, in one order.
fn state(ipvs: &mut impl Ipvs) -> String {
    let mut servers = ipvs.servers().unwrap();
    servers.sort_unstable_by_key(|server| server.key);
    let mut text = format!("{:?}\n", ipvs.timeouts().unwrap());
    for server in servers {
        let mut destinations: Vec<_> =
            ipvs.destinations(&server.key).unwrap().iter().map(|state| state.destination).collect();
        destinations.sort_unstable();
        writeln!(text, "{server:?} {destinations:?}").unwrap();
    }
    text
}

fn the_fake_agrees_with_the_kernel() {
    let net = net();
    let mut kernel = net.within("node", || Socket::open().unwrap().unwrap());
    let mut fake = Fake::new();
    assert_eq!(kernel.info().unwrap().version, fake.info().unwrap().version);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for step in 0..STEPS {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let op = [op((random >> 33) as u32)];
        let said = [kernel.apply(&op), fake.apply(&op)];
        let said = said.map(|said| said.err().and_then(|error| error.source.raw_os_error()));
        assert_eq!(said[0], said[1], "the kernel and the fake on {op:?}, step {step}");
        assert_eq!(state(&mut kernel), state(&mut fake), "after {op:?}, step {step}");
    }
}

fn ipvsadm_sees_what_was_written() {
    let net = net();
    let mut kernel = net.within("node", || Socket::open().unwrap().unwrap());
    let many = (0..300_u16).map(|port| {
        let key = ServerKey::Address { address: ip("10.0.0.2"), protocol: 17, port: 1000 + port };
        Op::NewServer(Server { key, scheduler: "rr".into(), persistence: None })
    });
    let of = |n| Op::NewServer(Server { key: key(n), scheduler: "wlc".into(), persistence: Some(300) });
    let to =
        |n, address| Op::NewDestination(key(n), Destination { address: ip(address), port: 8080, weight: 1 });
    let ops: Vec<_> = many.chain([of(0), of(2), to(0, "10.1.0.1"), to(2, "fd00:1::1")]).collect();
    kernel.apply(&ops).unwrap();
    let saved = net.run("node", "ipvsadm -Sn");
    let expected = [
        "-A -t 10.0.0.1:80 -s wlc -p 300",
        "-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1",
        "-A -t [fd00::1]:80 -s wlc -p 300",
        "-a -t [fd00::1]:80 -r [fd00:1::1]:8080 -m -w 1",
        "-A -u 10.0.0.2:1299 -s rr",
    ];
    for line in expected {
        assert!(saved.lines().any(|found| found.trim() == line), "{line}\nis not in\n{saved}");
    }
    assert_eq!(saved.lines().count(), ops.len());
    let mut ops = ops;
    ops.insert(7, Op::DelServer(key(1)));
    let error = kernel.apply(&ops[5..]).unwrap_err();
    assert!((error.index, error.source.raw_os_error()) == (0, Some(17)), "the first that failed: {error}");
}

mod ipvs {
    super::in_kernel!(with_ipvs, the_fake_agrees_with_the_kernel, super::the_fake_agrees_with_the_kernel);
    super::in_kernel!(with_ipvs, ipvsadm_sees_what_was_written, super::ipvsadm_sees_what_was_written);
}
