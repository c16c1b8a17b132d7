//! The agent at work: real processes in real network namespaces (root is needed), against an API server in memory.
//!
//! Every test makes a node of its own and removes it; they run in parallel.

// What cannot be unwrapped here fails the test, and helpers are part of it.
#![allow(clippy::unwrap_used)]

mod hostile;
mod lifecycle;
mod names;
mod network;
mod node;
mod probes;
mod restart;
