//! Routes to the pods of other nodes, and one that ends packets to pods of this node that are not there.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netlink::rt::{PROTOCOL_PORTOLAN, Route, RouteKind, Rt};

use super::NodeView;

/// The routes that this node must have. Pure.
///
/// A packet to an address of the node's own range that no pod has must not follow the default route, on which it would
/// come back until its time to live ends; its sender is told that there is nobody.
pub(super) fn wanted<'a>(own_name: &str, nodes: impl Iterator<Item = &'a NodeView>) -> Vec<Route> {
    let mut routes = Vec::new();
    for node in nodes {
        for range in &node.ranges {
            if node.name == own_name {
                routes.push(Route::unreachable(*range));
            } else if let Some(gateway) = node.address_like(*range) {
                routes.push(Route::via(*range, gateway));
            }
        }
    }
    routes
}

impl NodeView {
    /// The node's address of the same family as `range`.
    fn address_like(&self, range: IpNet) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|ip| ip.is_ipv4() == range.addr().is_ipv4())
    }
}

/// What to change: routes to put in place, and routes of ours that nobody wants any more. Pure.
pub(super) fn diff<'a>(present: &'a [Route], wanted: &'a [Route]) -> (Vec<&'a Route>, Vec<&'a Route>) {
    let same =
        |a: &Route, b: &Route| (a.destination, a.kind, a.gateway) == (b.destination, b.kind, b.gateway);
    let has = |list: &[Route], route: &Route| list.iter().any(|other| same(other, route));
    // Ours are told from those to single pods, which are ours too, by where they lead.
    let ours = |r: &&Route| {
        r.protocol == PROTOCOL_PORTOLAN && (r.gateway.is_some() || r.kind == RouteKind::Unreachable)
    };
    let put = wanted.iter().filter(|route| !has(present, route)).collect();
    let replaced =
        |route: &Route| wanted.iter().any(|w| w.destination == route.destination && w.kind == route.kind);
    let remove = present.iter().filter(ours).filter(|r| !has(wanted, r) && !replaced(r)).collect();
    (put, remove)
}

/// Makes the kernel's routes those that are wanted. Goes on after an error; returns all of them.
pub(super) fn apply(wanted: &[Route]) -> Vec<String> {
    let mut rt = match Rt::open() {
        Ok(rt) => rt,
        Err(e) => return vec![e.to_string()],
    };
    let present = match rt.routes() {
        Ok(routes) => routes,
        Err(e) => return vec![e.to_string()],
    };
    let (put, remove) = diff(&present, wanted);
    let mut errors = Vec::new();
    // Removals first: a range that passed to another kind of route must not meet its old one.
    for route in remove {
        errors.extend(rt.delete_route(route).err().filter(|e| !e.is_missing()).map(|e| e.to_string()));
    }
    for route in put {
        errors.extend(rt.replace_route(route).err().map(|e| e.to_string()));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, address: &str, range: &str) -> NodeView {
        NodeView {
            name: name.into(),
            addresses: vec!["fd00::1".parse().unwrap(), address.parse().unwrap()],
            ready: true,
            ranges: vec![range.parse().unwrap()],
        }
    }

    fn text(routes: &[&Route]) -> Vec<String> {
        routes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn others_by_their_address_and_the_own_range_to_nowhere() {
        let nodes = [node("a", "192.0.2.1", "10.1.0.0/24"), node("b", "192.0.2.2", "10.1.1.0/24")];
        let routes = wanted("a", nodes.iter());
        let all: Vec<&Route> = routes.iter().collect();
        assert_eq!(text(&all), ["route 10.1.0.0/24 unreachable", "route 10.1.1.0/24 via 192.0.2.2"]);
    }

    #[test]
    fn a_node_without_range_or_address_has_no_route() {
        let mut bare = node("b", "192.0.2.2", "10.1.1.0/24");
        bare.addresses.clear();
        assert_eq!(wanted("a", [bare].iter()), []);
        let mut bare = node("b", "192.0.2.2", "10.1.1.0/24");
        bare.ranges.clear();
        assert_eq!(wanted("a", [bare].iter()), []);
    }

    #[test]
    fn only_differences_change_and_only_ours_go() {
        let via = |range: &str, gateway: &str| Route::via(range.parse().unwrap(), gateway.parse().unwrap());
        let kept = via("10.1.1.0/24", "192.0.2.2");
        let moved = via("10.1.2.0/24", "192.0.2.3");
        let gone = via("10.1.3.0/24", "192.0.2.4");
        let others = Route { protocol: 4, ..via("0.0.0.0/0", "192.0.2.254") };
        let pod = Route::on_link("10.1.0.5/32".parse().unwrap(), portolan_netlink::rt::LinkIndex(7));
        let present = [kept.clone(), moved, gone.clone(), others, pod];
        let new = via("10.1.2.0/24", "192.0.2.9");
        let wanted = [kept, new.clone()];
        let (put, remove) = diff(&present, &wanted);
        assert_eq!(put, [&new]);
        assert_eq!(remove, [&gone]);
    }
}
