//! An upstream's answer, checked and kept as the bytes it came as.

use std::time::{Duration, Instant};

use super::Ask;
use super::config::CacheConfig;
use crate::name::Name;
use crate::rr::{CLASS_IN, rtype};
use crate::wire::message::{Header, RecordAt, records};
use crate::wire::reply::{Reply, Section};
use crate::wire::{HEADER, Query, flag};

/// A failure at the upstream is remembered for a moment, so that it is not asked by every client in turn (RFC 9520).
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// What stands in for an expired answer must be asked for again soon.
const STALE_TTL_S: u32 = 0;

/// Why an upstream's message is no answer to what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrue {
    #[error("it is no answer")]
    NotAnAnswer,
    #[error("it has another id")]
    Id,
    #[error("it answers another question")]
    Question,
    #[error("it is malformed")]
    Malformed,
}

#[derive(Debug)]
pub struct Stored {
    bytes: Box<[u8]>,
    records: Box<[RecordAt]>,
    flags: u16,
    inserted: Instant,
    life: Duration,
    stale: bool,
}

impl Stored {
    /// Checks a message against what was asked under `id`.
    pub(super) fn read(
        message: &[u8],
        id: u16,
        ask: &Ask,
        now: Instant,
        config: &CacheConfig,
    ) -> Result<Stored, Untrue> {
        let header = Header::read(message).map_err(|_| Untrue::Malformed)?;
        if header.flags & flag::RESPONSE == 0 || header.flags & flag::OPCODE != 0 {
            return Err(Untrue::NotAnAnswer);
        }
        if header.id != id {
            return Err(Untrue::Id);
        }
        let end = ask.check_question(message, &header)?;
        let mut kept = Vec::new();
        for record in records(message, end, &header) {
            let record = record.map_err(|_| Untrue::Malformed)?;
            // Of the exchange, not of the answer. What stands behind it goes too: pointers into it would be off.
            if record.rtype == rtype::OPT {
                break;
            }
            kept.push(record);
        }
        let upto = kept.last().map_or(end, |record| record.end);
        let mut stored = Stored {
            bytes: message[..upto].into(),
            records: kept.into(),
            flags: header.flags,
            inserted: now,
            life: Duration::ZERO,
            stale: false,
        };
        stored.life = stored.life_by(config);
        Ok(stored)
    }

    pub(crate) fn rcode(&self) -> u8 {
        (self.flags & flag::RCODE) as u8
    }

    pub(super) fn is_truncated(&self) -> bool {
        self.flags & flag::TRUNCATED != 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<RecordAt>()
    }

    /// An answer with records, in contrast to a denial or a failure.
    pub(super) fn is_positive(&self) -> bool {
        self.rcode() == 0 && self.section(Section::Answer).next().is_some()
    }

    pub(super) fn expires(&self) -> Instant {
        self.inserted + self.life
    }

    pub(super) fn life(&self) -> Duration {
        self.life
    }

    /// The same, to stand in after its time.
    pub(super) fn to_stale(&self) -> Stored {
        Stored {
            bytes: self.bytes.clone(),
            records: self.records.clone(),
            flags: self.flags,
            inserted: self.inserted,
            life: self.life,
            stale: true,
        }
    }

    fn section(&self, section: Section) -> impl Iterator<Item = &RecordAt> {
        self.records.iter().filter(move |r| r.section == section)
    }

    /// How long it may be kept; zero: not at all.
    fn life_by(&self, config: &CacheConfig) -> Duration {
        if self.is_truncated() {
            return Duration::ZERO;
        }
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        match self.rcode() {
            0 if self.is_positive() => {
                let least = self.records.iter().map(|r| ttl(r.ttl)).min().unwrap_or(0);
                seconds(least).clamp(config.ttl_min.min(config.ttl_max), config.ttl_max)
            }
            // A denial lasts as its SOA says; without one it is not kept (RFC 2308, 5).
            0 | 3 => {
                let soa = self.section(Section::Authority).find(|r| r.rtype == rtype::SOA);
                let minimum = |r: &RecordAt| {
                    let minimum = r.data(&self.bytes).last_chunk::<4>()?;
                    Some(ttl(u32::from_be_bytes(*minimum)).min(ttl(r.ttl)))
                };
                let life = soa.and_then(minimum).map_or(Duration::ZERO, seconds);
                life.min(config.denial_ttl_max)
            }
            2 => FAILURE_TTL,
            _ => Duration::ZERO,
        }
    }

    /// A record's TTL now.
    fn ttl_now(&self, record: &RecordAt, now: Instant) -> u32 {
        if self.stale {
            return STALE_TTL_S;
        }
        let age = now.saturating_duration_since(self.inserted).as_secs().min(u64::from(u32::MAX)) as u32;
        ttl(record.ttl).saturating_sub(age)
    }

    /// Copies the records behind the question of an answer to the same question.
    pub(crate) fn write(&self, reply: &mut Reply<'_>, query: &Query, now: Instant) {
        reply.set_rcode(self.rcode());
        // Whoever asks for validated data gets told; others need not know (RFC 6840, 5.8).
        let told = query.flags & flag::AUTHENTIC_DATA != 0 || query.edns.is_some_and(|e| e.dnssec_ok);
        if told {
            reply.set_flags(self.flags & flag::AUTHENTIC_DATA);
        }
        if self.is_truncated() {
            reply.set_flags(flag::TRUNCATED);
        }
        for record in &self.records {
            let bytes = &self.bytes[record.start..record.end];
            if reply
                .copy(record.section, bytes, record.ttl_at - record.start, self.ttl_now(record, now))
                .is_err()
            {
                if record.section != Section::Additional {
                    reply.set_flags(flag::TRUNCATED);
                }
                return;
            }
        }
    }

    /// Addresses and aliases of the answer, with names in full, for use in another message.
    pub(crate) fn addresses(&self, now: Instant) -> impl Iterator<Item = (Name, u16, u32, Vec<u8>)> {
        self.section(Section::Answer).filter_map(move |record| {
            if record.class != CLASS_IN {
                return None;
            }
            let data = match record.rtype {
                rtype::A | rtype::AAAA => record.data(&self.bytes).to_vec(),
                rtype::CNAME => {
                    let name = crate::wire::message::read_name(&self.bytes, record.data).ok()?;
                    name.as_wire().to_vec()
                }
                _ => return None,
            };
            Some((record.owner(&self.bytes).ok()?, record.rtype, self.ttl_now(record, now), data))
        })
    }
}

/// The highest bit makes it zero (RFC 2181, 8).
fn ttl(ttl: u32) -> u32 {
    if ttl & 0x8000_0000 == 0 { ttl } else { 0 }
}

impl Ask {
    /// The message repeats the question asked. Gives the offset after it.
    fn check_question(&self, message: &[u8], header: &Header) -> Result<usize, Untrue> {
        if header.questions != 1 {
            return Err(Untrue::Question);
        }
        let (name, end) = crate::name::QName::read(message, HEADER).map_err(|_| Untrue::Malformed)?;
        let tail = message.get(end..end + 4).ok_or(Untrue::Malformed)?;
        let same = name.as_wire() == self.name.as_wire()
            && tail[..2] == self.rtype.to_be_bytes()
            && tail[2..] == CLASS_IN.to_be_bytes();
        if same { Ok(end + 4) } else { Err(Untrue::Question) }
    }
}
