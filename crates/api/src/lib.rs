//! The Kubernetes API as data: types, schemas, defaults, validation, warnings, tables.
//!
//! Nothing here talks to a store or a network. Start at [`resource`]: one [`resource::Resource`] per kind the server
//! knows, each with a [`schema::Schema`] (made by one declaration together with the typed struct) and a
//! [`strategy::Strategy`] (what the server does to objects of that kind).
//!
//! Typed structs live in modules named after their API group: [`core::v1`], [`discovery::v1`], [`meta::v1`] and so on.
//! In them an empty string, list or map means "absent"; where Kubernetes tells "absent" from "empty" (a pointer in its
//! own types) the field is an `Option`.

#[macro_use]
pub mod schema;

pub mod apps;
pub mod authentication;
pub mod authorization;
pub mod autoscaling;
pub mod coordination;
pub mod core;
pub mod decode;
pub mod discovery;
pub mod events;
pub mod field;
pub mod kinds;
pub mod meta;
pub mod networking;
pub mod percent;
pub mod portolan;
pub mod printer;
pub mod range;
pub mod rbac;
pub mod resource;
pub mod scalars;
pub mod selector;
pub mod service;
pub mod status;
pub mod strategy;
pub mod suggest;
pub mod validate;

pub use scalars::{Bytes, IntOrString, MicroTime, Quantity, Time};
