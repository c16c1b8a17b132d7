//! Talking to the kernel by netlink: `nf_tables`, conntrack, routes, as typed messages.
//!
//! Here: a small TLV codec ([`codec`]), a socket that explains errors ([`socket`]), and per family the
//! messages this project needs, each with a fake where tests want one. Not here: what the rules *mean*; that is the
//! data plane's. Start at [`nft`] for packet filtering and NAT, at [`conntrack`] for tracked flows, at [`rt`] for links,
//! addresses and routes, at [`netns`] for network namespaces, at [`cgroup`] for what ends with its container, at
//! [`xtables`] for the tables of iptables-legacy, which have no netlink.
//!
//! All calls block and none of them needs an async runtime. A socket works in the network namespace of the thread
//! that opened it, for as long as it lives, whichever thread uses it later.

pub mod cgroup;
pub mod codec;
pub mod conntrack;
pub mod ipset;
pub mod ipvs;
pub mod netns;
pub mod nft;
pub mod rt;
pub mod socket;
pub mod xtables;
