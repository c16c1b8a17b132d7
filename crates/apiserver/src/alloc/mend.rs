//! Carries repair out: reads everything at one revision, or what there are doubts about, asks [`repair::plan`], and
//! writes each fix under the condition that what it is based on has not changed.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use portolan_api::service::families::{self, Family};
use portolan_api::service::read;
use portolan_store::{Commit, Compare, Error, KeyValue, Op, Revision, Store, Txn};
use serde_json::Value;

use super::bitmap::Bitmap;
use super::doubts::Doubt;
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
        for fix in &fixes {
            self.mend(&fix.action).await?;
        }
        let ports = |of: fn(&Action) -> Option<u16>| fixes.iter().filter_map(|fix| of(&fix.action)).collect();
        let take = ports(|action| if let Action::TakePort(port) = action { Some(*port) } else { None });
        let release = ports(|action| if let Action::ReleasePort(port) = action { Some(*port) } else { None });
        self.shared.desk.mend(take, release);
        Ok(fixes)
    }

    /// Looks at the addresses in doubt alone.
    pub async fn repair_doubtful(&self) -> Result<Vec<Fix>, Error> {
        let mut fixes = Vec::new();
        for doubt in self.shared.doubts.take() {
            let observed = self.observe_one(doubt.clone()).await?;
            if let Some(seconds) = repair::young_for_seconds(&observed) {
                self.shared.doubts.again(doubt, Duration::from_secs(seconds));
            }
            let (found, _) = repair::plan(&observed, &Suspects::new());
            for fix in &found {
                self.mend(&fix.action).await?;
            }
            fixes.extend(found);
        }
        Ok(fixes)
    }

    /// One address, with the Services that may hold it.
    async fn observe_one(&self, Doubt { address, owner }: Doubt) -> Result<Observed, Error> {
        let store = &*self.shared.store;
        let stored = store.get(&objects::address_key(address)).await?.0;
        let now = Timestamp::now();
        let records: Vec<Record> = stored.and_then(|stored| record(&stored, now)).into_iter().collect();
        let named = records.iter().filter_map(|record| record.owner.clone());
        let owners: HashSet<Owner> = owner.into_iter().chain(named).collect();
        let mut services = Vec::new();
        for Owner { namespace, name } in owners {
            let stored = store.get(&format!("{SERVICES}{namespace}/{name}")).await?.0;
            services.extend(stored.and_then(|stored| holding(&stored, now)).map(|mut holding| {
                holding.addresses.retain(|text| text.parse() == Ok(address));
                holding.ports.clear();
                holding
            }));
        }
        let mut ranges = Vec::new();
        for stored in store.list(objects::CIDRS, None, 0, None).await?.items {
            ranges.extend(ranges_of(&stored));
        }
        // None are in doubt.
        let ports = Bitmap::new(&(1..=1));
        Ok(Observed { services, records, ranges, ports })
    }

    async fn observe(&self) -> Result<Observed, Error> {
        let store = &*self.shared.store;
        let ports = self.shared.desk.stored().await.map_err(Error::Unavailable)?;
        // Read after the bitmap: a Service written in between has its bit missing from our copy at worst, and setting
        // a bit that is set does nothing.
        let first = store.list(SERVICES, None, PAGE, None).await?;
        let revision = first.revision;
        let mut services = Vec::new();
        let now = Timestamp::now();
        collect(store, SERVICES, revision, |stored| services.extend(holding(stored, now))).await?;
        let mut records = Vec::new();
        collect(store, objects::ADDRESSES, revision, |stored| records.extend(record(stored, now))).await?;
        let mut ranges = Vec::new();
        collect(store, objects::CIDRS, revision, |stored| ranges.extend(ranges_of(stored))).await?;
        Ok(Observed { services, records, ranges, ports })
    }

    /// What an action writes of addresses; ports are the desk's. A conflict means the world has moved on: the next run looks
    /// again.
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
        if let Commit::Done(revision) = self.shared.store.commit(txn).await? {
            for op in written {
                match op {
                    Op::Put(key, value) => self.shared.book.seen(&key, Some(&value), revision),
                    Op::Delete(key) => self.shared.book.seen(&key, None, revision),
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

/// The node ports of all Services.
pub(super) async fn ports_in_use(store: &dyn Store) -> Result<Vec<u16>, Error> {
    let (revision, now) = (store.revision().await?, Timestamp::now());
    let mut ports = Vec::new();
    collect(store, SERVICES, revision, |stored| {
        ports.extend(holding(stored, now).into_iter().flat_map(|holding| holding.ports));
    })
    .await?;
    Ok(ports)
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
fn holding(stored: &KeyValue, now: Timestamp) -> Option<Holding> {
    let object: Value = serde_json::from_slice(&stored.value).ok()?;
    let mut spec = read(&object).ok()?.spec;
    let (namespace, name) = stored.key.strip_prefix(SERVICES)?.split_once('/')?;
    families::default_on_read(&mut spec, &[]);
    let mut ports = demand::node_ports(&spec);
    ports.extend(demand::health_check_port(&spec));
    let none = spec.is_external_name() || spec.is_headless();
    let addresses = if none { Vec::new() } else { std::mem::take(&mut spec.cluster_ips) };
    let owner = Owner { namespace: namespace.to_owned(), name: name.to_owned() };
    Some(Holding {
        owner,
        uid: uid(&object),
        revision: stored.mod_revision,
        age_seconds: age_seconds(&object, now),
        external_name: spec.is_external_name(),
        addresses,
        ports,
    })
}

fn record(stored: &KeyValue, now: Timestamp) -> Option<Record> {
    let object: Value = serde_json::from_slice(&stored.value).ok()?;
    let address = objects::address_of_key(&stored.key)?;
    let labels = &object["metadata"]["labels"];
    let managed = labels[objects::LABEL_MANAGED_BY] == objects::MANAGER;
    Some(Record {
        address,
        uid: uid(&object),
        revision: stored.mod_revision,
        owner: Owner::of_address(&object),
        parent: serde_json::from_value(object["spec"]["parentRef"].clone()).unwrap_or_default(),
        managed,
        well_labelled: managed && labels[objects::LABEL_FAMILY] == Family::of(address).as_str(),
        age_seconds: age_seconds(&object, now),
    })
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

fn age_seconds(object: &Value, now: Timestamp) -> i64 {
    let created = object["metadata"]["creationTimestamp"].as_str();
    let created: Option<Timestamp> = created.and_then(|text| text.parse().ok());
    created.map_or(0, |created| now.as_second() - created.as_second())
}

fn ranges_of(stored: &KeyValue) -> Vec<AddressRange> {
    let object: Value = serde_json::from_slice(&stored.value).unwrap_or_default();
    objects::cidrs(&object).map(AddressRange::new).collect()
}
