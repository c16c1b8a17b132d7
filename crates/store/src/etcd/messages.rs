//! etcd's messages (api/etcdserverpb/rpc.proto, api/mvccpb/kv.proto), the fields that are used.
//!
//! Requests are functions that give the encoded message; answers are structs with `decode`.

use bytes::Bytes;

use super::codec::{Malformed, Reader, Writer};

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
pub(super) const PUT: &str = "/etcdserverpb.KV/Put";
pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
pub(super) const COMPACT: &str = "/etcdserverpb.KV/Compact";
pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub(super) const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
pub(super) const DELETE: &str = "/etcdserverpb.KV/DeleteRange";

/// What to read. `end` empty: the one key.
#[derive(Debug, Clone, Default)]
pub(super) struct Range {
    pub(super) key: Vec<u8>,
    pub(super) end: Vec<u8>,
    /// 0: all.
    pub(super) limit: usize,
    /// 0: now.
    pub(super) revision: u64,
    pub(super) count_only: bool,
}

impl Range {
    pub(super) fn key(key: impl Into<Vec<u8>>) -> Range {
        Range { key: key.into(), ..Range::default() }
    }

    fn write(&self, w: &mut Writer) {
        w.bytes(1, &self.key);
        w.bytes(2, &self.end);
        w.number(3, self.limit as u64);
        w.number(4, self.revision);
        w.flag(9, self.count_only);
    }

    pub(super) fn encode(&self) -> Bytes {
        encode(|w| self.write(w))
    }
}

fn encode(write: impl FnOnce(&mut Writer)) -> Bytes {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.into_bytes()
}

/// A condition on a key: `number` equals that of the stored key, 0 where there is none.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) key: Vec<u8>,
    pub(super) target: Target,
    pub(super) number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// How often the key was written since it came into being.
    Version,
    ModRevision,
}

impl Condition {
    fn write(&self, w: &mut Writer) {
        // result EQUAL is 0.
        let (target, field) = match self.target {
            Target::Version => (0, 4),
            Target::ModRevision => (2, 6),
        };
        w.number(2, target);
        w.bytes(3, &self.key);
        w.always(field, self.number);
    }
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Range(Range),
    Put { key: Vec<u8>, value: Bytes },
    Delete { key: Vec<u8> },
}

impl Step {
    fn write(&self, w: &mut Writer) {
        match self {
            Step::Range(range) => w.message(1, |w| range.write(w)),
            Step::Put { key, value } => w.message(2, |w| put_fields(w, key, value, 0)),
            Step::Delete { key } => w.message(3, |w| w.bytes(1, key)),
        }
    }
}

fn put_fields(w: &mut Writer, key: &[u8], value: &[u8], lease: u64) {
    w.bytes(1, key);
    w.bytes(2, value);
    w.number(3, lease);
}

pub(super) fn txn(conditions: &[Condition], success: &[Step], failure: &[Step]) -> Bytes {
    encode(|w| {
        for condition in conditions {
            w.message(1, |w| condition.write(w));
        }
        for step in success {
            w.message(2, |w| step.write(w));
        }
        for step in failure {
            w.message(3, |w| step.write(w));
        }
    })
}

pub(super) fn put(key: &[u8], value: &[u8], lease: u64) -> Bytes {
    encode(|w| put_fields(w, key, value, lease))
}

pub(super) fn delete(key: &[u8]) -> Bytes {
    encode(|w| w.bytes(1, key))
}

pub(super) fn compact(revision: u64) -> Bytes {
    encode(|w| w.number(1, revision))
}

pub(super) fn lease_grant(seconds: u64) -> Bytes {
    encode(|w| w.number(1, seconds))
}

/// Everything in a range of keys from a revision on, with the values from before, in fragments where it is much, and
/// a sign of life now and then.
pub(super) fn watch_create(key: &[u8], end: &[u8], start: u64) -> Bytes {
    encode(|w| {
        w.message(1, |w| {
            w.bytes(1, key);
            w.bytes(2, end);
            w.number(3, start);
            w.flag(4, true);
            w.flag(6, true);
            w.flag(8, true);
        });
    })
}

/// Calls `each` for every field.
fn fields(
    message: Bytes,
    mut each: impl FnMut(u32, super::codec::Field) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some((number, field)) = reader.next()? {
        each(number, field)?;
    }
    Ok(())
}

