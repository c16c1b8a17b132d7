//! Packet sockets (packet(7)): one per link and family, with a filter in the kernel, so that only the neighbourhood's
//! own talk wakes the announcer and never the traffic of the addresses themselves.

#![allow(unsafe_code, reason = "packet sockets have no safe interface")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::ndp::{group_mac, solicited_group};

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// The largest frame that is of interest: neighbour discovery with a few options.
pub const FRAME_BYTES_MAX: usize = 512;

/// What a socket listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    Arp,
    Ndp,
}

/// A socket on one link.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: u32,
}

const fn code(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const WHOLE: u32 = FRAME_BYTES_MAX as u32;

/// ARP for IPv4: requests and replies.
static ARP_FILTER: [libc::sock_filter; 7] = [
    code(LOAD_HALF, 0, 0, 16),
    code(EQUAL, 0, 4, 0x0800),
    code(LOAD_HALF, 0, 0, 20),
    code(EQUAL, 1, 0, 1),
    code(EQUAL, 0, 1, 2),
    code(RETURN, 0, 0, WHOLE),
    code(RETURN, 0, 0, 0),
];

/// `ICMPv6` solicitations and advertisements of neighbours, without extension headers before them.
static NDP_FILTER: [libc::sock_filter; 7] = [
    code(LOAD_BYTE, 0, 0, 20),
    code(EQUAL, 0, 4, 58),
    code(LOAD_BYTE, 0, 0, 54),
    code(EQUAL, 1, 0, 135),
    code(EQUAL, 0, 1, 136),
    code(RETURN, 0, 0, WHOLE),
    code(RETURN, 0, 0, 0),
];

/// Lets nothing through until the real filter and the link are set.
static NOTHING: [libc::sock_filter; 1] = [code(RETURN, 0, 0, 0)];

impl PacketSocket {
    /// Opens a socket on a link, in the network namespace of the calling thread. Needs `CAP_NET_RAW`.
    pub fn open(index: u32, family: Family) -> io::Result<Self> {
        let protocol = match family {
            Family::Arp => ETH_P_ARP,
            Family::Ndp => ETH_P_IPV6,
        };
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0: nothing is received before the socket is bound.
        // SAFETY: the call takes no pointers; its result is checked before it is owned.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        let socket = Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, index };
        socket.filter(&NOTHING)?;
        socket.bind(protocol)?;
        socket.filter(match family {
            Family::Arp => &ARP_FILTER,
            Family::Ndp => &NDP_FILTER,
        })?;
        Ok(socket)
    }

    fn filter(&self, program: &'static [libc::sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        self.option(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    fn bind(&self, protocol: u16) -> io::Result<()> {
        // SAFETY: an address of zeros is a valid value of this plain structure.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = self.index as i32;
        let length = size_of::<libc::sockaddr_ll>() as u32;
        // SAFETY: the pointer is to a live sockaddr_ll, and the length is its own.
        let result = unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) };
        check(result)
    }

    fn option<T>(&self, level: i32, name: i32, value: &T) -> io::Result<()> {
        let length = size_of::<T>() as u32;
        // SAFETY: the pointer is to a live value, and the length is its own.
        let result = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
        };
        check(result)
    }

    /// Hears questions about an IPv6 address, or stops to. The kernel counts: each join needs its leave.
    pub fn membership(&self, ip: Ipv6Addr, join: bool) -> io::Result<()> {
        let mac = group_mac(solicited_group(ip));
        let mut address = [0; 8];
        address[..6].copy_from_slice(&mac);
        let request = libc::packet_mreq {
            mr_ifindex: self.index as i32,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: address,
        };
        let name = if join { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
        self.option(libc::SOL_PACKET, name, &request)
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: pointer and length are those of a live slice.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// One frame that others sent, if there is one: its length in `buffer`.
    pub fn receive(&self, buffer: &mut [u8; FRAME_BYTES_MAX]) -> io::Result<Option<usize>> {
        loop {
            // SAFETY: an address of zeros is a valid value of this plain structure.
            let mut from: libc::sockaddr_ll = unsafe { zeroed() };
            let mut length = size_of::<libc::sockaddr_ll>() as u32;
            // SAFETY: buffer and address are live, and their lengths are their own.
            let read = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            if read < 0 {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(None),
                    io::ErrorKind::Interrupted => continue,
                    _ => Err(error),
                };
            }
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                return Ok(Some(read as usize));
            }
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
