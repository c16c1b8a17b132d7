//! kube-rs against the real API server over TLS: what controllers written with it do all day.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world must stop")]

mod api;
mod cluster;
mod watching;
