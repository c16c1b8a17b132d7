//! Reading what a client asks.

use super::{HEADER, flag, u16_at, u32_at};
use crate::limits::UDP_PAYLOAD_PLAIN;
use crate::name::QName;
use crate::rr::{Rcode, rtype};

/// A question, understood. Its bytes stay in the packet, up to `question_end`.
#[derive(Debug, Clone)]
pub struct Query {
    pub id: u16,
    /// The header's second 16 bits as they came.
    pub flags: u16,
    pub name: QName,
    pub rtype: u16,
    pub class: u16,
    pub question_end: usize,
    pub edns: Option<Edns>,
}

/// The OPT record of a question (RFC 6891). Its options do not matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// What the client takes over UDP, never less than 512.
    pub payload: u16,
    pub version: u8,
    pub dnssec_ok: bool,
}

/// Why a packet is no question to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too short, or an answer: to answer it could go on for ever.
    Drop,
    Reply(Rcode),
}

impl Query {
    pub fn parse(packet: &[u8]) -> Result<Query, Refusal> {
        let header = packet.get(..HEADER).ok_or(Refusal::Drop)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let flags = word(2);
        if flags & flag::RESPONSE != 0 {
            return Err(Refusal::Drop);
        }
        if flags & flag::OPCODE != 0 {
            return Err(Refusal::Reply(Rcode::NotImp));
        }
        let wrong = Refusal::Reply(Rcode::FormErr);
        if word(4) != 1 {
            return Err(wrong);
        }
        let (name, end) = QName::read(packet, HEADER).map_err(|_| wrong)?;
        let rtype = u16_at(packet, end).ok_or(wrong)?;
        let class = u16_at(packet, end + 2).ok_or(wrong)?;
        let question_end = end + 4;
        let records = usize::from(word(6)) + usize::from(word(8)) + usize::from(word(10));
        let edns = find_edns(packet, question_end, records).ok_or(wrong)?;
        Ok(Query { id: word(0), flags, name, rtype, class, question_end, edns })
    }

    /// What an answer over UDP may have at most.
    pub fn udp_limit(&self, own: u16) -> usize {
        usize::from(self.edns.map_or(UDP_PAYLOAD_PLAIN, |edns| edns.payload.min(own)))
    }
}

/// The OPT record among the records after the question. `None`: they are broken, or there are two.
#[expect(clippy::option_option, reason = "broken and absent are different answers to one question")]
fn find_edns(packet: &[u8], mut at: usize, records: usize) -> Option<Option<Edns>> {
    let mut edns = None;
    // Each record has at least 11 bytes, so the packet's size bounds the loop.
    for _ in 0..records {
        let start = at;
        at = super::message::skip_name(packet, at).ok()?;
        let (rtype, class, ttl) = (u16_at(packet, at)?, u16_at(packet, at + 2)?, u32_at(packet, at + 4)?);
        let length = usize::from(u16_at(packet, at + 8)?);
        at += 10 + length;
        if at > packet.len() {
            return None;
        }
        if rtype == rtype::OPT {
            // Its owner is the root, and there is one (RFC 6891, 6.1.1).
            if packet[start] != 0 || edns.is_some() {
                return None;
            }
            edns = Some(Edns {
                payload: class.max(UDP_PAYLOAD_PLAIN),
                version: (ttl >> 16) as u8,
                dnssec_ok: ttl & 0x8000 != 0,
            });
        }
    }
    Some(edns)
}
