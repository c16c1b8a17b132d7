//! The nftables data plane: a ruleset that hardly changes, and maps that hold the state.
//!
//! Two tables, `ip portolan` and `ip6 portolan`. A new connection is looked up in `frontends` (or `nodeports`), which
//! gives a class and a pool; `classes` leads to the chain of the class, shared by all Services alike; that chain picks
//! an endpoint of the pool from `backends`. So a change of a Service is a handful of element operations, whatever the
//! number of Services. Why so: `docs/decisions/0001-nftables-encoding.md`.
//!
//! Reading order: [`layout`] (names and registers), [`class`], [`rules`], [`object`] (elements), [`lower`], [`plan`],
//! [`observe`]. This file ties them to the [`DataPlane`] trait and commits.

pub mod class;
pub mod layout;
pub mod lower;
pub mod object;
pub mod observe;
pub mod plan;
pub mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use portolan_forward::{Family, NodeView, ServiceTable};
use portolan_netlink::nft::{self, CommitError, DumpError, NfTables, Op};
use thiserror::Error;

use crate::{Change, DataPlane};

pub use lower::Entry;
pub use object::{Key, Object, Objects};
pub use plan::Batch;

use plan::ChainRules;
use rules::Rule;

/// kube-proxy's default too, so that other software that knows this bit keeps working.
pub const DEFAULT_MARK: u32 = 1 << 14;

/// How often a transaction is sent again when somebody else changed the ruleset meanwhile.
const ATTEMPTS_MAX: usize = 8;

/// Chains that nothing leads to any more and that are kept for when they are wanted again.
const LEFTOVER_CHAINS_MAX: usize = 128;

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Dump(#[from] DumpError),
}

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

/// Speaks to the kernel through `N`, or to a fake of it.
#[derive(Debug)]
pub struct Nftables<N> {
    nft: N,
    config: Config,
    /// Chains that are in the kernel though nothing leads to them any more.
    leftover: HashMap<(Family, Arc<str>), Arc<[Rule]>>,
}

impl<N: NfTables> Nftables<N> {
    pub fn new(nft: N, config: Config) -> Self {
        Self { nft, config, leftover: HashMap::new() }
    }

    pub fn nft(&mut self) -> &mut N {
        &mut self.nft
    }

    fn send(&mut self, batch: &nft::Batch) -> Result<(), CommitError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.nft.commit(batch) {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "nftables transaction is sent again");
                }
                result => return result,
            }
        }
        self.nft.commit(batch)
    }

    /// Whether the chain is there already, with these rules.
    fn is_left_over(&self, chain: &ChainRules) -> bool {
        self.leftover.get(&(chain.family, chain.name.clone())).is_some_and(|rules| *rules == chain.rules)
    }

    /// Makes those of the chains that are not there yet.
    fn chain_ops(&self, chains: &[ChainRules]) -> Vec<Op> {
        plan::chain_ops(chains.iter().filter(|chain| !self.is_left_over(chain)))
    }

    /// Keeps superfluous chains until there are too many of them: they may soon be wanted again, and making a chain is
    /// slow when maps are large. Deleting them later, in a transaction of their own, also spares kernels before 6.2,
    /// where a chain is still in use in the transaction that deletes the last element that led to it.
    fn leave_over(&mut self, chains: Vec<ChainRules>) {
        self.leftover.extend(chains.into_iter().map(|chain| ((chain.family, chain.name), chain.rules)));
        if self.leftover.len() <= LEFTOVER_CHAINS_MAX {
            return;
        }
        // All at once: they may lead to one another, so their rules go first.
        let name = |(family, chain): &(Family, Arc<str>)| (layout::table(*family), chain.clone());
        let flush = self.leftover.keys().map(name).map(|(table, chain)| Op::FlushChain { table, chain });
        let delete = self.leftover.keys().map(name).map(|(table, chain)| Op::DelChain { table, chain });
        match self.send(&flush.chain(delete).collect()) {
            Ok(()) => self.leftover.clear(),
            Err(error) => tracing::warn!(%error, "superfluous chains stay for now"),
        }
    }
}

impl<N: NfTables> DataPlane for Nftables<N> {
    type Key = Key;
    type Value = Object;
    type Entry = Entry;
    type Batch = Batch;
    type Error = Error;

    fn base(&self, node: &NodeView, out: &mut Objects) {
        lower::base(node, self.config.mark, out);
    }

    fn lower(&self, table: &ServiceTable, previous: Option<(&ServiceTable, &Entry)>) -> Entry {
        Entry::lower(table, previous)
    }

    fn recall(&self, table: &ServiceTable, observed: &Objects) -> Option<Entry> {
        Entry::recall(table, observed)
    }

    fn objects(&self, node: &NodeView, table: &ServiceTable, entry: &Entry, out: &mut Objects) {
        entry.objects(node, self.config.mark, table, out);
    }

    fn is_shared(&self, key: &Key) -> bool {
        use layout::SetId::{Classes, ClusterIps, Hairpins};
        match key {
            Key::Table(_) => false,
            Key::Chain(_, name) => !layout::is_fixed_chain(name),
            Key::Element(_, set, _) => matches!(set, Classes | ClusterIps | Hairpins),
        }
    }

    fn plan(&self, changes: Vec<Change<Key, Object>>) -> Batch {
        plan::plan(changes)
    }

    fn weight(&self, batch: &Batch) -> usize {
        let tables: usize = batch.tables.iter().map(|(f, before)| plan::make_table(*f, *before).len()).sum();
        let chains = self.chain_ops(&batch.chains).len() + self.chain_ops(&batch.spare).len();
        tables + chains + batch.elements.iter().map(Op::weight).sum::<usize>()
    }

    fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        let made_anew = |family| batch.tables.iter().any(|(table, _)| *table == family);
        self.leftover.retain(|(family, _), _| !made_anew(*family));
        let mut ops: Vec<_> =
            batch.tables.iter().flat_map(|(family, before)| plan::make_table(*family, *before)).collect();
        ops.extend(self.chain_ops(&batch.chains));
        ops.extend(batch.elements);
        self.send(&nft::Batch { ops })?;
        self.send(&nft::Batch { ops: self.chain_ops(&batch.spare) })?;
        for chain in batch.chains.into_iter().chain(batch.spare) {
            self.leftover.remove(&(chain.family, chain.name));
        }
        self.leave_over(batch.superfluous);
        Ok(())
    }

    fn observe(&mut self) -> Result<Objects, Error> {
        let mut objects = observe::observe(&mut self.nft)?;
        self.leftover.retain(|(family, name), rules| {
            let key = Key::Chain(*family, name.clone());
            let is_there = objects.get(&key).is_some_and(|object| *object == Object::Chain(rules.clone()));
            is_there && objects.remove(&key).is_some()
        });
        Ok(objects)
    }

    fn cleanup(&mut self) -> Vec<Error> {
        self.leftover.clear();
        let mut errors = Vec::new();
        let tables = match self.nft.tables() {
            Ok(tables) => tables,
            Err(error) => return vec![error.into()],
        };
        for table in Family::ALL.map(layout::table) {
            if tables.iter().any(|info| info.table == table) {
                let batch = nft::Batch { ops: vec![Op::DelTable(table)] };
                errors.extend(self.send(&batch).err().map(Error::from));
            }
        }
        errors
    }
}
