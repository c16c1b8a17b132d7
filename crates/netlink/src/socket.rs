//! A netlink socket that blocks, with room for large batches and with the kernel's explanations of errors.
//!
//! It stays in the network namespace of the thread that opened it. The kernel handles a request within the `send` call,
//! so every answer is in the receive buffer when `send` returns; the timeout below only guards against a lost one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, socket_with, sockopt,
};

use crate::codec::{Attrs, HEADER_LEN, Message, Messages, NLMSG_DONE, NLMSG_ERROR, Writer, flags};

/// Dumps arrive in pieces of at most 32 KiB, whatever we offer.
const RECV_BUFFER: usize = 64 * 1024;
/// Room for the errors of thousands of operations in one batch.
const RECV_QUEUE: usize = 8 * 1024 * 1024;
/// The kernel counts bookkeeping against the send buffer, too.
const SEND_SLACK: usize = 64 * 1024;
/// An answer that is not there by then is lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A dump that is disturbed more often than this in a row is given up.
const DUMP_ATTEMPTS: usize = 32;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Route,
    Netfilter,
    Generic,
}

#[derive(Debug)]
pub struct NetlinkSocket {
    fd: OwnedFd,
    seq: u32,
    send_queue: usize,
    buffer: Vec<u8>,
}

/// The kernel's answer to one message: `errno` is 0 when all went well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack {
    pub seq: u32,
    pub errno: i32,
    /// The kernel's own explanation.
    pub extack: Option<String>,
    /// Where in the message the attribute to blame begins.
    pub offset: Option<u32>,
}

impl Ack {
    /// Reads an acknowledgement or the end of a dump that carries an error.
    pub fn parse(message: &Message<'_>) -> Option<Self> {
        let errno = -i32::from_ne_bytes(*message.payload.first_chunk()?);
        let mut ack = Self { seq: message.seq, errno, extack: None, offset: None };
        if message.flags & flags::ACK_TLVS != 0 {
            let original = match message.kind {
                NLMSG_DONE => 0,
                _ if message.flags & flags::CAPPED != 0 => HEADER_LEN,
                _ => u32::from_ne_bytes(*message.payload.get(4..)?.first_chunk()?) as usize,
            };
            let attrs = message.payload.get(4 + original.next_multiple_of(4)..).unwrap_or_default();
            for attr in Attrs(attrs) {
                match attr.kind {
                    NLMSGERR_ATTR_MSG => ack.extack = attr.text().map(str::to_owned),
                    NLMSGERR_ATTR_OFFS => ack.offset = attr.ne32(),
                    _ => {}
                }
            }
        }
        Some(ack)
    }

    /// The error as an I/O error, with the kernel's explanation as its text when there is one.
    pub fn into_result(self) -> io::Result<()> {
        match (self.errno, self.extack) {
            (0, _) => Ok(()),
            (errno, None) => Err(io::Error::from_raw_os_error(errno)),
            (errno, Some(extack)) => {
                let error = io::Error::from_raw_os_error(errno);
                Err(io::Error::new(error.kind(), format!("{error}: {extack}")))
            }
        }
    }
}

