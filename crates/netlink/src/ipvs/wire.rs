//! IPVS messages: how they are written and read. The numbers are those of the kernel's `linux/ip_vs.h`.

use std::net::IpAddr;

use super::{Destination, DestinationState, Info, Op, Server, ServerKey, Timeouts};
use crate::codec::{Attrs, Writer};

pub(super) const NEW_SERVICE: u8 = 1;
pub(super) const SET_SERVICE: u8 = 2;
pub(super) const DEL_SERVICE: u8 = 3;
pub(super) const GET_SERVICE: u8 = 4;
pub(super) const NEW_DEST: u8 = 5;
pub(super) const SET_DEST: u8 = 6;
pub(super) const DEL_DEST: u8 = 7;
pub(super) const GET_DEST: u8 = 8;
pub(super) const SET_CONFIG: u8 = 12;
pub(super) const GET_CONFIG: u8 = 13;
pub(super) const GET_INFO: u8 = 15;
pub(super) const FLUSH: u8 = 17;

const SERVICE: u16 = 1;
const DEST: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

/// Of a virtual server.
mod svc {
    pub(super) const AF: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDR: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const FWMARK: u16 = 5;
    pub(super) const SCHED_NAME: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
    pub(super) const TIMEOUT: u16 = 8;
    pub(super) const NETMASK: u16 = 9;
}

/// Of a destination.
mod dest {
    pub(super) const ADDR: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FWD_METHOD: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const U_THRESH: u16 = 5;
    pub(super) const L_THRESH: u16 = 6;
    pub(super) const ACTIVE_CONNS: u16 = 7;
    pub(super) const INACT_CONNS: u16 = 8;
    pub(super) const PERSIST_CONNS: u16 = 9;
    pub(super) const ADDR_FAMILY: u16 = 11;
}

const SVC_F_PERSISTENT: u32 = 1;
/// The part of a destination's flags that says how it is reached, and its value for rewritten addresses.
const FWD_MASK: u32 = 7;
const FWD_MASQ: u32 = 0;

impl Op {
    pub(super) fn command(&self) -> u8 {
        match self {
            Self::NewServer(_) => NEW_SERVICE,
            Self::SetServer(_) => SET_SERVICE,
            Self::DelServer(_) => DEL_SERVICE,
            Self::NewDestination(..) => NEW_DEST,
            Self::SetDestination(..) => SET_DEST,
            Self::DelDestination(..) => DEL_DEST,
            Self::SetTimeouts(_) => SET_CONFIG,
        }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        match self {
            Self::NewServer(server) | Self::SetServer(server) => write_server(w, server),
            Self::DelServer(key) => write_key(w, key),
            Self::NewDestination(key, to) | Self::SetDestination(key, to) => {
                write_key(w, key);
                w.nested(DEST, |w| {
                    write_address(w, to.address, to.port);
                    w.ne32(dest::FWD_METHOD, FWD_MASQ);
                    w.ne32(dest::WEIGHT, to.weight);
                    w.ne32(dest::U_THRESH, 0);
                    w.ne32(dest::L_THRESH, 0);
                });
            }
            Self::DelDestination(key, address, port) => {
                write_key(w, key);
                w.nested(DEST, |w| write_address(w, *address, *port));
            }
            Self::SetTimeouts(timeouts) => {
                w.ne32(TIMEOUT_TCP, timeouts.tcp);
                w.ne32(TIMEOUT_TCP_FIN, timeouts.tcp_fin);
                w.ne32(TIMEOUT_UDP, timeouts.udp);
            }
        }
    }
}

fn ne16(w: &mut Writer, kind: u16, number: u16) {
    w.attr(kind, &number.to_ne_bytes());
}

