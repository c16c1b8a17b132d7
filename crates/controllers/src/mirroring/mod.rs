//! Mirroring: Endpoints that a user keeps by hand for a Service without selector become EndpointSlices (EPC-7).

pub mod plan;
mod run;

pub use plan::{Input, Plan, plan};
pub(crate) use run::Controller;

/// Who manages the slices made here.
pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
