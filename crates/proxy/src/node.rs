//! What the model must know of this node, from its Node object, the configuration and its own interfaces. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_forward::{Family, LocalTraffic, NodePortAddresses, NodeView};

use crate::config::{Config, DetectLocal, NodePortAddresses as Wanted};
use crate::views::NodeObject;

/// `interfaces` are the addresses of the node's interfaces; read only where node ports listen on ranges.
pub fn view(config: &Config, node: &NodeObject, service_cidrs: &[IpNet], interfaces: &[IpAddr]) -> NodeView {
    NodeView {
        name: config.node_name.as_str().into(),
        zone: node.zone.clone(),
        addresses: addresses(config, node).to_vec(),
        local_traffic: local_traffic(config, node),
        node_port_addresses: node_port_addresses(config, node, interfaces),
        masquerade_all: config.masquerade_all,
        service_cidrs: service_cidrs.to_vec(),
    }
}

/// Those of the configuration, if it has any.
fn addresses<'a>(config: &'a Config, node: &'a NodeObject) -> &'a [IpAddr] {
    if config.node_addresses.is_empty() { &node.addresses } else { &config.node_addresses }
}

fn local_traffic(config: &Config, node: &NodeObject) -> LocalTraffic {
    let cidrs = |cidrs: &[IpNet]| {
        if cidrs.is_empty() { LocalTraffic::Unknown } else { LocalTraffic::Cidrs(cidrs.to_vec()) }
    };
    match &config.detect_local {
        DetectLocal::ClusterCidr => cidrs(&config.cluster_cidrs),
        DetectLocal::NodeCidr => cidrs(&node.pod_cidrs),
        DetectLocal::BridgeInterface(name) => LocalTraffic::Interface(name.clone()),
        DetectLocal::InterfaceNamePrefix(prefix) => LocalTraffic::InterfacePrefix(prefix.clone()),
        DetectLocal::Nothing => LocalTraffic::Unknown,
    }
}

/// NP-2. Loopback addresses never take node ports here.
fn node_port_addresses(config: &Config, node: &NodeObject, interfaces: &[IpAddr]) -> NodePortAddresses {
    let ranges = match &config.nodeport_addresses {
        Wanted::Primary => return NodePortAddresses::Addresses(addresses(config, node).to_vec()),
        Wanted::Cidrs(ranges) => ranges,
    };
    let all = |family: Family| {
        let mut of_family = ranges.iter().filter(|range| Family::of(range.addr()) == family).peekable();
        of_family.peek().is_none() || of_family.any(|range| range.prefix_len() == 0)
    };
    if Family::ALL.into_iter().all(all) {
        return NodePortAddresses::All;
    }
    let within = |ip: &&IpAddr| all(Family::of(**ip)) || ranges.iter().any(|range| range.contains(*ip));
    let mut addresses: Vec<IpAddr> =
        interfaces.iter().filter(|ip| !ip.is_loopback()).filter(within).copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    NodePortAddresses::Addresses(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn node() -> NodeObject {
        NodeObject {
            addresses: ips(&["192.0.2.1"]),
            pod_cidrs: nets(&["10.244.1.0/24"]),
            ..NodeObject::default()
        }
    }

    #[test]
    fn local_traffic_as_configured() {
        let mut config = Config::new("n1");
        let detected = |config: &Config| view(config, &node(), &[], &[]).local_traffic;
        assert_eq!(detected(&config), LocalTraffic::Unknown, "no cluster CIDR: no way to tell");
        config.cluster_cidrs = nets(&["10.244.0.0/16"]);
        assert_eq!(detected(&config), LocalTraffic::Cidrs(nets(&["10.244.0.0/16"])));
        config.detect_local = DetectLocal::NodeCidr;
        assert_eq!(detected(&config), LocalTraffic::Cidrs(nets(&["10.244.1.0/24"])));
        config.detect_local = DetectLocal::InterfaceNamePrefix("veth".into());
        assert_eq!(detected(&config), LocalTraffic::InterfacePrefix("veth".into()));
    }

    #[test]
    fn node_ports_listen_where_they_should() {
        let interfaces = ips(&["127.0.0.1", "192.0.2.1", "198.51.100.1", "2001:db8::1", "::1"]);
        let mut config = Config::new("n1");
        let listen = |config: &Config| view(config, &node(), &[], &interfaces).node_port_addresses;
        assert_eq!(listen(&config), NodePortAddresses::Addresses(ips(&["192.0.2.1"])));
        config.node_addresses = ips(&["192.0.2.9"]);
        assert_eq!(listen(&config), NodePortAddresses::Addresses(ips(&["192.0.2.9"])));
        config.node_addresses.clear();
        config.nodeport_addresses = Wanted::Cidrs(nets(&["198.51.100.0/24"]));
        assert_eq!(
            listen(&config),
            NodePortAddresses::Addresses(ips(&["198.51.100.1", "2001:db8::1"])),
            "a family without a range of its own means all of it"
        );
        config.nodeport_addresses = Wanted::Cidrs(nets(&["0.0.0.0/0", "::/0"]));
        assert_eq!(listen(&config), NodePortAddresses::All);
        config.nodeport_addresses = Wanted::Cidrs(nets(&["198.51.100.0/24", "2001:db8:1::/48"]));
        assert_eq!(listen(&config), NodePortAddresses::Addresses(ips(&["198.51.100.1"])));
    }
}
