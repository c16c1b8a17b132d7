//! Netlink messages of the route family: building requests, reading answers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::Error;

const HEADER_LEN: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// One request under construction.
#[derive(Debug)]
pub(super) struct Message {
    buf: Vec<u8>,
}

impl Message {
    /// A request of `kind` with the fixed header that this kind has.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut buf = vec![0; HEADER_LEN];
        buf[4..6].copy_from_slice(&kind.to_ne_bytes());
        buf[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        buf.extend_from_slice(fixed);
        Self { buf }
    }

    pub(super) fn dump(kind: u16, fixed: &[u8]) -> Self {
        Self::new(kind, NLM_F_DUMP, fixed)
    }

    pub(super) fn attr(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest_raw(kind, |m| m.buf.extend_from_slice(value))
    }

    pub(super) fn attr_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub(super) fn attr_str(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest_raw(kind, |m| {
            m.buf.extend_from_slice(value.as_bytes());
            m.buf.push(0);
        })
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_raw(kind | NLA_F_NESTED, fill)
    }

    /// Bytes inside a nested attribute that precede its own attributes.
    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.buf.extend_from_slice(value);
        self
    }

    fn nest_raw(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buf.len();
        self.buf.extend_from_slice(&[0; 4]);
        fill(self);
        let len = (self.buf.len() - start) as u16;
        self.buf[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.buf[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        self.buf.resize(self.buf.len().next_multiple_of(4), 0);
        self
    }

    fn is_dump(&self) -> bool {
        u16_at(&self.buf, 6).is_some_and(|flags| flags & NLM_F_DUMP == NLM_F_DUMP)
    }

    fn finish(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let len = self.buf.len() as u32;
        self.buf[0..4].copy_from_slice(&len.to_ne_bytes());
        let flags = u16_at(&self.buf, 6).unwrap_or_default() | flags;
        self.buf[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.buf[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.buf
    }
}

/// Attributes as (kind, value) in order; a malformed tail ends them.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A value that is text ended by a zero byte.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

/// Why a request failed, before it is known what it was about.
#[derive(Debug)]
pub(super) enum Failure {
    Socket(io::Error),
    Refused { errno: i32, kernel: Option<String> },
    Malformed,
}

impl Failure {
    pub(super) fn about(self, object: String) -> Error {
        match self {
            Self::Socket(e) => Error::Socket(e),
            Self::Refused { errno, kernel } => {
                Error::Refused { object, source: io::Error::from_raw_os_error(errno), kernel }
            }
            Self::Malformed => Error::Malformed { object },
        }
    }
}

/// One socket: a request at a time, its answers read to the end.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    sequence: u32,
    buf: Vec<u8>,
}

impl Connection {
    pub(super) fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is protocol 0.
        )?;
        // Both are refinements: explanations with errors, and dumps that honour the filter in the request.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
            switch_on(&socket, option);
        }
        Ok(Self { socket, sequence: 0, buf: vec![0; 64 << 10] })
    }

    /// Sends a change and waits for its acknowledgement.
    pub(super) fn request(&mut self, message: Message) -> Result<(), Failure> {
        self.exchange(message, NLM_F_ACK).map(drop)
    }

    /// Sends a question and collects the payloads of the answers. A dump that the kernel marks as
    /// inconsistent (it changed meanwhile) is still returned: callers compare and come again.
    pub(super) fn fetch(&mut self, message: Message) -> Result<Vec<Vec<u8>>, Failure> {
        let flags = if message.is_dump() { 0 } else { NLM_F_ACK };
        self.exchange(message, flags)
    }

    fn exchange(&mut self, message: Message, flags: u16) -> Result<Vec<Vec<u8>>, Failure> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence, flags);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).map_err(|e| Failure::Socket(e.into()))?;
        let mut answers = Vec::new();
        loop {
            let len = self.receive()?;
            let mut rest = &self.buf[..len];
            while let Some(size) = u32_at(rest, 0) {
                let one =
                    rest.get(..size as usize).filter(|m| m.len() >= HEADER_LEN).ok_or(Failure::Malformed)?;
                rest = rest.get((size as usize).next_multiple_of(4)..).unwrap_or_default();
                if u32_at(one, 8) != Some(self.sequence) {
                    // The tail of an earlier exchange that was given up.
                    continue;
                }
                match u16_at(one, 4) {
                    Some(NLMSG_DONE) => return Ok(answers),
                    Some(NLMSG_ERROR) => return verdict(one).map(|()| answers),
                    _ => answers.push(one[HEADER_LEN..].to_vec()),
                }
            }
        }
    }

    fn receive(&mut self) -> Result<usize, Failure> {
        loop {
            match rustix::net::recv(&self.socket, &mut self.buf[..], RecvFlags::empty()) {
                Ok((len, _)) => return Ok(len),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(Failure::Socket(e.into())),
            }
        }
    }
}

/// Reads an error message: the number, and the kernel's text if it sent one.
fn verdict(message: &[u8]) -> Result<(), Failure> {
    let errno = u32_at(message, HEADER_LEN).ok_or(Failure::Malformed)? as i32;
    if errno == 0 {
        return Ok(());
    }
    let flags = u16_at(message, 6).unwrap_or_default();
    let echoed = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        u32_at(message, HEADER_LEN + 4).unwrap_or_default() as usize
    };
    let tail = message.get((HEADER_LEN + 4 + echoed).next_multiple_of(4)..).unwrap_or_default();
    let kernel = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| attributes(tail).find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG).map(|(_, v)| text(v)))
        .flatten();
    Err(Failure::Refused { errno: -errno, kernel })
}

fn switch_on(socket: &OwnedFd, option: i32) {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        );
    }
}
