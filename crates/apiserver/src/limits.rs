//! Every limit of the API server, named and argued in one place.
//!
//! Start here when something is refused for its size, cut off for its age, or dropped for being slow.

use std::time::Duration;

/// Largest request body. Kubernetes takes 3 MiB of JSON (its stores take 1.5 MiB objects); we take the same.
pub const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Requests worked on at once, those apart that last: watches, sessions, followed logs. Kubernetes' own sum of reading
/// and writing ones is 600; each may hold a body of [`BODY_BYTES_MAX`].
pub const REQUESTS_IN_FLIGHT_MAX: usize = 400;

/// Of these, what one user may have, so that there is always room for another.
pub const FLOW_SEATS_MAX: usize = 300;

/// Requests of one user that wait for their turn; more are answered with 429.
pub const FLOW_QUEUE_MAX: usize = 500;

/// Requests of all users that wait. They wait before their bodies are read.
pub const REQUESTS_WAITING_MAX: usize = 2000;

/// Longest wait for a turn. Clients give up after half a minute.
pub const FLOW_WAIT_MAX: Duration = Duration::from_secs(15);

/// When a client that was refused for too many requests may come again.
pub const TOO_MANY_RETRY_SECONDS: i32 = 1;

/// Responses shorter than this are not worth compressing (Kubernetes uses 128 KiB as well).
pub const GZIP_BYTES_MIN: usize = 128 * 1024;

/// Keys read from the store in one step while a selective list looks for matches, so that one list of a
/// large collection never holds all of it twice.
pub const LIST_CHUNK: usize = 1000;

/// Attempts to write an object whose stored version changes underneath, before the caller is told so.
pub const WRITE_ATTEMPTS_MAX: usize = 16;

/// Attempts to find a free name for `generateName`.
pub const GENERATE_NAME_ATTEMPTS_MAX: usize = 8;

/// Length of the base of a generated name: 63 less the five random letters.
pub const GENERATE_NAME_BASE_MAX: usize = 58;

/// Longest name of a field manager, as in Kubernetes.
pub const FIELD_MANAGER_MAX: usize = 128;

/// How long a request waits for a resource version that this server has not reached yet.
pub const FUTURE_REVISION_WAIT: Duration = Duration::from_secs(3);

/// Watches without `timeoutSeconds` end after a random time between this and twice this, so that clients
/// spread their reconnects.
pub const WATCH_TIMEOUT_MIN: Duration = Duration::from_mins(30);

/// Longest watch a client may ask for. Clients resume without loss, so a day is as good as for ever.
pub const WATCH_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// Pause between bookmarks of an otherwise idle watch.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_mins(1);

/// A last bookmark is sent this long before a watch times out.
pub const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// Bytes of initial events put into one chunk of a watch.
pub const WATCH_CHUNK_BYTES: usize = 64 * 1024;

/// Encoded watch lines kept for other watches of the same objects. A line is wanted by all of them within
/// milliseconds, so this need only cover a burst.
pub const LINES_MAX: usize = 2048;
/// The same in bytes.
pub const LINES_BYTES_MAX: usize = 16 << 20;

/// Deletions of a collection, or of a namespace's content, under way at the same time: enough to share the store's
/// durable writes.
pub const DELETES_AT_ONCE: usize = 32;

/// Total length of the texts in one answer's `Warning` headers, then the length each is cut to.
pub const WARNING_RUNES_TOTAL: usize = 4096;
/// See [`WARNING_RUNES_TOTAL`].
pub const WARNING_RUNES_EACH: usize = 256;

/// Streams on one HTTP/2 connection. Every watch is a stream, so this bounds the watches of one client.
pub const HTTP2_STREAMS_MAX: u32 = 4096;

/// Time a client has to finish the TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a client has to send the head of a request.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Time a client has to send the body of a request.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_mins(1);

/// Open connections from clients.
pub const CONNECTIONS_MAX: usize = 8192;

/// Time to reach a node agent.
pub const NODE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Of a node agent's refusal to show logs, so much is handed on.
pub const NODE_REFUSAL_BYTES_MAX: usize = 16 * 1024;