/// The store's revision from a response header.
fn header(message: Bytes) -> Result<u64, Malformed> {
    let mut revision = 0;
    fields(message, |number, field| {
        if number == 3 {
            revision = field.number()?;
        }
        Ok(())
    })?;
    Ok(revision)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyValue {
    pub(super) key: Bytes,
    pub(super) create_revision: u64,
    pub(super) mod_revision: u64,
    pub(super) version: u64,
    pub(super) value: Bytes,
}

impl KeyValue {
    pub(super) fn decode(message: Bytes) -> Result<KeyValue, Malformed> {
        let mut kv = KeyValue::default();
        fields(message, |number, field| {
            match number {
                1 => kv.key = field.bytes()?,
                2 => kv.create_revision = field.number()?,
                3 => kv.mod_revision = field.number()?,
                4 => kv.version = field.number()?,
                5 => kv.value = field.bytes()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(kv)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RangeResponse {
    pub(super) revision: u64,
    pub(super) kvs: Vec<KeyValue>,
    /// Keys in the whole range, whatever the limit.
    pub(super) count: u64,
}

impl RangeResponse {
    pub(super) fn decode(message: Bytes) -> Result<RangeResponse, Malformed> {
        let mut out = RangeResponse::default();
        fields(message, |number, field| {
            match number {
                1 => out.revision = header(field.bytes()?)?,
                2 => out.kvs.push(KeyValue::decode(field.bytes()?)?),
                4 => out.count = field.number()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TxnResponse {
    pub(super) revision: u64,
    pub(super) succeeded: bool,
    /// One for each step; empty for steps that read nothing.
    pub(super) ranges: Vec<RangeResponse>,
}

impl TxnResponse {
    pub(super) fn decode(message: Bytes) -> Result<TxnResponse, Malformed> {
        let mut out = TxnResponse::default();
        fields(message, |number, field| {
            match number {
                1 => out.revision = header(field.bytes()?)?,
                2 => out.succeeded = field.flag()?,
                3 => out.ranges.push(step_range(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }
}

fn step_range(message: Bytes) -> Result<RangeResponse, Malformed> {
    let mut out = RangeResponse::default();
    fields(message, |number, field| {
        if number == 1 {
            out = RangeResponse::decode(field.bytes()?)?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// The header's revision alone: the answer of a put, a delete or a compaction.
pub(super) fn decode_revision(message: Bytes) -> Result<u64, Malformed> {
    let mut revision = 0;
    fields(message, |number, field| {
        if number == 1 {
            revision = header(field.bytes()?)?;
        }
        Ok(())
    })?;
    Ok(revision)
}

/// The id of a granted lease.
pub(super) fn decode_lease(message: Bytes) -> Result<u64, Malformed> {
    let mut id = 0;
    fields(message, |number, field| {
        if number == 2 {
            id = field.number()?;
        }
        Ok(())
    })?;
    Ok(id)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) deleted: bool,
    pub(super) kv: KeyValue,
    pub(super) previous: Option<KeyValue>,
}

impl Event {
    fn decode(message: Bytes) -> Result<Event, Malformed> {
        let mut event = Event::default();
        fields(message, |number, field| {
            match number {
                1 => event.deleted = field.flag()?,
                2 => event.kv = KeyValue::decode(field.bytes()?)?,
                3 => event.previous = Some(KeyValue::decode(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(event)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WatchResponse {
    pub(super) revision: u64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// Not 0: the watch was to start before this revision, up to which history is gone.
    pub(super) compact_revision: u64,
    pub(super) cancel_reason: Bytes,
    /// More of the same revisions follows.
    pub(super) fragment: bool,
    pub(super) events: Vec<Event>,
}

impl WatchResponse {
    pub(super) fn decode(message: Bytes) -> Result<WatchResponse, Malformed> {
        let mut out = WatchResponse::default();
        fields(message, |number, field| {
            match number {
                1 => out.revision = header(field.bytes()?)?,
                3 => out.created = field.flag()?,
                4 => out.canceled = field.flag()?,
                5 => out.compact_revision = field.number()?,
                6 => out.cancel_reason = field.bytes()?,
                7 => out.fragment = field.flag()?,
                11 => out.events.push(Event::decode(field.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Answers of the shapes that etcd sends; the tests against a real etcd read its own.
    #[test]
    fn answers_read_back() {
        let kv = encode(|w| {
            w.bytes(1, b"/k");
            w.number(2, 5);
            w.number(3, 7);
            w.number(4, 2);
            w.bytes(5, b"v");
        });
        let answer = encode(|w| {
            w.message(1, |w| {
                w.number(1, 14_841_639_068_965_178_418);
                w.number(3, 9);
            });
            w.bytes(2, &kv);
            w.flag(3, true);
            w.number(4, 12);
        });
        let range = RangeResponse::decode(answer.clone()).unwrap();
        assert_eq!((range.revision, range.count), (9, 12));
        assert_eq!(
            (range.kvs[0].create_revision, range.kvs[0].mod_revision, range.kvs[0].version),
            (5, 7, 2)
        );
        assert_eq!((&range.kvs[0].key[..], &range.kvs[0].value[..]), (&b"/k"[..], &b"v"[..]));
        let txn = encode(|w| {
            w.flag(2, true);
            w.message(3, |w| w.bytes(1, &answer));
            w.message(3, |w| w.message(2, |_| ()));
        });
        let txn = TxnResponse::decode(txn).unwrap();
        assert!(txn.succeeded);
        assert_eq!(txn.ranges, [range, RangeResponse::default()]);
    }

    #[test]
    fn a_condition_on_a_missing_key_says_zero_in_so_many_words() {
        let condition = Condition { key: b"k".to_vec(), target: Target::ModRevision, number: 0 };
        let bytes = encode(|w| condition.write(w));
        assert_eq!(&bytes[..], [0x10, 2, 0x1a, 1, b'k', 0x30, 0]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let _ = RangeResponse::decode(bytes.clone());
            let _ = TxnResponse::decode(bytes.clone());
            let _ = decode_lease(bytes.clone());
            let _ = decode_revision(bytes.clone());
            let _ = WatchResponse::decode(bytes);
        }

        #[test]
        fn answers_cut_short_or_changed_never_panic(cut in 0..60usize, at in 0..60usize, to in any::<u8>()) {
            let kv = |w: &mut Writer| { w.bytes(1, b"/registry/pods/a/b"); w.number(3, 77); w.bytes(5, b"{}"); };
            let good = encode(|w| {
                w.message(1, |w| w.number(3, 77));
                w.message(11, |w| { w.message(2, kv); w.message(3, kv); });
            });
            let mut bytes = good.to_vec();
            let index = at % bytes.len();
            bytes[index] = to;
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = WatchResponse::decode(bytes.into());
        }
    }
}
