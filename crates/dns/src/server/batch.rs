//! Many packets for one call into the kernel: `recvmmsg` and `sendmmsg`. The only unsafe code of this crate.
//!
//! On a wildcard address each packet carries the address it was sent to, and the answer leaves from there: a client
//! behind a Service would not take it from any other.

#![expect(unsafe_code, reason = "recvmmsg and sendmmsg have no safe wrapper that keeps its buffers")]

use std::cmp::Reverse;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use smallvec::SmallVec;

use crate::limits::{BATCH, MESSAGE_MAX};

/// Room for a question: longer ones are cut and refused. An odd number of cache lines, so that the questions of a batch do
/// not all fall into the same sets of the cache.
const RECEIVE_BYTES: usize = 21 * 64;
/// Where answers start: each in a cache line of its own.
const LINE_BYTES: usize = 64;
/// Room for one packet-info message of either family.
const CONTROL_BYTES: usize = 64;

/// So many failures of segmenting, and it is not tried again.
const SEGMENT_FAILURES_MAX: u32 = 3;

/// Aligned as control messages must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Buffers and headers of one worker. Boxed slices never move, so the pointers between them stay good.
pub(super) struct Batch {
    receive: Box<[[u8; RECEIVE_BYTES]]>,
    send: Box<[u8]>,
    send_bytes: usize,
    peers: Box<[libc::sockaddr_storage]>,
    controls: Box<[Control]>,
    send_controls: Box<[Control]>,
    receive_iov: Box<[libc::iovec]>,
    send_iov: Box<[libc::iovec]>,
    received: Box<[libc::mmsghdr]>,
    to_send: Box<[libc::mmsghdr]>,
    answers: Vec<Answer>,
    /// Bytes of `send` in use: answers stand close together, so that few pages are touched.
    filled: usize,
    info: bool,
    /// Answers to one client leave together.
    segment: bool,
    segment_failures: u32,
}

/// One answer that waits to be sent. In order: clients together, and of each the longest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    to: Way,
    length: Reverse<u16>,
    /// Where it starts in the buffer for answers.
    start: u32,
    index: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Way {
    peer: IpAddr,
    port: u16,
    scope: u32,
    local: Option<IpAddr>,
}

// SAFETY: the pointers lead into the batch's own boxes, which move with it.
unsafe impl Send for Batch {}

impl Batch {
    /// `info`: packets carry the address they were sent to.
    pub(super) fn new(send_bytes: usize, info: bool) -> Batch {
        // SAFETY: all of these are plain C structures for which zeroes are a value.
        let (peer, iov, header): (libc::sockaddr_storage, libc::iovec, libc::mmsghdr) =
            unsafe { (zeroed(), zeroed(), zeroed()) };
        let mut batch = Batch {
            receive: vec![[0; RECEIVE_BYTES]; BATCH].into(),
            send: vec![0; BATCH * send_bytes.next_multiple_of(LINE_BYTES)].into(),
            send_bytes,
            peers: vec![peer; BATCH].into(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
            send_controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
            receive_iov: vec![iov; BATCH].into(),
            send_iov: vec![iov; BATCH].into(),
            received: vec![header; BATCH].into(),
            to_send: vec![header; BATCH].into(),
            answers: Vec::with_capacity(BATCH),
            filled: 0,
            info,
            segment: true,
            segment_failures: 0,
        };
        for n in 0..BATCH {
            batch.receive_iov[n] =
                libc::iovec { iov_base: batch.receive[n].as_mut_ptr().cast(), iov_len: RECEIVE_BYTES };
            let header = &mut batch.received[n].msg_hdr;
            header.msg_name = (&raw mut batch.peers[n]).cast();
            header.msg_iov = &raw mut batch.receive_iov[n];
            header.msg_iovlen = 1;
            if info {
                header.msg_control = batch.controls[n].0.as_mut_ptr().cast();
            }
        }
        batch
    }

    /// Waits for at least one packet and takes all that are there, up to [`BATCH`].
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let control = if self.info { CONTROL_BYTES } else { 0 };
        for message in &mut self.received {
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_controllen = control as _;
        }
        // SAFETY: every header points to buffers of the lengths it says, set up in `new` and never freed before.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.received.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }

    /// Packet number `index` of the last [`Batch::receive`], and the buffer for its answer. `None`: it was cut.
    pub(super) fn packet(&mut self, index: usize) -> Option<(&[u8], &mut [u8])> {
        let message = &self.received[index];
        let length = message.msg_len as usize;
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || length > RECEIVE_BYTES {
            return None;
        }
        Some((&self.receive[index][..length], &mut self.send[self.filled..self.filled + self.send_bytes]))
    }

    /// Who sent packet number `index`.
    pub(super) fn peer(&self, index: usize) -> SocketAddr {
        read_address(&self.peers[index])
    }

    /// Which of our addresses packet number `index` was sent to, on a wildcard socket.
    pub(super) fn local(&self, index: usize) -> Option<IpAddr> {
        if !self.info {
            return None;
        }
        // SAFETY: the kernel filled the header and its control buffer, both still ours.
        unsafe { read_info(&self.received[index].msg_hdr) }
    }

    /// Takes the first `length` bytes of the buffer that [`Batch::packet`] gave as the answer to packet `index`.
    pub(super) fn answer(&mut self, index: usize, length: usize) {
        let length = length.min(self.send_bytes) as u16;
        let (peer, local) = (self.peer(index), self.local(index));
        let scope = match peer {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(peer) => peer.scope_id(),
        };
        let to = Way { peer: peer.ip(), port: peer.port(), scope, local };
        self.answers.push(Answer {
            to,
            length: Reverse(length),
            start: self.filled as u32,
            index: index as u16,
        });
        self.filled += usize::from(length).next_multiple_of(LINE_BYTES);
    }

    /// Sends every answer and gives the number of those that could not be sent: what one client cannot be sent does not
    /// keep the others from theirs.
    ///
    /// Answers of one length to one client leave as one message that the kernel cuts on the last possible occasion
    /// (`UDP_SEGMENT`): resolvers and proxies in front of many clients ask over few sockets, and each then costs a part.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> u64 {
        if self.answers.len() > 1 {
            self.answers.sort_unstable();
        }
        let (mut failed, run_failed) = self.send_messages(socket);
        if run_failed {
            // Some way has no segments: once more, one by one, what failed.
            self.segment = false;
            failed = self.send_messages(socket).0;
            self.segment_failures += 1;
            self.segment = self.segment_failures < SEGMENT_FAILURES_MAX;
        }
        self.answers.clear();
        self.filled = 0;
        failed
    }