/// Requests that are handed through to services, pods and nodes at once. Their bodies are streamed: each holds two
/// connections and a few buffers.
pub const PROXIED_AT_ONCE_MAX: usize = 1024;

/// Time to reach the target of a proxied request, as in Kubernetes. How long it then takes to answer is its own affair and
/// the client's, who may wait for events.
pub const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Time for TLS with such a target, as in Kubernetes.
pub const PROXY_TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest head of an answer that is taken from such a target, and what is read ahead of its body.
pub const PROXY_HEAD_BYTES_MAX: usize = 256 * 1024;

/// Endpoints of a Service that are looked at for one that is a pod's own; a Service has 1,000 at most.
pub const PROXY_ENDPOINTS_TRIED_MAX: usize = 100;

/// Time that open requests get to end by themselves at shutdown.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Certificates are renewed when less than this is left.
pub const CERTIFICATE_RENEW_BEFORE_DAYS: i64 = 30;

/// Life of server and client certificates.
pub const CERTIFICATE_LEAF_DAYS: i64 = 365;

/// Life of the certificate authority.
pub const CERTIFICATE_CA_DAYS: i64 = 3650;

/// Longest grace a pod can get, in seconds: a year. Longer ones mean "never", and times must stay representable.
pub const POD_GRACE_SECONDS_MAX: i64 = 31_536_000;

/// Seconds a pod gets to stop when neither the pod nor the delete request says.
pub const POD_GRACE_SECONDS_DEFAULT: i64 = 30;

/// Seconds that a pod stays on a node that is not ready or not heard of, unless the pod says otherwise: Kubernetes' own.
pub const POD_TOLERATION_SECONDS: i64 = 300;

/// Pause between two runs of the allocators' repair: Kubernetes' own.
pub const REPAIR_INTERVAL: Duration = Duration::from_mins(3);

/// Pause before doubtful addresses are looked at again after the store failed.
pub const REPAIR_RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Addresses in doubt that are held at once. What is not held is found by the next run over everything.
pub const ADDRESS_DOUBTS_MAX: usize = 1024;

/// How long a server that has stopped renewing counts as an endpoint of the Service `kubernetes`, and how often
/// servers renew: Kubernetes' own, which must agree where both kinds of server run on one etcd.
pub const MASTER_LEASE_SECONDS: u64 = 15;
/// See [`MASTER_LEASE_SECONDS`]; as often the Service itself and the default ServiceCIDR are looked for.
pub const KEEP_INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait for the store at a health check: probes give up after a second or two.
pub const HEALTH_STORE_WAIT: Duration = Duration::from_secs(2);

/// Pause between looks at the dependents of an owner that waits for them, doubled up to [`PROPAGATION_PAUSE_MAX`].
pub const PROPAGATION_PAUSE_MIN: Duration = Duration::from_millis(20);
/// See [`PROPAGATION_PAUSE_MIN`].
pub const PROPAGATION_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Life of an event after it was last seen, as in Kubernetes.
pub const EVENT_TTL: Duration = Duration::from_hours(1);

/// Pause between sweeps of events that are over.
pub const EVENT_SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Pause before roles are followed again after the store failed.
pub const POLICY_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Pause before service accounts are followed again after the store failed.
pub const ACCOUNTS_RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Life of a service account's token in seconds: what nobody asks for, and the bounds, as in Kubernetes.
pub const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// See [`TOKEN_SECONDS_DEFAULT`].
pub const TOKEN_SECONDS_MIN: i64 = 600;
/// See [`TOKEN_SECONDS_DEFAULT`].
pub const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Life of the token that pods get, as Kubernetes writes it; nodes renew it long before.
pub const POD_TOKEN_SECONDS: i64 = 3607;

/// Longest bearer token that is looked at. Those of service accounts have about 1,200 bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How long the writer of a role or binding waits at most for this server to decide by it.
pub const POLICY_WAIT_MAX: Duration = Duration::from_secs(1);
