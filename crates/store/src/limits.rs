//! Every limit of the store, with its reason.

/// A namespace has at most 63 bytes, a name 253, and the longest built-in resource prefix is under 100.
/// 1,024 leaves room for custom resources.
pub const KEY_SIZE_MAX: usize = 1_024;

/// etcd's default request limit (1.5 MiB): an object that fits here can move to etcd.
pub const VALUE_SIZE_MAX: usize = 1_572_864;

/// etcd's default, less one for the marker that the etcd store adds. The largest of ours, creating a dual-stack
/// Service with 100 node ports, needs a few.
pub const TXN_OPS_MAX: usize = 127;

/// Recent events kept in memory and, so that a restart does not make every client list again, on disk.
/// 16,384 is a minute of a cluster that writes 270 objects a second: longer than a client needs to reconnect
/// or to page through a list.
pub const RING_EVENTS_MAX: usize = 16_384;

/// Events for which a ring takes room at once.
pub const RING_EVENTS_STEP: usize = 1_024;

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

/// Pause between attempts to write to a disk that was full. Each opens the database anew.
pub const FULL_RETRY_MS: u64 = 1_000;

/// redb's page cache. All current values are in memory already; the cache serves writes only, which touch the end of the
/// log and the few pages of records that are removed.
pub const PAGE_CACHE_BYTES: usize = 1 << 20;

/// Values shorter than this are held in memory as they are: little is to be won.
pub const PACK_BYTES_MIN: usize = 128;

/// What values of one kind are packed against: a few typical objects. Each write looks at all of it, at some
/// microseconds for this much.
pub const SAMPLE_BYTES_MAX: usize = 4 << 10;

/// Samples of a kind are begun anew after so many values at the earliest. Old ones stay as long as values that need them,
/// so that all samples together stay far below the values.
pub const SAMPLE_VALUES_MIN: usize = 1_024;

/// Events of a watch's replay that are opened at once.
pub const REPLAY_EVENTS: usize = 256;

/// Time one call may take at one etcd member before another is asked: longer than an election. etcd itself would try
/// for 5 s and more, but what became of a write can be asked at any member.
pub const ETCD_ATTEMPT_TIMEOUT_MS: u64 = 2_500;

/// Time to connect to one member, TLS included.
pub const ETCD_CONNECT_TIMEOUT_MS: u64 = 2_000;

/// Time a call may take over all members and attempts. Longer than an election and a member's loss together, shorter
/// than clients wait (kubectl: no limit; client-go's leader election: 10 s).
pub const ETCD_CALL_TIMEOUT_MS: u64 = 9_000;

/// Extra time to find out what became of a write whose answer was lost.
pub const ETCD_RESOLVE_TIMEOUT_MS: u64 = 6_000;

/// A connection on which nothing was heard for so long is asked for a sign of life, and given as long to answer.
pub const ETCD_KEEP_ALIVE_MS: u64 = 2_000;

/// Pause between attempts at members that do not answer: the first, doubled up to the last.
pub const ETCD_RETRY_MS: (u64, u64) = (20, 500);

/// Transactions of one server under way at etcd; more wait here. Each has a marker of its own. At 128 etcd's own
/// batching of disk writes is full.
pub const ETCD_TXNS_MAX: usize = 128;

/// Keys asked for in the first step of a list, before their size is known; further steps aim at
/// [`ETCD_PAGE_BYTES`], so that neither side holds the whole of a large list as one message.
pub const ETCD_PAGE_KEYS: usize = 500;
pub const ETCD_PAGE_BYTES: usize = 4 << 20;

/// Longest message taken from etcd: a first step of the largest values is refused rather than held in memory, a
/// fragment of a watch never gets near it.
pub const ETCD_MESSAGE_BYTES_MAX: usize = 256 << 20;

/// How often etcd's history is compacted, and how much of it stays: kube-apiserver's own interval.
pub const ETCD_COMPACT_INTERVAL_MS: u64 = 300_000;

/// Keys in one piece of a snapshot.
pub const SNAPSHOT_PAGE: usize = 500;

/// How far a restored store goes on ahead of its snapshot. Whatever was written after the snapshot took fewer
/// revisions, so no client can know a revision that will be used again for something else. etcd's own tool advises the
/// same number.
pub const RESTORE_REVISIONS: u64 = 1_000_000_000;

/// Sealed values that are written anew in one transaction.
pub const RESEAL_KEYS: usize = 50;
