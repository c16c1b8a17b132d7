//! The plan of one write of a Service: what has to be in its transaction, what is held until it is done, and what becomes
//! of either.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use portolan_api::core::v1::{Service, ServiceSpec};
use portolan_store::{Compare, KeyValue, Op};
use serde_json::Value;

use super::demand::{Demand, PortWant};
use super::ports::{HeldPorts, Refusal};
use super::{AllocError, Shared, bitmap, objects, port_error, range_full, set_address, set_port};
use crate::alloc_metrics::Scope;

/// What has to be in the Service's own transaction, and what is held until it is done.
#[must_use = "a plan not committed gives its addresses and node ports back"]
pub struct Plan {
    pub compares: Vec<Compare>,
    pub ops: Vec<Op>,
    shared: Arc<Shared>,
    /// Addresses that the transaction takes.
    grants: Vec<Grant>,
    ports: Option<HeldPorts>,
    released: Vec<IpAddr>,
    port_releases: Vec<u16>,
}

/// One address for the Service.
#[derive(Debug)]
struct Grant {
    address: IpAddr,
    range: IpNet,
    /// Those picked by us are held in the book. Those asked for are not: two who ask for the same meet in the store.
    scope: Scope,
    begun: Instant,
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
        for grant in self.grants.drain(..).filter(|grant| grant.scope == Scope::Dynamic) {
            self.shared.book.unpick(grant.address);
        }
    }
}

impl Plan {
    pub(super) fn empty(shared: Arc<Shared>) -> Plan {
        Plan {
            compares: Vec::new(),
            ops: Vec::new(),
            shared,
            grants: Vec::new(),
            ports: None,
            released: Vec::new(),
            port_releases: Vec::new(),
        }
    }

    /// The transaction is durable: releases what the old object held and the new one does not.
    pub fn committed(mut self) {
        for grant in self.grants.drain(..) {
            self.shared.book.take(grant.address);
            self.shared.metrics.gave_address(grant.range, grant.scope, grant.begun.elapsed());
        }
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
                let at = revision.unwrap_or_default();
                self.shared.book.seen(key, value.as_ref().map(|value| &value.value[..]), at);
                let picked = self.grants.iter().filter(|grant| grant.scope == Scope::Dynamic);
                for grant in picked.filter(|grant| objects::address_of_key(key) == Some(grant.address)) {
                    self.shared.metrics.refused_address(grant.range, grant.scope);
                }
            }
        }
        ours
    }

    pub(super) async fn addresses(
        &mut self,
        service: &mut Service,
        demand: &Demand,
    ) -> Result<(), AllocError> {
        for want in &demand.addresses {
            let begun = Instant::now();
            let (address, range, scope) = if let Some(address) = want.asked {
                let range = self.shared.range_of(address, &service.spec).await?;
                self.shared.check_free(address, range, &service.spec).await?;
                (address, range, Scope::Static)
            } else {
                let picked = self.shared.pick(want.family).await?;
                let (address, range) = picked.ok_or_else(|| range_full(service))?;
                (address, range, Scope::Dynamic)
            };
            self.grants.push(Grant { address, range, scope, begun });
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

    pub(super) async fn ports(
        &mut self,
        spec: &mut ServiceSpec,
        wants: &[PortWant],
    ) -> Result<(), AllocError> {
        if wants.is_empty() {
            return Ok(());
        }
        let metrics = &self.shared.metrics;
        let held = match self.shared.desk.reserve(wants.iter().map(|want| want.want).collect()).await {
            Ok(held) => {
                for want in wants {
                    metrics.gave_port(want.want.scope());
                }
                held
            }
            Err(Refusal::Store(why)) => {
                metrics.refused_port(wants[0].want.scope());
                return Err(AllocError::Store(why));
            }
            Err(Refusal::Port { index, error }) => {
                metrics.refused_port(wants[index].want.scope());
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
    pub(super) async fn release(&mut self, service: &Service, demand: Demand) -> Result<(), AllocError> {
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
