//! Namespaces on their way out: everything in them is deleted, then the namespace is let go.
//!
//! What there is to delete comes from discovery, so that kinds nobody here knows are found too.

pub mod plan;
mod run;

pub(crate) use run::Controller;
