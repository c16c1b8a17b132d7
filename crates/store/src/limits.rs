//! Every limit of the store, with its reason.

/// A namespace has at most 63 bytes, a name 253, and the longest built-in resource prefix is under 100.
/// 1,024 leaves room for custom resources.
pub const KEY_SIZE_MAX: usize = 1_024;

/// etcd's default request limit (1.5 MiB): an object that fits here can move to etcd.
pub const VALUE_SIZE_MAX: usize = 1_572_864;

/// etcd's default. The largest of ours, creating a dual-stack Service with 100 node ports, needs a few.
pub const TXN_OPS_MAX: usize = 128;

/// Recent events kept in memory and, so that a restart does not make every client list again, on disk.
/// 16,384 is a minute of a cluster that writes 270 objects a second: longer than a client needs to reconnect
/// or to page through a list.
pub const RING_EVENTS_MAX: usize = 16_384;

/// The same ring in bytes (values and previous values), for large objects. 64 MiB bounds memory when each
/// object is an EndpointSlice of 1,000 endpoints.
pub const RING_BYTES_MAX: usize = 64 << 20;

/// Events that may wait for one watcher before it is cut off. Half a ring: a watcher cut off here can still
/// resume from the ring.
pub const WATCH_EVENTS_MAX: usize = 8_192;

/// Transactions in one durable write. More waiting writers than this share the next fsync.
pub const GROUP_TXNS_MAX: usize = 1_024;

/// Bytes of values in one durable write: keeps one group's latency in the milliseconds on slow disks.
pub const GROUP_BYTES_MAX: usize = 8 << 20;

/// Transactions waiting for the committer before callers wait to hand theirs in.
pub const QUEUE_TXNS_MAX: usize = 4_096;

/// Old log records removed by one durable write, so that compaction never makes a writer wait long.
pub const COMPACT_RECORDS_MAX: usize = 4_096;

/// redb's page cache. All current values are in memory already; the cache serves writes only.
pub const PAGE_CACHE_BYTES: usize = 16 << 20;
