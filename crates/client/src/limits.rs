//! Every limit of the client, with its reason.

use std::time::Duration;

/// From sending a request to the last byte of its answer. Lists come in pages, so the longest answer is a page;
/// an API server gives up on its own after 60 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// TCP and TLS together. A control plane on another continent answers within a second.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence on an HTTP/2 connection before it is probed, and how long the probe may take: a vanished server is
/// noticed within their sum.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes in flight on one HTTP/2 stream and one connection: a page of a list without a round trip in between.
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// How old a token read from a file may get. Projected tokens are replaced at 80 % of at least ten minutes.
pub const TOKEN_AGE_MAX: Duration = Duration::from_mins(1);

/// Objects in one page of a cache's list. A thousand EndpointSlices of ten endpoints are 2.7 MB.
pub const LIST_PAGE_ITEMS: u32 = 1_000;

/// One watch event. The largest object that etcd stores is 1.5 MiB; the rest is slack for managed fields.
pub const WATCH_LINE_BYTES_MAX: usize = 16 << 20;

/// Watches are asked to end after this long plus up to as much again at random, so that the watchers of a
/// restarted server spread out.
pub const WATCH_SECONDS_MIN: u32 = 1_800;

/// Waiting after failures: the first wait, and the longest. The first is short because an API server in the same
/// process restarts in a fraction of a second.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// A watch that lived this long was healthy: the next failure starts with the shortest wait.
pub const HEALTHY_WATCH: Duration = Duration::from_secs(5);

/// Events waiting to be written. More are dropped: they are news for people, not state.
pub const EVENT_QUEUE_MAX: usize = 1_000;

/// Different events remembered to count repetitions.
pub const EVENT_CACHE_MAX: usize = 4_096;

/// Events about one object: a burst, then one every five minutes, as client-go has it.
pub const EVENT_BURST: u32 = 25;
pub const EVENT_REFILL: Duration = Duration::from_mins(5);

/// The API's own limit on an event's message.
pub const EVENT_MESSAGE_BYTES_MAX: usize = 1_024;

/// Tries to write one event. The ones behind it wait meanwhile.
pub const EVENT_ATTEMPTS_MAX: u32 = 4;