    /// One message for each answer or run of answers. Keeps those that failed in `answers`, and says whether there was a
    /// run among them.
    fn send_messages(&mut self, socket: &UdpSocket) -> (u64, bool) {
        let ends = self.fill_headers();
        let (mut at, mut failed, mut run_failed) = (0, Vec::new(), false);
        while at < ends.len() {
            let rest = &mut self.to_send[at..ends.len()];
            // SAFETY: `fill_headers` has just filled these from buffers that still live.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => at += sent,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    let start = if at == 0 { 0 } else { ends[at - 1] };
                    failed.extend_from_slice(&self.answers[start..ends[at]]);
                    run_failed |= ends[at] - start > 1;
                    at += 1;
                }
            }
        }
        let count = failed.len() as u64;
        if count > 0 {
            self.answers = failed;
        }
        (count, run_failed)
    }

    /// Makes the messages. Gives for each the number of the answer after its last.
    fn fill_headers(&mut self) -> SmallVec<[usize; BATCH]> {
        let mut ends = SmallVec::new();
        let mut start = 0;
        while start < self.answers.len() {
            let end = start + self.run(start);
            let (first, message) = (self.answers[start], ends.len());
            for at in start..end {
                let answer = self.answers[at];
                let base = &mut self.send[answer.start as usize];
                self.send_iov[at] =
                    libc::iovec { iov_base: (&raw mut *base).cast(), iov_len: usize::from(answer.length.0) };
            }
            let header = &mut self.to_send[message].msg_hdr;
            header.msg_name = (&raw mut self.peers[usize::from(first.index)]).cast();
            header.msg_namelen = self.received[usize::from(first.index)].msg_hdr.msg_namelen;
            header.msg_iov = &raw mut self.send_iov[start];
            header.msg_iovlen = (end - start) as _;
            header.msg_control = self.send_controls[message].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
            let segment = (end - start > 1).then_some(first.length.0);
            // SAFETY: the control buffer is ours and as long as the header says.
            header.msg_controllen = unsafe { write_controls(header, first.to.local, segment) } as _;
            ends.push(end);
            start = end;
        }
        ends
    }

    /// How many answers from `start` on can be one message: to one client, all of one length but the last, which may be
    /// shorter. The order of the answers puts longer ones first.
    fn run(&self, start: usize) -> usize {
        let first = self.answers[start];
        if !self.segment {
            return 1;
        }
        let rest = &self.answers[start..];
        let equal = rest.iter().take_while(|a| a.to == first.to && a.length == first.length).count();
        let shorter = rest.get(equal).is_some_and(|a| a.to == first.to);
        let most = MESSAGE_MAX / usize::from(first.length.0).max(1);
        (equal + usize::from(shorter)).min(most).max(1)
    }
}

