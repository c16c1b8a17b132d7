//! What kube-proxy's mode ipvs leaves: its virtual servers, the device that holds their addresses, its sets of
//! addresses.

use portolan_netlink::rt::Rt;
use portolan_netlink::{ipset, ipvs};

use super::Findings;

/// The mark of kube-proxy's mode ipvs: without it the virtual servers are somebody else's.
const DEVICE: &str = "kube-ipvs0";

/// The longest name that a set can have; kube-proxy cuts what is longer.
const SET_NAME_MAX: usize = 31;

/// Of IPv4; those of IPv6 begin with `KUBE-6-`.
const SETS: [&str; 15] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
];
const SHARED_SETS: [&str; 2] = ["HEALTH-CHECK-NODE-PORT", "IPVS-IPS"];

pub(super) fn clean_up(findings: &mut Findings) {
    let links = Rt::open().and_then(|mut rt| Ok((rt.links()?, rt)));
    match links {
        Ok((links, mut rt)) => {
            if links.iter().any(|link| link.name == DEVICE) {
                findings.note("all IPVS virtual servers", ipvs::flush());
                findings.note(format!("link {DEVICE}"), rt.delete_link(DEVICE).map(|()| true));
            }
        }
        Err(error) => findings.note("the list of links", Err::<bool, _>(error)),
    }
    let names = SETS.iter().chain(&SHARED_SETS);
    for mut name in names.flat_map(|name| [format!("KUBE-{name}"), format!("KUBE-6-{name}")]) {
        name.truncate(SET_NAME_MAX);
        let result = ipset::destroy(&name);
        findings.note(format!("ipset {name}"), result);
    }
}
