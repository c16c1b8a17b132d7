//! The kernel's IPVS. Generic netlink takes many messages at once and answers those that fail.

use std::io;

use super::wire::{self, FLUSH, GET_CONFIG, GET_DEST, GET_INFO, GET_SERVICE};
use super::{DestinationState, Info, Ipvs, Op, OpError, Server, ServerKey, Timeouts};
use crate::codec::{Message, Messages, NLMSG_ERROR, Writer, flags};
use crate::socket::{Ack, NetlinkSocket, Protocol};

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY` and its attributes.
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const NAME: &str = "IPVS";
const VERSION: u8 = 1;
/// Bytes of messages per datagram, and how many messages: each could fail, and all answers must fit the queue.
const DATAGRAM_MAX: usize = 128 * 1024;
const MESSAGES_MAX: usize = 1024;

/// IPVS of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    socket: NetlinkSocket,
    family: u16,
}

impl Socket {
    /// `None`: the kernel has no IPVS, built in or as a module that it could load by itself.
    pub fn open() -> io::Result<Option<Self>> {
        let mut socket = NetlinkSocket::open(Protocol::Generic)?;
        let family = family(&mut socket, NAME)?;
        Ok(family.map(|family| Self { socket, family }))
    }

    /// One question with one answer.
    fn get<T>(&mut self, command: u8, read: impl Fn(&crate::codec::Attrs<'_>) -> Option<T>) -> io::Result<T> {
        let family = self.family;
        let mut found = None;
        self.socket.ask(
            |w, seq| _ = w.message(family, 0, seq, &[command, VERSION, 0, 0], |_| {}),
            |message| found = read(&message.attrs(4)),
        )?;
        found.ok_or_else(garbled)
    }

    fn dump<T>(
        &mut self,
        command: u8,
        body: impl Fn(&mut Writer),
        read: impl Fn(&crate::codec::Attrs<'_>) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let family = self.family;
        self.socket.dump(
            |w, seq| _ = w.message(family, 0, seq, &[command, VERSION, 0, 0], &body),
            |message: &Message<'_>, found: &mut Vec<T>| {
                found.push(read(&message.attrs(4)).ok_or_else(garbled)?);
                Ok(())
            },
        )
    }

    /// As many of the operations as fit into one datagram. Gives how many those were.
    fn send_some(&mut self, ops: &[Op]) -> Result<usize, (usize, io::Error)> {
        let first = self.socket.reserve(ops.len().min(MESSAGES_MAX) as u32);
        let mut writer = Writer::with_capacity(DATAGRAM_MAX.min(ops.len() * 128));
        let (mut count, mut last) = (0, 0);
        for op in ops.iter().take(MESSAGES_MAX) {
            if writer.len() >= DATAGRAM_MAX {
                break;
            }
            last = writer.len();
            let fixed = [op.command(), VERSION, 0, 0];
            writer.message(self.family, 0, first + count as u32, &fixed, |w| op.write(w));
            count += 1;
        }
        // The others answer only if they fail.
        writer.add_flags(last, flags::ACK);
        let bytes = writer.finish().map_err(|error| (0, io::Error::other(error)))?;
        self.socket.send(&bytes).map_err(|error| (0, error))?;
        self.await_answers(first, count)?;
        Ok(count)
    }

    /// The kernel goes on after a failure: the first one is told.
    fn await_answers(&mut self, first: u32, count: usize) -> Result<(), (usize, io::Error)> {
        let mut failed = None;
        loop {
            let datagram = self.socket.recv().map_err(|error| (0, error))?;
            for message in Messages(datagram).filter(|message| message.kind == NLMSG_ERROR) {
                let Some(index) = message.seq.checked_sub(first).map(|index| index as usize) else {
                    continue;
                };
                if index >= count {
                    continue;
                }
                let result = Ack::parse(&message).ok_or_else(garbled).and_then(Ack::into_result);
                if let Err(error) = result {
                    failed.get_or_insert((index, error));
                }
                if index + 1 == count {
                    return failed.map_or(Ok(()), Err);
                }
            }
        }
    }
}

impl Ipvs for Socket {
    fn info(&mut self) -> io::Result<Info> {
        self.get(GET_INFO, wire::read_info)
    }

    fn servers(&mut self) -> io::Result<Vec<Server>> {
        self.dump(GET_SERVICE, |_| {}, wire::read_server)
    }

    fn destinations(&mut self, server: &ServerKey) -> io::Result<Vec<DestinationState>> {
        let ipv6 = server.is_ipv6();
        self.dump(GET_DEST, |w| wire::write_key(w, server), |attrs| wire::read_destination(attrs, ipv6))
    }

    fn timeouts(&mut self) -> io::Result<Timeouts> {
        self.get(GET_CONFIG, wire::read_timeouts)
    }

    fn apply(&mut self, ops: &[Op]) -> Result<(), OpError> {
        let mut done = 0;
        while done < ops.len() {
            match self.send_some(&ops[done..]) {
                Ok(count) => done += count,
                Err((at, source)) => {
                    let index = done + at;
                    return Err(OpError { index, op: ops[index].clone(), source });
                }
            }
        }
        Ok(())
    }
}

/// Whether the kernel has IPVS now. Asking IPVS itself would load it where it is a module.
pub fn is_loaded() -> bool {
    std::path::Path::new("/proc/net/ip_vs").exists()
}

/// Removes all virtual servers of the caller's network namespace. `false`: the kernel has no IPVS.
pub fn flush() -> io::Result<bool> {
    let Some(mut ipvs) = Socket::open()? else { return Ok(false) };
    let family = ipvs.family;
    ipvs.socket.request(|w, seq| _ = w.message(family, 0, seq, &[FLUSH, VERSION, 0, 0], |_| {}))?;
    Ok(true)
}

/// The number of a generic netlink family; `None` where the kernel does not have it.
fn family(socket: &mut NetlinkSocket, name: &str) -> io::Result<Option<u16>> {
    let mut id = None;
    let asked = socket.ask(
        |w, seq| {
            w.message(CONTROL, 0, seq, &[GET_FAMILY, 1, 0, 0], |w| w.string(FAMILY_NAME, name));
        },
        |message| {
            let attr = message.attrs(4).get(FAMILY_ID);
            id = attr.and_then(|attr| attr.payload.try_into().ok()).map(u16::from_ne_bytes);
        },
    );
    match asked {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(|()| id),
    }
}

fn garbled() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an IPVS message cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_found_by_name() {
        let mut socket = NetlinkSocket::open(Protocol::Generic).unwrap();
        assert_eq!(family(&mut socket, "nlctrl").unwrap(), Some(CONTROL));
        assert_eq!(family(&mut socket, "no-such-family").unwrap(), None);
    }
}
