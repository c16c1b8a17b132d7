//! rtnetlink: links, addresses, routes and neighbours of one network namespace, as typed calls.
//!
//! What is here: [`Rt`], a connection to one namespace, and a file per kind of object: [`link`](self::Link),
//! [`Address`], [`Route`], [`Neighbour`]. What is not: namespaces themselves ([`crate::netns`]) and rules of the packet
//! filter. Calls block for a system call or two and are fit for any thread.
//!
//! Start at [`Rt::open`]. The kernel's side is described in rtnetlink(7).

mod address;
mod link;
mod neighbour;
mod route;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;

pub use address::Address;
pub use link::{Link, LinkIndex, Mac, Veth, VethPeer};
pub use neighbour::Neighbour;
pub use route::{PROTOCOL_PORTOLAN, Route, RouteKind, RouteScope};

use crate::codec::{Messages, NLMSG_ERROR, Writer, flags};
use crate::netns::{self, Netns};
use crate::socket::{Ack, NetlinkSocket, Protocol};

/// A request that failed, with the object it was about: `link eth0: no such device`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("rtnetlink socket: {0}")]
    Socket(#[source] io::Error),
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error("{object}: {}{}", reason(source), hint(kernel.as_deref()))]
    Refused {
        /// What the request was about, as the user would name it.
        object: String,
        source: io::Error,
        /// The kernel's own explanation, where it gave one.
        kernel: Option<String>,
    },
    #[error("{object}: the request or its answer does not fit a message")]
    Malformed { object: String },
}

impl Error {
    fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket(source) => source.raw_os_error(),
            Self::Netns(_) | Self::Malformed { .. } => None,
        }
    }

    /// The object, or the link it stands on, is not there: nothing to delete.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// The object is there already: nothing to add.
    pub fn is_present(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }
}

/// `no such device`, from `No such device (os error 19)`.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn hint(kernel: Option<&str>) -> impl fmt::Display {
    kernel.map_or_else(String::new, |text| format!(" ({text})"))
}

/// A connection to the links, addresses, routes and neighbours of one namespace.
#[derive(Debug)]
pub struct Rt {
    socket: NetlinkSocket,
}

/// What to ask the kernel: a message's kind, flags and fixed part.
struct Request<'a> {
    kind: u16,
    flags: u16,
    fixed: &'a [u8],
}

impl Rt {
    /// Connects to the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: NetlinkSocket::open(Protocol::Route).map_err(Error::Socket)? })
    }

    /// Connects to `netns`, from wherever the caller is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    /// Sends a change and waits for its acknowledgement.
    fn change(
        &mut self,
        request: &Request<'_>,
        object: impl Fn() -> String,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), Error> {
        self.ask(request, object, body).map(drop)
    }

    /// Sends a request and collects the payloads of its answers. The socket's own `ask` would do, but for the error
    /// numbers: callers want to know *that* something exists, not to read it.
    fn ask(
        &mut self,
        request: &Request<'_>,
        object: impl Fn() -> String,
        body: impl FnOnce(&mut Writer),
    ) -> Result<Vec<Vec<u8>>, Error> {
        let seq = self.socket.reserve(1);
        let mut writer = Writer::default();
        writer.message(request.kind, request.flags | flags::ACK, seq, request.fixed, body);
        let bytes = writer.finish().map_err(|_| Error::Malformed { object: object() })?;
        self.socket.send(&bytes).map_err(Error::Socket)?;
        let mut answers = Vec::new();
        loop {
            let datagram = self.socket.recv().map_err(Error::Socket)?;
            for message in Messages(datagram).filter(|message| message.seq == seq) {
                if message.kind != NLMSG_ERROR {
                    answers.push(message.payload.to_vec());
                    continue;
                }
                let ack = Ack::parse(&message).ok_or_else(|| Error::Malformed { object: object() })?;
                return if ack.errno == 0 { Ok(answers) } else { Err(refused(object(), ack)) };
            }
        }
    }

    /// Dumps a table; `parse` reads one entry from a message's payload.
    fn dump<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        object: &str,
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let build = |writer: &mut Writer, seq: u32| {
            writer.message(kind, flags::DUMP, seq, fixed, |_| ());
        };
        self.socket
            .dump(build, |message, found| {
                found.extend(parse(message.payload));
                Ok(())
            })
            .map_err(|source| Error::Refused { object: object.into(), source, kernel: None })
    }
}

fn refused(object: String, ack: Ack) -> Error {
    Error::Refused { object, source: io::Error::from_raw_os_error(ack.errno), kernel: ack.extack }
}

/// The number at `at` in a fixed part.
fn ne32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}
