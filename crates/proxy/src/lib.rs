//! The node proxy: keeps this node's kernel in step with the cluster's Services.
//!
//! Watch caches hold Services and EndpointSlices as parsed views ([`views`]); what is dirty is compiled to a delta of
//! the node's table ([`snapshot`]); a data plane writes it. One loop on a thread of its own does all of it (`sync`), the
//! first sync, changes and recovery alike. Around it: stale UDP flows ([`stale`]), health-check node ports, healthz
//! ([`health`]) and metrics.
//!
//! Start at [`run`], then [`snapshot`].

#![forbid(unsafe_code)]

mod config;
mod conntrack;
pub mod health;
pub mod metrics;
pub mod node;
mod objects;
pub mod snapshot;
pub mod stale;
#[cfg(test)]
mod testing;
pub mod views;

pub use config::{Config, DetectLocal, Mode, NodePortAddresses};
