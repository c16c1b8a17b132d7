//! Why the agent could not start or go on as a whole. What goes wrong with one pod is that pod's event.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use portolan_netlink::{netns, rt};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: cannot {action}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot start the thread that starts processes: {0}")]
    Spawner(io::Error),
    #[error(
        "cannot listen on {address}: {source}; another kubelet may run here: choose another --kubelet-port"
    )]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Netns(#[from] netns::Error),
    #[error(transparent)]
    Rtnetlink(#[from] rt::Error),
    #[error(
        "cannot talk to the kernel's packet filter: {0}; the agent needs root (CAP_NET_ADMIN) and nf_tables"
    )]
    PacketFilter(io::Error),
    #[error("pods cannot reach the outside: masquerading: {0}")]
    Masquerade(String),
    #[error("the node has no podCIDR yet")]
    NoRange,
    #[error("no address of the node's podCIDR {0} is free")]
    NoFreeAddress(ipnet::Ipv4Net),
}
