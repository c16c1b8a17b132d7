//! The node itself: its Node object, its lease, and its routes to the pods of other nodes.

mod object;
mod register;
mod routes;
mod run;

pub(crate) use run::{NodeTask, NodeView};
