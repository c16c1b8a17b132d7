//! Walking through a message that somebody else made.

use super::{HEADER, flag, u16_at, u32_at};
use crate::name::{Builder, LABEL_MAX, Name, NameError};
use crate::wire::reply::Section;

/// Why a message cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("shorter than its header says")]
    Cut,
    #[error("a name is broken: {0}")]
    Name(#[from] NameError),
}

/// The fixed part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub flags: u16,
    pub questions: u16,
    /// Answer, authority, additional.
    pub records: [u16; 3],
}

impl Header {
    pub fn read(message: &[u8]) -> Result<Header, Malformed> {
        let word = |at| u16_at(message, at).ok_or(Malformed::Cut);
        Ok(Header {
            id: word(0)?,
            flags: word(2)?,
            questions: word(4)?,
            records: [word(6)?, word(8)?, word(10)?],
        })
    }

    pub fn rcode(&self) -> u8 {
        (self.flags & flag::RCODE) as u8
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & flag::TRUNCATED != 0
    }
}

/// One record: places in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAt {
    pub section: Section,
    pub start: usize,
    pub rtype: u16,
    pub class: u16,
    pub ttl: u32,
    pub ttl_at: usize,
    pub data: usize,
    pub end: usize,
}

impl RecordAt {
    pub fn owner(&self, message: &[u8]) -> Result<Name, Malformed> {
        read_name(message, self.start)
    }

    pub fn data<'m>(&self, message: &'m [u8]) -> &'m [u8] {
        &message[self.data..self.end]
    }
}

/// Every record after the question, which ends at `at`. Stops at the first error.
pub fn records(
    message: &[u8],
    at: usize,
    header: &Header,
) -> impl Iterator<Item = Result<RecordAt, Malformed>> {
    let sections = [Section::Answer, Section::Authority, Section::Additional];
    let counts = header.records;
    let mut plan = sections.into_iter().zip(counts).flat_map(|(s, n)| std::iter::repeat_n(s, usize::from(n)));
    let mut at = Some(at);
    std::iter::from_fn(move || {
        let start = at?;
        let section = plan.next()?;
        let record = record(message, start, section);
        at = record.as_ref().ok().map(|r| r.end);
        Some(record)
    })
}

fn record(message: &[u8], start: usize, section: Section) -> Result<RecordAt, Malformed> {
    let at = skip_name(message, start)?;
    let word = |at| u16_at(message, at).ok_or(Malformed::Cut);
    let (rtype, class, length) = (word(at)?, word(at + 2)?, usize::from(word(at + 8)?));
    let ttl = u32_at(message, at + 4).ok_or(Malformed::Cut)?;
    let (data, end) = (at + 10, at + 10 + length);
    if end > message.len() {
        return Err(Malformed::Cut);
    }
    Ok(RecordAt { section, start, rtype, class, ttl, ttl_at: at + 4, data, end })
}

/// The offset after a name, compressed or not.
pub fn skip_name(message: &[u8], mut at: usize) -> Result<usize, Malformed> {
    loop {
        let length = *message.get(at).ok_or(Malformed::Cut)?;
        match length {
            0 => return Ok(at + 1),
            1..=63 => at += 1 + usize::from(length),
            0xc0.. if at + 2 <= message.len() => return Ok(at + 2),
            0xc0.. => return Err(Malformed::Cut),
            _ => return Err(NameError::Pointer.into()),
        }
    }
}

/// A name with its pointers followed, lower case.
pub fn read_name(message: &[u8], mut at: usize) -> Result<Name, Malformed> {
    let mut name = Builder::default();
    // Each pointer must lead further back than the one before: there is no way round.
    let mut least = at;
    loop {
        let length = usize::from(*message.get(at).ok_or(Malformed::Cut)?);
        if length == 0 {
            return Ok(name.finish());
        }
        if length <= LABEL_MAX {
            let label = message.get(at + 1..at + 1 + length).ok_or(Malformed::Cut)?;
            name.label(label)?;
            at += 1 + length;
            continue;
        }
        if length < 0xc0 {
            return Err(NameError::Pointer.into());
        }
        let to = usize::from(u16_at(message, at).ok_or(Malformed::Cut)? & 0x3fff);
        if to >= least || to < HEADER {
            return Err(NameError::Pointer.into());
        }
        least = to;
        at = to;
    }
}
