//! Endpoints: the older object that says what EndpointSlices say, one per Service, for those who still read it.
//!
//! [`plan`] decides, [`subsets`] groups addresses and ports, [`run`] writes.

pub mod plan;
mod run;
pub mod subsets;

pub use plan::{Write, plan};
pub(crate) use run::Controller;
