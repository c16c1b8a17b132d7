//! On which links an address is announced. Choosing is pure; [`scan`] asks the kernel.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_netlink::rt::{Error, Rt};

use super::Mac;

/// An Ethernet link that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub index: u32,
    pub name: String,
    pub mac: Mac,
    pub nets: Vec<IpNet>,
}

/// All links of this host that are up, connected, and Ethernet.
pub fn scan(rt: &mut Rt) -> Result<Vec<Segment>, Error> {
    let addresses = rt.addresses()?;
    let links = rt.links()?.into_iter().filter(|link| link.running);
    let segments = links.filter_map(|link| {
        let mac = link.mac.filter(|mac| mac.0 != [0; 6])?.0;
        let nets = addresses.iter().filter(|address| address.link == link.index).map(|address| address.net);
        Some(Segment { index: link.index.0, name: link.name, mac, nets: nets.collect() })
    });
    Ok(segments.collect())
}

/// Those named; else those in whose network the address is; else the node's own.
pub fn choose<'a>(segments: &'a [Segment], named: &[String], ip: IpAddr, node: IpAddr) -> Vec<&'a Segment> {
    let chosen = |fits: &dyn Fn(&Segment) -> bool| -> Vec<&'a Segment> {
        segments.iter().filter(|segment| fits(segment)).collect()
    };
    if !named.is_empty() {
        return chosen(&|segment| named.contains(&segment.name));
    }
    let within = chosen(&|segment| segment.nets.iter().any(|net| net.contains(&ip)));
    if !within.is_empty() {
        return within;
    }
    chosen(&|segment| segment.nets.iter().any(|net| net.addr() == node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_links_then_the_network_then_the_nodes_own() {
        let segment = |index, name: &str, net: &str| Segment {
            index,
            name: name.into(),
            mac: [index as u8; 6],
            nets: vec![net.parse().unwrap()],
        };
        let all = [segment(1, "eth0", "10.0.0.11/24"), segment(2, "eth1", "192.0.2.11/24")];
        let names = |named: &[&str], ip: &str| -> Vec<String> {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            let chosen = choose(&all, &named, ip.parse().unwrap(), "10.0.0.11".parse().unwrap());
            chosen.iter().map(|segment| segment.name.clone()).collect()
        };
        assert_eq!(names(&[], "192.0.2.77"), ["eth1"]);
        assert_eq!(names(&[], "203.0.113.1"), ["eth0"]);
        assert_eq!(names(&["eth0"], "192.0.2.77"), ["eth0"]);
        assert_eq!(names(&["eth9"], "192.0.2.77"), [""; 0]);
    }
}
