//! Many packets for one call into the kernel: `recvmmsg` and `sendmmsg`. The only unsafe code of this crate.
//!
//! On a wildcard address each packet carries the address it was sent to, and the answer leaves from there: a client
//! behind a Service would not take it from any other.

#![expect(unsafe_code, reason = "recvmmsg and sendmmsg have no safe wrapper that keeps its buffers")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use crate::limits::BATCH;

/// Room for a question: longer ones are cut and refused.
const RECEIVE_BYTES: usize = 2_048;
/// Room for one packet-info message of either family.
const CONTROL_BYTES: usize = 64;

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
    receive_iov: Box<[libc::iovec]>,
    send_iov: Box<[libc::iovec]>,
    received: Box<[libc::mmsghdr]>,
    to_send: Box<[libc::mmsghdr]>,
    filled: usize,
    info: bool,
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
            send: vec![0; BATCH * send_bytes].into(),
            send_bytes,
            peers: vec![peer; BATCH].into(),
            controls: vec![Control([0; CONTROL_BYTES]); BATCH].into(),
            receive_iov: vec![iov; BATCH].into(),
            send_iov: vec![iov; BATCH].into(),
            received: vec![header; BATCH].into(),
            to_send: vec![header; BATCH].into(),
            filled: 0,
            info,
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
        self.filled = 0;
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
        let start = self.filled * self.send_bytes;
        Some((&self.receive[index][..length], &mut self.send[start..start + self.send_bytes]))
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
        let slot = self.filled;
        let start = slot * self.send_bytes;
        let base = self.send[start..start + length.min(self.send_bytes)].as_mut_ptr();
        self.send_iov[slot] = libc::iovec { iov_base: base.cast(), iov_len: length };
        let received = &self.received[index].msg_hdr;
        let (peer_length, control, control_length) =
            (received.msg_namelen, received.msg_control, received.msg_controllen);
        let flags = received.msg_flags;
        let header = &mut self.to_send[slot].msg_hdr;
        header.msg_name = (&raw mut self.peers[index]).cast();
        header.msg_namelen = peer_length;
        header.msg_iov = &raw mut self.send_iov[slot];
        header.msg_iovlen = 1;
        if self.info && flags & libc::MSG_CTRUNC == 0 {
            // What came with the packet is what sends the answer from the same address, once the interface is out of it.
            header.msg_control = control;
            header.msg_controllen = control_length;
            // SAFETY: as in `local`.
            unsafe { clear_interface(header) };
        } else {
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
        }
        self.filled += 1;
    }

    /// Sends every answer. What one client cannot be sent does not keep the others from theirs.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> u64 {
        let (mut at, mut failed) = (0, 0);
        while at < self.filled {
            let rest = &mut self.to_send[at..self.filled];
            // SAFETY: every header in the slice was filled by `answer` from buffers that still live.
            let sent = unsafe {
                libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0)
            };
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => at += sent,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    at += 1;
                    failed += 1;
                }
            }
        }
        self.filled = 0;
        failed
    }
}

/// # Safety
/// Zeroes must be a value of `T`.
unsafe fn zeroed<T>() -> T {
    // SAFETY: the caller's promise.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn read_address(storage: &libc::sockaddr_storage) -> SocketAddr {
    match i32::from(storage.ss_family) {
        libc::AF_INET6 => {
            // SAFETY: the family says what it is, and the storage is large enough and aligned for it.
            let from = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(from.sin6_addr.s6_addr);
            SocketAddr::new(ip.to_canonical(), u16::from_be(from.sin6_port))
        }
        _ => {
            // SAFETY: as above.
            let from = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(from.sin_addr.s_addr.to_ne_bytes());
            SocketAddr::new(ip.into(), u16::from_be(from.sin_port))
        }
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

/// Routing chooses the interface: the one a question came by may not be the way back. The local address stays as the
/// source (for IPv4 the kernel reads it from `ipi_spec_dst`).
///
/// # Safety
/// As for [`read_info`], and nobody else may hold the control buffer.
unsafe fn clear_interface(header: &libc::msghdr) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(message) = libc::CMSG_FIRSTHDR(header).as_ref() else { return };
        let data = libc::CMSG_DATA(message);
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                let at = data.cast::<libc::in_pktinfo>();
                let mut info = at.read_unaligned();
                info.ipi_ifindex = 0;
                info.ipi_spec_dst = info.ipi_addr;
                at.write_unaligned(info);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let at = data.cast::<libc::in6_pktinfo>();
                let mut info = at.read_unaligned();
                // A link-local address means nothing without its interface.
                if !Ipv6Addr::from(info.ipi6_addr.s6_addr).is_unicast_link_local() {
                    info.ipi6_ifindex = 0;
                }
                at.write_unaligned(info);
            }
            _ => {}
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
        header.msg_controllen = write_info(&header, local) as _;
        libc::sendmsg(socket.as_raw_fd(), &raw const header, 0)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// The header's control buffer must have [`CONTROL_BYTES`] and be ours.
unsafe fn write_info(header: &libc::msghdr, local: IpAddr) -> usize {
    // SAFETY: the caller's promise: the first message fits.
    unsafe {
        let Some(message) = libc::CMSG_FIRSTHDR(header).as_mut() else { return 0 };
        let data = libc::CMSG_DATA(message);
        let size = match local {
            IpAddr::V4(ip) => {
                let mut info: libc::in_pktinfo = zeroed();
                info.ipi_spec_dst.s_addr = u32::from_ne_bytes(ip.octets());
                (message.cmsg_level, message.cmsg_type) = (libc::IPPROTO_IP, libc::IP_PKTINFO);
                data.cast::<libc::in_pktinfo>().write_unaligned(info);
                size_of::<libc::in_pktinfo>()
            }
            IpAddr::V6(ip) => {
                let mut info: libc::in6_pktinfo = zeroed();
                info.ipi6_addr.s6_addr = ip.octets();
                (message.cmsg_level, message.cmsg_type) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
                data.cast::<libc::in6_pktinfo>().write_unaligned(info);
                size_of::<libc::in6_pktinfo>()
            }
        };
        message.cmsg_len = libc::CMSG_LEN(size as u32) as _;
        libc::CMSG_SPACE(size as u32) as usize
    }
}
