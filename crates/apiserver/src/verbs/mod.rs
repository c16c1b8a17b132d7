//! One file per verb. Each takes a [`Call`](crate::call::Call) and returns a response or a refusal.

pub(crate) mod apply;
pub(crate) mod binding;
pub(crate) mod connect;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod eviction;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod review;
pub(crate) mod scale;
pub(crate) mod token;
pub(crate) mod update;
pub(crate) mod watch;
