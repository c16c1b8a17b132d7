//! The ruleset interface against the real kernel, and against the fake, which must agree with it.
//!
//! `kernel` holds what only the kernel can show, `expressions` that every expression survives the way there and back,
//! `monitor` hearing of what others do, `agreement` the cases that run on both. Every test makes its own network namespace, which ends with its thread.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod agreement;
mod expressions;
mod kernel;
mod monitor;
mod support;
