//! What `iptables-legacy-restore --noflush` does, done without the program: half of a write's cost at 1,000 Services is a
//! process that starts and takes a table of megabytes apart into lists, to change one chain.
//!
//! The table is read under the lock that all programs take, [`read`] takes it apart, [`ruleset`] changes the chains that the script names and
//! carries everything else over byte for byte, counters too, [`encode`] makes the bytes of a rule. Whatever is not as
//! we know it, a rule of somebody else's to remove or a kernel that does not take our bytes, is left to the program: it
//! gets the same script, and explains errors better.

mod encode;
mod read;
mod ruleset;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use portolan_forward::Family;
use portolan_netlink::xtables::{Blob, Lock, LockError, Socket};
use thiserror::Error;

use self::encode::Layout;
use self::ruleset::{Built, Ruleset};
use super::rules::Rule;

/// A buffer that became larger is given back after use.
const BUFFER_MAX: usize = 8 << 20;

/// Programs that do not take the lock may change a table between our reading and writing.
const ATTEMPTS: usize = 5;

#[derive(Debug, Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("the kernel: {0}")]
    Kernel(#[from] io::Error),
    #[error("a table that is not as expected")]
    Table,
    #[error("what is left to the program: {0}")]
    Line(String),
}

/// Both families' tables, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Direct {
    v4: Socket,
    v6: Option<Socket>,
    buffers: Buffers,
}

#[derive(Debug, Default)]
struct Buffers {
    read: Vec<u8>,
    write: Blob,
}

impl Direct {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { v4: Socket::v4()?, v6: Socket::v6().ok(), buffers: Buffers::default() })
    }

    /// Does one table's part of a script, from `*nat` to `COMMIT`, whole or not at all.
    pub(super) fn restore(&mut self, family: Family, part: &str, patience: Duration) -> Result<(), Failure> {
        let socket = match family {
            Family::V4 => &self.v4,
            Family::V6 => self.v6.as_ref().ok_or(io::Error::from(io::ErrorKind::Unsupported))?,
        };
        let table = part.lines().next().and_then(|line| line.strip_prefix('*')).ok_or(Failure::Table)?;
        let _lock = Lock::take(patience)?;
        let mut attempt = 1;
        let result = loop {
            match write(socket, &mut self.buffers, family, table, part) {
                Err(Failure::Kernel(error))
                    if error.kind() == io::ErrorKind::WouldBlock && attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => break result,
            }
        };
        if self.buffers.read.len().max(self.buffers.write.len()) > BUFFER_MAX {
            self.buffers = Buffers::default();
        }
        result
    }
}

fn write(
    socket: &Socket,
    buffers: &mut Buffers,
    family: Family,
    table: &str,
    part: &str,
) -> Result<(), Failure> {
    let info = socket.info(table)?;
    let bytes = socket.entries(table, info.size, &mut buffers.read)?;
    let layout = Layout::of(family);
    let mut ruleset = Ruleset::parse(layout, info, bytes).ok_or(Failure::Table)?;
    for line in part.lines().skip(1).take_while(|line| *line != "COMMIT") {
        apply(layout, &mut ruleset, line).ok_or_else(|| Failure::Line(line.to_owned()))?;
    }
    let Built { info: new, origins } = ruleset.build(&mut buffers.write).ok_or(Failure::Table)?;
    let counted = socket.replace(table, &new, &mut buffers.write, info.entries)?;
    // The rules are in place; who changed them since then has counters of their own.
    if let Err(error) = socket.add_counters(table, &origins.counters(&counted)) {
        tracing::debug!(%error, table, "counters of iptables begin anew");
    }
    Ok(())
}

fn apply(layout: Layout, ruleset: &mut Ruleset<'_>, line: &str) -> Option<()> {
    if let Some(declared) = line.strip_prefix(':') {
        return ruleset.declare(declared.split(' ').next()?);
    }
    let (verb, rest) = line.split_once(' ')?;
    let (chain, rule) = rest.split_once(' ').unwrap_or((rest, ""));
    let entry = |rule: &str| layout.entry(&Rule::parse(rule));
    match verb {
        "-A" => ruleset.append(chain, entry(rule)?),
        "-I" => ruleset.insert(chain, entry(rule.strip_prefix("1 ")?)?),
        "-D" => ruleset.delete(chain, &entry(rule)?),
        "-X" => ruleset.remove(chain),
        _ => None,
    }
}
