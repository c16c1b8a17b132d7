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
//! Start with [`Allocator`] and [`Plan`]. `demand` decides, as a pure value, what a write needs; `book` and
//! `ports` fulfil it; `band`, `range` and `bitmap` are the arithmetic below; `mirror` follows the store; `repair` finds
//! what crashes left behind and `mend` puts it right.

pub mod band;
pub mod bitmap;
mod book;
mod demand;
mod mend;
mod mirror;
pub mod objects;
mod ports;
pub mod range;
pub mod repair;
#[cfg(test)]
#[allow(clippy::needless_pass_by_value)] // literals read best by value
mod tests;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use portolan_api::core::v1::{Service, ServiceSpec};
use portolan_api::field::{FieldError, FieldErrors};
use portolan_api::service::families::{self, Family};
use portolan_api::service::{carry, read, write_spec};
use portolan_store::{Compare, KeyValue, Op, Store};
use serde_json::Value;

use crate::alloc_metrics::Fullness;
use book::AddressBook;
use demand::{Demand, PortWant, Slot};
use ports::{HeldPorts, PortDesk, Refusal, Want};

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
    /// The cluster's families, the primary first.
    families: Vec<Family>,
}

impl Drop for Allocator {
    fn drop(&mut self) {
        self.mirror.abort();
    }
}

impl Allocator {
    /// Creates the default ServiceCIDR and the bitmap if they are absent, loads the mirror, and starts the task that
    /// keeps it current by watching the store. Needs a tokio runtime; the task ends when the Allocator is dropped.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Allocator, portolan_store::Error> {
        mirror::ensure_default_cidr(&*store, &config.service_cidrs, Timestamp::now()).await?;
        let mut families = Vec::new();
        for cidr in &config.service_cidrs {
            let family = Family::of(cidr.addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        let desk = PortDesk::open(store.clone(), config.node_ports).await?;
        let shared = Arc::new(Shared { store, book: AddressBook::default(), desk, families });
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
                Some(address) => self.shared.check_range(address, &service.spec).map(|()| address)?,
                None => self.shared.book.placeholder(want.family).ok_or_else(|| range_full(service))?,
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
    fn check_range(&self, address: IpAddr, spec: &ServiceSpec) -> Result<(), AllocError> {
        if self.book.covers(address) {
            return Ok(());
        }
        Err(refused_address(address, spec, "the provided network does not match the current range"))
    }

    /// An address asked for is checked against the store itself: the mirror may lag.
    async fn check_free(&self, address: IpAddr, spec: &ServiceSpec) -> Result<(), AllocError> {
        if !self.book.is_taken(address) {
            return Ok(());
        }
        if self.store.get(&objects::address_key(address)).await?.0.is_some() {
            return Err(refused_address(address, spec, "provided IP is already allocated"));
        }
        self.book.release(address);
        Ok(())
    }
}

/// What has to be in the Service's own transaction, and what is held until it is done.
#[must_use = "a plan not committed gives its addresses and node ports back"]
pub struct Plan {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
    shared: Arc<Shared>,
    /// Addresses picked by us. Those asked for are not: two who ask for the same meet in the store.
    picked: Vec<IpAddr>,
    ports: Option<HeldPorts>,
    released: Vec<IpAddr>,
    port_releases: Vec<u16>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Plan")
            .field("compares", &self.compares)
            .field("ops", &self.ops)
            .finish_non_exhaustive()
    }
}

impl Drop for Plan {
    fn drop(&mut self) {
        for address in self.picked.drain(..) {
            self.shared.book.unpick(address);
        }
    }
}

impl Plan {
    fn empty(shared: Arc<Shared>) -> Plan {
        Plan {
            compares: Vec::new(),
            ops: Vec::new(),
            shared,
            picked: Vec::new(),
            ports: None,
            released: Vec::new(),
            port_releases: Vec::new(),
        }
    }