fn af(ipv6: bool) -> u16 {
    (if ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u16
}

/// Addresses take sixteen bytes in both families.
fn union(address: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match address {
        IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => bytes = ip.octets(),
    }
    bytes
}

pub(super) fn write_key(w: &mut Writer, key: &ServerKey) {
    w.nested(SERVICE, |w| write_identity(w, key));
}

fn write_identity(w: &mut Writer, key: &ServerKey) {
    ne16(w, svc::AF, af(key.is_ipv6()));
    match key {
        ServerKey::Address { address, protocol, port } => {
            ne16(w, svc::PROTOCOL, (*protocol).into());
            w.attr(svc::ADDR, &union(*address));
            w.be16(svc::PORT, *port);
        }
        ServerKey::Mark { mark, .. } => w.ne32(svc::FWMARK, *mark),
    }
}

fn write_server(w: &mut Writer, server: &Server) {
    let flags = if server.persistence.is_some() { SVC_F_PERSISTENT } else { 0 };
    // A client is one address: a mask of all ones, which IPv6 counts.
    let mask = if server.key.is_ipv6() { 128 } else { u32::MAX };
    w.nested(SERVICE, |w| {
        write_identity(w, &server.key);
        w.string(svc::SCHED_NAME, &server.scheduler);
        let mut both = [0; 8];
        both[..4].copy_from_slice(&flags.to_ne_bytes());
        both[4..].copy_from_slice(&u32::MAX.to_ne_bytes());
        w.attr(svc::FLAGS, &both);
        w.ne32(svc::TIMEOUT, server.persistence.unwrap_or(0));
        w.ne32(svc::NETMASK, mask);
    });
}

fn write_address(w: &mut Writer, address: IpAddr, port: u16) {
    w.attr(dest::ADDR, &union(address));
    w.be16(dest::PORT, port);
    ne16(w, dest::ADDR_FAMILY, af(address.is_ipv6()));
}

fn read_ne16(attrs: &Attrs<'_>, kind: u16) -> Option<u16> {
    attrs.get(kind)?.payload.try_into().ok().map(u16::from_ne_bytes)
}

fn read_ne32(attrs: &Attrs<'_>, kind: u16) -> Option<u32> {
    attrs.get(kind)?.ne32()
}

fn read_address(attrs: &Attrs<'_>, kind: u16, ipv6: bool) -> Option<IpAddr> {
    let bytes: [u8; 16] = attrs.get(kind)?.payload.try_into().ok()?;
    Some(if ipv6 { IpAddr::from(bytes) } else { IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]]) })
}

pub(super) fn read_server(message: &Attrs<'_>) -> Option<Server> {
    let attrs = message.get(SERVICE)?.nested();
    let ipv6 = read_ne16(&attrs, svc::AF)? == af(true);
    let key = match read_ne32(&attrs, svc::FWMARK) {
        Some(mark) if mark != 0 => ServerKey::Mark { ipv6, mark },
        _ => ServerKey::Address {
            address: read_address(&attrs, svc::ADDR, ipv6)?,
            protocol: u8::try_from(read_ne16(&attrs, svc::PROTOCOL)?).ok()?,
            port: attrs.get(svc::PORT)?.be16()?,
        },
    };
    let flags = u32::from_ne_bytes(*attrs.get(svc::FLAGS)?.payload.first_chunk()?);
    let timeout = read_ne32(&attrs, svc::TIMEOUT)?;
    Some(Server {
        key,
        scheduler: attrs.get(svc::SCHED_NAME)?.text()?.into(),
        persistence: (flags & SVC_F_PERSISTENT != 0).then_some(timeout),
    })
}

/// `ipv6`: of the virtual server; older kernels do not say a destination's own.
pub(super) fn read_destination(message: &Attrs<'_>, ipv6: bool) -> Option<DestinationState> {
    let attrs = message.get(DEST)?.nested();
    let ipv6 = read_ne16(&attrs, dest::ADDR_FAMILY).map_or(ipv6, |family| family == af(true));
    Some(DestinationState {
        destination: Destination {
            address: read_address(&attrs, dest::ADDR, ipv6)?,
            port: attrs.get(dest::PORT)?.be16()?,
            weight: read_ne32(&attrs, dest::WEIGHT)?,
        },
        foreign: read_ne32(&attrs, dest::FWD_METHOD)? & FWD_MASK != FWD_MASQ,
        active: read_ne32(&attrs, dest::ACTIVE_CONNS)?,
        inactive: read_ne32(&attrs, dest::INACT_CONNS)?,
        persistent: read_ne32(&attrs, dest::PERSIST_CONNS)?,
    })
}

pub(super) fn read_timeouts(message: &Attrs<'_>) -> Option<Timeouts> {
    Some(Timeouts {
        tcp: read_ne32(message, TIMEOUT_TCP)?,
        tcp_fin: read_ne32(message, TIMEOUT_TCP_FIN)?,
        udp: read_ne32(message, TIMEOUT_UDP)?,
    })
}

pub(super) fn read_info(message: &Attrs<'_>) -> Option<Info> {
    let [_, major, minor, patch] = read_ne32(message, 1)?.to_be_bytes();
    Some(Info { version: [major, minor, patch], table_size: read_ne32(message, 2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Messages;

    fn round_trip(server: &Server) -> Option<Server> {
        let mut w = Writer::default();
        w.message(1, 0, 1, &[NEW_SERVICE, 1, 0, 0], |w| Op::NewServer(server.clone()).write(w));
        let bytes = w.finish().unwrap();
        read_server(&Messages(&bytes).next().unwrap().attrs(4))
    }

    #[test]
    fn servers_are_read_as_they_were_written() {
        let v4 = ServerKey::Address { address: "10.0.0.1".parse().unwrap(), protocol: 6, port: 80 };
        let v6 = ServerKey::Address { address: "fd00::1".parse().unwrap(), protocol: 17, port: 53 };
        for key in [v4, v6, ServerKey::Mark { ipv6: true, mark: 7 }] {
            for persistence in [None, Some(300)] {
                let server = Server { key, scheduler: "wlc".into(), persistence };
                assert_eq!(round_trip(&server), Some(server));
            }
        }
    }
}
