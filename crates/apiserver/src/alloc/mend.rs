//! Carries repair out: reads everything at one revision, asks [`repair::plan`], and writes each fix under the condition
//! that what it is based on has not changed.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use portolan_api::service::families::{self, Family};
use portolan_api::service::read;
use portolan_store::{Commit, Compare, Error, KeyValue, Op, Revision, Store, Txn};
use serde_json::Value;

use super::range::AddressRange;
use super::repair::{self, Action, Fix, Holding, Observed, Owner, Record, Suspects};
use super::{Allocator, demand, objects};

const SERVICES: &str = "/registry/services/specs/";
/// Services read in one step.
const PAGE: usize = 1000;

impl Allocator {
    /// One run of repair. Returns what was found; everything that could be mended was.
    pub async fn repair(&self, suspects: &mut Suspects) -> Result<Vec<Fix>, Error> {
        let observed = self.observe().await?;
        let (fixes, next) = repair::plan(&observed, suspects);
        *suspects = next;
        let (mut take, mut release) = (Vec::new(), Vec::new());
        for fix in &fixes {
            match &fix.action {
                Action::Report => {}
                Action::TakePort(port) => take.push(*port),
                Action::ReleasePort(port) => release.push(*port),
                action => self.mend(action).await?,
            }
        }
        self.shared.desk.mend(take, release);
        Ok(fixes)
    }

    /// One run of repair that logs what it finds.
    pub(crate) async fn repair_and_log(&self, suspects: &mut Suspects) {
        match self.repair(suspects).await {
            Ok(fixes) => {
                for fix in fixes {
                    tracing::warn!(reason = fix.reason, service = ?fix.owner, "{}", fix.message);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "repair of the allocators could not read or write the store");
            }
        }
    }

    async fn observe(&self) -> Result<Observed, Error> {
        let store = &*self.shared.store;
        let ports = self.shared.desk.stored().await.map_err(Error::Unavailable)?;
        // Read after the bitmap: a Service written in between has its bit missing from our copy at worst, and setting
        // a bit that is set does nothing.
        let first = store.list(SERVICES, None, PAGE, None).await?;
        let revision = first.revision;
        let mut services = Vec::new();
        collect(store, SERVICES, revision, |stored| services.extend(holding(stored))).await?;
        let now = Timestamp::now();
        let mut records = Vec::new();
        collect(store, objects::ADDRESSES, revision, |stored| records.extend(record(stored, now))).await?;
        let mut ranges = Vec::new();
        collect(store, objects::CIDRS, revision, |stored| ranges.extend(usable(stored))).await?;
        Ok(Observed { services, records, ranges, ports })
    }

    /// A conflict means the world has moved on; the next run looks again.
    async fn mend(&self, action: &Action) -> Result<(), Error> {
        let txn = match action {
            Action::CreateAddress { address, owner, service_revision } => {
                let key = objects::address_key(*address);
                create(Txn::new().if_absent(key.as_str()), *address, owner, *service_revision)
            }
            Action::ReplaceAddress { address, record, owner, service_revision } => {
                let key = objects::address_key(*address);
                create(Txn::new().if_revision(key.as_str(), *record), *address, owner, *service_revision)
            }
            Action::DeleteAddress { address, record } => {
                let key = objects::address_key(*address);
                Txn::new().if_revision(key.as_str(), *record).delete(key)
            }
            Action::Report | Action::TakePort(_) | Action::ReleasePort(_) => return Ok(()),
        };
        let written: Vec<Op> = txn.ops.clone();
        if let Commit::Done(_) = self.shared.store.commit(txn).await? {
            for op in written {
                match op {
                    Op::Put(key, value) => self.shared.book.seen(&key, Some(&value)),
                    Op::Delete(key) => self.shared.book.seen(&key, None),
                }
            }
        }
        Ok(())
    }
}

fn create(txn: Txn, address: IpAddr, owner: &Owner, service_revision: Revision) -> Txn {
    let object = objects::ip_address(address, &owner.namespace, &owner.name, Timestamp::now());
    let service = format!("{SERVICES}{}/{}", owner.namespace, owner.name);
    let mut txn = txn.put(objects::address_key(address), Bytes::from(object.to_string()));
    txn.compares.push(Compare::Revision(service.into(), service_revision));
    txn
}

/// Every key of a prefix at one revision, page by page.
async fn collect(
    store: &dyn Store,
    prefix: &str,
    revision: Revision,
    mut each: impl FnMut(&KeyValue),
) -> Result<(), Error> {
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), PAGE, Some(revision)).await?;
        page.items.iter().for_each(&mut each);
        after = page.items.last().map(|item| item.key.clone());
        if page.remaining == 0 || after.is_none() {
            return Ok(());
        }
    }
}

/// None for what cannot be read: repair must not act on it.
fn holding(stored: &KeyValue) -> Option<Holding> {
    let mut spec = read(&serde_json::from_slice(&stored.value).ok()?).ok()?.spec;
    let (namespace, name) = stored.key.strip_prefix(SERVICES)?.split_once('/')?;
    families::default_on_read(&mut spec, &[]);
    let mut ports = demand::node_ports(&spec);
    ports.extend(demand::health_check_port(&spec));
    let none = spec.is_external_name() || spec.is_headless();
    let addresses = if none { Vec::new() } else { spec.cluster_ips };
    let owner = Owner { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(Holding { owner, revision: stored.mod_revision, addresses, ports })
}

fn record(stored: &KeyValue, now: Timestamp) -> Option<Record> {
    let object: Value = serde_json::from_slice(&stored.value).ok()?;
    let address = objects::address_of_key(&stored.key)?;
    let labels = &object["metadata"]["labels"];
    let managed = labels[objects::LABEL_MANAGED_BY] == objects::MANAGER;
    let created: Option<Timestamp> =
        object["metadata"]["creationTimestamp"].as_str().and_then(|text| text.parse().ok());
    let owner = objects::parent_service(&object)
        .map(|(namespace, name)| Owner { namespace: namespace.to_owned(), name: name.to_owned() });
    Some(Record {
        address,
        revision: stored.mod_revision,
        owner,
        managed,
        well_labelled: managed && labels[objects::LABEL_FAMILY] == Family::of(address).as_str(),
        age_seconds: created.map_or(0, |created| now.as_second() - created.as_second()),
    })
}

fn usable(stored: &KeyValue) -> Vec<AddressRange> {
    let object: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
    objects::usable_cidrs(&object).into_iter().map(AddressRange::new).collect()
}
