//! The nftables data plane: a ruleset that hardly changes, and maps that hold the state.
//!
//! Two tables, `ip portolan` and `ip6 portolan`. A new connection is looked up in `frontends` (or `nodeports`), which
//! gives a class and a pool; `classes` leads to the chain of the class, shared by all Services alike; that chain picks
//! an endpoint of the pool from `backends`. So a change of a Service is a handful of element operations, whatever the
//! number of Services. Why so: `docs/decisions/0001-nftables-encoding.md`.
//!
//! Reading order: [`layout`] (names and registers), [`class`], [`rules`], [`object`] (elements), [`lower`], [`plan`],
//! [`lingering`] (what must not go at once), [`observe`]; [`words`] says what an object is for. This file ties them to
//! the [`DataPlane`] trait and commits.

pub mod class;
pub mod layout;
pub mod lingering;
pub mod lower;
pub mod object;
pub mod observe;
pub mod plan;
pub mod rules;
pub mod words;

use portolan_forward::{Family, NodeView, NoteKind, ServiceTable};
use portolan_netlink::nft::{self, CommitError, DumpError, NfTables, Op};
use thiserror::Error;

use crate::{Change, DataPlane};

pub use layout::Place;
pub use lower::Entry;
pub use object::{Key, Object, Objects};
pub use plan::Batch;

use lingering::{Lingering, Settled};

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
    pub place: Place,
}

impl Default for Config {
    fn default() -> Self {
        Self { mark: DEFAULT_MARK, place: Place::Own }
    }
}

/// Whether the kernel has `nf_tables` for IP, which is not the same as having `nf_tables`: a table is made and unmade in
/// one transaction.
pub fn usable(nft: &mut impl NfTables) -> Result<(), CommitError> {
    let table = nft::Table::new(nft::Family::Ip, layout::PROBE_TABLE);
    let ops = vec![Op::AddTable { table: table.clone(), comment: None }, Op::DelTable(table)];
    nft.commit(&nft::Batch { ops })
}

/// Speaks to the kernel through `N`, or to a fake of it.
#[derive(Debug)]
pub struct Nftables<N> {
    nft: N,
    config: Config,
    lingering: Lingering,
    cleanup_failures: u64,
    transactions: u64,
}

impl<N: NfTables> Nftables<N> {
    pub fn new(nft: N, config: Config) -> Self {
        Self { nft, config, lingering: Lingering::default(), cleanup_failures: 0, transactions: 0 }
    }

    pub fn nft(&mut self) -> &mut N {
        &mut self.nft
    }

    fn send(&mut self, mut batch: nft::Batch) -> Result<(), CommitError> {
        if batch.ops.is_empty() {
            return Ok(());
        }
        if self.config.place != Place::Own {
            for op in &mut batch.ops {
                let table = op.table_mut();
                table.name = layout::IPVS_TABLE.into();
            }
        }
        let mut result = self.nft.commit(&batch);
        for _ in 1..ATTEMPTS_MAX {
            match &result {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "nftables transaction is sent again");
                    result = self.nft.commit(&batch);
                }
                _ => break,
            }
        }
        self.transactions += u64::from(result.is_ok());
        result
    }

    /// Deletes what has lingered long enough. Nobody minds if that must wait.
    fn bury(&mut self, dead: Objects) {
        if dead.is_empty() {
            return;
        }
        let changes = dead.clone().into_iter().map(|(key, from)| Change { key, from: Some(from), to: None });
        let batch = plan::plan(changes.collect());
        if let Err(error) = self.send(nft::Batch { ops: batch.into_ops() }) {
            tracing::warn!(%error, "superfluous chains and elements stay for now");
            self.cleanup_failures += 1;
            self.lingering.put_back(dead);
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

    fn shortfall(&self, table: &ServiceTable) -> Option<NoteKind> {
        let algorithm = table.ports.first()?.algorithm?;
        (!class::Choice::does(algorithm)).then(|| NoteKind::NotOffered {
            what: format!("algorithm {algorithm}"),
            instead: "mode nftables knows random, round-robin and source-hash, and chooses at random".into(),
        })
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
        let Settled { changes, revived, retired } = self.lingering.settle(changes);
        Batch { revived, retired, ..plan::plan(changes) }
    }

    fn weight(&self, batch: &Batch) -> usize {
        batch.weight()
    }

    fn commit(&mut self, mut batch: Batch) -> Result<(), Error> {
        for (family, _) in &batch.tables {
            self.lingering.forget(*family);
        }
        let spare = nft::Batch { ops: plan::chain_ops(&batch.spare) };
        let (revived, retired) = (std::mem::take(&mut batch.revived), std::mem::take(&mut batch.retired));
        self.send(nft::Batch { ops: batch.into_ops() })?;
        self.send(spare)?;
        let dead = self.lingering.update(&revived, retired);
        self.bury(dead);
        Ok(())
    }

    fn transactions(&self) -> u64 {
        self.transactions
    }

    fn cleanup_failures(&self) -> u64 {
        self.cleanup_failures
    }

    fn observe(&mut self) -> Result<Objects, Error> {
        let mut objects = observe::observe(&mut self.nft, self.config.place)?;
        self.lingering.hide_from(&mut objects);
        Ok(objects)
    }

    fn cleanup(&mut self) -> Vec<Error> {
        self.lingering.clear();
        let mut errors = Vec::new();
        let tables = match self.nft.tables() {
            Ok(tables) => tables,
            Err(error) => return vec![error.into()],
        };
        for table in Family::ALL.map(|family| self.config.place.table(family)) {
            if tables.iter().any(|info| info.table == table) {
                let batch = nft::Batch { ops: vec![Op::DelTable(table)] };
                errors.extend(self.send(batch).err().map(Error::from));
            }
        }
        errors
    }
}
