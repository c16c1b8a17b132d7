//! The address that pods and other nodes reach this host at.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use ipnet::IpNet;
use portolan_netlink::rt::Rt;

use crate::failure::Failure;

/// Taken on `lo` where a host has no address at all, such as a namespace made for an experiment.
const LAST_RESORT: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);
/// Never sent to: asking the kernel for a route to it tells the default route's own address (RFC 5737).
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// The one asked for; else that of the default route; else the first one that is not loopback or link-local; else one
/// that the host is given on its loopback.
pub(crate) fn find(asked: Option<IpAddr>) -> anyhow::Result<IpAddr> {
    if let Some(ip) = asked {
        return if usable(ip) { Ok(ip) } else { Err(Failure::NoNodeAddress.into()) };
    }
    if let Some(ip) = of_default_route() {
        return Ok(ip);
    }
    let mut rt = Rt::open()?;
    let addresses = rt.addresses()?;
    if let Some(ip) =
        addresses.iter().map(|address| address.net.addr()).find(|ip| ip.is_ipv4() && usable(*ip))
    {
        return Ok(ip);
    }
    rt.set_up("lo")?;
    rt.add_address("lo", IpNet::from(IpAddr::V4(LAST_RESORT)))?;
    tracing::warn!(address = %LAST_RESORT, "this host has no address: it takes one on lo, good for this host alone");
    Ok(LAST_RESORT.into())
}

fn of_default_route() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| usable(*ip))
}

fn usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}
