//! Hears of transactions of others: who changed which tables, as soon as the kernel has done it.
//!
//! The kernel tells listeners every object that a transaction adds or removes, and at its end which program it was.
//! What packets add to dynamic sets, and what times out, is not told. A listener that falls behind loses messages and
//! learns of that: nothing goes by unnoticed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::codec::{Message, Messages};
use crate::socket::{NetlinkSocket, Protocol};

use super::NfTables as _;
use super::kernel::Socket;
use super::object::{Family, Table};
use super::wire::{self, SUBSYS, msg};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Listens in the network namespace of the thread that opened it, and never blocks. After [`Monitor::listen`], wait for
/// its descriptor to become readable, then call [`Monitor::heard`].
#[derive(Debug)]
pub struct Monitor {
    netlink: NetlinkSocket,
    /// For questions: on the socket above, answers would be among the news.
    asking: Socket,
    tables: Vec<Table>,
    /// The transaction that is being told has touched one of the tables.
    touched: bool,
}

/// What the ruleset was when the listener stopped.
#[derive(Debug)]
#[must_use = "it must listen again"]
pub struct Pause {
    generation: u32,
}

/// Somebody else has touched one of the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Intruder {
    /// The name of the program, as the kernel knows it (15 bytes at most), and the number of its thread. Absent when
    /// messages were lost.
    pub program: Option<(String, u32)>,
}

impl std::fmt::Display for Intruder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.program {
            Some((name, pid)) => write!(f, "{name} (process {pid})"),
            None => f.write_str("an unknown program"),
        }
    }
}

impl Monitor {
    /// Hears what happens to these tables, except through `own`, once it listens.
    pub fn open(tables: Vec<Table>, own: u32) -> io::Result<Self> {
        let netlink = NetlinkSocket::open(Protocol::Netfilter)?;
        netlink.ignore_sender(own)?;
        Ok(Self { netlink, asking: Socket::open()?, tables, touched: false })
    }

    /// Begins to listen. From now on the kernel has more work with every transaction, also with our own.
    pub fn listen(&self) -> io::Result<()> {
        self.netlink.join(GROUP)
    }

    /// Stops listening for the time of a large transaction of our own: the kernel would make a message of each of its
    /// elements, for us to throw away.
    pub fn pause(&mut self) -> io::Result<Pause> {
        // In this order what others do in between is noticed twice rather than never.
        let generation = self.generation()?;
        self.netlink.leave(GROUP)?;
        Ok(Pause { generation })
    }

    /// Listens again. `own` is the number of our transactions since; that there were others is told by the ruleset's
    /// generation, which counts all.
    pub fn resume(&mut self, pause: &Pause, own: u64) -> io::Result<Option<Intruder>> {
        self.listen()?;
        let alone = pause.generation.wrapping_add(own as u32) == self.generation()?;
        Ok((!alone).then(Intruder::default))
    }

    fn generation(&mut self) -> io::Result<u32> {
        self.asking.generation().map_err(io::Error::other)
    }

    /// Reads everything there is; gives the last intruder among it.
    pub fn heard(&mut self) -> io::Result<Option<Intruder>> {
        let mut heard = None;
        loop {
            let datagram = match self.netlink.try_recv() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return Ok(heard),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    heard = Some(Intruder::default());
                    continue;
                }
                Err(error) => return Err(error),
            };
            for message in Messages(datagram) {
                if message.kind != SUBSYS << 8 | msg::NEWGEN {
                    self.touched |= is_about(&self.tables, &message);
                } else if std::mem::take(&mut self.touched) {
                    heard = Some(intruder(&message));
                }
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.netlink.as_fd()
    }
}

/// For reactors that know no other.
impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// In every message the first attribute is the name of the table.
fn is_about(tables: &[Table], message: &Message<'_>) -> bool {
    let Some(family) = message.payload.first().map(|number| Family::from_number(*number)) else {
        return false;
    };
    let name = message.attrs(wire::FIXED).get(wire::table::NAME).and_then(|attr| attr.text());
    message.kind >> 8 == SUBSYS
        && tables.iter().any(|table| table.family == family && name == Some(&*table.name))
}

fn intruder(message: &Message<'_>) -> Intruder {
    let attrs = message.attrs(wire::FIXED);
    let pid = attrs.get(wire::generation::PROC_PID).and_then(|attr| attr.be32());
    let name = attrs.get(wire::generation::PROC_NAME);
    let name = name.and_then(|attr| attr.text().map(str::to_owned));
    Intruder { program: name.zip(pid) }
}

impl Socket {
    /// What tells this socket's transactions from those of others, for [`Monitor::open`].
    pub fn port(&self) -> io::Result<u32> {
        self.netlink().port()
    }
}
