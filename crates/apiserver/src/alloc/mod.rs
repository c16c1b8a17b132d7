//! Allocation of ClusterIPs and node ports for Services, and their release.
//!
//! Truth is the store: one IPAddress object per ClusterIP, created in the same transaction as the Service itself with
//! `Compare::Absent`, which is the lock; one `RangeAllocation` bitmap for all node ports, written by compare-and-swap
//! before the Service is (concurrent requests of this process share one write). What is kept in memory is a mirror to
//! pick quickly from; a stale mirror costs a retry, never a double allocation.
//!
//! A write of a Service goes: `plan_create` / `plan_update` / `plan_delete` (changes the object), validate, put the
//! plan's compares and ops into the Service's own transaction, then [`Plan::committed`]; or, on a conflict,
//! [`Plan::conflict`] and again from the start; or drop the plan, which gives everything back.
//!
//! Start with [`Allocator`] and [`Plan`]. `demand` decides, as a pure value, what a write needs; `plan` has it from `book`
//! and `ports`; `band`, `range` and `bitmap` are the arithmetic below; `mirror` follows the store; `repair` finds
//! what crashes left behind, `doubts` where to look for it at once, and `mend` puts it right.

pub mod band;
pub mod bitmap;
mod book;
mod demand;
mod doubts;
mod mend;
mod mirror;
pub(crate) mod objects;
mod plan;
mod ports;
pub mod range;
pub mod repair;
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
mod tests;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_api::core::v1::{Service, ServiceSpec};
use portolan_api::field::{FieldError, FieldErrors};
use portolan_api::service::families::{self, Family};
use portolan_api::service::{carry, read, write_spec};
use portolan_store::{Op, Revision, Store, Txn};
use serde_json::Value;

use crate::alloc_metrics::{AllocMetrics, Fullness, Scope};
use book::AddressBook;
use demand::{Demand, PortWant, Slot};
use doubts::Doubts;
pub use plan::Plan;
use ports::{PortDesk, Want};

/// What the administrator chose.
#[derive(Debug, Clone)]
pub struct Config {
    /// The default Service ranges, the primary family first; one or two, of different families.
    pub service_cidrs: Vec<IpNet>,
    pub node_ports: RangeInclusive<u16>,
}

/// Why a Service got no address or port.
#[derive(Debug, Clone)]
pub enum AllocError {
    /// 422: wrong fields, with Kubernetes' texts.
    Invalid(FieldErrors),
    /// 500 `Internal error occurred: ...` (range full and the like).
    Internal(String),
    /// 500 without a reason (Kubernetes answers some cases with a bare error).
    Plain(String),
    /// The store did not answer.
    Store(String),
}

impl AllocError {
    fn field(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> AllocError {
        AllocError::Invalid(vec![FieldError::invalid(path, value, detail)])
    }
}

impl From<FieldErrors> for AllocError {
    fn from(errors: FieldErrors) -> AllocError {
        AllocError::Invalid(errors)
    }
}

impl From<portolan_store::Error> for AllocError {
    fn from(error: portolan_store::Error) -> AllocError {
        AllocError::Store(error.to_string())
    }
}

/// The allocators of one API server.
pub struct Allocator {
    shared: Arc<Shared>,
    mirror: tokio::task::AbortHandle,
}

impl std::fmt::Debug for Allocator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Allocator").field("families", &self.shared.families).finish_non_exhaustive()
    }
}

struct Shared {
    store: Arc<dyn Store>,
    book: AddressBook,
    desk: PortDesk,
    doubts: Arc<Doubts>,
    metrics: AllocMetrics,
    /// The cluster's families, the primary first.
    families: Vec<Family>,
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.mirror.abort();
    }
}

