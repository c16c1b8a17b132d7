//! One packet, or one connection attempt, from a chosen address: bound first, so that its five-tuple is known before
//! anything is sent.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_forward::Protocol;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, getsockname, ipproto, recv,
    send, socket_with, sockopt,
};

/// A TCP connection that is not there by then is called silence: two retransmissions of the first packet.
const PATIENCE: Duration = Duration::from_millis(3500);
/// UDP need not answer at all.
const PATIENCE_UDP: Duration = Duration::from_millis(300);
const STEP: Duration = Duration::from_millis(20);
/// What an endpoint of a UDP Service gets to see.
const DATAGRAM: &[u8] = b"portolan trace\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Connected,
    /// UDP: something came back.
    Answered,
    /// UDP: sent, and nothing came back, which may be right.
    Sent,
    Refused,
    Silence,
    Unreachable,
    /// The node's own kernel dropped it on the way out.
    NotPermitted,
    Failed(Errno),
}

impl Reply {
    pub(crate) fn text(self) -> String {
        match self {
            Self::Connected => "connected (and closed at once)".into(),
            Self::Answered => "answered".into(),
            Self::Sent => "sent; no answer, and UDP need not give one".into(),
            Self::Refused => "refused".into(),
            Self::Silence => "no answer".into(),
            Self::Unreachable => "no route".into(),
            Self::NotPermitted => "stopped on its way out of this host".into(),
            Self::Failed(errno) => errno.to_string(),
        }
    }

    fn of(errno: Errno) -> Self {
        match errno {
            Errno::CONNREFUSED | Errno::CONNRESET => Self::Refused,
            Errno::HOSTUNREACH | Errno::NETUNREACH => Self::Unreachable,
            Errno::TIMEDOUT => Self::Silence,
            Errno::PERM | Errno::ACCESS => Self::NotPermitted,
            other => Self::Failed(other),
        }
    }
}

/// A socket with an address of its own, in the namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Probe {
    fd: OwnedFd,
    pub(crate) source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
}

impl Probe {
    pub(crate) fn open(source: IpAddr, destination: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (kind, number) = match protocol {
            Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
            Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
            Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let fd = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, Some(number))?;
        bind(&fd, &SocketAddr::new(source, 0))?;
        let source = SocketAddr::try_from(getsockname(&fd)?)?;
        Ok(Self { fd, source, destination, protocol })
    }

    /// Sends; `stop` says that nothing will come back any more.
    pub(crate) fn send(&self, stop: &AtomicBool) -> Reply {
        match connect(&self.fd, &self.destination) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Reply::of(errno),
        }
        let datagram = self.protocol == Protocol::Udp;
        if datagram && let Err(errno) = send(&self.fd, DATAGRAM, SendFlags::empty()) {
            return Reply::of(errno);
        }
        let wanted = if datagram { PollFlags::IN } else { PollFlags::OUT };
        let end = Instant::now() + if datagram { PATIENCE_UDP } else { PATIENCE };
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            if self.is_ready(wanted) {
                return self.outcome();
            }
        }
        if datagram { Reply::Sent } else { Reply::Silence }
    }

    fn is_ready(&self, wanted: PollFlags) -> bool {
        let mut fds = [PollFd::new(&self.fd, wanted)];
        let timeout = Timespec::try_from(STEP).ok();
        poll(&mut fds, timeout.as_ref()).is_ok_and(|ready| ready > 0)
    }

    fn outcome(&self) -> Reply {
        match sockopt::socket_error(&self.fd) {
            Ok(Err(errno)) | Err(errno) => return Reply::of(errno),
            Ok(Ok(())) => {}
        }
        if self.protocol != Protocol::Udp {
            return Reply::Connected;
        }
        match recv(&self.fd, &mut [0u8; 1500], RecvFlags::DONTWAIT) {
            Ok(_) => Reply::Answered,
            Err(errno) => Reply::of(errno),
        }
    }
}
