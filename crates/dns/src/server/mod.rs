//! Questions in, answers out, over UDP and TCP.
//!
//! [`handler`] decides what a packet gets, without a socket; [`udp`] is a thread per socket that takes and sends packets
//! in batches ([`batch`]); [`tcp`] is a task per connection; [`limit`] holds back answers to strangers.
//!
//! Start at [`handler::Handler::handle`].

mod batch;
pub mod handler;
pub mod limit;
pub mod tcp;
pub mod udp;

pub use handler::{Handler, Pending, Snapshot, Step};
