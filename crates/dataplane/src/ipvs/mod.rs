//! The IPVS data plane: the kernel's own load balancer chooses the endpoint, another data plane does all the rest.
//!
//! Rules before IPVS, the [`front`], find the frontend of a new connection and decide by origin as they always do, but
//! each pool has one endpoint only: the pool's *virtual server*, at an address of ours ([`layout`]). A route of type
//! local brings the packet to IPVS, which chooses a destination and tells connection tracking; from the second packet
//! on connection tracking translates alone. So a change of endpoints is one message to IPVS, and connections do not
//! depend on IPVS once they are made. Why so: `docs/decisions/0004-ipvs-encoding.md`.
//!
//! Reading order: [`layout`] (names), [`front`], [`object`], [`lower`], [`plan`], [`terminating`] (destinations that
//! keep their connections), [`observe`], [`kernel`]; [`words`] says what an object is for. This file ties them to the [`DataPlane`] trait and commits.

pub mod front;
pub mod kernel;
pub mod layout;
pub mod lower;
pub mod object;
pub mod observe;
pub mod plan;
pub mod terminating;
pub mod words;

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use portolan_forward::{Algorithm, Family, NodeView, NoteKind, ServiceTable};
use portolan_netlink::ipvs::{Ipvs as _, Op, OpError, Server, ServerKey, Timeouts, is_loaded};
use thiserror::Error;

use crate::{Change, DataPlane, Objects};

pub use front::Front;
pub use kernel::{FakeMachine, Kernel, Machine, OpenError};
pub use lower::Entry;
pub use object::{Key, Value};
pub use plan::Batch;
use terminating::Terminating;

/// kube-proxy's default too.
pub const DEFAULT_SCHEDULER: &str = "rr";
/// How long an entry of IPVS's connection table stays after the end of a TCP connection, unless configured. Nothing
/// depends on it by then, and the kernel's two minutes would lengthen the memory of session affinity.
pub const FIN_TIMEOUT_SECONDS: u32 = 1;

#[derive(Debug, Error)]
pub enum Error<E: std::error::Error + 'static> {
    #[error(transparent)]
    Front(E),
    #[error(transparent)]
    Ipvs(#[from] OpError),
    #[error("IPVS: {0}")]
    Kernel(#[from] io::Error),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// For Services that ask for none.
    pub scheduler: Box<str>,
    pub strict_arp: bool,
    /// What the host speaks.
    pub families: Vec<Family>,
}

impl Default for Config {
    fn default() -> Self {
        Self { scheduler: DEFAULT_SCHEDULER.into(), strict_arp: false, families: Family::ALL.to_vec() }
    }
}

/// Speaks to the kernel through `K`, with `F` before IPVS.
#[derive(Debug)]
pub struct Ipvs<F, K> {
    front: F,
    kernel: K,
    config: Config,
    terminating: Terminating,
    /// Which schedulers the kernel has, as far as that was asked.
    schedulers: BTreeMap<Box<str>, bool>,
    cleanup_failures: u64,
}

impl<F: Front, K: Kernel> Ipvs<F, K> {
    pub fn new(front: F, kernel: K, config: Config) -> Self {
        let (terminating, schedulers) = (Terminating::default(), BTreeMap::new());
        Self { front, kernel, config, terminating, schedulers, cleanup_failures: 0 }
    }

    pub fn front(&mut self) -> &mut F {
        &mut self.front
    }

    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Makes sure that the default scheduler is there, and sets timeouts. 0 stands for our own choice, or for the
    /// kernel's where virtual servers of others are at work, as the timeouts are theirs as well.
    pub fn prepare(&mut self, timeouts: Timeouts) -> Result<(), Error<F::Error>> {
        let probe = probe(&self.config.scheduler);
        match self.kernel.ipvs().apply(&[Op::NewServer(probe.clone())]) {
            Err(error) if error.source.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => self.kernel.ipvs().apply(&[Op::DelServer(probe.key)])?,
        }
        let alone = self.kernel.ipvs().servers()?.iter().all(|server| layout::is_ours(&server.key));
        let tcp_fin = if timeouts.tcp_fin == 0 && alone { FIN_TIMEOUT_SECONDS } else { timeouts.tcp_fin };
        Ok(self.kernel.ipvs().apply(&[Op::SetTimeouts(Timeouts { tcp_fin, ..timeouts })])?)
    }

    /// The scheduler of a Service: what it asks for if the kernel has it.
    fn scheduler(&self, table: &ServiceTable) -> &str {
        let asked = table.ports.first().and_then(|port| port.algorithm).and_then(Algorithm::scheduler);
        let there = |name: &&str| self.schedulers.get(*name) != Some(&false);
        asked.filter(there).unwrap_or(&self.config.scheduler)
    }

    /// A scheduler that the kernel does not have must not hold up all other changes.
    fn check_schedulers(&mut self, ops: &mut [Op]) -> Result<(), OpError> {
        for op in ops {
            let (Op::NewServer(server) | Op::SetServer(server)) = op else { continue };
            if server.scheduler == self.config.scheduler {
                continue;
            }
            let there = match self.schedulers.get(&server.scheduler) {
                Some(there) => *there,
                None => self.ask_for_scheduler(&server.scheduler)?,
            };
            if !there {
                server.scheduler = self.config.scheduler.clone();
            }
        }
        Ok(())
    }

    fn ask_for_scheduler(&mut self, name: &str) -> Result<bool, OpError> {
        let probe = probe(name);
        let there = match self.kernel.ipvs().apply(&[Op::NewServer(probe.clone())]) {
            Ok(()) => {
                self.kernel.ipvs().apply(&[Op::DelServer(probe.key)])?;
                true
            }
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                tracing::warn!(
                    scheduler = name,
                    instead = &*self.config.scheduler,
                    "the kernel has no such IPVS scheduler (module ip_vs_{name})"
                );
                false
            }
            Err(error) => return Err(error),
        };
        self.schedulers.insert(name.into(), there);
        Ok(there)
    }

    /// Takes away destinations that have no connections any more. Nobody minds if that must wait.
    fn bury(&mut self, mut done: Vec<Op>) {
        for server in self.terminating.servers(layout::ASKED_PER_COMMIT) {
            match self.kernel.ipvs().destinations(&server) {
                Ok(states) => done.extend(self.terminating.done(&server, &states, Instant::now())),
                Err(_) => self.terminating.forget_server(&server),
            }
        }
        if let Err(error) = self.kernel.ipvs().apply(&done) {
            tracing::warn!(%error, "a destination without connections stays for now");
            self.cleanup_failures += 1;
            let left = done[error.index..].iter().filter_map(|op| match op {
                Op::DelDestination(server, address, port) => Some((*server, *address, *port)),
                _ => None,
            });
            self.terminating.add(left.collect(), Instant::now());
        }
    }
}

