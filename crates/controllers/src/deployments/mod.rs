//! Deployments: pods of one template, replaced step by step when the template changes.
//!
//! [`plan`] says which `ReplicaSet`s there are to be and how large, with the arithmetic of a rolling update in
//! [`rollout`], what is reported in [`status`] and the names of sets in [`hash`]; `run` does it.

pub mod hash;
pub mod plan;
pub mod rollout;
mod run;
pub mod status;

#[cfg(test)]
mod tests;

pub(crate) use run::Controller;

/// The label that tells the pods of one template from those of another.
pub const HASH_LABEL: &str = "pod-template-hash";
pub const REVISION: &str = "deployment.kubernetes.io/revision";
pub const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many replicas the Deployment had when the set was last resized: if that differs, the Deployment was scaled.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";
