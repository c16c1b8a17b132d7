//! Writing an answer over the question it belongs to.

use smallvec::SmallVec;

use super::{Edns, HEADER, Query, flag};
use crate::name::QName;
use crate::rr::{CLASS_IN, Rcode, rtype};
use crate::zone::{Answer, Data, NameRef, Owner, Record, Soa};

/// What all answers of a server have in common.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Names outside the cluster are looked up here.
    pub recursion: bool,
    /// Offered to clients with EDNS.
    pub payload: u16,
}

/// The longest message that a pointer's 14 bits reach into.
const POINTER_MAX: usize = 0x3fff;
const OPT_BYTES: usize = 11;

/// No room for the next record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// An answer under construction. Records are written whole or not at all.
pub struct Reply<'b> {
    buffer: &'b mut [u8],
    at: usize,
    flags: u16,
    counts: [u16; 3],
    edns: Option<Edns>,
    payload: u16,
    /// What the OPT record adds to the code.
    extended: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Answer = 0,
    Authority = 1,
    Additional = 2,
}

impl<'b> Reply<'b> {
    /// Starts an answer: header and question. The buffer's length is the limit.
    pub fn new(buffer: &'b mut [u8], packet: &[u8], query: &Query, style: Style) -> Result<Self, Full> {
        let mut flags = flag::RESPONSE | query.flags & (flag::RECURSION_DESIRED | flag::CHECKING_DISABLED);
        if style.recursion {
            flags |= flag::RECURSION_AVAILABLE;
        }
        let end = query.question_end;
        let reserve = if query.edns.is_some() { OPT_BYTES } else { 0 };
        if buffer.len() < end + reserve {
            return Err(Full);
        }
        // The question keeps its spelling: some clients check it (draft-vixie-dnsext-dns0x20).
        buffer[..end].copy_from_slice(&packet[..end]);
        Ok(Reply {
            buffer,
            at: end,
            flags,
            counts: [0; 3],
            edns: query.edns,
            payload: style.payload,
            extended: 0,
        })
    }

    fn limit(&self) -> usize {
        self.buffer.len() - if self.edns.is_some() { OPT_BYTES } else { 0 }
    }

    pub fn set_flags(&mut self, flags: u16) {
        self.flags |= flags;
    }

    pub fn set_rcode(&mut self, rcode: u8) {
        self.flags = self.flags & !flag::RCODE | u16::from(rcode & 0x0f);
        self.extended = rcode >> 4;
    }

