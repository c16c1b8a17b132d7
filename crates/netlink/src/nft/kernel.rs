//! The real kernel: sends batches, reads dumps.
//!
//! The whole batch is one datagram, and the kernel works through it within the `send` call. It answers each operation
//! that failed, so one bad batch may bring many errors; the first is the one to tell. Success is told by an
//! acknowledgement. We ask for that of the *last operation*, not of the end-of-batch message, because kernels before
//! 6.10 do not acknowledge the latter. All answers are sent once the commit has succeeded or failed, and a failed
//! commit's own error is sent before the acknowledgement, so that one is always the last answer.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use crate::codec::{Message, Messages, NLMSG_ERROR, Writer};
use crate::socket::{Ack, NetlinkSocket, Protocol};

use super::decode;
use super::encode::{Encoded, encode, put_value};
use super::error::{CommitError, CommitErrorKind, DumpError};
use super::object::{Chain, Element, Family, Handled, Rule, Set, Table, TableInfo};
use super::op::Batch;
use super::value::Value;
use super::wire::{self, SUBSYS, msg};

/// `nf_tables` of the network namespace of the thread that opened the socket.
#[derive(Debug)]
pub struct Socket {
    netlink: NetlinkSocket,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        Ok(Self { netlink: NetlinkSocket::open(Protocol::Netfilter)? })
    }

    pub(super) fn netlink(&self) -> &NetlinkSocket {
        &self.netlink
    }

    fn transact(&mut self, encoded: &mut Encoded) -> Result<(), Failure> {
        let first_seq = self.netlink.reserve(encoded.messages());
        encoded.number(first_seq);
        self.netlink.send(&encoded.bytes).map_err(Failure::NotSent)?;
        let last_seq = first_seq + encoded.messages() - 2;
        let mut failed: Option<Ack> = None;
        loop {
            let datagram = match self.netlink.recv() {
                Ok(datagram) => datagram,
                // Some answers did not fit into the receive queue. If one error came through, the batch has failed.
                Err(error) => return Err(failed.map_or(Failure::Lost(error), |ack| refused(first_seq, ack))),
            };
            for message in Messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                let Some(ack) = Ack::parse(&message) else { continue };
                if !(first_seq..=last_seq).contains(&ack.seq) {
                    continue;
                }
                let last = ack.seq == last_seq || (ack.seq == first_seq && ack.errno != 0);
                if ack.errno != 0 && failed.is_none() {
                    failed = Some(ack);
                }
                if last {
                    return failed.map_or(Ok(()), |ack| Err(refused(first_seq, ack)));
                }
            }
        }
    }

    fn elements_once(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        self.dump(
            || format!("set {table} {set}"),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETSETELEM, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::elem_list::TABLE, &table.name);
                    w.string(wire::elem_list::SET, set);
                });
            },
            |message, found| decode::elements(&message.attrs(wire::FIXED), found),
        )
    }

    /// False when one of them does not exist.
    fn elements_asked_for(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
        found: &mut Vec<Element>,
    ) -> Result<bool, DumpError> {
        let mut whole = true;
        let result = self.netlink.ask(
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETSETELEM, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::elem_list::TABLE, &table.name);
                    w.string(wire::elem_list::SET, set);
                    w.nested(wire::elem_list::ELEMENTS, |w| {
                        for key in keys {
                            w.nested(wire::list::ELEM, |w| put_value(w, wire::elem::KEY, key));
                        }
                    });
                });
            },
            |message| whole &= decode::elements(&message.attrs(wire::FIXED), found).is_some(),
        );
        let what = || format!("elements of set {table} {set}");
        match result {
            Ok(()) if whole => Ok(true),
            Ok(()) => Err(DumpError::Malformed { what: what(), detail: "an element cannot be read" }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(DumpError::Io { what: what(), source }),
        }
    }

    fn dump<T>(
        &mut self,
        what: impl Fn() -> String,
        build: impl Fn(&mut Writer, u32),
        mut parse: impl FnMut(&Message<'_>, &mut Vec<T>) -> Option<()>,
    ) -> Result<Vec<T>, DumpError> {
        let result = self.netlink.dump(build, |message, found| {
            parse(message, found).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        });
        result.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => DumpError::Missing { what: what() },
            _ => DumpError::Io { what: what(), source },
        })
    }
}

/// The kernel dumps a hash table by position, in pieces, and does not say when it resizes the table in between: then
/// some elements come twice, and as many are left out. Resizing takes milliseconds and follows a large change.
const REHASH_ATTEMPTS: u32 = 10;

/// The answers, a datagram each, must fit into the receive queue; the keys, below 64 bytes each, into an attribute.
const ASKED_AT_ONCE: usize = 500;

fn has_duplicates(elements: &[Element]) -> bool {
    let mut seen = HashSet::with_capacity(elements.len());
    !elements.iter().all(|e| seen.insert((&e.key, &e.key_end, e.interval_end, e.catchall)))
}

enum Failure {
    NotSent(io::Error),
    Refused { message: usize, ack: Ack },
    Lost(io::Error),
}

fn refused(first_seq: u32, ack: Ack) -> Failure {
    Failure::Refused { message: (ack.seq - first_seq) as usize, ack }
}

