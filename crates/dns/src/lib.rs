//! Cluster DNS: the names of Services, answered as the Kubernetes DNS specification 1.1 says, and everything else
//! forwarded.
//!
//! Here: [`zone`] (pure: objects in, an immutable [`zone::Zone`] out, and what it answers), [`wire`] (messages as
//! bytes), [`server`] (UDP and TCP), [`forward`] (names outside the cluster: upstreams and a cache), and [`run`], which
//! ties them to an API server. Not here: who writes Endpoints and EndpointSlices (the controllers), and how a packet to
//! the Service `kube-dns` gets to this process (the node proxy).
//!
//! Start at [`run`], then `zone::answer`.

pub mod config;
pub mod forward;
#[doc(hidden)]
pub mod fuzzing;
pub mod limits;
pub mod metrics;
pub mod name;
pub mod objects;
pub mod publish;
pub mod rr;
mod run;
pub mod server;
pub mod wire;
pub mod zone;

pub use config::Config;
pub use publish::{InCluster, run_in_cluster};
pub use run::{Error, run};
