//! TCP listeners, whose families are not left to the host's settings.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted; the kernel's own limit still holds.
const BACKLOG: i32 = 1024;

/// What an IPv6 address that stands for all takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// IPv4 connections as well, as in Go: for `[::]` alone.
    Both,
    /// IPv6 connections: `0.0.0.0` has the same port.
    Own,
}

/// Listens on `address`. Must be called within a runtime.
pub fn tcp(address: SocketAddr, families: Families) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(families == Families::Own)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[tokio::test]
    async fn one_port_of_both_families_is_had_by_two_listeners_or_by_one() {
        let four = tcp((Ipv4Addr::UNSPECIFIED, 0).into(), Families::Own).unwrap();
        let port = four.local_addr().unwrap().port();
        let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        assert_eq!(tcp(six, Families::Both).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let six = tcp(six, Families::Own).unwrap();
        drop((four, six));
        let both = tcp((Ipv6Addr::UNSPECIFIED, port).into(), Families::Both).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (connected, accepted) = tokio::join!(tokio::net::TcpStream::connect(address), both.accept());
        assert_eq!(connected.unwrap().local_addr().unwrap().port(), accepted.unwrap().1.port());
    }
}