/// Names the operation, and the element if one of several is to blame.
fn explain(batch: &Batch, encoded: &Encoded, failure: Failure) -> CommitError {
    let errno_of = |error: &io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    match failure {
        Failure::NotSent(error) => {
            let errno = errno_of(&error);
            let mut explained = CommitError::of_errno(errno, None, String::new(), None);
            if errno == libc::EMSGSIZE {
                explained.extack =
                    Some("the batch exceeds the send buffer; raise net.core.wmem_max".to_owned());
            } else if errno == libc::ENOBUFS {
                explained.kind = CommitErrorKind::Retry;
            }
            explained
        }
        Failure::Lost(error) => {
            let mut explained = CommitError::of_errno(errno_of(&error), None, String::new(), None);
            explained.kind = CommitErrorKind::Unknown;
            explained
        }
        Failure::Refused { message, ack } => match encoded.blame(message, ack.offset) {
            Some((index, element)) => {
                let op = batch.ops[index].describe(element);
                CommitError::of_errno(ack.errno, Some(index), op, ack.extack)
            }
            None => CommitError::of_errno(ack.errno, None, String::new(), ack.extack),
        },
    }
}

impl super::NfTables for Socket {
    fn commit(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let mut encoded = encode(batch)?;
        // Nothing but empty element lists: there would be no message to acknowledge.
        if encoded.messages() == 2 {
            return Ok(());
        }
        self.transact(&mut encoded).map_err(|failure| explain(batch, &encoded, failure))
    }

    fn tables(&mut self) -> Result<Vec<TableInfo>, DumpError> {
        self.dump(
            || "the list of tables".to_owned(),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETTABLE, 0, seq, &wire::fixed(0), |_| {});
            },
            |message, found| {
                found.push(decode::table(family_of(message)?, &message.attrs(wire::FIXED))?);
                Some(())
            },
        )
    }

    fn chains(&mut self, table: &Table) -> Result<Vec<Chain>, DumpError> {
        self.dump(
            || format!("chains of table {table}"),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETCHAIN, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::chain::TABLE, &table.name);
                });
            },
            |message, found| decode::chain(table, &message.attrs(wire::FIXED), found),
        )
    }

    fn rules(&mut self, table: &Table, chain: Option<&str>) -> Result<Vec<Handled<Rule>>, DumpError> {
        let result = self.dump(
            || format!("rules of table {table}"),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETRULE, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::rule::TABLE, &table.name);
                    if let Some(chain) = chain {
                        w.string(wire::rule::CHAIN, chain);
                    }
                });
            },
            |message, found| decode::rule(table, chain, &message.attrs(wire::FIXED), found),
        );
        empty_if_missing(result)
    }

    fn sets(&mut self, table: &Table) -> Result<Vec<Set>, DumpError> {
        let result = self.dump(
            || format!("sets of table {table}"),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETSET, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::set::TABLE, &table.name);
                });
            },
            |message, found| decode::set(table, &message.attrs(wire::FIXED), found),
        );
        empty_if_missing(result)
    }

    fn elements(&mut self, table: &Table, set: &str) -> Result<Vec<Element>, DumpError> {
        let mut pause = Duration::from_millis(1);
        for _ in 0..REHASH_ATTEMPTS {
            let found = self.elements_once(table, set)?;
            if !has_duplicates(&found) {
                return Ok(found);
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        let source = io::Error::new(io::ErrorKind::Interrupted, "the set was rehashed during every attempt");
        Err(DumpError::Io { what: format!("set {table} {set}"), source })
    }

    fn count(&mut self, table: &Table, set: &str) -> Result<Option<u32>, DumpError> {
        let counts = self.dump(
            || format!("sets of table {table}"),
            |w, seq| {
                w.message(SUBSYS << 8 | msg::GETSET, 0, seq, &wire::fixed(table.family.number()), |w| {
                    w.string(wire::set::TABLE, &table.name);
                });
            },
            |message, found| {
                let attrs = message.attrs(wire::FIXED);
                let is = |kind, name: &str| attrs.get(kind).and_then(|attr| attr.text()) == Some(name);
                if is(wire::set::TABLE, &table.name) && is(wire::set::NAME, set) {
                    found.extend(attrs.get(wire::set::COUNT).and_then(|count| count.be32()));
                }
                Some(())
            },
        )?;
        Ok(counts.first().copied())
    }

    fn elements_at(
        &mut self,
        table: &Table,
        set: &str,
        keys: &[Value],
    ) -> Result<Option<Vec<Element>>, DumpError> {
        let mut found = Vec::with_capacity(keys.len());
        for some in keys.chunks(ASKED_AT_ONCE) {
            if !self.elements_asked_for(table, set, some, &mut found)? {
                return Ok(None);
            }
        }
        Ok(Some(found))
    }

    fn generation(&mut self) -> Result<u32, DumpError> {
        let what = || "the ruleset's generation".to_owned();
        let mut generation = None;
        self.netlink
            .ask(
                |w, seq| {
                    w.message(SUBSYS << 8 | msg::GETGEN, 0, seq, &wire::fixed(0), |_| {});
                },
                |message| {
                    generation =
                        message.attrs(wire::FIXED).get(wire::generation::ID).and_then(|id| id.be32());
                },
            )
            .map_err(|source| DumpError::Io { what: what(), source })?;
        generation.ok_or_else(|| DumpError::Malformed { what: what(), detail: "it has no number" })
    }
}

fn family_of(message: &Message<'_>) -> Option<Family> {
    message.payload.first().map(|number| Family::from_number(*number))
}

fn empty_if_missing<T>(result: Result<Vec<T>, DumpError>) -> Result<Vec<T>, DumpError> {
    match result {
        Err(DumpError::Missing { .. }) => Ok(Vec::new()),
        other => other,
    }
}
