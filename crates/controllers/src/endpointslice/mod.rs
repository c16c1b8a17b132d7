//! EndpointSlices: for every Service with a selector, the addresses of the pods it selects, in slices of limited size.
//!
//! [`plan`] decides what to write, `pack` how endpoints spread over slices with the fewest writes, `order` in which
//! order, so that no ready pod is missing in between, [`topology`] which zone an endpoint serves where that goes by
//! processors. `run` does it.

pub mod desired;
mod order;
mod pack;
pub mod plan;
mod run;
pub mod topology;

pub(crate) use order::in_order;
pub use plan::{Input, Plan, Write, plan};
pub(crate) use run::{Controller, SliceWriter};

/// Who manages the slices made here.
pub const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
