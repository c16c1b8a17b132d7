//! The node agent: runs the pods bound to its node as processes in network namespaces, probes them, reports on them.
//!
//! Here: registration of the node ([`node`]), a network namespace and an address for each pod ([`network`]), the
//! processes themselves ([`process`]), probes ([`probe`]), the life and the status of a pod ([`pod`]), what it wrote ([`log`]),
//! what API servers may ask about it ([`serving`]), and the built-in image [`echo`]. Not here: which pod goes to which node (the scheduler's), what a Service does (the proxy's), images
//! (there is no image store: see [`pod::image`]).
//!
//! Decisions are pure and take the time as an argument (`pod::plan`, `pod::status`, `probe::state`, `network::addresses`,
//! `node::routes`); tasks around them do what was decided. Start at [`run`], then read `pod::worker`.
//!
//! Processes belong to the namespace that [`run`]'s runtime threads are in: that namespace *is* the node.

mod config;
pub mod echo;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod log;
mod manager;
mod network;
mod node;
mod pod;
mod probe;
mod process;
mod registry;
mod serving;
mod state_dir;

pub use config::{BackoffLimits, Config, Names, NetworkConfig, POD_MAX_PIDS};
pub use error::Error;
pub use manager::run;
pub use serving::{Serving, ServingError};
