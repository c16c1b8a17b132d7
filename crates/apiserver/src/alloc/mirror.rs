//! Keeps the allocator's memory in step with the store: a full load, then one watch per kind of key, and again from the
//! start whenever a watch breaks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portolan_store::{Error, Event, KeyValue, Revision};

use super::{Shared, bitmap, objects};

/// Pause before the mirror is loaded again after trouble.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Keys read in one step; an IPAddress is some 400 bytes.
const PAGE: usize = 2000;

/// Reads everything; the watch goes on from the revision returned.
pub(super) async fn load(shared: &Shared) -> Result<Revision, Error> {
    let cidrs = shared.store.list(objects::CIDRS, None, 0, None).await?;
    let revision = cidrs.revision;
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut after: Option<Arc<str>> = None;
    loop {
        let page = shared.store.list(objects::ADDRESSES, after.as_deref(), PAGE, Some(revision)).await?;
        addresses.extend(page.items.iter().filter_map(|item| objects::address_of_key(&item.key)));
        after = page.items.last().map(|item| item.key.clone());
        if page.remaining == 0 || after.is_none() {
            break;
        }
    }
    shared.book.reset(addresses.into_iter(), &cidrs.items, revision);
    Ok(revision)
}

/// Reads the ranges alone, for whom they matter at once.
pub(super) async fn load_ranges(shared: &Shared) -> Result<(), Error> {
    let cidrs = shared.store.list(objects::CIDRS, None, 0, None).await?;
    shared.book.reset_ranges(&cidrs.items, cidrs.revision);
    Ok(())
}

/// Follows the store for ever.
pub(super) async fn follow(shared: Arc<Shared>, mut revision: Revision) {
    loop {
        if let Err(error) = watch(&shared, revision).await {
            tracing::debug!(%error, "the allocator's watch ended; loading again");
        }
        loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            match load(&shared).await {
                Ok(loaded) => {
                    revision = loaded;
                    break;
                }
                Err(error) => tracing::warn!(%error, "the allocator cannot read the store"),
            }
        }
    }
}

async fn watch(shared: &Shared, revision: Revision) -> Result<(), Error> {
    let mut addresses = shared.store.watch(objects::ADDRESSES, revision).await?;
    let mut cidrs = shared.store.watch(objects::CIDRS, revision).await?;
    let mut ports = shared.store.watch(bitmap::KEY, revision).await?;
    loop {
        let events = tokio::select! {
            events = addresses.next() => events,
            events = cidrs.next() => events,
            events = ports.next() => events,
        };
        let Some(events) = events else { return Ok(()) };
        for event in events?.iter() {
            apply(shared, event);
        }
    }
}

fn apply(shared: &Shared, event: &Event) {
    if &*event.key == bitmap::KEY {
        let current: Option<KeyValue> = event.current();
        shared.desk.seen(current, event.revision);
    } else {
        shared.book.seen(&event.key, event.value.as_deref(), event.revision);
        if let Some(address) = objects::address_of_key(&event.key) {
            shared.doubts.raise(address, event);
        }
    }
}
