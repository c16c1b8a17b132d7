//! What can stop the program before it starts, each in one line with the way out.

use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{verb} needs root: it makes network namespaces and kernel rules; run it with sudo")]
    NotRoot { verb: &'static str },
    #[error("{address} is in use by another program: stop it, or choose another with --{flag}")]
    PortBusy { address: SocketAddr, flag: &'static str },
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error(
        "{name:?} cannot name a node: it must be lower-case letters, digits, '-' and '.', 253 at most; name the node with --node-name"
    )]
    NodeName { name: String },
    #[error("this host has no address that pods and other nodes can reach; name one with --node-ip")]
    NoNodeAddress,
    #[error(
        "this kernel has no usable nf_tables ({why}): load it with `modprobe nf_tables`, or run a kernel with CONFIG_NF_TABLES, NFT_NAT and NFT_MASQ (5.13 or newer)"
    )]
    NoNfTables { why: String },
    #[error("{}: no portolan data directory; name the one that `portolan up` uses with --data-dir", path.display())]
    NoDataDir { path: PathBuf },
    #[error("a portolan proxy runs here ({holder}) and would make its rules anew: stop it first")]
    ProxyRuns { holder: portolan_proxy::Holder },
}