/// A virtual server that leads nowhere, only to see whether the kernel takes it.
fn probe(scheduler: &str) -> Server {
    let key = ServerKey::Address { address: layout::RANGE_V4.network().into(), protocol: 6, port: 1 };
    Server { key, scheduler: scheduler.into(), persistence: None }
}

impl<F: Front, K: Kernel> DataPlane for Ipvs<F, K> {
    type Key = Key<F::Key>;
    type Value = Value<F::Value>;
    type Entry = Entry<F::Entry>;
    type Batch = Batch<F::Batch>;
    type Error = Error<F::Error>;

    fn base(&self, node: &NodeView, out: &mut Objects<Self::Key, Self::Value>) {
        let mut front = Objects::new();
        self.front.base(node, &mut front);
        lower::wrap(front, out);
        lower::base(&self.config, out);
    }

    fn lower(&self, table: &ServiceTable, previous: Option<(&ServiceTable, &Self::Entry)>) -> Self::Entry {
        let before_ipvs = lower::before_ipvs(table);
        let previous = previous.map(|(_, entry)| (&entry.table, &entry.front));
        let front = self.front.lower(&before_ipvs, previous);
        Entry { table: before_ipvs, front }
    }

    /// There is nothing to recall: a pool of one has no order.
    fn recall(&self, _: &ServiceTable, _: &Objects<Self::Key, Self::Value>) -> Option<Self::Entry> {
        None
    }

    fn objects(
        &self,
        node: &NodeView,
        table: &ServiceTable,
        entry: &Self::Entry,
        out: &mut Objects<Self::Key, Self::Value>,
    ) {
        lower::wrap(lower::front_objects(&self.front, node, table, entry), out);
        lower::servers(table, self.scheduler(table), out);
    }

    fn shortfall(&self, table: &ServiceTable) -> Option<NoteKind> {
        let algorithm = table.ports.first()?.algorithm?;
        let instead = self.scheduler(table);
        (algorithm.scheduler() != Some(instead)).then(|| NoteKind::NotOffered {
            what: format!("algorithm {algorithm}"),
            instead: format!("IPVS has no such scheduler on this node, and chooses by {instead}"),
        })
    }

