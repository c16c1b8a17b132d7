//! `ReplicaSet`s: so many pods of one template, no matter what becomes of each.
//!
//! [`plan`] decides which pods are made, taken over, let go and ended; `run` does it.

pub mod plan;
mod run;

pub(crate) use run::Controller;
