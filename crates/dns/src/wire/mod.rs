//! Messages as bytes: questions read, answers written, upstreams' answers walked through. No I/O.
//!
//! Written by hand: an answer of the cluster zone is a copy of the question and some fixed-size records whose owner is a
//! pointer to it, and a forwarded answer stays the bytes it came as. [`query`] reads, [`reply`] writes, [`message`]
//! walks. Nothing here trusts a length or a pointer.

pub mod message;
pub mod query;
pub mod reply;
#[cfg(test)]
mod tests;

pub use query::{Edns, Query, Refusal};
pub use reply::{Reply, Style};

/// Bytes of the fixed header.
pub const HEADER: usize = 12;

/// Bits of the second 16 bits of a header (RFC 1035, 4.1.1; RFC 4035, 3.2).
pub mod flag {
    pub const RESPONSE: u16 = 0x8000;
    pub const OPCODE: u16 = 0x7800;
    pub const AUTHORITATIVE: u16 = 0x0400;
    pub const TRUNCATED: u16 = 0x0200;
    pub const RECURSION_DESIRED: u16 = 0x0100;
    pub const RECURSION_AVAILABLE: u16 = 0x0080;
    pub const AUTHENTIC_DATA: u16 = 0x0020;
    pub const CHECKING_DISABLED: u16 = 0x0010;
    pub const RCODE: u16 = 0x000f;
}

pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

pub(crate) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    message.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}
