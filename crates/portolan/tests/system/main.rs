//! The whole system on real parts: the real program, `kubectl`, kernel and packets, in namespaces that each test makes.
//!
//! Start at `bed` (what a test stands on), then `facts`.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world must stop")]

mod access;
mod bad_input;
mod bed;
mod clients;
mod drop_in;
mod endpoints;
mod etcd;
mod facts;
mod gate;
mod kube_apiserver;
mod kubectl;
mod lab_life;
mod loadbalancer;
mod modes;
mod names;
mod other_kernel;
mod place;
mod pods;
mod policies;
mod portforward;
mod proxied;
mod proxy_verb;
mod service_ranges;
mod snapshot;
mod soak;
mod trace;
mod up_alone;
