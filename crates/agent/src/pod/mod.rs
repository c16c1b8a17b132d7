//! Pods: one task each, from its first sight to the end of its last process.
//!
//! [`container`] is what is remembered, [`plan`] decides what starts, [`status`] derives what is reported, [`image`] and
//! [`env`] say what a container runs, [`backoff`] when it runs again: all pure. [`worker`] does it, with `containers`
//! for what it does to containers and `writer` for the status.

pub(crate) mod backoff;
pub(crate) mod container;
mod containers;
pub(crate) mod env;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod image;
mod life;
pub(crate) mod plan;
pub(crate) mod status;
pub(crate) mod worker;
mod writer;
