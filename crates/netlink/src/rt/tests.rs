//! Against the real kernel, in namespaces made here (root is needed).

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

use super::*;

/// A namespace of this test's own, removed at the end.
struct Temp {
    path: PathBuf,
    netns: Netns,
    rt: Rt,
}

impl Temp {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pt-rt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let netns = Netns::create(&path).unwrap();
        let rt = Rt::open_in(&netns).unwrap();
        Self { path, netns, rt }
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        drop(Netns::delete(&self.path));
    }
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn veth_pair(a: &mut Temp, b: &Temp) {
    let peer = VethPeer { name: "eth0", mac: Some(Mac([2, 0, 0, 0, 0, 2])), netns: Some(&b.netns) };
    a.rt.add_veth(&Veth { name: "v0", mac: Some(Mac([2, 0, 0, 0, 0, 1])), mtu: Some(1400), peer }).unwrap();
}

#[test]
fn a_veth_pair_spans_two_namespaces() {
    let (mut a, mut b) = (Temp::new(), Temp::new());
    veth_pair(&mut a, &b);
    let near = a.rt.link("v0").unwrap();
    assert_eq!(near.kind.as_deref(), Some("veth"));
    assert_eq!(near.mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert!(near.up && !near.running);
    b.rt.set_up("eth0").unwrap();
    let far = b.rt.link("eth0").unwrap();
    assert_eq!((far.mtu, far.up, far.running), (1400, true, true));
    assert!(a.rt.link("v0").unwrap().running);
    assert!(a.rt.link("eth0").is_err());
    assert_eq!(a.rt.links().unwrap().len(), 2, "lo and v0");

    a.rt.delete_link("v0").unwrap();
    assert!(b.rt.link("eth0").unwrap_err().is_missing());
}

#[test]
fn errors_name_the_object_and_the_reason() {
    let mut a = Temp::new();
    let error = a.rt.link("eth0").unwrap_err();
    assert_eq!(error.to_string(), "link eth0: no such device");
    assert!(error.is_missing());
    a.rt.add_bridge("br0").unwrap();
    let error = a.rt.add_bridge("br0").unwrap_err();
    assert_eq!(error.to_string(), "link br0: file exists");
    assert!(error.is_present());
    let error = a.rt.add_route(&Route::via(net("10.0.0.0/8"), ip("192.0.2.1"))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "route 10.0.0.0/8 via 192.0.2.1: network is unreachable (Nexthop has invalid gateway)"
    );
}

#[test]
fn links_are_changed() {
    let mut a = Temp::new();
    let mut b = Temp::new();
    a.rt.add_bridge("br0").unwrap();
    a.rt.add_veth(&Veth {
        name: "d0",
        mac: None,
        mtu: None,
        peer: VethPeer { name: "d9", mac: None, netns: None },
    })
    .unwrap();
    a.rt.set_down("d0").unwrap();
    a.rt.set_master("d0", Some("br0")).unwrap();
    a.rt.set_up("br0").unwrap();
    a.rt.set_mtu("d0", 1300).unwrap();
    a.rt.set_mac("d0", Mac([2, 1, 1, 1, 1, 1])).unwrap();
    a.rt.rename("d0", "d1").unwrap();
    let bridge = a.rt.link("br0").unwrap();
    let port = a.rt.link("d1").unwrap();
    assert!(bridge.up && !port.up);
    assert_eq!((port.master, port.mtu), (Some(bridge.index), 1300));
    assert_eq!(port.mac, Some(Mac([2, 1, 1, 1, 1, 1])));
    a.rt.set_down("br0").unwrap();
    a.rt.set_master("d1", None).unwrap();
    assert!(!a.rt.link("br0").unwrap().up);
    assert_eq!(a.rt.link("d1").unwrap().master, None);
    a.rt.move_to("d1", &b.netns).unwrap();
    assert!(a.rt.link("d1").is_err());
    assert_eq!(b.rt.link("d1").unwrap().kind.as_deref(), Some("veth"));
}

#[test]
fn addresses_come_and_go() {
    let mut a = Temp::new();
    a.rt.add_bridge("d0").unwrap();
    a.rt.set_up("d0").unwrap();
    let index = a.rt.link("d0").unwrap().index;
    for text in ["10.1.2.3/24", "fd00::1/64"] {
        let address = Address { link: index, net: net(text) };
        a.rt.add_address("d0", net(text)).unwrap();
        assert!(a.rt.addresses().unwrap().contains(&address), "{text}");
        assert!(a.rt.add_address("d0", net(text)).unwrap_err().is_present());
        a.rt.delete_address("d0", net(text)).unwrap();
        assert!(!a.rt.addresses().unwrap().contains(&address), "{text}");
        assert!(a.rt.delete_address("d0", net(text)).unwrap_err().is_missing());
    }
}

#[test]
fn routes_are_added_replaced_listed_and_deleted() {
    let mut a = Temp::new();
    a.rt.add_bridge("d0").unwrap();
    a.rt.set_up("d0").unwrap();
    let link = a.rt.link("d0").unwrap().index;
    a.rt.add_address("d0", net("10.1.0.1/24")).unwrap();
    a.rt.add_address("d0", net("fd00:1::1/64")).unwrap();
    let plain = Route { link: Some(link), ..Route::via(net("10.2.0.0/16"), ip("10.1.0.2")) };
    let onlink = Route { link: Some(link), onlink: true, ..Route::via(net("0.0.0.0/0"), ip("169.254.1.1")) };
    let six =
        Route { link: Some(link), metric: Some(1024), ..Route::via(net("fd00:2::/64"), ip("fd00:1::2")) };
    for route in [&plain, &onlink, &six, &Route::on_link(net("10.3.0.1/32"), link)] {
        a.rt.add_route(route).unwrap();
        assert!(a.rt.routes().unwrap().contains(route), "{route}: {:#?}", a.rt.routes().unwrap());
        assert!(a.rt.add_route(route).unwrap_err().is_present());
        a.rt.replace_route(route).unwrap();
    }
    let moved = Route { gateway: Some(ip("10.1.0.3")), ..plain.clone() };
    a.rt.replace_route(&moved).unwrap();
    let routes = a.rt.routes().unwrap();
    assert!(routes.contains(&moved) && !routes.contains(&plain));
    a.rt.delete_route(&moved).unwrap();
    assert!(a.rt.delete_route(&moved).unwrap_err().is_missing());

    a.rt.add_route(&Route::blackhole(net("10.9.0.0/16"))).unwrap();
    let ours = |r: &Route| r.protocol == PROTOCOL_PORTOLAN && r.kind == RouteKind::Blackhole;
    let found: Vec<Route> = a.rt.routes().unwrap().into_iter().filter(ours).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].destination, net("10.9.0.0/16"));
}

#[test]
fn neighbours_are_permanent() {
    let (mut a, b) = (Temp::new(), Temp::new());
    veth_pair(&mut a, &b);
    let link = a.rt.link("v0").unwrap().index;
    let (first, second) = (Mac([2, 0, 0, 0, 0, 9]), Mac([2, 0, 0, 0, 0, 8]));
    a.rt.add_neighbour("v0", ip("169.254.1.1"), first).unwrap();
    assert!(a.rt.add_neighbour("v0", ip("169.254.1.1"), first).unwrap_err().is_present());
    a.rt.replace_neighbour("v0", ip("169.254.1.1"), second).unwrap();
    a.rt.replace_neighbour("v0", ip("fe80::1"), first).unwrap();
    let neighbours = a.rt.neighbours().unwrap();
    for (address, mac) in [("169.254.1.1", second), ("fe80::1", first)] {
        let entry = Neighbour { link, address: ip(address), mac: Some(mac), permanent: true };
        assert!(neighbours.contains(&entry), "{address}: {neighbours:?}");
    }
    a.rt.delete_neighbour("v0", ip("fe80::1")).unwrap();
    assert!(!a.rt.neighbours().unwrap().iter().any(|n| n.address == ip("fe80::1") && n.permanent));
}
