//! Pods: one task each, from its first sight to the end of its last process.
//!
//! `container` is what is remembered, `plan` decides what starts, `status` derives what is reported; `worker` does it.

pub(crate) mod backoff;
pub(crate) mod container;
pub(crate) mod env;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod image;
pub(crate) mod plan;
pub(crate) mod status;
