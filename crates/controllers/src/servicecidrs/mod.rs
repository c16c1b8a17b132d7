//! ServiceCIDRs: each has a finalizer, says that it is ready, and goes only when no address is left without a range.
//!
//! Giving out addresses is the API server's; that it gives none from a range on its way out is what the pause before the
//! finalizer goes is for.

pub mod plan;
mod run;

pub(crate) use run::{CONTROLLER, Controller};