/// # Safety
/// Zeroes must be a value of `T`.
unsafe fn zeroed<T>() -> T {
    // SAFETY: the caller's promise.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn read_address(storage: &libc::sockaddr_storage) -> SocketAddr {
    if i32::from(storage.ss_family) == libc::AF_INET6 {
        // SAFETY: the family says what it is, and the storage is large enough and aligned for it.
        let from = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
        let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
        SocketAddrV6::new(ip, u16::from_be(from.sin6_port), from.sin6_flowinfo, from.sin6_scope_id).into()
    } else {
        // SAFETY: as above.
        let from = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
        let ip = Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes());
        SocketAddr::new(ip.into(), u16::from_be(from.sin_port))
    }
}

/// # Safety
/// The header and its control buffer must be as the kernel filled them.
unsafe fn read_info(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the caller's promise; CMSG_FIRSTHDR gives null where no message fits.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header).as_ref()?;
        let data = libc::CMSG_DATA(message);
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into())
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

/// Asks the kernel to say where each packet was sent to.
pub(super) fn ask_for_info(socket: &impl AsRawFd, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, option) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    // SAFETY: the option's value is an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Wakes a thread that waits in [`Batch::receive`], for good. Linux wakes readers of an unconnected UDP socket too,
/// though it reports that there was no connection.
pub(super) fn wake(socket: &UdpSocket) {
    // SAFETY: no memory is involved.
    unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Sends one answer that was not ready with its batch.
pub(super) fn send_one(
    socket: &UdpSocket,
    peer: SocketAddr,
    local: Option<IpAddr>,
    bytes: &[u8],
) -> io::Result<()> {
    let Some(local) = local else { return socket.send_to(bytes, peer).map(drop) };
    let peer = socket2::SockAddr::from(peer);
    let mut iov = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: zeroes are a value of a header; then each pointer leads to a local that outlives the call, and the
    // control buffer has room for the larger of the two messages.
    let sent = unsafe {
        let mut header: libc::msghdr = zeroed();
        header.msg_name = peer.as_ptr().cast_mut().cast();
        header.msg_namelen = peer.len();
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = CONTROL_BYTES as _;
        header.msg_controllen = write_controls(&header, Some(local), None) as _;
        libc::sendmsg(socket.as_raw_fd(), &raw const header, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Writes where an answer leaves from and into what it is cut, and gives the bytes used. Routing chooses the interface:
/// the one a question came by may not be the way back.
///
/// # Safety
/// The header's control buffer must be ours, zeroed or written by this before, and [`CONTROL_BYTES`] long.
unsafe fn write_controls(header: &libc::msghdr, local: Option<IpAddr>, segment: Option<u16>) -> usize {
    let mut used = 0;
    // SAFETY: the caller's promise; both messages fit, as is checked below.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(header);
        let mut put = |level, kind, value: &[u8]| {
            (*at).cmsg_level = level;
            (*at).cmsg_type = kind;
            (*at).cmsg_len = libc::CMSG_LEN(value.len() as u32) as _;
            std::ptr::copy_nonoverlapping(value.as_ptr(), libc::CMSG_DATA(at), value.len());
            let space = libc::CMSG_SPACE(value.len() as u32) as usize;
            at = at.byte_add(space);
            used += space;
        };
        match local {
            // An in_pktinfo: the interface (any), the source, and an address that is only ever received.
            Some(IpAddr::V4(ip)) => {
                let mut info = [0; size_of::<libc::in_pktinfo>()];
                info[4..8].copy_from_slice(&ip.octets());
                put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            // An in6_pktinfo: the source and the interface.
            Some(IpAddr::V6(ip)) => {
                let mut info = [0; size_of::<libc::in6_pktinfo>()];
                info[..16].copy_from_slice(&ip.octets());
                put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if let Some(bytes) = segment {
            put(libc::SOL_UDP, libc::UDP_SEGMENT, &bytes.to_ne_bytes());
        }
    }
    used
}

/// Room for both control messages.
const _: () = {
    // SAFETY: plain arithmetic.
    let needed = unsafe { libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) + libc::CMSG_SPACE(2) };
    assert!(needed as usize <= CONTROL_BYTES);
};