    /// Where the next record starts.
    pub fn position(&self) -> usize {
        self.at
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let end = self.at + bytes.len();
        if end > self.limit() {
            return Err(Full);
        }
        self.buffer[self.at..end].copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    /// Writes one record, or nothing at all.
    pub fn record(
        &mut self,
        section: Section,
        write: impl FnOnce(&mut Self) -> Result<(), Full>,
    ) -> Result<(), Full> {
        let start = self.at;
        let result = write(self);
        match result {
            Ok(()) => self.counts[section as usize] += 1,
            Err(Full) => self.at = start,
        }
        result
    }

    /// One record of a message with the same question, with another TTL: pointers stay right as
    /// long as every record before was copied too.
    pub fn copy(&mut self, section: Section, bytes: &[u8], ttl_at: usize, ttl: u32) -> Result<(), Full> {
        let start = self.at;
        self.record(section, |reply| reply.put(bytes))?;
        self.buffer[start + ttl_at..start + ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
        Ok(())
    }

    /// A record whose data is known as bytes.
    pub fn raw_record(
        &mut self,
        section: Section,
        owner: &[u8],
        rtype: u16,
        ttl: u32,
        data: &[u8],
    ) -> Result<(), Full> {
        self.record(section, |reply| {
            reply.put(owner)?;
            reply.fixed(rtype, ttl, data.len())?;
            reply.put(data)
        })
    }

    /// Type, class, TTL and the length of the data.
    fn fixed(&mut self, rtype: u16, ttl: u32, length: usize) -> Result<(), Full> {
        let mut head = [0; 10];
        head[..2].copy_from_slice(&rtype.to_be_bytes());
        head[2..4].copy_from_slice(&CLASS_IN.to_be_bytes());
        head[4..8].copy_from_slice(&ttl.to_be_bytes());
        head[8..].copy_from_slice(&(length as u16).to_be_bytes());
        self.put(&head)
    }

    /// A name; what it shares with the end of the question's name is a pointer there.
    fn name(&mut self, name: NameRef<'_>, question: &QName) -> Result<(), Full> {
        self.put(name.first)?;
        let wire = question.as_wire();
        let mut at = 0;
        while name.rest[at] != 0 {
            let rest = &name.rest[at..];
            if let Some(start) = wire.len().checked_sub(rest.len())
                && wire[start..] == *rest
                && question.is_start(start)
            {
                self.put(&name.rest[..at])?;
                return self.put(&pointer(HEADER + start));
            }
            at += 1 + usize::from(name.rest[at]);
        }
        self.put(name.rest)
    }

    /// Writes the data of a record with its length in front, which is known only afterwards.
    fn sized(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Full>) -> Result<(), Full> {
        let start = self.at;
        write(self)?;
        let length = (self.at - start) as u16;
        self.buffer[start - 2..start].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    /// Ends the message and gives its length.
    pub fn finish(mut self) -> usize {
        if let Some(edns) = self.edns {
            let payload = self.payload.to_be_bytes();
            let dnssec = if edns.dnssec_ok { 0x80 } else { 0 };
            let opt = [0, 0, rtype::OPT as u8, payload[0], payload[1], self.extended, 0, dnssec, 0, 0, 0];
            let end = self.at + OPT_BYTES;
            self.buffer[self.at..end].copy_from_slice(&opt);
            self.at = end;
            self.counts[Section::Additional as usize] += 1;
        }
        self.buffer[2..4].copy_from_slice(&self.flags.to_be_bytes());
        self.buffer[4..6].copy_from_slice(&1u16.to_be_bytes());
        for (n, count) in self.counts.iter().enumerate() {
            self.buffer[6 + 2 * n..8 + 2 * n].copy_from_slice(&count.to_be_bytes());
        }
        self.at
    }
}

fn pointer(to: usize) -> [u8; 2] {
    (0xc000 | to as u16).to_be_bytes()
}

/// Writes the records of a zone's answer. Lists of addresses begin at number `turn`, so that clients that take the first
/// one spread out.
pub fn write_answer(reply: &mut Reply<'_>, query: &Query, answer: &Answer<'_>, turn: u32) {
    reply.set_flags(flag::AUTHORITATIVE);
    reply.set_rcode(answer.rcode as u8);
    let mut writer = Writer { question: &query.name, targets: SmallVec::new(), last_target: None };
    let fixed = answer.records.iter().take_while(|r| !is_address(r)).count();
    let (head, addresses) = answer.records.split_at(fixed);
    let turn = if addresses.is_empty() { 0 } else { turn as usize % addresses.len() };
    let (later, first) = addresses.split_at(turn);
    for record in head.iter().chain(first).chain(later) {
        if writer.record(reply, Section::Answer, record).is_err() {
            reply.set_flags(flag::TRUNCATED);
            return;
        }
    }
    if let Some(soa) = &answer.soa {
        let section = if answer.soa_answers { Section::Answer } else { Section::Authority };
        if writer.soa(reply, section, soa).is_err() {
            reply.set_flags(flag::TRUNCATED);
            return;
        }
    }
    // Additional records are extra: without them the answer is still whole (RFC 2181, 9).
    for record in &answer.additional {
        if writer.record(reply, Section::Additional, record).is_err() {
            return;
        }
    }
}

fn is_address(record: &Record<'_>) -> bool {
    matches!(record.data, Data::A(_) | Data::Aaaa(_))
}

struct Writer<'z> {
    question: &'z QName,
    /// Where the target of each answer record stands.
    targets: SmallVec<[u16; 8]>,
    /// The last alias' target and its place: the owner of the next record.
    last_target: Option<(NameRef<'z>, usize)>,
}

impl<'z> Writer<'z> {
    fn record(&mut self, reply: &mut Reply<'_>, section: Section, record: &Record<'z>) -> Result<(), Full> {
        let mut target = 0;
        reply.record(section, |reply| {
            self.owner(reply, record.owner)?;
            match record.data {
                Data::A(ip) => {
                    reply.fixed(rtype::A, record.ttl, 4)?;
                    reply.put(&ip.octets())
                }
                Data::Aaaa(ip) => {
                    reply.fixed(rtype::AAAA, record.ttl, 16)?;
                    reply.put(&ip.octets())
                }
                Data::Srv { priority, weight, port, target: name } => {
                    reply.fixed(rtype::SRV, record.ttl, 0)?;
                    reply.sized(|reply| {
                        for number in [priority, weight, port] {
                            reply.put(&number.to_be_bytes())?;
                        }
                        target = reply.at;
                        // Never compressed (RFC 2782).
                        reply.put(name.first)?;
                        reply.put(name.rest)
                    })
                }
                Data::Ptr(name) | Data::Cname(name) | Data::Ns(name) => {
                    reply.fixed(alias_type(&record.data), record.ttl, 0)?;
                    target = reply.at;
                    reply.sized(|reply| reply.name(name, self.question))
                }
                Data::Txt(text) => {
                    reply.fixed(rtype::TXT, record.ttl, text.len() + 1)?;
                    reply.put(&[text.len() as u8])?;
                    reply.put(text)
                }
            }
        })?;
        if section == Section::Answer {
            self.targets.push(if target <= POINTER_MAX { target as u16 } else { 0 });
            if let Data::Cname(name) = record.data {
                self.last_target = Some((name, target));
            }
        }
        Ok(())
    }

    fn owner(&self, reply: &mut Reply<'_>, owner: Owner<'z>) -> Result<(), Full> {
        match owner {
            Owner::Question => reply.put(&pointer(HEADER)),
            Owner::Target(index) => match self.targets.get(usize::from(index)) {
                Some(&at) if at != 0 => reply.put(&pointer(usize::from(at))),
                // Out of a pointer's reach: only beyond 16 KiB, where what is left out is extra.
                _ => Err(Full),
            },
            Owner::Name(name) => match self.last_target {
                Some((last, at))
                    if last.rest == name.rest && last.first == name.first && at <= POINTER_MAX =>
                {
                    reply.put(&pointer(at))
                }
                _ => reply.name(name, self.question),
            },
        }
    }

    fn soa(&self, reply: &mut Reply<'_>, section: Section, soa: &Soa) -> Result<(), Full> {
        reply.record(section, |reply| {
            reply.name((&soa.owner).into(), self.question)?;
            reply.fixed(rtype::SOA, soa.ttl, 0)?;
            reply.sized(|reply| {
                reply.name((&soa.primary).into(), self.question)?;
                reply.name((&soa.mailbox).into(), self.question)?;
                // Serial, refresh, retry, expire, minimum: as CoreDNS has them; nobody transfers the zone.
                for number in [soa.serial, 7_200, 1_800, 86_400, soa.ttl] {
                    reply.put(&number.to_be_bytes())?;
                }
                Ok(())
            })
        })
    }
}

fn alias_type(data: &Data<'_>) -> u16 {
    match data {
        Data::Ptr(_) => rtype::PTR,
        Data::Cname(_) => rtype::CNAME,
        _ => rtype::NS,
    }
}

/// An answer without records. The question comes back where there is one.
pub fn write_error(buffer: &mut [u8], packet: &[u8], query: &Query, rcode: Rcode, style: Style) -> usize {
    match Reply::new(buffer, packet, query, style) {
        Ok(mut reply) => {
            reply.set_rcode(rcode as u8);
            reply.finish()
        }
        Err(Full) => 0,
    }
}

/// An answer to a packet whose question cannot be read: a header alone.
pub fn write_bare_error(buffer: &mut [u8], packet: &[u8], rcode: Rcode) -> usize {
    let (Some(from), Some(to)) = (packet.get(..HEADER), buffer.get_mut(..HEADER)) else { return 0 };
    let asked = u16::from_be_bytes([from[2], from[3]]);
    let flags =
        flag::RESPONSE | asked & (flag::OPCODE | flag::RECURSION_DESIRED) | rcode as u16 & flag::RCODE;
    to.fill(0);
    to[..2].copy_from_slice(&from[..2]);
    to[2..4].copy_from_slice(&flags.to_be_bytes());
    HEADER
}
