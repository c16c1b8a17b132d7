//! Why a Service has no address, or not the one it asks for: each with the way out.

use std::net::IpAddr;

use portolan_client::Key;

/// What keeps a wish from being granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("spec.loadBalancerIP says {spec} and {annotation} says {text}: keep one of them")]
    TwoWishes { spec: String, annotation: &'static str, text: String },
    #[error(
        "{source_field}: {text:?} is no list of IP addresses such as 192.0.2.7 or 192.0.2.7,fd00::7: correct it"
    )]
    Malformed { source_field: &'static str, text: String },
    #[error(
        "{annotation}: 0.0.0.0 asks for an address by DHCP, which is not there: name an address, or none"
    )]
    Dhcp { annotation: &'static str },
    #[error(
        "{ip} is asked for, but spec.ipFamilies has no place for it: ask for one address per family at most"
    )]
    FamilyMismatch { ip: IpAddr },
    #[error(
        "there is no LoadBalancerPool: create one whose spec.addresses are free addresses of the nodes' network"
    )]
    NoPools,
    #[error(
        "no pool takes this Service (pools: {pools}): set spec.autoAssign, make a pool's selectors match, or name a pool \
         in the annotation metallb.io/address-pool"
    )]
    NoPoolFits { pools: String },
    #[error(
        "there is no LoadBalancerPool {name:?} (pools: {pools}): correct the annotation metallb.io/address-pool"
    )]
    NoSuchPool { name: String, pools: String },
    #[error("the selectors of pool {name} do not match this Service: change them, or ask for another pool")]
    Refused { name: String },
    #[error("no pool offers {ip} (pools: {pools}): add it to a pool, or ask for an address of one")]
    Outside { ip: IpAddr, pools: String },
    #[error(
        "no available IPs: no {family} address is left in {pools}: add addresses, or delete Services that hold some"
    )]
    Exhausted { family: &'static str, pools: String },
    #[error("pools {pools} offer no {family} addresses: add some, or take {family} out of spec.ipFamilies")]
    NoFamily { family: &'static str, pools: String },
    #[error(
        "{ip} is held by {holder}: ask for another, or give both Services the same annotation metallb.io/allow-shared-ip"
    )]
    Taken { ip: IpAddr, holder: Key },
    #[error(
        "{ip} is held by {holder} under another sharing key: make metallb.io/allow-shared-ip the same on both"
    )]
    OtherKey { ip: IpAddr, holder: Key },
    #[error(
        "{ip} is shared with {holder}, but one of them keeps clients' addresses (externalTrafficPolicy Local) and their \
         selectors differ: use policy Cluster on both, or the same selector"
    )]
    OtherBackends { ip: IpAddr, holder: Key },
    #[error("port {port} is already in use on {ip} by {holder}: use another port, or another address")]
    PortInUse { ip: IpAddr, port: String, holder: Key },
}

impl Problem {
    /// One word for it, for conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TwoWishes { .. }
            | Self::Malformed { .. }
            | Self::Dhcp { .. }
            | Self::FamilyMismatch { .. } => "InvalidRequest",
            Self::NoPools => "NoPools",
            Self::NoPoolFits { .. } => "NoPoolFits",
            Self::NoSuchPool { .. } => "NoSuchPool",
            Self::Refused { .. } => "PoolRefuses",
            Self::Outside { .. } => "OutsidePools",
            Self::Exhausted { .. } => "PoolExhausted",
            Self::NoFamily { .. } => "NoSuchFamily",
            Self::Taken { .. }
            | Self::OtherKey { .. }
            | Self::OtherBackends { .. }
            | Self::PortInUse { .. } => "AddressInUse",
        }
    }

    /// The address whose release would help.
    pub(super) fn waits_for(&self) -> Option<IpAddr> {
        match self {
            Self::Taken { ip, .. }
            | Self::OtherKey { ip, .. }
            | Self::OtherBackends { ip, .. }
            | Self::PortInUse { ip, .. } => Some(*ip),
            _ => None,
        }
    }
}
