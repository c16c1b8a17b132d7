//! The IPVS data plane under test, over either front.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_dataplane::DataPlane;
use portolan_dataplane::ipvs::{self, Config, FakeMachine, Front, Kernel, Key, Machine, Value, layout};
use portolan_forward::Family;
use portolan_netlink::ipvs::{Ipvs as _, Op, Server, Timeouts};
use portolan_netlink::nft;

use super::{KeyOf, Plane, Sabotage, ValueOf};

/// What stands before IPVS, under test.
pub trait Before: Plane<Real: Front, Fake: Front> {
    fn open_before_ipvs() -> Self::Real;
    fn fake_before_ipvs() -> Self::Fake;
    fn restart_before_ipvs(before: &mut Self::Fake) -> Self::Fake;
}

impl Before for super::Nftables {
    fn open_before_ipvs() -> Self::Real {
        portolan_dataplane::Nftables::new(nft::Socket::open().unwrap(), config())
    }

    fn fake_before_ipvs() -> Self::Fake {
        portolan_dataplane::Nftables::new(nft::Fake::new(), config())
    }

    fn restart_before_ipvs(before: &mut Self::Fake) -> Self::Fake {
        portolan_dataplane::Nftables::new(std::mem::take(before.nft()), config())
    }
}

impl Before for super::IptablesLegacy {
    fn open_before_ipvs() -> Self::Real {
        Self::open()
    }

    fn fake_before_ipvs() -> Self::Fake {
        Self::fake()
    }

    fn restart_before_ipvs(before: &mut Self::Fake) -> Self::Fake {
        Self::restart(before)
    }
}

pub type IpvsBehindNftables = Ipvs<super::Nftables>;
pub type IpvsBehindIptables = Ipvs<super::IptablesLegacy>;

fn config() -> portolan_dataplane::nftables::Config {
    let place = portolan_dataplane::nftables::Place::BeforeIpvs;
    portolan_dataplane::nftables::Config { place, ..Default::default() }
}

pub struct Ipvs<B>(PhantomData<B>);

type Faked<B> = ipvs::Ipvs<<B as Plane>::Fake, FakeMachine>;

impl<B: Before> Plane for Ipvs<B>
where
    <B::Real as DataPlane>::Batch: Sync,
{
    type Real = ipvs::Ipvs<B::Real, Machine>;
    type Fake = Faked<B>;

    // One message each: the weight of the one that leaves, the one that comes.
    const CHANGE_COSTS: (usize, usize, usize) = (1, 1, 2);

    fn open() -> Self::Real {
        let mut plane = ipvs::Ipvs::new(B::open_before_ipvs(), Machine::open().unwrap(), Config::default());
        plane.prepare(Timeouts::default()).unwrap();
        plane
    }

    fn fake() -> Self::Fake {
        let mut plane = ipvs::Ipvs::new(B::fake_before_ipvs(), FakeMachine::default(), Config::default());
        plane.prepare(Timeouts::default()).unwrap();
        plane
    }

    fn restart(before: &mut Self::Fake) -> Self::Fake {
        let front = B::restart_before_ipvs(before.front());
        ipvs::Ipvs::new(front, std::mem::take(before.kernel()), Config::default())
    }

    fn fail_next(plane: &mut Self::Fake) {
        plane.kernel().ipvs.fail_next(12);
    }

    fn sabotages() -> Vec<Sabotage<Self::Fake>> {
        fn a_server<B: Before>(plane: &mut Faked<B>) -> Server {
            plane.kernel().ipvs.servers().unwrap().remove(0)
        }
        vec![
            ("delete a server", |plane| {
                let key = a_server::<B>(plane).key;
                plane.kernel().ipvs.apply(&[Op::DelServer(key)]).unwrap();
            }),
            ("change the scheduler", |plane| {
                let server = Server { scheduler: "wlc".into(), ..a_server::<B>(plane) };
                plane.kernel().ipvs.apply(&[Op::SetServer(server)]).unwrap();
            }),
            ("change a weight", |plane| {
                let key = a_server::<B>(plane).key;
                let mut destination = plane.kernel().ipvs.destinations(&key).unwrap()[0].destination;
                destination.weight = 7;
                plane.kernel().ipvs.apply(&[Op::SetDestination(key, destination)]).unwrap();
            }),
            ("delete the route", |plane| plane.kernel().remove_range(Family::V4).unwrap()),
        ]
    }

    fn content(key: &KeyOf<Self>, value: &ValueOf<Self>) -> String {
        match (key, value) {
            (Key::Front(key), Value::Front(value)) => B::content(key, value),
            (key, value) => content(key, value),
        }
    }

    fn endpoints(family: Family) -> usize {
        let mut machine = Machine::open().unwrap();
        let servers = machine.ipvs().servers().unwrap();
        let of =
            |server: &&Server| layout::is_ours(&server.key) && server.key.is_ipv6() == (family == Family::V6);
        servers.iter().filter(of).map(|server| machine.ipvs().destinations(&server.key).unwrap().len()).sum()
    }

    /// Connection entries without a port of the client.
    fn remembered(family: Family) -> BTreeSet<IpAddr> {
        let entries = std::fs::read_to_string("/proc/thread-self/net/ip_vs_conn").unwrap();
        let client = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let (address, port) = (words.next()?, words.next()?);
            (port == "0000").then(|| address_of(address)).flatten()
        };
        entries.lines().skip(1).filter_map(client).filter(|ip| Family::of(*ip) == family).collect()
    }
}

fn content(key: &impl Debug, value: &impl Debug) -> String {
    format!("{key:?} = {value:?}")
}

/// As the kernel prints it: eight hexadecimal digits, or an IPv6 address, with or without brackets.
fn address_of(text: &str) -> Option<IpAddr> {
    match u32::from_str_radix(text, 16) {
        Ok(bits) if text.len() == 8 => Some(Ipv4Addr::from_bits(bits).into()),
        _ => text.trim_matches(['[', ']']).parse::<Ipv6Addr>().ok().map(Into::into),
    }
}
