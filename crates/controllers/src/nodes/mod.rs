//! Nodes: gives each its range of pod addresses, and notices when one falls silent (NODE-1).
//!
//! [`cidr`] hands out ranges, [`monitor`] tells the silent nodes from the living, [`plan`] says what to write then.

pub mod cidr;
pub mod monitor;
pub mod plan;
mod run;

pub(crate) use run::Controller;
