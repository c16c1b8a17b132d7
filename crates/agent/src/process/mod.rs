//! Processes: starting them inside a pod's namespaces, waiting for their end, stopping them.
//!
//! A process is killed when the *thread* that started it ends (`PR_SET_PDEATHSIG`), so all are started by one thread that
//! lives as long as the agent: should the agent be killed, its pods go with it. What those had started themselves may
//! survive that; the next agent finds it by its network namespace (see [`crate::state_dir`]).

mod birth;
mod exit;
mod log;
mod mounts;
mod spawner;
mod strays;

pub(crate) use exit::{Exit, Handle, Signaller};
pub(crate) use log::{Drained, LogNews, Logs, rotated};
pub(crate) use mounts::Mounts;
pub(crate) use spawner::{Launch, Output, Space, Spawner};
