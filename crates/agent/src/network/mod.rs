//! The pod network of this node: a veth pair per pod, routed, without a bridge.
//!
//! ```text
//!   pod                                node
//!   eth0  podIP/32  ================  pt1a2b3c4d5e6  (no address)
//!   default via 169.254.1.1 onlink    podIP/32 dev pt1a2b3c4d5e6 src nodeIP
//!   169.254.1.1 lladdr GATEWAY_MAC    podIP lladdr of the pod, permanent
//! ```
//!
//! Traffic between two pods of a node is *routed* by the node, so it passes the node's IP hooks as all other traffic
//! does: Service addresses, and pods that reach themselves through one, work without bridge settings.
//!
//! Both ends know each other's Ethernet address for good, set as permanent neighbours. The other way would be to have
//! the node answer ARP for 169.254.1.1 (`proxy_arp`). Permanent entries win: the first packet of a pod leaves at once
//! (proxied answers are delayed at random by up to 0.8 s unless a further sysctl is set), nothing expires or is asked
//! again under load, the neighbour table of the node is not subject to collection, and no sysctl of the link matters.
//!
//! Only IPv4 so far; a pod's addresses are a list of [`std::net::IpAddr`] everywhere else.

pub(crate) mod addresses;
pub(crate) mod egress;
mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;
use portolan_client::Key;
use portolan_netlink::netns::Netns;

use crate::{Config, Error};
use addresses::Addresses;

/// The name of a pod's link on the node: `pt` and a hash, within the 15 characters the kernel allows.
pub(crate) fn link_name(node: &str, pod: &Key) -> String {
    // FNV-1a: the same in every version of this program, unlike the standard library's hashes.
    let hash = format!("{node}/{pod}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("pt{:013x}", hash >> 12)
}

/// Gives pods their addresses and wires them.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    node_name: String,
    node_ip: IpAddr,
    mtu: Option<u32>,
    addresses: Mutex<Option<Addresses>>,
}

/// A pod's place in the network.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) netns: Arc<Netns>,
    pub(crate) address: Ipv4Addr,
    link: String,
}

impl PodNetwork {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            node_name: config.node_name.clone(),
            node_ip: config.node_ip(),
            mtu: config.network.mtu,
            addresses: Mutex::new(None),
        }
    }

    /// Sets the node's range. A range that changes later counts for new pods; those that run keep their addresses.
    pub(crate) fn set_range(&self, range: Ipv4Net) {
        self.lock().get_or_insert_with(|| Addresses::new(range)).set_range(range);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Addresses>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the pod's namespace at `path` and wires it. Blocks. `preferred` is the address the pod had before, if any.
    pub(crate) fn attach(
        &self,
        pod: &Key,
        path: &Path,
        preferred: Option<Ipv4Addr>,
    ) -> Result<Attachment, Error> {
        let address = {
            let mut addresses = self.lock();
            let addresses = addresses.as_mut().ok_or(Error::NoRange)?;
            addresses.take(preferred).ok_or_else(|| Error::NoFreeAddress(addresses.range()))?
        };
        let link = link_name(&self.node_name, pod);
        let wired = wire::connect(path, &link, address, self.node_ip, self.mtu);
        match wired {
            Ok(netns) => Ok(Attachment { netns: Arc::new(netns), address, link }),
            Err(e) => {
                self.release(address);
                Err(e)
            }
        }
    }

    /// Undoes [`Self::attach`]: the link and the address; the namespace is its directory's matter. Blocks.
    pub(crate) fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        let result = wire::disconnect(&attachment.link);
        self.release(attachment.address);
        result
    }

    fn release(&self, address: Ipv4Addr) {
        if let Some(addresses) = self.lock().as_mut() {
            addresses.release(address);
        }
    }
}

/// Makes this node pass packets on.
pub(crate) fn enable_forwarding() -> Result<(), Error> {
    Ok(Netns::current()?.set_sysctl("net/ipv4/ip_forward", "1")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_fit_and_differ() {
        let name = |node: &str, pod: &str| link_name(node, &Key::new("shop", pod));
        assert_eq!(name("node-a", "web-1").len(), 15);
        assert_eq!(name("node-a", "web-1"), name("node-a", "web-1"));
        assert_ne!(name("node-a", "web-1"), name("node-a", "web-2"));
        assert_ne!(name("node-a", "web-1"), name("node-b", "web-1"));
        let many: std::collections::BTreeSet<String> =
            (0..10_000).map(|n| name("node-a", &format!("web-{n}"))).collect();
        assert_eq!(many.len(), 10_000);
    }
}
