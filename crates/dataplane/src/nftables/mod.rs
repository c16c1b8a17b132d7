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

use std::sync::Arc;

use portolan_forward::{Family, NodeView, ServiceTable};
use portolan_netlink::nft::{self, CommitError, CommitErrorKind, DumpError, NfTables, Op};
use thiserror::Error;

use crate::{Change, DataPlane};

pub use lower::Entry;
pub use object::{Key, Object, Objects};
pub use plan::Batch;

/// kube-proxy's default too, so that other software that knows this bit keeps working.
pub const DEFAULT_MARK: u32 = 1 << 14;

/// How often a transaction is sent again when somebody else changed the ruleset meanwhile.
const ATTEMPTS_MAX: usize = 8;

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
    /// Chains that nothing leads to and that the kernel did not let go yet.
    leftover: Vec<(Family, Arc<str>)>,
}

impl<N: NfTables> Nftables<N> {
    pub fn new(nft: N, config: Config) -> Self {
        Self { nft, config, leftover: Vec::new() }
    }

    pub fn nft(&mut self) -> &mut N {
        &mut self.nft
    }

    fn send(&mut self, batch: &nft::Batch) -> Result<(), CommitError> {
        for _ in 1..ATTEMPTS_MAX {
            match self.nft.commit(batch) {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "nftables transaction is sent again")
                }
                result => return result,
            }
        }
        self.nft.commit(batch)
    }

    /// Deletes chains in a transaction of their own. What the kernel still holds on to is tried again next time.
    fn tidy(&mut self) {
        let leftover = std::mem::take(&mut self.leftover);
        if leftover.is_empty() {
            return;
        }
        let batch = delete_chains(&leftover).into_iter().collect();
        if let Err(error) = self.send(&batch) {
            tracing::debug!(%error, "superfluous chains stay for now");
            if error.kind == CommitErrorKind::Busy {
                self.leftover = leftover;
            }
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
        batch.main.weight() + batch.superfluous.len()
    }

    fn commit(&mut self, mut batch: Batch) -> Result<(), Error> {
        let wanted_again = |(family, name): &(Family, Arc<str>)| {
            let table = layout::table(*family);
            batch
                .main
                .ops
                .iter()
                .any(|op| matches!(op, Op::AddChain(c) if c.table == table && c.name == *name))
        };
        self.leftover.retain(|chain| !wanted_again(chain));
        self.tidy();
        let before = batch.main.len();
        batch.main.extend(delete_chains(&batch.superfluous));
        match self.send(&batch.main) {
            Err(error)
                if error.kind == CommitErrorKind::Busy && error.op_index.is_some_and(|op| op >= before) =>
            {
                batch.main.ops.truncate(before);
                self.send(&batch.main)?;
                self.leftover = batch.superfluous;
                self.tidy();
                Ok(())
            }
            result => Ok(result?),
        }
    }

    fn observe(&mut self) -> Result<Objects, Error> {
        self.leftover.clear();
        Ok(observe::observe(&mut self.nft)?)
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

/// Their rules go first: they may lead to one another.
fn delete_chains(chains: &[(Family, Arc<str>)]) -> Vec<Op> {
    let table = |family| layout::table(family);
    let flush =
        chains.iter().map(|(family, chain)| Op::FlushChain { table: table(*family), chain: chain.clone() });
    let delete =
        chains.iter().map(|(family, chain)| Op::DelChain { table: table(*family), chain: chain.clone() });
    flush.chain(delete).collect()
}