impl Allocator {
    /// Creates the bitmap if it is absent, loads the mirror, and starts the task that keeps it current by watching the
    /// store. Needs a tokio runtime; the task ends when the Allocator is dropped.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Allocator, portolan_store::Error> {
        Self::counted_by(AllocMetrics::default(), config, store).await
    }

    /// The same, with counters that somebody shows.
    pub(crate) async fn counted_by(
        metrics: AllocMetrics,
        config: Config,
        store: Arc<dyn Store>,
    ) -> Result<Allocator, portolan_store::Error> {
        let mut families = Vec::new();
        for cidr in &config.service_cidrs {
            let family = Family::of(cidr.addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        let desk = PortDesk::open(store.clone(), config.node_ports).await?;
        let shared = Arc::new(Shared {
            store,
            book: AddressBook::default(),
            desk,
            doubts: Arc::default(),
            metrics,
            families,
        });
        let revision = mirror::load(&shared).await?;
        let mirror = tokio::spawn(mirror::follow(shared.clone(), revision)).abort_handle();
        Ok(Allocator { shared, mirror })
    }

    /// For a new Service (defaults applied, metadata.namespace and name final): normalises clusterIPs, fills
    /// ipFamilies and ipFamilyPolicy, picks addresses and ports. Runs before validation, as Kubernetes does.
    pub async fn plan_create(&self, service: &mut Value, dry_run: bool) -> Result<Plan, AllocError> {
        let mut new = read(service)?;
        families::normalise_cluster_ips(&mut new.spec, None);
        families::init_ip_families(&mut new, None, &self.shared.families)?;
        let demand = demand::on_create(&new.spec);
        let plan = self.fulfil(&mut new, demand, dry_run).await?;
        write_spec(service, &new.spec);
        Ok(plan)
    }

    /// The same for a changed Service: carries allocated values over from `old`, allocates what is new, releases what
    /// is gone once committed. Runs before the strategy's `prepare_update`.
    pub async fn plan_update(&self, old: &Value, new: &mut Value, dry_run: bool) -> Result<Plan, AllocError> {
        let (mut stored, mut service) = (read(old)?, read(new)?);
        carry_over(&mut service, &mut stored, &self.shared.families)?;
        let demand = demand::on_update(&stored.spec, &service.spec)?;
        let plan = self.fulfil(&mut service, demand, dry_run).await?;
        write_spec(new, &service.spec);
        Ok(plan)
    }

    /// For a Service about to be removed from the store (by DELETE, or by the write that drops its last finalizer).
    pub async fn plan_delete(&self, old: &Value) -> Result<Plan, AllocError> {
        let mut stored = read(old)?;
        families::default_on_read(&mut stored.spec, &self.shared.families);
        let mut plan = Plan::empty(self.shared.clone());
        plan.release(&stored, demand::on_delete(&stored.spec)).await?;
        Ok(plan)
    }

    /// How full each address range is, and the range of node ports.
    pub(crate) async fn fullness(&self) -> (Vec<(IpNet, Fullness)>, Option<Fullness>) {
        let ports = self.shared.desk.show().await.map(|bitmap| {
            let allocated = bitmap.ports().count();
            let available = bitmap.size() - allocated;
            Fullness { allocated: allocated as u128, available: available as u128 }
        });
        (self.shared.book.fullness(), ports)
    }

    /// Where to wait for addresses in doubt.
    pub(crate) fn doubts(&self) -> Arc<Doubts> {
        self.shared.doubts.clone()
    }

    /// Looks at the store now, not when the watch tells.
    pub(crate) async fn reload(&self) -> Result<(), portolan_store::Error> {
        mirror::load_ranges(&self.shared).await
    }

    /// What a transaction writes of ranges, which is mostly nothing.
    pub(crate) fn ranges_of(txn: &Txn) -> Vec<Op> {
        txn.ops.iter().filter(|op| op.key().starts_with(objects::CIDRS)).cloned().collect()
    }

    /// This process has just written ranges: a client that has the answer counts on it.
    pub(crate) fn wrote(&self, ranges: &[Op], revision: Revision) {
        for op in ranges {
            match op {
                Op::Put(key, value) => self.shared.book.seen(key, Some(value), revision),
                Op::Delete(key) => self.shared.book.seen(key, None, revision),
            }
        }
    }

    async fn fulfil(&self, service: &mut Service, demand: Demand, dry_run: bool) -> Result<Plan, AllocError> {
        let mut plan = Plan::empty(self.shared.clone());
        if dry_run {
            self.pretend_addresses(service, &demand)?;
            self.pretend_ports(&mut service.spec, &demand.ports).await?;
        } else {
            plan.addresses(service, &demand).await?;
            plan.ports(&mut service.spec, &demand.ports).await?;
            plan.release(service, demand).await?;
        }
        Ok(plan)
    }

    fn pretend_addresses(&self, service: &mut Service, demand: &Demand) -> Result<(), AllocError> {
        for want in &demand.addresses {
            let address = match want.asked {
                Some(address) => self.shared.check_dry(address, &service.spec).map(|()| address)?,
                // The first of a range, which is never given out.
                None => self.shared.book.any_range(want.family).ok_or_else(|| range_full(service))?.network(),
            };
            set_address(&mut service.spec, want.index, address);
        }
        Ok(())
    }

    async fn pretend_ports(&self, spec: &mut ServiceSpec, wants: &[PortWant]) -> Result<(), AllocError> {
        // Numbers that no default range has: plainly not real.
        let mut pretended = 32768u16;
        let mut bitmap =
            self.shared.desk.show().await.ok_or_else(|| AllocError::Store("shutting down".into()))?;
        for want in wants {
            let port = match want.want {
                Want::This(number) => {
                    bitmap.take_asked(number).map_err(|error| port_error(want, &error.to_string(), false))?
                }
                Want::Any => {
                    pretended = pretended.saturating_add(1);
                    pretended
                }
            };
            set_port(spec, &want.slot, port);
        }
        Ok(())
    }
}

impl Shared {
    /// The range that gives out the address. Before one is refused the store is asked: the mirror may lag.
    async fn range_of(&self, address: IpAddr, spec: &ServiceSpec) -> Result<IpNet, AllocError> {
        if let Some(range) = self.book.range_of(address) {
            return Ok(range);
        }
        mirror::load_ranges(self).await?;
        self.book.range_of(address).ok_or_else(|| {
            refused_address(address, spec, "the provided network does not match the current range")
        })
    }

    /// A dry run takes any range for all of its family, and says which, as in Kubernetes.
    fn check_dry(&self, address: IpAddr, spec: &ServiceSpec) -> Result<(), AllocError> {
        if self.book.range_of(address).is_some() {
            return Ok(());
        }
        let why = match self.book.any_range(Family::of(address)) {
            Some(range) => {
                format!("provided IP is not in the valid range. The range of valid IPs is {range}")
            }
            None => "allocator not ready".to_owned(),
        };
        Err(refused_address(address, spec, &why))
    }

    /// An address asked for is checked against the store itself: the mirror may lag.
    async fn check_free(&self, address: IpAddr, range: IpNet, spec: &ServiceSpec) -> Result<(), AllocError> {
        if !self.book.is_taken(address) {
            return Ok(());
        }
        if self.store.get(&objects::address_key(address)).await?.0.is_some() {
            self.metrics.refused_address(range, Scope::Static);
            return Err(refused_address(address, spec, "provided IP is already allocated"));
        }
        self.book.release(address);
        Ok(())
    }

    /// Any free address of the family, held until it is given back or taken. Before the ranges are called full, the store
    /// is asked whether there are more.
    async fn pick(&self, family: Family) -> Result<Option<(IpAddr, IpNet)>, AllocError> {
        let mut pick = self.book.pick(family);
        if pick.address.is_none() {
            mirror::load_ranges(self).await?;
            pick = self.book.pick(family);
        }
        for range in pick.full {
            self.metrics.refused_address(range, Scope::Dynamic);
        }
        Ok(pick.address)
    }
}

/// Before a change is looked at: the old object as if it had all fields, the new one with what its client left out.
fn carry_over(new: &mut Service, old: &mut Service, families: &[Family]) -> Result<(), FieldErrors> {
    families::default_on_read(&mut old.spec, families);
    carry::patch_allocated(&mut new.spec, &old.spec);
    families::normalise_cluster_ips(&mut new.spec, Some(&old.spec));
    families::init_ip_families(new, Some(old), families)
}

fn set_address(spec: &mut ServiceSpec, index: usize, address: IpAddr) {
    if index >= spec.cluster_ips.len() {
        spec.cluster_ips.resize(index + 1, String::new());
    }
    spec.cluster_ips[index] = address.to_string();
    if index == 0 {
        spec.cluster_ip = address.to_string();
    }
}

fn set_port(spec: &mut ServiceSpec, slot: &Slot, port: u16) {
    match slot {
        Slot::HealthCheck => spec.health_check_node_port = port.into(),
        Slot::Ports(indexes) => {
            for index in indexes {
                spec.ports[*index].node_port = port.into();
            }
        }
    }
}

fn refused_address(address: IpAddr, spec: &ServiceSpec, why: &str) -> AllocError {
    let value = spec.cluster_ips.clone();
    AllocError::field("spec.clusterIPs", value, format!("failed to allocate IP {address}: {why}"))
}

fn range_full(service: &Service) -> AllocError {
    let name = &service.metadata.name;
    AllocError::Internal(format!("failed to allocate a serviceIP for Service {name:?}: range is full"))
}

fn port_error(want: &PortWant, why: &str, full: bool) -> AllocError {
    match (&want.slot, want.want) {
        (Slot::HealthCheck, Want::This(number)) => {
            AllocError::Internal(format!("failed to allocate requested HealthCheck NodePort {number}: {why}"))
        }
        (Slot::HealthCheck, Want::Any) => {
            AllocError::Internal(format!("failed to allocate a HealthCheck NodePort 0: {why}"))
        }
        (Slot::Ports(indexes), Want::This(number)) if !full => {
            let index = indexes.first().copied().unwrap_or_default();
            AllocError::field(format!("spec.ports[{index}].nodePort"), number, why)
        }
        (Slot::Ports(_), _) => AllocError::Internal(format!("failed to allocate a nodePort: {why}")),
    }
}
