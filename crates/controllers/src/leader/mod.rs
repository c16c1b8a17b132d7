//! One of several control planes runs the controllers: the one that holds a Lease and renews it.
//!
//! The rules are client-go's, so that its candidates and ours can stand for one Lease: a holder that has not renewed
//! for `lease_duration`, *by the watcher's own clock since it last saw a change*, has lost it; a holder that could not
//! renew for `renew_deadline`, which is shorter, stops by itself before anybody else can start.
//!
//! `plan` is the election as a state machine without I/O; `run` asks it what to do every `retry_period`.

mod plan;
mod run;

use std::time::Duration;

pub use plan::{Act, Election, Record};
pub use run::{Config, lead};

/// client-go's defaults.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
pub const RETRY_PERIOD: Duration = Duration::from_secs(2);
