//! The iptables data plane: a tree of chains that finds a frontend in a bounded number of rules, and short chains that
//! pick an endpoint.
//!
//! Tables `nat` and `filter`, all chains `PORTOLAN-...`. A new connection goes down the tree by nine bits of its
//! destination, meets its frontend's rule, and from there goes to the pick chain of the frontend's pool. A change of a
//! Service rewrites the chains it touches and no other. What `nat` leaves untranslated though a Service listens there,
//! `filter` refuses. Why so: `docs/decisions/0003-iptables-encoding.md`.
//!
//! Reading order: [`layout`] (names and trees), [`rules`], [`object`], [`lower`], [`plan`] (the order of writes),
//! [`script`] (their text), [`observe`], [`kernel`] (the programs), [`direct`] (instead of one of them), [`removal`];
//! [`words`] says what an object is for. This file ties them to the [`DataPlane`] trait and commits.

mod direct;
pub mod fake;
pub mod kernel;
pub mod layout;
pub mod lower;
pub mod object;
pub mod observe;
pub mod plan;
pub mod removal;
pub mod rules;
mod script;
pub mod words;

use std::time::Duration;

use portolan_forward::{Algorithm, Endpoint, Family, NodeView, NoteKind, ServiceTable};

use crate::{Change, DataPlane};

pub use fake::Fake;
pub use kernel::{Error, Kernel, Programs, Variant, Writes, holders, remove};
pub use object::{Key, Object, Objects};
pub use plan::Batch;

use lower::Builder;
use object::Selector;
use script::{Held, script};

pub use crate::nftables::DEFAULT_MARK;

/// A write that hung is no reason to keep changes back for as long again.
const REST_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The bit of the packet's mark by which masquerading is asked for; all other bits are left alone.
    pub mark: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { mark: DEFAULT_MARK }
    }
}

/// Writes through `K`: the programs of iptables, or a fake of them.
#[derive(Debug)]
pub struct Iptables<K> {
    kernel: K,
    config: Config,
    held: Held,
    transactions: u64,
}

impl<K: Kernel> Iptables<K> {
    pub fn new(kernel: K, config: Config) -> Self {
        Self { kernel, config, held: Held::default(), transactions: 0 }
    }

    pub fn kernel(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// For an endpoint that somebody else chooses and that may reach itself.
    pub(crate) fn hairpin_objects(&self, node: &NodeView, endpoint: &Endpoint, out: &mut Objects) {
        self.builders(node, out, |mut builder| {
            if builder.family == Family::of(endpoint.address) {
                builder.hairpin(endpoint);
            }
        });
    }

    fn builders(&self, node: &NodeView, out: &mut Objects, mut work: impl FnMut(Builder<'_>)) {
        for family in self.kernel.families() {
            let takes_turns = self.kernel.keeps_counting();
            work(Builder { family, node, mark: self.config.mark, takes_turns, out });
        }
    }
}

/// Whether it is a rule of [`lower::Builder::hairpin`], or leads to one.
pub(crate) fn is_for_hairpin(key: &Key) -> bool {
    matches!(key, Key::Member(_, layout::Table::Nat, chain, _)
        if chain.as_str() == layout::HAIRPINS || chain.as_str().starts_with(layout::HAIRPIN_PREFIX))
}

impl<K: Kernel> DataPlane for Iptables<K> {
    type Key = Key;
    type Value = Object;
    /// Nothing is left open.
    type Entry = ();
    type Batch = Batch;
    type Error = Error;

    fn base(&self, node: &NodeView, out: &mut Objects) {
        self.builders(node, out, |mut builder| builder.base());
    }

    fn lower(&self, _: &ServiceTable, _: Option<(&ServiceTable, &())>) {}

    fn recall(&self, _: &ServiceTable, _: &Objects) -> Option<()> {
        Some(())
    }

    fn objects(&self, node: &NodeView, table: &ServiceTable, (): &(), out: &mut Objects) {
        self.builders(node, out, |mut builder| builder.service(table));
    }

    /// Chains pick at random, or in turns where the kernel can count them.
    fn shortfall(&self, table: &ServiceTable) -> Option<NoteKind> {
        let algorithm = table.ports.first()?.algorithm?;
        let instead = match algorithm {
            Algorithm::Random => return None,
            Algorithm::RoundRobin if !self.kernel.keeps_counting() => {
                "iptables-legacy chooses at random, as its turns would begin anew with each change of any Service"
                    .into()
            }
            Algorithm::RoundRobin if table.ports.iter().all(lower::is_small) => return None,
            Algorithm::RoundRobin => {
                format!("mode iptables chooses at random among more than {} endpoints", layout::PICKS_MAX)
            }
            _ => "mode iptables chooses at random".into(),
        };
        Some(NoteKind::NotOffered { what: format!("algorithm {algorithm}"), instead })
    }

    /// The steps of ways, and what follows from an address alone.
    fn is_shared(&self, key: &Key) -> bool {
        match key {
            Key::Hook(..) | Key::Chain(..) => false,
            Key::Member(_, _, _, selector) => match selector {
                Selector::Frontend { first, last, .. } => first != last,
                Selector::Destination(_) | Selector::Source(_) => true,
                Selector::Foreign(_) => false,
            },
        }
    }

    fn plan(&self, changes: Vec<Change<Key, Object>>) -> Batch {
        plan::plan(changes)
    }

    fn weight(&self, batch: &Batch) -> usize {
        batch.weight()
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        for edits in batch.writes() {
            for family in self.kernel.families() {
                if let Some(script) = script(&mut self.held, family, &edits) {
                    self.kernel.restore(family, &script)?;
                    self.transactions += 1;
                }
            }
        }
        Ok(())
    }

    /// The kernel takes or checks all rules of a table with each write, whatever is changed. Half of the time is left
    /// to others; what has gathered meanwhile goes in one write.
    fn rest(&self, took: Duration) -> Duration {
        took.min(REST_MAX)
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn observe(&mut self) -> Result<Objects, Error> {
        let objects = observe::observe(&mut self.kernel)?;
        self.held = Held::of(&objects);
        Ok(objects)
    }

    fn cleanup(&mut self) -> Vec<Error> {
        self.held = Held::default();
        kernel::remove_from(&mut self.kernel)
    }
}
