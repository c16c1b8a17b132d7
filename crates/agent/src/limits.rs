//! Limits of what containers may cost the node, and of what is served about them, with their reasons.

use std::time::Duration;

/// Longest line of output kept as one record; a longer one becomes several, as the container runtime interface has it.
pub(crate) const LOG_LINE_BYTES_MAX: usize = 16 << 10;

/// Largest log file. A full one moves aside to `<run>.log.1` in place of the one before: a run keeps twice this at most.
/// kubelet's `containerLogMaxSize`.
pub(crate) const LOG_FILE_BYTES_MAX: u64 = 10 << 20;

/// Runs whose logs are kept per container: the present one's and the one before, for `kubectl logs --previous`.
pub(crate) const LOG_RUNS_MAX: i32 = 2;

/// Log bytes per second that a container may write for long. One that prints without end waits in its own `write`, and
/// costs the node a few hundredths of a core and of a disk.
pub(crate) const LOG_BYTES_PER_SECOND_MAX: u64 = 8 << 20;

/// Log bytes that a container may write at once: what programs print as they start passes unhindered.
pub(crate) const LOG_BURST_BYTES_MAX: u64 = 16 << 20;

/// How long the end of a container waits for the rest of its output, once its processes are gone.
pub(crate) const LOG_DRAIN: Duration = Duration::from_secs(1);

/// How much of a probe command's output goes into an event; kubelet's bound.
pub(crate) const PROBE_OUTPUT_BYTES_MAX: usize = 10 << 10;

/// The pause between two reads of a probe command that has printed more than that: it is not stuck, but it cannot keep a
/// core busy either.
pub(crate) const PROBE_OUTPUT_PAUSE: Duration = Duration::from_millis(1);

/// How long a probe command that has ended may keep its output open, through a process that it left behind.
pub(crate) const PROBE_OUTPUT_DRAIN: Duration = Duration::from_millis(100);

/// How long processes that were killed may take to be gone.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How often a pod's refused forks are looked for where the kernel does not tell of them, as the controller of the first
/// version does not.
pub(crate) const PIDS_LOOK: Duration = Duration::from_secs(5);

/// Read of a log and sent to its reader in one piece.
pub(crate) const LOG_CHUNK_BYTES: usize = 64 << 10;

/// Connections to the agent: the API servers', one per follower of a log and per open session.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Time to finish the TLS handshake, and to send the head of a request.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Pieces of input or output of a session that wait; the other side waits beyond that.
pub(crate) const SESSION_QUEUE: usize = 16;

/// Read from a session's process at once, and the largest message sent to its client.
pub(crate) const SESSION_READ_BYTES: usize = 32 << 10;

/// The largest message taken from a session's client: kubectl sends at most 32 KiB of input at once.
pub(crate) const SESSION_MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How long a session's output may still come after its process has ended, through a process that was left behind.
pub(crate) const SESSION_DRAIN: Duration = Duration::from_secs(2);

/// Streams that one SPDY connection has open: two for each connection of a forwarded port, five for a session.
pub(crate) const SPDY_STREAMS_MAX: usize = 512;

/// A stream's header block, unpacked; real ones take less than a hundred bytes.
pub(crate) const SPDY_HEADER_BYTES_MAX: usize = 64 << 10;

/// How long a client may take to open the streams that belong together; kubelet's.
pub(crate) const SPDY_STREAMS_PATIENCE: Duration = Duration::from_secs(30);

/// Time to connect to a forwarded port in its pod.
pub(crate) const FORWARD_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client of a forwarded port may still speak after the pod has ended the connection.
pub(crate) const FORWARD_LINGER: Duration = Duration::from_millis(500);
