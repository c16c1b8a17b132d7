//! A server that looks nothing up: every question comes back with one fixed address added. It takes and sends as many
//! messages with one call as ours does and also lets the kernel cut what goes to one client, so it shows what is left for
//! a look-up.

#![expect(unsafe_code, reason = "recvmmsg and sendmmsg have no safe wrapper")]

use std::mem::zeroed;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

/// In every answer (RFC 5737).
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BATCH: usize = 128;
const BYTES: usize = 21 * 64;
/// A pointer to the question, A, IN, five seconds, the address.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 192, 0, 2, 1];

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 24]);

pub(crate) fn serve(port: u16) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("a port");
    _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
    let mut buffers = vec![[0u8; BYTES]; BATCH];
    // SAFETY: plain C structures for which zeroes are a value.
    let (mut peers, mut received, mut to_send, mut iov): (
        [libc::sockaddr_in; BATCH],
        [libc::mmsghdr; BATCH],
        [libc::mmsghdr; BATCH],
        [libc::iovec; BATCH],
    ) = unsafe { (zeroed(), zeroed(), zeroed(), zeroed()) };
    let mut controls = [Control([0; 24]); BATCH];
    loop {
        for n in 0..BATCH {
            iov[n] = libc::iovec { iov_base: buffers[n].as_mut_ptr().cast(), iov_len: BYTES - RECORD.len() };
            let header = &mut received[n].msg_hdr;
            header.msg_name = (&raw mut peers[n]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            (header.msg_iov, header.msg_iovlen) = (&raw mut iov[n], 1);
        }
        let (fd, wait, none) = (socket.as_raw_fd(), libc::MSG_WAITFORONE, std::ptr::null_mut());
        // SAFETY: every header leads to buffers of the lengths it says.
        let count = unsafe { libc::recvmmsg(fd, received.as_mut_ptr(), BATCH as _, wait, none) };
        let of = |n: usize| (peers[n].sin_port, received[n].msg_len, n);
        let mut order: Vec<_> = (0..usize::try_from(count).unwrap_or(0)).map(of).collect();
        order.sort_unstable();
        let (mut start, mut messages) = (0, 0);
        for run in order.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
            for (place, (_, length, n)) in run.iter().enumerate() {
                let length = *length as usize;
                iov[start + place] =
                    libc::iovec { iov_base: echo(&mut buffers[*n], length), iov_len: length + RECORD.len() };
            }
            let header = &mut to_send[messages].msg_hdr;
            header.msg_name = (&raw mut peers[run[0].2]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as _;
            (header.msg_iov, header.msg_iovlen) = (&raw mut iov[start], run.len() as _);
            header.msg_controllen = 0;
            if run.len() > 1 {
                header.msg_control = controls[messages].0.as_mut_ptr().cast();
                header.msg_controllen = controls[messages].0.len() as _;
                cut_into(header, iov[start].iov_len as u16);
            }
            start += run.len();
            messages += 1;
        }
        // SAFETY: the first `messages` headers have just been filled from buffers that still live.
        unsafe { libc::sendmmsg(socket.as_raw_fd(), to_send.as_mut_ptr(), messages as _, 0) };
    }
}

/// Turns a question into its answer, without reading it.
fn echo(buffer: &mut [u8; BYTES], length: usize) -> *mut libc::c_void {
    if length >= 12 {
        buffer[2..4].copy_from_slice(&[0x85, 0]);
        buffer[7] = 1;
        // No additional record.
        buffer[11] = 0;
    }
    buffer[length..length + RECORD.len()].copy_from_slice(&RECORD);
    buffer.as_mut_ptr().cast()
}

fn cut_into(header: &libc::msghdr, bytes: u16) {
    // SAFETY: the control buffer is 24 bytes and aligned: room for one message of two bytes.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(2) as _;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(bytes);
    }
}
