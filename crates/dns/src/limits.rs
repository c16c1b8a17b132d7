//! Every limit of the DNS server, with its reason.

use std::time::Duration;

/// What a UDP answer may be at most, whatever the client offers: fits an IPv6 packet of minimal size, so nothing is
/// fragmented on the way (DNS flag day 2020).
pub const UDP_PAYLOAD_MAX: u16 = 1232;

/// What a client without EDNS takes (RFC 1035, 4.2.1).
pub const UDP_PAYLOAD_PLAIN: u16 = 512;

/// A message over TCP has a length of 16 bits.
pub const MESSAGE_MAX: usize = 65_535;

/// How many aliases (`ExternalName`) of this zone may lead to each other before the chain counts as a loop.
pub const CNAME_CHAIN_MAX: usize = 8;

/// Addresses and endpoints of one Service in answers; 2,300 AAAA records fill the longest message, 65,535 bytes.
pub const RECORDS_MAX: usize = 2_048;

/// Messages taken from the kernel with one call. 128 measured a tenth better than 64 under load, 256 no better.
pub const BATCH: usize = 128;

/// Questions of a batch that are looked up side by side: about as many reads of memory as one core has under way.
pub const GROUP: usize = 16;

/// Bytes the kernel may queue on each UDP socket while a worker is busy: some thousand questions.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// TCP connections at once; more are closed at once.
pub const TCP_CONNECTIONS_MAX: usize = 1_024;

/// TCP connections from one address, so that one client cannot take them all.
pub const TCP_CONNECTIONS_PER_SOURCE_MAX: usize = 64;

/// Questions of one TCP connection in the works at once (RFC 7766, 6.2.1.1 asks for pipelining).
pub const TCP_PIPELINE_MAX: usize = 32;

/// A TCP connection without a question for so long is closed (RFC 7766, 6.2.3 suggests seconds).
pub const TCP_IDLE: Duration = Duration::from_secs(10);

/// A client that does not take its answer within this time is cut off.
pub const TCP_WRITE: Duration = Duration::from_secs(5);
