//! Which tracked flows lead nowhere any more (CT-2).
//!
//! A flow remembers its endpoint. TCP notices a dead one by itself; UDP and SCTP senders may go on for ever. Stale is a
//! flow to a frontend whose answers would come from something that is no serving endpoint of it; with UDP also one that
//! was never translated, as the Service had no endpoints then. Every other flow survives. Pure: `conntrack` lists and
//! deletes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_forward::{Endpoint, Family, PortTable, Protocol, ServiceChange, ServiceTable};
use portolan_netlink::conntrack::Flow;

/// A Service port whose flows are to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    pub protocol: Protocol,
    pub family: Family,
    /// Addresses and ports; without an address, a node port.
    pub frontends: Vec<(Option<IpAddr>, u16)>,
    pub serving: Arc<[Endpoint]>,
}

/// The ports of which a commit may have left stale flows: what serves them, or where they listen, changed.
pub fn suspects(changes: &[ServiceChange]) -> Vec<Suspect> {
    let mut suspects = Vec::new();
    for change in changes {
        let Some(to) = &change.to else { continue };
        for port in to.ports.iter().filter(|port| port.key.protocol != Protocol::Tcp) {
            let before = change.from.as_ref().and_then(|from| same_port(from, port));
            if before
                .is_none_or(|before| before.serving != port.serving || frontends(before) != frontends(port))
            {
                suspects.push(Suspect {
                    protocol: port.key.protocol,
                    family: port.key.family,
                    frontends: frontends(port),
                    serving: Arc::clone(&port.serving),
                });
            }
        }
    }
    suspects
}

fn same_port<'a>(table: &'a ServiceTable, port: &PortTable) -> Option<&'a PortTable> {
    table.ports.iter().find(|other| other.key == port.key)
}

fn frontends(port: &PortTable) -> Vec<(Option<IpAddr>, u16)> {
    port.frontends.iter().map(|frontend| (frontend.kind.address(), frontend.port)).collect()
}

/// Suspects by frontend, ready to judge many flows.
#[derive(Debug, Default)]
pub struct Judge {
    by_frontend: HashMap<(u8, Family, Option<IpAddr>, u16), usize>,
    serving: Vec<HashSet<SocketAddr>>,
}

impl Judge {
    pub fn new(suspects: &[Suspect]) -> Self {
        let mut judge = Self::default();
        for suspect in suspects {
            let serving =
                suspect.serving.iter().map(|endpoint| SocketAddr::new(endpoint.address, endpoint.port));
            judge.serving.push(serving.collect());
            for (address, port) in &suspect.frontends {
                let key = (suspect.protocol.number(), suspect.family, *address, *port);
                judge.by_frontend.insert(key, judge.serving.len() - 1);
            }
        }
        judge
    }

    /// The families, and the protocols of each, whose flows are in question.
    pub fn families(&self) -> BTreeMap<Family, BTreeSet<u8>> {
        let mut families = BTreeMap::<_, BTreeSet<u8>>::new();
        for (protocol, family, _, _) in self.by_frontend.keys() {
            families.entry(*family).or_default().insert(*protocol);
        }
        families
    }

