//! Probes: [`state`] decides, [`check`] asks, [`run`] is the task between them.

mod check;
mod grpc;
mod http;
mod run;
pub(crate) mod state;

pub(crate) use check::{Check, dial_error};
pub(crate) use run::{Report, start};
