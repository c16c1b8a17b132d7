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
mod wire;

use std::fmt;
use std::io;

pub use address::Address;
pub use link::{Link, LinkIndex, Mac, Veth, VethPeer};
pub use neighbour::Neighbour;
pub use route::{PROTOCOL_PORTOLAN, Route, RouteKind, RouteScope};

use crate::netns::{self, Netns};

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
    #[error("{object}: the kernel's answer is cut short")]
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
    connection: wire::Connection,
}

impl Rt {
    /// Connects to the namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { connection: wire::Connection::open().map_err(Error::Socket)? })
    }

    /// Connects to `netns`, from wherever the caller is.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::open)?
    }

    fn request(&mut self, message: wire::Message, object: impl FnOnce() -> String) -> Result<(), Error> {
        self.connection.request(message).map_err(|e| e.about(object()))
    }

    fn fetch(
        &mut self,
        message: wire::Message,
        object: impl FnOnce() -> String,
    ) -> Result<Vec<Vec<u8>>, Error> {
        self.connection.fetch(message).map_err(|e| e.about(object()))
    }
}
