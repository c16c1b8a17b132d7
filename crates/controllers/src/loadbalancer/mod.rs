//! Addresses for Services of type LoadBalancer, from `LoadBalancerPool`s.
//!
//! `wish` reads what a Service asks for; [`pool`] holds the pools with what is free in them; [`plan`] decides (pure);
//! [`status`] says what to write; [`run`] writes; `metrics` counts. Announcing the addresses is not here.
//!
//! Rules: an address is held until its Service goes, asks for another, or may no longer share it. A change of a pool
//! takes no address away: the Service keeps it and its condition says that no pool offers it any more. A wish that
//! cannot be granted costs a Service nothing that it has. What is given is the lowest free address of the first pool
//! that fits, so the same cluster gets the same addresses.
//!
//! Start at [`plan::Allocator::plan`].

mod metrics;
pub mod objects;
pub mod plan;
#[cfg(test)]
mod plan_tests;
pub mod pool;
mod problem;
pub mod run;
pub mod status;
mod wish;

pub use metrics::Metrics;
pub use problem::Problem;
pub use run::{Config, run};

/// The load-balancer class whose Services are ours, besides those without a class.
pub const CLASS: &str = "portolan.dev/l2";
