//! A client of the Kubernetes API: verbs with typed errors, and watch caches.
//!
//! Here: [`Client`] (verbs), [`Transport`] (how a request gets there: TLS, or straight into an API server of the
//! same process), [`Cache`] (a watched copy of one kind of object), [`Labels`], [`EventRecorder`]. Works against any
//! Kubernetes API server. Not here: the API's types; callers decode into what they need, from full objects to
//! slim projections of a few fields.
//!
//! Start at [`Client`], then [`Cache`].

#![forbid(unsafe_code)]

pub mod cache;
mod client;
pub mod config;
mod error;
pub mod events;
mod labels;
pub mod limits;
mod path;
pub mod testing;
mod transport;

pub use cache::{Cache, Dirty, Key, Selectors};
pub use client::{Client, DeleteOptions, List, ListMeta, ListOptions, Patch, Subresource, WatchOptions};
pub use config::Config;
pub use error::{Error, Status};
pub use events::{EventRecorder, EventType, ObjectRef};
pub use labels::Labels;
pub use path::{ApiPath, Versions, paths};
pub use transport::{Body, BoxError, HttpTransport, Transport, unverified_tls};
