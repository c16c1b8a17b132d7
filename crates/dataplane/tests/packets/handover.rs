//! One data plane takes over from another while clients connect: none fails, and what is established goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use portolan_dataplane::{DataPlane, Driver};
use portolan_forward::Protocol;

use super::common::planes::{self, Plane};
use super::common::{Case, in_kernel, ip, node};
use super::net::PATIENT;
use super::{ELSEWHERE, Lab, everywhere, open, server_of};

const PER_CLIENT: usize = 400;

/// From `A` to `B` and back, again and again. `leave_a` and `leave_b` take away what is left of either when the other
/// is complete.
fn take_turns<A: Plane, B: Plane>(
    leave_a: impl Fn(&Lab<A>, &mut Driver<A::Real>),
    leave_b: impl Fn(&Lab<A>, &mut Driver<B::Real>),
) {
    let lab = Lab::<A>::new(node(), [everywhere(Case::new("busy", &["172.30.0.1"]), 0), line()]);
    let to = SocketAddr::new(ip("172.30.0.1"), 80);
    let mut lines = vec![Line::new(&lab)];
    std::thread::scope(|scope| {
        let net = &lab.net;
        let clients = |from| net.connect_all(from, Protocol::Tcp, to, PER_CLIENT, PATIENT);
        let running = ["pod-1", "outside", "node"].map(|from| scope.spawn(move || clients(from)));
        let mut turns = 0;
        while turns < 2 || running.iter().any(|client| !client.is_finished()) {
            let mut b = open::<B>(net);
            b.sync(&lab.world.table).unwrap();
            leave_a(&lab, &mut open::<A>(net));
            lines.iter_mut().for_each(Line::works);
            lines.push(Line::new(&lab));
            open::<A>(net).sync(&lab.world.table).unwrap();
            leave_b(&lab, &mut b);
            lines.iter_mut().for_each(Line::works);
            turns += 1;
        }
        for client in running {
            for seen in client.join().unwrap() {
                server_of(&seen);
            }
        }
    });
}

fn line() -> Case {
    Case::new("line", &["172.30.0.2"]).endpoint(ELSEWHERE[0], 9090)
}

/// An established connection from a pod.
struct Line {
    client: TcpStream,
    server: TcpStream,
}

impl Line {
    fn new<P: Plane>(lab: &Lab<P>) -> Self {
        let listener = lab.net.within("elsewhere", || TcpListener::bind((ip(ELSEWHERE[0]), 9090)).unwrap());
        let to = SocketAddr::new(ip("172.30.0.2"), 80);
        let client = lab.net.within("pod-1", || TcpStream::connect(to).unwrap());
        let (server, _) = listener.accept().unwrap();
        Self { client, server }
    }

    fn works(&mut self) {
        self.client.write_all(b"x").unwrap();
        let mut byte = [0];
        self.server.read_exact(&mut byte).unwrap();
    }
}

/// The chains are the same, rewritten in their place; the virtual servers go when nothing leads there.
fn between_iptables_and_ipvs() {
    take_turns::<planes::IptablesLegacy, planes::IpvsBehindIptables>(
        |_, _| {},
        |lab, _| {
            let left = lab.net.within("node", portolan_dataplane::ipvs::remove);
            assert!(left.is_empty(), "{left:?}");
        },
    );
}

fn between_nftables_and_ipvs() {
    take_turns::<planes::Nftables, planes::IpvsBehindNftables>(
        |_, a| assert!(a.cleanup().is_empty()),
        |_, b| assert!(b.plane_mut().cleanup().is_empty()),
    );
}

/// Where IPVS has nftables before it, nothing of the two is the same.
fn between_iptables_and_ipvs_behind_nftables() {
    take_turns::<planes::Iptables, planes::IpvsBehindNftables>(
        |_, a| assert!(a.plane_mut().cleanup().is_empty()),
        |_, b| assert!(b.plane_mut().cleanup().is_empty()),
    );
}

mod ipvs {
    super::in_kernel!(
        with_ipvs,
        iptables_and_ipvs_take_turns_without_a_failed_connection,
        super::between_iptables_and_ipvs
    );
}

mod behind_nftables {
    super::in_kernel!(
        with_ipvs_and_nftables,
        nftables_and_ipvs_take_turns_without_a_failed_connection,
        super::between_nftables_and_ipvs
    );
    super::in_kernel!(
        with_ipvs_and_nftables,
        iptables_and_ipvs_take_turns_without_a_failed_connection,
        super::between_iptables_and_ipvs_behind_nftables
    );
}
