//! The network of a lab: a bridge in a namespace of its own, and one veth pair to each host.
//!
//! Every link is made inside the lab's namespaces; the machine's own network never sees one.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Route, Rt, Veth, VethPeer};

use crate::error::LabError;
use crate::layout::{Host, Layout};

const BRIDGE: &str = "br0";
/// `RTPROT_STATIC`: set by an administrator, so none of the agent's to remove.
const PROTOCOL_STATIC: u8 = 4;
/// Each host's link on the segment.
pub(crate) const LINK: &str = "eth0";

pub(crate) fn build(layout: &Layout, ipv6: bool) -> Result<(), LabError> {
    let segment = Netns::create(&layout.netns(Host::Segment))?;
    let mut rt = Rt::open_in(&segment)?;
    rt.set_up("lo")?;
    rt.add_bridge(BRIDGE)?;
    rt.set_up(BRIDGE)?;
    Host::Segment.nets(ipv6).try_for_each(|net| rt.add_address(BRIDGE, net))?;
    for host in layout.hosts().filter(|host| *host != Host::Segment) {
        attach(layout, host, &mut rt, ipv6)?;
    }
    Ok(())
}

fn attach(layout: &Layout, host: Host, segment: &mut Rt, ipv6: bool) -> Result<(), LabError> {
    let netns = Netns::create(&layout.netns(host))?;
    if ipv6 {
        // Addresses are usable at once: nobody else is there who could have them.
        netns.set_sysctl("net/ipv6/conf/all/accept_dad", "0")?;
        if matches!(host, Host::Node(_)) {
            // An administrator's decision on a real host, as a router ignores other routers.
            netns.set_sysctl("net/ipv6/conf/all/forwarding", "1")?;
        }
    }
    let port = host.to_string();
    let peer = VethPeer { name: LINK, mac: None, netns: Some(&netns) };
    segment.add_veth(&Veth { name: &port, mac: None, mtu: None, peer })?;
    segment.set_master(&port, Some(BRIDGE))?;
    let mut rt = Rt::open_in(&netns)?;
    rt.set_up("lo")?;
    rt.set_up(LINK)?;
    host.nets(ipv6).try_for_each(|net| rt.add_address(LINK, net))?;
    if matches!(host, Host::Node(_) | Host::ControlPlane) {
        // As on any real node. Outside hosts know the segment and nothing else.
        let mut route = Route::via(default_route(), Host::Segment.ip());
        route.protocol = PROTOCOL_STATIC;
        rt.add_route(&route)?;
    }
    Ok(())
}

/// Routes from the control plane to the pods of each node, as an administrator adds them to a host that is no node: the
/// API server is a proxy for pods.
pub(crate) fn reach_pods(layout: &Layout, ranges: &[(Host, IpNet)]) -> Result<(), LabError> {
    let mut rt = Rt::open_in(&Netns::open(&layout.netns(Host::ControlPlane))?)?;
    for (node, range) in ranges {
        let mut route = Route::via(*range, node.ip());
        route.protocol = PROTOCOL_STATIC;
        rt.replace_route(&route)?;
    }
    Ok(())
}

fn default_route() -> IpNet {
    IpNet::new_assert(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}
