//! The socket on which beats come and go, with the time at which the kernel received each: a thread that is late to read
//! must not take what has waited for it for the newest news.

#![allow(unsafe_code, reason = "control messages of time stamps have no safe interface")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// More has not waited: a clock was set.
const AGE_MAX: Duration = Duration::from_mins(1);

pub(crate) struct Ears(UdpSocket);

impl Ears {
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let on: libc::c_int = 1;
        // SAFETY: the pointer is to a live integer, and the length is its own.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_TIMESTAMPNS,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as u32,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(socket)) }
    }

    pub(crate) fn send(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        self.0.send_to(bytes, to).map(drop)
    }

    /// One datagram: its length in `buffer`, and when it came. The error `WouldBlock` says that there is none.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Instant)> {
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // Aligned for control messages, and room enough for the one that was asked for.
        let mut control = [0_u64; 16];
        // SAFETY: a header of zeros is a valid value of this plain structure.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 16]>() as _;
        // SAFETY: the header points to live buffers of the lengths that it names.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        if length < 0 {
            return Err(io::Error::last_os_error());
        }
        let now = Instant::now();
        let age = stamp(&message).map_or(Duration::ZERO, age);
        Ok((length as usize, now.checked_sub(age).unwrap_or(now)))
    }
}

impl AsFd for Ears {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The kernel's time stamp in a received message, since 1970.
fn stamp(message: &libc::msghdr) -> Option<Duration> {
    // SAFETY: the header is as the kernel filled it in, and its control buffer is alive; the macros stay within it.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = libc::CMSG_DATA(header).cast::<libc::timespec>().read_unaligned();
                return Some(Duration::new(
                    u64::try_from(time.tv_sec).ok()?,
                    u32::try_from(time.tv_nsec).ok()?,
                ));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn age(stamp: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(stamp).min(AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_waited_says_when_it_came() {
        let ears = Ears::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let to = ears.0.local_addr().unwrap();
        let mut buffer = [0; 16];
        // The kernel begins to stamp some time after the first socket of the machine has asked for it.
        let stamped = (0..50).any(|_| {
            let before = Instant::now();
            ears.send(b"one", to).unwrap();
            let sent = Instant::now();
            // Whatever else the machine does meanwhile only makes it wait longer.
            std::thread::sleep(Duration::from_millis(60));
            let (length, arrived) = ears.receive(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"one");
            // Two clocks are compared: a little either way.
            let slack = Duration::from_millis(20);
            assert!(arrived + slack >= before, "{:?}", arrived.elapsed());
            arrived <= sent + slack
        });
        assert!(stamped, "what has waited seems to have come just now");
        assert_eq!(ears.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
