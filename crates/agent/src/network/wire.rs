//! Wiring one pod.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};
use portolan_netlink::netns::Netns;
use portolan_netlink::rt::{Mac, Route, Rt, Veth, VethPeer};

use crate::Error;

/// The next hop of every pod: nobody's address, an entry of each pod's own neighbour table.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The node's end of every pair. The pairs are separate wires, so one address serves them all. Locally administered.
const GATEWAY_MAC: Mac = Mac([0x02, 0x70, 0x74, 0xff, 0xff, 0xff]);
const POD_LINK: &str = "eth0";

/// The pod's end; locally administered, derived from its address so that captures are easy to read.
fn pod_mac(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x70, a, b, c, d])
}

fn host(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

/// Makes the namespace and both ends of the wire. Leaves nothing behind if it fails.
pub(super) fn connect(
    path: &Path,
    link: &str,
    address: Ipv4Addr,
    node_ip: IpAddr,
    mtu: Option<u32>,
) -> Result<Netns, Error> {
    // A name left over from a start that failed half-way.
    Netns::delete(path)?;
    let netns = Netns::create(path)?;
    let wired = wire(&netns, link, address, node_ip, mtu);
    if let Err(e) = wired {
        drop(disconnect(link));
        drop(Netns::delete(path));
        return Err(e);
    }
    Ok(netns)
}

fn wire(
    netns: &Netns,
    link: &str,
    address: Ipv4Addr,
    node_ip: IpAddr,
    mtu: Option<u32>,
) -> Result<(), Error> {
    let mut node = Rt::open()?;
    let peer = VethPeer { name: POD_LINK, mac: Some(pod_mac(address)), netns: Some(netns) };
    let veth = Veth { name: link, mac: Some(GATEWAY_MAC), mtu, peer };
    match node.add_veth(&veth) {
        // An earlier pod of the same name, whose namespace is still being taken down by the kernel.
        Err(e) if e.is_present() => {
            node.delete_link(link)?;
            node.add_veth(&veth)?;
        }
        other => other?,
    }
    pod_side(netns, address)?;
    node_side(&mut node, link, address, node_ip)
}

fn pod_side(netns: &Netns, address: Ipv4Addr) -> Result<(), Error> {
    let mut pod = Rt::open_in(netns)?;
    pod.set_up("lo")?;
    pod.add_address(POD_LINK, host(address))?;
    pod.set_up(POD_LINK)?;
    let index = pod.link(POD_LINK)?.index;
    pod.add_neighbour(POD_LINK, GATEWAY, GATEWAY_MAC)?;
    let everywhere = IpNet::V4(Ipv4Net::default());
    pod.add_route(&Route { link: Some(index), onlink: true, ..Route::via(everywhere, GATEWAY) })?;
    // The node sends a packet back where it came from when a pod reaches itself through a Service; it would tell the
    // pod to take the direct way next time.
    netns.set_sysctl("net/ipv4/conf/all/accept_redirects", "0")?;
    netns.set_sysctl(&format!("net/ipv4/conf/{POD_LINK}/accept_redirects"), "0")?;
    Ok(())
}

fn node_side(node: &mut Rt, link: &str, address: Ipv4Addr, node_ip: IpAddr) -> Result<(), Error> {
    let index = node.link(link)?.index;
    node.replace_neighbour(link, IpAddr::V4(address), pod_mac(address))?;
    // The link has no address of its own: say which of the node's to use, where the node really has it.
    let own = node.addresses()?.iter().any(|a| a.net.addr() == node_ip);
    let source = Some(node_ip).filter(|ip| own && ip.is_ipv4());
    node.replace_route(&Route { source, ..Route::on_link(host(address), index) })?;
    Netns::current()?.set_sysctl(&format!("net/ipv4/conf/{link}/send_redirects"), "0")?;
    Ok(())
}

/// Removes the wire; that it is gone already is no error.
pub(super) fn disconnect(link: &str) -> Result<(), Error> {
    match Rt::open()?.delete_link(link) {
        Err(e) if !e.is_missing() => Err(e.into()),
        _ => Ok(()),
    }
}