    /// Whether the flow leads nowhere. `own` says which addresses are the node's: only there are node ports.
    pub fn is_stale(&self, flow: &Flow, own: impl Fn(IpAddr) -> bool) -> bool {
        let (original, reply) = (&flow.original, &flow.reply);
        let (Some(port), Some(from)) = (original.dst_port(), reply.src_port()) else { return false };
        let family = Family::of(original.dst);
        let at = |address| self.by_frontend.get(&(original.proto, family, address, port));
        let index = at(Some(original.dst)).or_else(|| at(None).filter(|_| own(original.dst)));
        let Some(serving) = index.map(|index| &self.serving[*index]) else { return false };
        if serving.contains(&SocketAddr::new(reply.src, from)) {
            return false;
        }
        // A flow that was never translated goes somewhere else once there is an endpoint; an SCTP association starts
        // anew by itself.
        flow.is_dnat() || (original.proto == Protocol::Udp.number() && !serving.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use portolan_forward::ServiceKey;
    use portolan_netlink::conntrack::{Ports, Tuple};

    use super::*;
    use crate::snapshot::Snapshot;
    use crate::testing::{node_view, service_object, slice_object};

    const NODE: &str = "192.0.2.1";

    fn snapshot(protocol: &str, endpoints: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::new(node_view());
        let key = portolan_client::Key::new("default", "dns");
        snapshot.service(&key, Some(Arc::new(service_object("dns", "10.96.0.10", protocol))));
        snapshot.slice(&key, Some(Arc::new(slice_object("dns", endpoints, protocol))));
        snapshot
    }

    fn judge(protocol: &str, endpoints: &[&str]) -> Judge {
        Judge::new(&suspects(&snapshot(protocol, endpoints).compile().delta.services))
    }

    /// A flow from a client to `dst:dport` whose answers come from `src:sport`.
    fn flow(proto: u8, dst: &str, dport: u16, src: &str, sport: u16) -> Flow {
        let client: IpAddr = "10.0.0.99".parse().unwrap();
        let (dst, src): (IpAddr, IpAddr) = (dst.parse().unwrap(), src.parse().unwrap());
        let translated = (dst, dport) != (src, sport);
        Flow {
            original: Tuple { src: client, dst, proto, ports: Ports::Ports { src: 4000, dst: dport } },
            reply: Tuple { src, dst: client, proto, ports: Ports::Ports { src: sport, dst: 4000 } },
            status: if translated { Flow::DST_NAT } else { 0 },
            mark: 0,
            zone: 0,
            timeout_s: 30,
            id: 1,
        }
    }

    fn own(address: IpAddr) -> bool {
        address == NODE.parse::<IpAddr>().unwrap()
    }

    #[test]
    fn flows_to_gone_endpoints_are_stale_and_others_live() {
        let judge = judge("UDP", &["10.0.0.1"]);
        for (dst, dport) in [("10.96.0.10", 80), (NODE, 30080)] {
            assert!(!judge.is_stale(&flow(17, dst, dport, "10.0.0.1", 8080), own), "{dst} alive");
            assert!(judge.is_stale(&flow(17, dst, dport, "10.0.0.2", 8080), own), "{dst} gone");
            assert!(judge.is_stale(&flow(17, dst, dport, "10.0.0.1", 9), own), "{dst} another port");
            assert!(judge.is_stale(&flow(17, dst, dport, dst, dport), own), "{dst} never translated");
        }
    }

    #[test]
    fn flows_that_are_not_of_the_service_live() {
        let judge = judge("UDP", &["10.0.0.1"]);
        assert!(!judge.is_stale(&flow(17, "10.96.0.10", 81, "10.0.0.2", 8080), own), "another port");
        assert!(!judge.is_stale(&flow(6, "10.96.0.10", 80, "10.0.0.2", 8080), own), "TCP");
        assert!(
            !judge.is_stale(&flow(17, "203.0.113.9", 30080, "203.0.113.9", 30080), own),
            "passing through"
        );
    }

    #[test]
    fn without_endpoints_only_translated_flows_are_stale() {
        let judge = judge("UDP", &[]);
        assert!(judge.is_stale(&flow(17, "10.96.0.10", 80, "10.0.0.2", 8080), own));
        assert!(!judge.is_stale(&flow(17, "10.96.0.10", 80, "10.96.0.10", 80), own));
    }

    #[test]
    fn sctp_flows_to_gone_endpoints_are_stale_too() {
        let judge = judge("SCTP", &["10.0.0.1"]);
        assert!(judge.is_stale(&flow(132, "10.96.0.10", 80, "10.0.0.2", 8080), own));
        assert!(!judge.is_stale(&flow(132, "10.96.0.10", 80, "10.96.0.10", 80), own));
    }

    #[test]
    fn tcp_and_what_did_not_change_are_no_suspects() {
        assert!(suspects(&snapshot("TCP", &["10.0.0.1"]).compile().delta.services).is_empty());
        let mut snapshot = snapshot("UDP", &["10.0.0.1"]);
        snapshot.compile();
        let key = portolan_client::Key::new("default", "dns");
        let mut sticky = service_object("dns", "10.96.0.10", "UDP");
        sticky.view.affinity = Some(portolan_forward::Affinity { timeout_seconds: 5 });
        snapshot.service(&key, Some(Arc::new(sticky)));
        let changes = snapshot.compile().delta.services;
        assert_eq!(changes.len(), 1);
        assert!(suspects(&changes).is_empty(), "the endpoints are the same");
        snapshot.slice(&key, Some(Arc::new(slice_object("dns", &["10.0.0.2"], "UDP"))));
        let changes = snapshot.compile().delta.services;
        assert_eq!(changes[0].key, ServiceKey::new("default", "dns"));
        assert_eq!(suspects(&changes).len(), 1);
        snapshot.service(&key, None);
        assert!(
            suspects(&snapshot.compile().delta.services).is_empty(),
            "flows of a Service that is gone end by themselves"
        );
    }
}
