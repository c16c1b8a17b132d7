//! Probes: [`state`] decides, `check` asks, `run` is the task between them.

pub(crate) mod state;
