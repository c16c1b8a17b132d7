//! The Kubernetes API: discovery, verbs, watch, patch, tables, admission, allocation, and who may do what.
//!
//! Here: [`ApiServer`], which answers one `http::Request` with one `http::Response`, and [`serve`], which puts TLS and
//! connections in front of it. In one process the same [`ApiServer::handle`] is called without a socket.
//! Not here: what a resource is (`portolan_api`) and how objects are kept (`portolan_store`).
//!
//! Start at [`ApiServer::handle`] in `server.rs`; it reads as the path of a request: who asks (`authn`), what is asked
//! (`path`, `query`), may they (`authz`), then one file per verb in `verbs/`. `patch/`, `openapi/`, `discovery`, `table`
//! and `alloc/` are engines that know no HTTP.

#![forbid(unsafe_code)]

pub mod alloc;
pub mod discovery;
pub mod limits;
pub mod openapi;
pub mod patch;
pub mod pki;
pub mod table;
