//! Pods: one task each, from its first sight to the end of its last process.
//!
//! [`container`] is what is remembered, [`plan`] decides what starts, [`status`] derives what is reported, [`image`],
//! [`env`] and [`services`] say what a container runs, [`hosts`] and [`resolv`] what it reads about names, [`backoff`]
//! when it runs again: all pure. [`worker`] does it, with `containers` for what it does to containers, [`files`] for
//! what the pod finds under `/etc`, [`sources`] for what is fetched, `pids` for the limit on processes, and `writer` for the status.

pub(crate) mod backoff;
pub(crate) mod container;
mod containers;
pub(crate) mod env;
pub(crate) mod files;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod hosts;
pub(crate) mod image;
mod life;
mod pids;
pub(crate) mod plan;
pub(crate) mod projected;
pub(crate) mod resolv;
pub(crate) mod services;
pub(crate) mod sources;
pub(crate) mod status;
pub(crate) mod worker;
mod writer;

pub(crate) use life::start_error;
