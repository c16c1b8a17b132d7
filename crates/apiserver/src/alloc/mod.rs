//! Allocation of ClusterIPs and node ports for Services, and their release.
//!
//! Truth is the store: one IPAddress object per ClusterIP, created in the same transaction as the Service itself with
//! `Compare::Absent`, which is the lock; one RangeAllocation bitmap for all node ports, written by compare-and-swap
//! before the Service is (concurrent requests of this process share one write). What is kept in memory is a mirror to
//! pick quickly from; a stale mirror costs a retry, never a double allocation.
//!
//! A write of a Service goes: `plan_create` / `plan_update` / `plan_delete` (changes the object), validate, put the
//! plan's compares and ops into the Service's own transaction, then [`Plan::committed`]; or, on a conflict,
//! [`Plan::conflict`] and again from the start; or drop the plan, which gives the node ports back.

pub mod band;
pub mod bitmap;
mod ports;
pub mod range;

use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_store::{Compare, KeyValue, Op, Store};
use serde_json::Value;

/// What the administrator chose.
#[derive(Debug, Clone)]
pub struct Config {
    /// The default Service ranges, the primary family first; one or two, of different families.
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
}

/// Why a Service got no address or port. [`AllocError::status`] is the answer for the client.
#[derive(Debug, Clone)]
pub enum AllocError {
    /// 422: wrong fields, with Kubernetes' texts.
    Invalid(portolan_api::field::FieldErrors),
    /// 500 `Internal error occurred: ...` (range full and the like).
    Internal(String),
    /// 500 without a reason (Kubernetes answers some cases with a bare error).
    Plain(String),
    /// The store did not answer.
    Store(String),
}

/// What has to be in the Service's own transaction, and what is held until it is done.
#[must_use = "a plan not committed gives its node ports back"]
pub struct Plan {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
}

impl Plan {
    /// The transaction is durable: releases what the old object held and the new one does not.
    pub fn committed(self) {
        todo!()
    }
    /// The transaction met a conflict: learns which addresses are taken. Returns true if one of the plan's own
    /// compares failed (plan again); false if only the Service's own did.
    pub fn conflict(self, current: &[(Arc<str>, Option<KeyValue>)]) -> bool {
        todo!("{current:?}")
    }
}

/// The allocators of one API server.
pub struct Allocator {}

impl Allocator {
    /// Creates the default ServiceCIDR and the bitmap if they are absent, loads the mirror, and starts the task that
    /// keeps it current by watching the store. Needs a tokio runtime; the task ends when the Allocator is dropped.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Allocator, portolan_store::Error> {
        todo!("{config:?} {}", Arc::strong_count(&store))
    }
    /// For a new Service (defaults applied, metadata.namespace and name final): normalises clusterIPs, fills
    /// ipFamilies and ipFamilyPolicy, picks addresses and ports. Runs before validation, as Kubernetes does.
    pub async fn plan_create(&self, service: &mut Value, dry_run: bool) -> Result<Plan, AllocError> {
        todo!("{service} {dry_run}")
    }
    /// The same for a changed Service: carries allocated values over from `old`, allocates what is new, releases what
    /// is gone once committed. Runs before the strategy's `prepare_update`.
    pub async fn plan_update(&self, old: &Value, new: &mut Value, dry_run: bool) -> Result<Plan, AllocError> {
        todo!("{old} {new} {dry_run}")
    }
    /// For a Service about to be removed from the store (by DELETE, or by the write that drops its last finalizer).
    pub async fn plan_delete(&self, old: &Value) -> Result<Plan, AllocError> {
        todo!("{old}")
    }
}
