//! Giving up old history: every five minutes one server of all compacts what was current five minutes ago.
//!
//! It is kube-apiserver's own protocol, so both can run on one etcd: the key `compact_rev_key` is written by whoever
//! finds it at the version it saw last; that one compacts, the others note the new version.

use std::sync::Weak;
use std::time::Duration;

use super::Etcd;
use super::messages::{self, Condition, Range, Step, Target, TxnResponse};
use crate::limits::ETCD_COMPACT_INTERVAL_MS;
use crate::{Error, Revision, Store as _};

const KEY: &[u8] = b"compact_rev_key";

/// What a server knows between two runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// The version of the key: how many runs there have been.
    version: u64,
    /// The store's revision at the last run, of whoever it was.
    revision: Revision,
}

impl Clock {
    pub(super) fn request(self) -> bytes::Bytes {
        let condition = Condition { key: KEY.to_vec(), target: Target::Version, number: self.version };
        let put = Step::Put { key: KEY.to_vec(), value: self.revision.to_string().into() };
        messages::txn(&[condition], &[put], &[Step::Range(Range::key(KEY))])
    }

    /// The clock after a run, and the revision to compact, if it is ours to do.
    pub(super) fn after(self, response: &TxnResponse) -> (Clock, Option<Revision>) {
        let revision = response.revision;
        if response.succeeded {
            let due = (self.revision != 0).then_some(self.revision);
            return (Clock { version: self.version + 1, revision }, due);
        }
        let found = response.ranges.first().and_then(|range| range.kvs.first());
        (Clock { version: found.map_or(0, |kv| kv.version), revision }, None)
    }
}

/// Runs until the store is gone.
pub(super) async fn run(etcd: Weak<Etcd>) {
    let mut clock = Clock::default();
    loop {
        let Some(strong) = etcd.upgrade() else { return };
        match step(&strong, clock).await {
            Ok(next) => clock = next,
            Err(error) => tracing::warn!(%error, "etcd's history was not compacted; trying again later"),
        }
        drop(strong);
        tokio::time::sleep(Duration::from_millis(ETCD_COMPACT_INTERVAL_MS)).await;
    }
}

pub(super) async fn step(etcd: &Etcd, clock: Clock) -> Result<Clock, Error> {
    // Written twice at worst when an answer is lost: a run is skipped, nothing else.
    let response = etcd.call(messages::TXN, clock.request()).await?;
    let (next, due) = clock.after(&TxnResponse::decode(response)?);
    if let Some(revision) = due {
        match etcd.compact(revision).await {
            Ok(()) => tracing::debug!(revision, "etcd's history is compacted"),
            // Somebody else's tool was faster.
            Err(Error::Compacted { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::messages::{KeyValue, RangeResponse};

    fn won(revision: u64) -> TxnResponse {
        TxnResponse { revision, succeeded: true, ranges: Vec::new() }
    }

    fn lost(revision: u64, version: u64) -> TxnResponse {
        let kvs = vec![KeyValue { version, ..KeyValue::default() }];
        TxnResponse {
            revision,
            succeeded: false,
            ranges: vec![RangeResponse { kvs, ..RangeResponse::default() }],
        }
    }

    #[test]
    fn the_winner_compacts_what_it_saw_the_last_time() {
        let (clock, due) = Clock::default().after(&won(100));
        assert_eq!((clock, due), (Clock { version: 1, revision: 100 }, None), "nothing at the start");
        let (clock, due) = clock.after(&won(200));
        assert_eq!((clock, due), (Clock { version: 2, revision: 200 }, Some(100)));
    }

    #[test]
    fn the_others_wait_for_the_next_run() {
        let (clock, due) = Clock::default().after(&lost(100, 41));
        assert_eq!((clock, due), (Clock { version: 41, revision: 100 }, None));
        let (clock, due) = clock.after(&won(200));
        assert_eq!((clock, due), (Clock { version: 42, revision: 200 }, Some(100)));
    }
}
