//! The scheduler: gives every pending pod a node.
//!
//! Small on purpose: node selectors, taints and readiness decide where a pod may run, and the node with the fewest
//! pods like it, then the fewest pods, gets it. No resources, no affinity: pods here are processes of one machine or a
//! small site. Pods that name another scheduler are left to it.

pub mod plan;
mod run;

pub use plan::{Candidate, Choice, choose};
pub(crate) use run::Controller;

/// Pods that name no scheduler, or this one, are ours.
pub const NAME: &str = "default-scheduler";
