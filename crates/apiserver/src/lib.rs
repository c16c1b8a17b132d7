//! The Kubernetes API: discovery, verbs, watch, patch, tables, admission, allocation, and who may do what.
//!
//! Here: [`ApiServer`], which answers one `http::Request` with one `http::Response`, and [`serve`], which puts TLS and
//! connections in front of it. In one process the same [`ApiServer::handle`] is called without a socket.
//! Not here: what a resource is (`portolan_api`) and how objects are kept (`portolan_store`).
//!
//! Start at [`ApiServer::handle`] in `server.rs`; it reads as the path of a request: who asks (`authn`), what is asked
//! (`path`, `query`, `call`), may they (`authz`), then one file per verb in `verbs/`, and `write` for all that changes
//! objects. `patch/`, `openapi/`, `discovery`, `table` and `alloc/` are engines that know no HTTP.

#![forbid(unsafe_code)]

mod accounts;
mod admission;
pub mod alloc;
mod alloc_metrics;
pub mod authn;
mod authz;
pub mod body;
mod bootstrap;
mod call;
pub mod config;
mod content;
mod default_range;
pub mod discovery;
pub mod document;
mod errors;
mod flow;
mod flow_metrics;
#[doc(hidden)]
pub mod fuzzing;
mod health;
pub mod limits;
mod lines;
mod managed;
mod masters;
mod metadata;
mod metrics;
mod namespaces;
mod negotiate;
mod nodes;
mod object;
pub mod openapi;
mod outbound;
pub mod patch;
mod path;
pub mod pki;
mod propagation;
mod protobuf;
mod query;
mod repairs;
mod reports;
mod respond;
mod select;
mod serve;
mod server;
mod subject;
mod sweep;
pub mod table;
pub mod tls;
mod tokens;
mod verbs;
mod view;
mod write;
mod yaml;

pub use authn::User;
pub use body::Body;
pub use config::{Config, StartError};
pub use protobuf::stored::{Protobuf, Readable};
pub use serve::serve;
pub use server::{ApiServer, SNAPSHOT_PATH};
pub use tokens::{BadKey, TokenKeys};
