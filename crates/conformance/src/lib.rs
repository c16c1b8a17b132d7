//! Clients that others wrote, against the real API server: what they rely on, it does.
//!
//! There is nothing here but tests: `tests/kube_rs` are the patterns of controllers written with kube-rs. Clients of
//! other kinds have theirs with the servers they talk to: kubectl in `crates/apiserver/tests/api/kubectl.rs` and in the
//! system tests.
