//! From the table to the kernel: the contract of a data plane, what all data planes share, and the data planes.
//!
//! A data plane decides *encoding*, never policy: it says which kernel objects a Service needs ([`DataPlane::objects`]),
//! in which order they may change ([`DataPlane::plan`]), writes them ([`DataPlane::commit`]) and reads them back
//! ([`DataPlane::observe`]). What is the same for all of them is here once: the keyed differ ([`diff`]) and the
//! [`Driver`], which keeps a data plane in step with a [`Table`](portolan_forward::Table). First sync, restart and
//! recovery are one path: read back, diff, write.
//!
//! Start at [`DataPlane`], then [`driver`], then [`nftables`] or [`iptables`]: the same file names hold the same parts.

pub mod diff;
pub mod driver;
pub mod iptables;
pub mod ipvs;
pub mod nftables;
mod pools;
pub mod words;

use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;

use portolan_forward::{NodeView, NoteKind, ServiceTable};

pub use diff::{Change, Objects};
pub use driver::{Drift, Driver, Error, Refusal, Report};
pub use iptables::Iptables;
pub use ipvs::Ipvs;
pub use nftables::Nftables;
pub use words::Words;

/// One way to make the kernel do what a table says.
///
/// Everything but `commit`, `observe` and `cleanup` is pure.
pub trait DataPlane {
    /// What identifies a kernel object.
    type Key: Clone + Eq + Hash + Ord + Debug + Send + Sync;
    /// What the object holds. Two objects with equal keys and values are the same to the kernel.
    type Value: Clone + Eq + Debug + Send + Sync;
    /// What must be remembered of a Service beside its table: choices the table leaves open, such as the order of
    /// endpoints. Small, as one is kept per Service.
    type Entry: Send + Sync;
    /// Ordered operations that take effect together.
    type Batch;
    type Error: std::error::Error + Send + Sync + 'static;

    /// The objects that belong to the node, whatever its Services.
    fn base(&self, node: &NodeView, out: &mut Objects<Self::Key, Self::Value>);

    /// Makes the open choices for a Service, as close to the previous ones as possible.
    fn lower(&self, table: &ServiceTable, previous: Option<(&ServiceTable, &Self::Entry)>) -> Self::Entry;

    /// The choices that the kernel's objects still show of a Service: what a restart must not change.
    fn recall(&self, table: &ServiceTable, observed: &Objects<Self::Key, Self::Value>)
    -> Option<Self::Entry>;

    /// Every object the Service needs. The same object may be named twice.
    fn objects(
        &self,
        node: &NodeView,
        table: &ServiceTable,
        entry: &Self::Entry,
        out: &mut Objects<Self::Key, Self::Value>,
    );

    /// What the Service asks for and this data plane cannot do. It is served all the same.
    fn shortfall(&self, _table: &ServiceTable) -> Option<NoteKind> {
        None
    }

    /// Whether several Services may need this object. It exists as long as one of them does.
    fn is_shared(&self, key: &Self::Key) -> bool;

    /// Puts changes into an order that the kernel accepts at every step.
    fn plan(&self, changes: Vec<Change<Self::Key, Self::Value>>) -> Self::Batch;

    /// How many objects a batch touches.
    fn weight(&self, batch: &Self::Batch) -> usize;

    /// The only write. After an error nothing of the batch may be assumed to be, or not to be, in the kernel.
    fn commit(&mut self, batch: Self::Batch) -> Result<(), Self::Error>;

    /// How long changes should gather after a write that took so long. Nothing where a write costs what its change does;
    /// where it costs what the whole ruleset does, whoever writes at once for each change does little else.
    fn rest(&self, _took: Duration) -> Duration {
        Duration::ZERO
    }

    /// How many transactions so far changed the kernel.
    fn transactions(&self) -> u64 {
        0
    }

    /// How often so far something superfluous could not be removed and stayed, harmless.
    fn cleanup_failures(&self) -> u64 {
        0
    }

    /// The only read-back: every object we own.
    fn observe(&mut self) -> Result<Objects<Self::Key, Self::Value>, Self::Error>;

    /// Removes everything we own. Collects errors and goes on.
    fn cleanup(&mut self) -> Vec<Self::Error>;
}
