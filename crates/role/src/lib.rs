//! What every role has beside its work: [`Progress`], by which it tells others of its process how far it is, and
//! [`http`], by which it tells probes and scrapers, on listeners of [`listen`]. What a role says there is its own.

#![forbid(unsafe_code)]

pub mod http;
pub mod listen;
mod progress;

pub use progress::Progress;
