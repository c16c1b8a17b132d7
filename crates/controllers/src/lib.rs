//! The controllers: what keeps Endpoints, EndpointSlices, nodes and namespaces in step with the cluster.
//!
//! Every controller is a folder with the same two files: `plan.rs` (pure: a snapshot in, the writes out) and `run.rs`
//! (thin: dirty keys, writes, retries). All of them read the same watch caches ([`caches`]); which pods belong to
//! which Service is worked out once ([`world`]), event by event, so that the work follows the change.
//!
//! Start at [`run`], then [`endpointslice`].

#![forbid(unsafe_code)]

pub mod endpointslice;
pub mod objects;
mod queue;
#[cfg(test)]
mod testing;
mod trigger;
pub mod world;
pub mod written;
