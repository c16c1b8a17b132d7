//! Mode ipvs: which rules stand before IPVS, and how it is told what the operator chose.
//!
//! Rules of nftables where the kernel has them for IP, of iptables elsewhere. Both lead to the same virtual servers.

use portolan_dataplane::ipvs::{self, Front, Machine};
use portolan_dataplane::{Iptables, Ipvs, Nftables, iptables, nftables};
use portolan_netlink::ipvs::is_loaded;
use portolan_netlink::nft;

use crate::config::{Config, Mode};
use crate::{Error, families};

/// IPVS with what stands before it.
pub(crate) enum Plane {
    BehindNftables(Ipvs<Nftables<nft::Socket>, Machine>),
    BehindIptables(Ipvs<Iptables<iptables::Programs>, Machine>),
}

pub(crate) fn open(config: &Config) -> Result<Plane, Error> {
    let machine = Machine::open().map_err(wrong)?;
    let mark = 1 << config.masquerade_bit;
    match nftables_front() {
        Ok(socket) => {
            let place = nftables::Place::BeforeIpvs;
            let front = Nftables::new(socket, nftables::Config { mark, place });
            Ok(Plane::BehindNftables(ready(front, machine, config)?))
        }
        Err(why) => {
            tracing::info!("rules of iptables lead to IPVS, since nftables cannot: {why}");
            let programs = iptables::Programs::find().map_err(wrong)?;
            let front = Iptables::new(programs, iptables::Config { mark });
            Ok(Plane::BehindIptables(ready(front, machine, config)?))
        }
    }
}

fn nftables_front() -> Result<nft::Socket, String> {
    let mut socket = nft::Socket::open().map_err(|error| error.to_string())?;
    nftables::usable(&mut socket).map_err(|error| error.to_string())?;
    Ok(socket)
}

fn ready<F: Front>(front: F, machine: Machine, config: &Config) -> Result<Ipvs<F, Machine>, Error> {
    let scheduler = config.ipvs.scheduler.scheduler().unwrap_or(ipvs::DEFAULT_SCHEDULER).into();
    let own = ipvs::Config { scheduler, strict_arp: config.ipvs.strict_arp, families: families() };
    let mut plane = Ipvs::new(front, machine, own);
    plane.prepare(config.ipvs.timeouts).map_err(wrong)?;
    Ok(plane)
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::Mode { mode: Mode::Ipvs, why: error.to_string() }
}

/// What this host can do, in a few words, or why it cannot.
pub(crate) fn support() -> Result<String, String> {
    if !is_loaded() {
        return Err("IPVS is not loaded; `modprobe ip_vs` does that, and so does mode ipvs, where there is the module".into());
    }
    let front = if nftables_front().is_ok() { "nftables" } else { "iptables" };
    Ok(format!("yes, behind rules of {front}"))
}

/// Removes virtual servers and what leads to them. Rules of iptables are shared with the mode of that name, and go with
/// it.
pub(crate) fn remove() -> Vec<String> {
    let mut errors: Vec<String> = ipvs::remove().iter().map(ToString::to_string).collect();
    if let Ok(socket) = nftables_front() {
        let place = nftables::Place::BeforeIpvs;
        let config = nftables::Config { place, ..nftables::Config::default() };
        let gone = portolan_dataplane::DataPlane::cleanup(&mut Nftables::new(socket, config));
        errors.extend(gone.iter().map(ToString::to_string));
    }
    errors
}
