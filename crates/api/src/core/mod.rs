//! The core group, `v1`.

pub mod v1 {
    //! All types of core/v1 that the server knows, gathered from one file per subject.
    pub use super::common::*;
    pub use super::config::*;
    pub use super::endpoints::*;
    pub use super::event::*;
    pub use super::node::*;
    pub use super::pod::*;
    pub use super::pod_container::*;
    pub use super::pod_status::*;
    pub use super::service::*;
}

mod common;
mod config;
mod endpoints;
mod event;
mod node;
mod pod;
mod pod_container;
mod pod_status;
mod service;