    fn is_shared(&self, key: &Self::Key) -> bool {
        matches!(key, Key::Front(key) if self.front.is_shared(key))
    }

    fn plan(&self, changes: Vec<Change<Self::Key, Self::Value>>) -> Self::Batch {
        let is_for_hairpin = |key: &_| self.front.is_for_hairpin(key);
        plan::plan(changes, &self.terminating, is_for_hairpin, |changes| self.front.plan(changes))
    }

    fn weight(&self, batch: &Self::Batch) -> usize {
        batch.weight(|front| self.front.weight(front))
    }

    fn commit(&mut self, mut batch: Self::Batch) -> Result<(), Self::Error> {
        for setting in &batch.settings {
            self.kernel.set(*setting, setting.wanted())?;
        }
        for family in &batch.ranges {
            self.kernel.add_range(*family)?;
        }
        self.check_schedulers(&mut batch.before)?;
        self.kernel.ipvs().apply(&batch.before)?;
        if let Some(front) = batch.front {
            self.front.commit(front).map_err(Error::Front)?;
        }
        self.kernel.ipvs().apply(&batch.after)?;
        batch.revived.iter().for_each(|place| self.terminating.forget(place));
        if let Some(last) = batch.last {
            self.front.commit(last).map_err(Error::Front)?;
        }
        batch.gone.iter().for_each(|server| self.terminating.forget_server(server));
        let done = self.terminating.add(batch.retired, Instant::now());
        self.bury(done);
        Ok(())
    }

    /// The front's: nobody hears of changes of IPVS.
    fn transactions(&self) -> u64 {
        self.front.transactions()
    }

    fn cleanup_failures(&self) -> u64 {
        self.cleanup_failures + self.front.cleanup_failures()
    }

    fn observe(&mut self) -> Result<Objects<Self::Key, Self::Value>, Self::Error> {
        let mut objects = Objects::new();
        lower::wrap(self.front.observe().map_err(Error::Front)?, &mut objects);
        let done = observe::observe(&mut self.kernel, &mut self.terminating, &mut objects)?;
        self.bury(done);
        if !self.config.strict_arp {
            // Somebody else may well have set those.
            objects
                .retain(|key, _| !matches!(key, Key::Setting(s) if layout::Setting::STRICT_ARP.contains(s)));
        }
        Ok(objects)
    }

    fn cleanup(&mut self) -> Vec<Self::Error> {
        self.terminating.clear();
        let errors = self.front.cleanup().into_iter().map(Error::Front);
        errors.chain(remove_from(&mut self.kernel).into_iter().map(Error::Kernel)).collect()
    }
}

/// Whether there is anything for [`remove`] to remove in the caller's network namespace.
pub fn is_there() -> bool {
    let Some(mut machine) = is_loaded().then(Machine::open).and_then(Result::ok) else { return false };
    let servers = machine.ipvs().servers().unwrap_or_default();
    servers.iter().any(|server| layout::is_ours(&server.key))
        || machine.ranges().is_ok_and(|ranges| !ranges.is_empty())
}

/// Removes what is ours of IPVS and around it, but for the front, in the caller's network namespace.
pub fn remove() -> Vec<io::Error> {
    if !is_loaded() {
        return Vec::new();
    }
    match Machine::open() {
        Ok(mut machine) => remove_from(&mut machine),
        // Then there is nothing of ours.
        Err(OpenError::NoIpvs) => Vec::new(),
        Err(error) => vec![io::Error::other(error)],
    }
}

/// Settings go back to what the kernel begins with, unless virtual servers of others count on them. Those of ARP stay:
/// they are for more than IPVS.
fn remove_from(kernel: &mut impl Kernel) -> Vec<io::Error> {
    let mut errors = Vec::new();
    match kernel.ipvs().servers() {
        Ok(servers) => {
            let ours = servers.iter().filter(|server| layout::is_ours(&server.key));
            let ops: Vec<_> = ours.map(|server| Op::DelServer(server.key)).collect();
            errors.extend(kernel.ipvs().apply(&ops).err().map(io::Error::other));
            if ops.len() == servers.len() {
                let reset = |setting| kernel.set(setting, layout::Setting::initial(setting)).err();
                errors.extend(layout::Setting::ALWAYS.into_iter().filter_map(reset));
            }
        }
        Err(error) => errors.push(error),
    }
    errors.extend(Family::ALL.into_iter().filter_map(|family| kernel.remove_range(family).err()));
    errors
}
