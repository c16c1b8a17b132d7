//! Garbage collection: what has owners, and none of them exists any more, is deleted.
//!
//! Only for the kinds that Portolan's own controllers read; owners of any other kind are taken to exist.

pub mod plan;
mod run;

pub(crate) use run::Controller;
