//! A route for ClusterIPs, on hosts that have no default route.
//!
//! The kernel looks for a route before the proxy's rules see a packet of the host's own: without any, a connect to a
//! ClusterIP fails with "network unreachable". Where a default route exists nothing is added.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netlink::rt::{Route, RouteKind, Rt};

/// Makes sure that each range has some route. What is added leads nowhere by itself: the rules turn the packet away
/// before it gets there.
pub(crate) fn ensure(ranges: &[IpNet], node_ip: IpAddr) -> anyhow::Result<()> {
    let mut rt = Rt::open()?;
    let routes = rt.routes()?;
    let loopback = rt.link("lo")?.index;
    for range in ranges.iter().filter(|range| range.addr().is_ipv4() == node_ip.is_ipv4()) {
        let covers = |route: &Route| route.kind == RouteKind::Unicast && route.destination.contains(range);
        if routes.iter().any(covers) {
            continue;
        }
        rt.set_up("lo")?;
        let mut route = Route::on_link(*range, loopback);
        route.source = Some(node_ip);
        rt.replace_route(&route)?;
        tracing::info!(%range, "no default route: added a route for ClusterIPs");
    }
    Ok(())
}