    /// The transaction is durable: releases what the old object held and the new one does not.
    pub fn committed(mut self) {
        for op in &self.ops {
            if let (Op::Put(..), Some(address)) = (op, objects::address_of_key(op.key())) {
                self.shared.book.take(address);
            }
        }
        self.picked.clear();
        for address in self.released.drain(..) {
            self.shared.book.release(address);
        }
        if let Some(ports) = self.ports.take() {
            ports.keep();
        }
        self.shared.desk.release(std::mem::take(&mut self.port_releases));
    }

    /// Nobody knows whether the transaction happened. Its ports stay reserved: repair frees them if it did not.
    /// Addresses need no such care, since their objects are part of the transaction.
    pub fn unknown(mut self) {
        if let Some(ports) = self.ports.take() {
            ports.keep();
        }
    }

    /// The transaction met a conflict: learns which addresses are taken. True if one of the plan's own compares
    /// failed (plan again); false if only the Service's own did.
    pub fn conflict(self, current: &[(Arc<str>, Option<KeyValue>)]) -> bool {
        let mut ours = false;
        for compare in &self.compares {
            let Some((key, value)) = current.iter().find(|(key, _)| key == compare.key()) else { continue };
            let revision = value.as_ref().map(|value| value.mod_revision);
            let holds = match compare {
                Compare::Absent(_) => revision.is_none(),
                Compare::Revision(_, expected) => revision == Some(*expected),
            };
            if !holds {
                ours = true;
                self.shared.book.seen(key, value.as_ref().map(|value| &value.value[..]));
            }
        }
        ours
    }

    async fn addresses(&mut self, service: &mut Service, demand: &Demand) -> Result<(), AllocError> {
        for want in &demand.addresses {
            let address = if let Some(address) = want.asked {
                self.shared.check_range(address, &service.spec)?;
                self.shared.check_free(address, &service.spec).await?;
                address
            } else {
                let picked = self.shared.book.pick(want.family).ok_or_else(|| range_full(service))?;
                self.picked.push(picked);
                picked
            };
            let key: Arc<str> = objects::address_key(address).into();
            let object = {
                let metadata = &service.metadata;
                objects::ip_address(address, &metadata.namespace, &metadata.name, Timestamp::now())
            };
            self.compares.push(Compare::Absent(key.clone()));
            self.ops.push(Op::Put(key, Bytes::from(object.to_string())));
            set_address(&mut service.spec, want.index, address);
        }
        Ok(())
    }

    async fn ports(&mut self, spec: &mut ServiceSpec, wants: &[PortWant]) -> Result<(), AllocError> {
        if wants.is_empty() {
            return Ok(());
        }
        let held = match self.shared.desk.reserve(wants.iter().map(|want| want.want).collect()).await {
            Ok(held) => held,
            Err(Refusal::Store(why)) => return Err(AllocError::Store(why)),
            Err(Refusal::Port { index, error }) => {
                let full = error == bitmap::PortError::Full;
                return Err(port_error(&wants[index], &error.to_string(), full));
            }
        };
        for (want, port) in wants.iter().zip(held.ports()) {
            set_port(spec, &want.slot, *port);
        }
        self.ports = Some(held);
        Ok(())
    }

    /// Deletes the IPAddresses the Service no longer needs, those that are really its own.
    async fn release(&mut self, service: &Service, demand: Demand) -> Result<(), AllocError> {
        let owner = (service.metadata.namespace.as_str(), service.metadata.name.as_str());
        for address in demand.address_releases {
            let key: Arc<str> = objects::address_key(address).into();
            let (Some(current), _) = self.shared.store.get(&key).await? else { continue };
            let object: Value = serde_json::from_slice(&current.value).unwrap_or_default();
            if objects::parent_service(&object) == Some(owner) {
                self.compares.push(Compare::Revision(key.clone(), current.mod_revision));
                self.ops.push(Op::Delete(key));
                self.released.push(address);
            }
        }
        self.port_releases = demand.port_releases;
        Ok(())
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
