//! Whole clusters in network namespaces, on one machine, touching nothing outside them.
//!
//! A lab is a segment (`10.0.0.0/24`, if asked also `fd00::/64`) with a control plane, nodes, an outside client and an outside server on it, each
//! a network namespace of its own; the pods of a node live in namespaces of theirs, behind the node. The processes
//! are those of a real site: `portolan up --control-plane` and `portolan node`, talking TLS over the segment.
//!
//! Start at [`Lab::up`]. [`layout`] says what is called how, [`segment`] builds the network, [`lab`] starts and ends
//! the processes, [`probe`] asks for answers from inside a namespace, [`load`] connects again and again, [`demo`] is the story that `make demo` tells.
//! What Kubernetes objects mean is not here: the lab only uses `kubectl`.

#![forbid(unsafe_code)]

pub mod demo;
mod error;
mod exec;
mod kubectl;
mod lab;
pub mod layout;
pub mod load;
pub mod probe;
mod segment;

pub use error::LabError;
pub use exec::{Place, enter};
pub use kubectl::Kubectl;
pub use lab::{Lab, Options, Status};
pub use layout::{Host, Layout};
