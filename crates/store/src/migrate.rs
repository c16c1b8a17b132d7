//! Moving a store's content into another, key by key and value by value.
//!
//! The other gives its own revisions. What is there already and is the same counts as moved, so an interrupted move is
//! finished by doing it again; anything else that is there stops the move before it begins.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Commit, Error, KeyValue, Store, Txn};

/// Keys of one step; with [`BATCH_BYTES`] well under etcd's limit for one request.
const BATCH_KEYS: usize = 100;
const BATCH_BYTES: usize = 512 << 10;
const PAGE: usize = 500;

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("the target holds {count} other keys, {key} for one; empty it, or choose another prefix")]
    Occupied { count: usize, key: Arc<str> },
    #[error("the target changed during the move, at {0}; stop what writes to it and start again")]
    Changed(Arc<str>),
    #[error(transparent)]
    Store(#[from] Error),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    pub keys: u64,
    /// Of them, how many were there already.
    pub present: u64,
}

/// What is to become of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Keep,
    /// It lives for so many seconds more.
    Lease(u64),
    /// It has no meaning in another store.
    Leave,
}

/// Copies everything that `from` holds now into `to`. Nothing may write to either meanwhile.
pub async fn copy(
    from: &dyn Store,
    to: &dyn Store,
    fate: impl Fn(&KeyValue) -> Fate,
) -> Result<Moved, MigrateError> {
    let source = all(from).await?;
    let mut there: HashMap<Arc<str>, Bytes> =
        all(to).await?.into_iter().map(|kv| (kv.key, kv.value)).collect();
    let mut moved = Moved::default();
    let mut batch: Vec<KeyValue> = Vec::new();
    let mut todo: Vec<(KeyValue, u64)> = Vec::new();
    for kv in source {
        let seconds = match fate(&kv) {
            Fate::Leave => continue,
            Fate::Keep => 0,
            Fate::Lease(seconds) => seconds,
        };
        moved.keys += 1;
        if there.get(&kv.key) == Some(&kv.value) {
            there.remove(&kv.key);
            moved.present += 1;
        } else {
            todo.push((kv, seconds));
        }
    }
    if let Some(key) = there.keys().min() {
        return Err(MigrateError::Occupied { count: there.len(), key: key.clone() });
    }
    let mut bytes = 0;
    for (kv, seconds) in todo {
        if let Some(leases) = to.leases().filter(|_| seconds > 0) {
            leases.put_for(&kv.key, kv.value, seconds).await?;
            continue;
        }
        if batch.len() == BATCH_KEYS || bytes + kv.value.len() > BATCH_BYTES {
            put(to, std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
        bytes += kv.key.len() + kv.value.len();
        batch.push(kv);
    }
    put(to, batch).await?;
    Ok(moved)
}

async fn all(store: &dyn Store) -> Result<Vec<KeyValue>, Error> {
    let mut page = store.list("", None, PAGE, None).await?;
    let mut items = std::mem::take(&mut page.items);
    while page.remaining > 0 {
        let last = items.last().map(|kv| kv.key.clone());
        page = store.list("", last.as_deref(), PAGE, Some(page.revision)).await?;
        items.append(&mut page.items);
    }
    Ok(items)
}

async fn put(to: &dyn Store, batch: Vec<KeyValue>) -> Result<(), MigrateError> {
    if batch.is_empty() {
        return Ok(());
    }
    let txn =
        batch.into_iter().fold(Txn::new(), |txn, kv| txn.if_absent(kv.key.clone()).put(kv.key, kv.value));
    match to.commit(txn).await? {
        Commit::Done(_) => Ok(()),
        Commit::Conflict { current } => {
            let key =
                current.into_iter().find(|(_, kv)| kv.is_some()).map_or_else(|| "?".into(), |(key, _)| key);
            Err(MigrateError::Changed(key))
        }
    }
}
