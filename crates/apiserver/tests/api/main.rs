//! The API server as its clients see it, without a socket: requests go to `ApiServer::handle`.
//!
//! One file per verb or theme. `kubectl.rs` alone starts the real server on a loopback port and runs the real kubectl.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod abandoned;
mod access;
mod apply;
mod common;
mod crud;
mod delete;
mod endpoints;
mod errors;
mod events;
mod fairness;
mod fine_print;
mod generations;
mod kubectl;
mod list;
mod machinery;
mod namespaces;
mod patch;
mod pods;
mod proxied;
mod scale;
mod service_families;
mod service_fields;
mod service_ranges;
mod service_validation;
mod service_wiping;
mod services;
mod statuses;
mod tls;
mod tokens;
mod watch;
