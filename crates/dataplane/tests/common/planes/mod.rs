//! The data planes under test: each over the real kernel and over a fake of it, with what tests must know besides.
//!
//! A new data plane is one file here, and one module in `on_every_plane`.

mod iptables;
mod ipvs;
mod nftables;

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_dataplane::{DataPlane, Objects};
use portolan_forward::Family;

#[allow(unused_imports, reason = "only packets meet both variants")]
pub use iptables::{Iptables, IptablesLegacy};
#[allow(unused_imports, reason = "benchmarks include this file too")]
pub use ipvs::{IpvsBehindIptables, IpvsBehindNftables};
pub use nftables::Nftables;

pub type KeyOf<P> = <<P as Plane>::Real as DataPlane>::Key;
pub type ValueOf<P> = <<P as Plane>::Real as DataPlane>::Value;
pub type ObjectsOf<P> = Objects<KeyOf<P>, ValueOf<P>>;

/// What somebody else does to our objects, by name.
pub type Sabotage<D> = (&'static str, fn(&mut D));

/// A data plane under test.
pub trait Plane: 'static {
    /// Over the real kernel.
    type Real: DataPlane + Send + Sync + 'static;
    /// Over a fake that refuses what the kernel would refuse.
    type Fake: DataPlane<Key = KeyOf<Self>, Value = ValueOf<Self>>;

    /// What removing one of ten endpoints, adding it, and replacing one comes to in [`DataPlane::weight`].
    const CHANGE_COSTS: (usize, usize, usize);

    /// The kernel of the caller's network namespace, as a process that has just started.
    fn open() -> Self::Real;

    fn fake() -> Self::Fake;

    /// Another process over the fake kernel of the one before, which is left with a new one.
    fn restart(before: &mut Self::Fake) -> Self::Fake;

    /// The fake kernel refuses the next write.
    fn fail_next(plane: &mut Self::Fake);

    /// Each must be noticed, and mended.
    fn sabotages() -> Vec<Sabotage<Self::Fake>>;

    /// An object in words, without what depends on the way by which the state was reached.
    fn content(key: &KeyOf<Self>, value: &ValueOf<Self>) -> String;

    /// How many endpoints of the only Service the kernel of the caller's namespace knows.
    fn endpoints(family: Family) -> usize;

    /// Which clients the kernel of the caller's namespace remembers for session affinity.
    fn remembered(family: Family) -> BTreeSet<IpAddr>;
}