impl NetlinkSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(protocol: Protocol) -> io::Result<Self> {
        let number = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
            Protocol::Generic => Some(netlink::GENERIC),
        };
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, number)?;
        rustix::net::bind(&fd, &netlink::SocketAddrNetlink::new(0, 0))?;
        // The next two make errors shorter and clearer, and every kernel we run on has them (4.12, 4.3).
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        set_option(&fd, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECV_QUEUE).is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, RECV_QUEUE)?;
        }
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd, seq: 0, send_queue: 0, buffer: vec![0; RECV_BUFFER] })
    }

    /// Reserves sequence numbers for this many messages and gives the first.
    pub fn reserve(&mut self, messages: u32) -> u32 {
        if self.seq.checked_add(messages).is_none() {
            self.seq = 0;
        }
        let first = self.seq + 1;
        self.seq += messages;
        first
    }

    /// Sends one datagram. The kernel takes it whole or not at all.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wanted = bytes.len() + SEND_SLACK;
        if wanted > self.send_queue {
            // Without CAP_NET_ADMIN only `net.core.wmem_max` is ours; `send` then says EMSGSIZE if that is too little.
            if set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted).is_err() {
                set_option(&self.fd, libc::SOL_SOCKET, libc::SO_SNDBUF, wanted)?;
            }
            self.send_queue = wanted;
        }
        let sent = rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
        debug_assert_eq!(sent, bytes.len(), "netlink takes datagrams whole");
        Ok(())
    }

    /// Receives one datagram.
    pub fn recv(&mut self) -> io::Result<&[u8]> {
        let (_, len) = loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::TRUNC) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        self.buffer.get(..len).ok_or_else(|| io::Error::other("netlink datagram longer than the buffer"))
    }

    /// Receives one datagram if there is one.
    pub fn try_recv(&mut self) -> io::Result<Option<&[u8]>> {
        let received =
            rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC);
        let len = match received {
            Ok((_, len)) => len,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let whole = self.buffer.get(..len);
        whole.map(Some).ok_or_else(|| io::Error::other("netlink datagram longer than the buffer"))
    }

    /// The socket's own address, by which others see who sent a message.
    pub fn port(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        let address = netlink::SocketAddrNetlink::try_from(address)?;
        Ok(address.pid())
    }

    /// Receives what is sent to a multicast group from now on.
    pub fn join(&self, group: u32) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group as usize)
    }

    pub fn leave(&self, group: u32) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_NETLINK, libc::NETLINK_DROP_MEMBERSHIP, group as usize)
    }

    /// Has the kernel throw away what the socket with this address caused, before it takes room in the receive queue.
    pub fn ignore_sender(&self, port: u32) -> io::Result<()> {
        // The sender's address is the last word of a message's header, in host order; the filter loads big-endian.
        let port = u32::from_be_bytes(port.to_ne_bytes());
        let instruction = |code: u32, jf, k| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let mut program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 12),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, port),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0),
            instruction(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
        ];
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the pointer and the length describe `filter`, whose program outlives the call; the kernel copies it.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const filter).cast(),
                size_of_val(&filter) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Receives one datagram, if one comes in time.
    pub fn recv_within(&mut self, patience: Duration) -> io::Result<Option<&[u8]>> {
        // A timeout of zero would mean none at all.
        let patience = patience.max(Duration::from_millis(1));
        sockopt::set_socket_timeout(&self.fd, sockopt::Timeout::Recv, Some(patience))?;
        match self.recv() {
            Ok(datagram) => Ok(Some(datagram)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends one message that asks for an acknowledgement and waits for it.
    pub fn request(&mut self, build: impl FnOnce(&mut Writer, u32)) -> io::Result<()> {
        self.ask(build, |_| {})
    }

    /// Sends one message and hands every answer to `each`, until the acknowledgement.
    pub fn ask(
        &mut self,
        build: impl FnOnce(&mut Writer, u32),
        mut each: impl FnMut(&Message<'_>),
    ) -> io::Result<()> {
        let seq = self.reserve(1);
        let mut writer = Writer::default();
        build(&mut writer, seq);
        writer.add_flags(0, flags::ACK);
        self.send(&writer.finish().map_err(io::Error::other)?)?;
        loop {
            let datagram = self.recv()?;
            for message in Messages(datagram).filter(|message| message.seq == seq) {
                if message.kind == NLMSG_ERROR {
                    return Ack::parse(&message).ok_or_else(cut_off)?.into_result();
                }
                each(&message);
            }
        }
    }

    /// Dumps a table of the kernel. `each` adds what it finds in a message to the list; when the kernel says that the
    /// table changed underneath, the list is emptied and the dump begins again.
    pub fn dump<T>(
        &mut self,
        build: impl Fn(&mut Writer, u32),
        mut each: impl FnMut(&Message<'_>, &mut Vec<T>) -> io::Result<()>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            if self.dump_once(&build, &mut |message| each(message, &mut found))? {
                return Ok(found);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the table changed during every attempt to dump it"))
    }

    /// True when the dump was consistent.
    fn dump_once(
        &mut self,
        build: &impl Fn(&mut Writer, u32),
        each: &mut impl FnMut(&Message<'_>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let seq = self.reserve(1);
        let mut writer = Writer::default();
        build(&mut writer, seq);
        writer.add_flags(0, flags::DUMP);
        self.send(&writer.finish().map_err(io::Error::other)?)?;
        // After an error the rest of the dump must still be read, or it would be taken for the next answer.
        let mut result = Ok(());
        let mut consistent = true;
        loop {
            let datagram = self.recv()?;
            for message in Messages(datagram).filter(|message| message.seq == seq) {
                consistent &= message.flags & flags::DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => {
                        let ended = Ack::parse(&message).ok_or_else(cut_off)?.into_result();
                        return result.and(ended).map(|()| consistent);
                    }
                    _ if result.is_ok() && consistent => result = each(&message),
                    _ => {}
                }
            }
        }
    }
}

impl AsFd for NetlinkSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "netlink answer is cut off")
}

fn set_option(fd: &OwnedFd, level: i32, option: i32, value: usize) -> io::Result<()> {
    let value = i32::try_from(value).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
