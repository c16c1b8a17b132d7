//! A fake IPVS that refuses what the kernel refuses: a destination without its server, a name twice, an unknown
//! scheduler. Whether it agrees with the kernel is shown by a test that gives both the same operations.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::{
    Destination, DestinationState, Info, Ipvs, Op, OpError, SCHEDULERS, Server, ServerKey, Timeouts,
};

/// What the kernel begins with.
const TIMEOUTS: Timeouts = Timeouts { tcp: 900, tcp_fin: 120, udp: 300 };
/// The kernel keeps timeouts in jiffies, and thirty-one bits of them; a day of the slowest clock is far below.
const TIMEOUT_MAX: u32 = i32::MAX as u32 / 1000;

#[derive(Debug, Clone)]
struct Entry {
    server: Server,
    destinations: BTreeMap<(IpAddr, u16), DestinationState>,
}

/// The error number for the next operation that something is true of.
type Failure = (fn(&Op) -> bool, i32);

#[derive(Debug)]
pub struct Fake {
    servers: BTreeMap<ServerKey, Entry>,
    timeouts: Timeouts,
    fail_next: Option<Failure>,
    /// Every operation that was accepted.
    log: Vec<Op>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { servers: BTreeMap::new(), timeouts: TIMEOUTS, fail_next: None, log: Vec::new() }
    }
}

impl Fake {
    pub fn new() -> Self {
        Self::default()
    }

    /// The next list of operations fails at its first, with this error number.
    pub fn fail_next(&mut self, errno: i32) {
        self.fail_next_with(|_| true, errno);
    }

    /// The next operation of this kind fails.
    pub fn fail_next_with(&mut self, which: fn(&Op) -> bool, errno: i32) {
        self.fail_next = Some((which, errno));
    }

    /// Pretends that a destination has so many active connections.
    pub fn set_connections(&mut self, server: &ServerKey, address: IpAddr, port: u16, active: u32) {
        let entry =
            self.servers.get_mut(server).and_then(|entry| entry.destinations.get_mut(&(address, port)));
        if let Some(state) = entry {
            state.active = active;
        }
    }

    /// The operations since the last call.
    pub fn take_log(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.log)
    }

    fn entry(&mut self, key: &ServerKey) -> Result<&mut Entry, i32> {
        self.servers.get_mut(key).ok_or(libc::ESRCH)
    }

    fn run(&mut self, op: &Op) -> Result<(), i32> {
        match op {
            Op::NewServer(server) => {
                if self.servers.contains_key(&server.key) {
                    return Err(libc::EEXIST);
                }
                check_scheduler(server)?;
                let entry = Entry { server: server.clone(), destinations: BTreeMap::new() };
                self.servers.insert(server.key, entry);
            }
            Op::SetServer(server) => {
                let entry = self.entry(&server.key)?;
                check_scheduler(server)?;
                entry.server = server.clone();
            }
            Op::DelServer(key) => {
                self.servers.remove(key).ok_or(libc::ESRCH)?;
            }
            Op::NewDestination(key, to) => {
                let entry = self.entry(key)?;
                check_family(key, to.address)?;
                let state = fresh(*to)?;
                if entry.destinations.contains_key(&(to.address, to.port)) {
                    return Err(libc::EEXIST);
                }
                entry.destinations.insert((to.address, to.port), state);
            }
            Op::SetDestination(key, to) => {
                let entry = self.entry(key)?;
                check_family(key, to.address)?;
                let new = fresh(*to)?;
                let state = entry.destinations.get_mut(&(to.address, to.port)).ok_or(libc::ENOENT)?;
                state.destination = new.destination;
            }
            Op::DelDestination(key, address, port) => {
                let entry = self.entry(key)?;
                entry.destinations.remove(&(*address, *port)).ok_or(libc::ENOENT)?;
            }
            Op::SetTimeouts(new) => {
                if [new.tcp, new.tcp_fin, new.udp].iter().any(|timeout| *timeout > TIMEOUT_MAX) {
                    return Err(libc::EINVAL);
                }
                let pick = |new, old| if new == 0 { old } else { new };
                let old = self.timeouts;
                self.timeouts = Timeouts {
                    tcp: pick(new.tcp, old.tcp),
                    tcp_fin: pick(new.tcp_fin, old.tcp_fin),
                    udp: pick(new.udp, old.udp),
                };
            }
        }
        Ok(())
    }
}

fn check_scheduler(server: &Server) -> Result<(), i32> {
    if SCHEDULERS.contains(&&*server.scheduler) { Ok(()) } else { Err(libc::ENOENT) }
}

/// Across families only tunnels lead.
fn check_family(key: &ServerKey, address: IpAddr) -> Result<(), i32> {
    if key.is_ipv6() == address.is_ipv6() { Ok(()) } else { Err(libc::EINVAL) }
}

fn fresh(destination: Destination) -> Result<DestinationState, i32> {
    if i32::try_from(destination.weight).is_err() {
        return Err(libc::ERANGE);
    }
    Ok(DestinationState { destination, foreign: false, active: 0, inactive: 0, persistent: 0 })
}

impl Ipvs for Fake {
    fn info(&mut self) -> io::Result<Info> {
        Ok(Info { version: [1, 2, 1], table_size: 4096 })
    }

    fn servers(&mut self) -> io::Result<Vec<Server>> {
        Ok(self.servers.values().map(|entry| entry.server.clone()).collect())
    }

    fn destinations(&mut self, server: &ServerKey) -> io::Result<Vec<DestinationState>> {
        let entry = self.servers.get(server).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
        Ok(entry.destinations.values().copied().collect())
    }

    fn timeouts(&mut self) -> io::Result<Timeouts> {
        Ok(self.timeouts)
    }

    fn apply(&mut self, ops: &[Op]) -> Result<(), OpError> {
        for (index, op) in ops.iter().enumerate() {
            let refused = match self.fail_next.take_if(|(which, _)| which(op)) {
                Some((_, errno)) => Err(errno),
                None => self.run(op),
            };
            if let Err(errno) = refused {
                return Err(OpError { index, op: op.clone(), source: io::Error::from_raw_os_error(errno) });
            }
            self.log.push(op.clone());
        }
        Ok(())
    }
}
