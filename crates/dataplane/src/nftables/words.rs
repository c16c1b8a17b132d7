//! What our kernel objects are for, in plain words, and which of them concern a Service. For people; nothing here
//! decides anything.

use std::net::{IpAddr, SocketAddr};

use portolan_forward::{Family, ServiceTable};
use portolan_netlink::nft::{Expr, MetaKey, Reg, Reject, Verdict};

use super::layout::{LOCAL_INDEX, SetId};
use super::object::{Key, Object, Objects, backend_of};
use crate::Change;

/// Whether the change is about what the Service needs, or about something that should not be there and acts as the
/// Service's. `wanted`: every object that the Service and the node need.
pub fn concerns(change: &Change<Key, Object>, wanted: &Objects, service: Option<&ServiceTable>) -> bool {
    if change.to.is_some() || wanted.contains_key(&change.key) {
        return wanted.contains_key(&change.key);
    }
    let (Some(service), Key::Element(family, set, key)) = (service, &change.key) else { return false };
    let mut fields = Fields { bytes: key.bytes(), family: *family };
    let found = match set {
        SetId::Frontends | SetId::Backends | SetId::AffinityBackends | SetId::Sources => fields.frontend(),
        SetId::Nodeports => fields.node_port().map(|(protocol, port)| (unspecified(*family), protocol, port)),
        SetId::AffinityMembers | SetId::AffinityLocalMembers => {
            fields.endpoint().and_then(|_| fields.frontend())
        }
        // Chains, classes and hairpins may outlive their use; without a frontend nothing leads to them.
        _ => None,
    };
    found.is_some_and(|found| frontends(service).any(|own| own == found))
        || names(change.from.as_ref(), service)
}

fn frontends(service: &ServiceTable) -> impl Iterator<Item = (IpAddr, u8, u16)> + '_ {
    service.ports.iter().flat_map(|port| {
        port.frontends.iter().map(|frontend| {
            let address = frontend.kind.address().unwrap_or(unspecified(port.key.family));
            (address, port.key.protocol.number(), frontend.port)
        })
    })
}

/// The comment names the Service, with or without a port.
fn names(object: Option<&Object>, service: &ServiceTable) -> bool {
    let Some(Object::Element { comment: Some(comment), .. }) = object else { return false };
    let name = service.key.to_string();
    comment.strip_prefix(&name).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    }
}

/// Reads an element's key field by field; each begins at a register.
struct Fields<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let value = self.bytes.get(..N)?.try_into().ok();
        self.bytes = self.bytes.get(N.next_multiple_of(4)..).unwrap_or_default();
        value
    }

    fn address(&mut self) -> Option<IpAddr> {
        match self.family {
            Family::V4 => self.take::<4>().map(IpAddr::from),
            Family::V6 => self.take::<16>().map(IpAddr::from),
        }
    }

    fn node_port(&mut self) -> Option<(u8, u16)> {
        let [protocol] = self.take::<1>()?;
        Some((protocol, u16::from_be_bytes(self.take()?)))
    }

    fn frontend(&mut self) -> Option<(IpAddr, u8, u16)> {
        let address = self.address()?;
        let (protocol, port) = self.node_port()?;
        Some((address, protocol, port))
    }

    fn endpoint(&mut self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.address()?, u16::from_be_bytes(self.take()?)))
    }

    fn index(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}

fn protocol(number: u8) -> String {
    match number {
        6 => "TCP".into(),
        17 => "UDP".into(),
        132 => "SCTP".into(),
        other => other.to_string(),
    }
}

/// Whether the object follows from the proxy's settings rather than from a Service.
pub fn depends_on_settings(key: &Key) -> bool {
    matches!(key, Key::Element(_, SetId::PodCidrs | SetId::ServiceCidrs | SetId::NodeportIps, _))
}

/// What the object is, with what it holds, and in brackets the words of `nft`.
pub fn describe(key: &Key, object: Option<&Object>) -> String {
    match purpose(key, object) {
        Some(purpose) => format!("{purpose} [{key:?}]"),
        None => format!("{key:?}"),
    }
}

fn purpose(key: &Key, object: Option<&Object>) -> Option<String> {
    let (family, set, key) = match key {
        Key::Table(_) => return Some("the table itself, laid out as this version does".into()),
        Key::Chain(_, name) => return Some(format!("the rules of chain {name}")),
        Key::Element(family, set, key) => (*family, *set, key),
    };
    let mut fields = Fields { bytes: key.bytes(), family };
    let mut frontend = || {
        let (address, number, port) = fields.frontend()?;
        let what = if address.is_unspecified() {
            format!("node port {port}")
        } else {
            SocketAddr::new(address, port).to_string()
        };
        Some(format!("{what}/{}", protocol(number)))
    };
    Some(match set {
        SetId::Frontends => format!("that a Service listens on {}", frontend()?),
        SetId::Backends | SetId::AffinityBackends => {
            let frontend = frontend()?;
            let index = fields.index()?;
            let local = if index & LOCAL_INDEX == 0 { "" } else { "on this node " };
            let number = (index & !LOCAL_INDEX) + 1;
            let affine = set == SetId::AffinityBackends;
            let endpoint = object.and_then(|object| backend_of(object, family, affine));
            let endpoint = endpoint.map(|(address, port)| format!(": {}", SocketAddr::new(address, port)));
            format!("endpoint {local}number {number} of {frontend}{}", endpoint.unwrap_or_default())
        }
        SetId::Sources => format!("who may use {}", frontend()?),
        SetId::Nodeports => {
            let (number, port) = fields.node_port()?;
            format!("that a Service listens on node port {port}/{}", protocol(number))
        }
        SetId::AffinityMembers | SetId::AffinityLocalMembers => {
            format!("that {} may be given to clients that remember it", fields.endpoint()?)
        }
        SetId::Hairpins => format!("that {} is masqueraded when it reaches itself", fields.address()?),
        SetId::ClusterIps => format!("that {} is a ClusterIP", fields.address()?),
        SetId::Classes => "what to do with connections of a class".into(),
        SetId::PodCidrs => "a range that pods come from".into(),
        SetId::ServiceCidrs => "a range of Service addresses".into(),
        SetId::NodeportIps => format!("that node ports listen on {}", fields.address()?),
        SetId::Affinity => return None,
    })
}

/// What a rule does, roughly, in the words of `nft`: which sets it asks, and what it comes to.
pub fn rule(exprs: &[Expr]) -> String {
    let mut words: Vec<String> = Vec::new();
    for expr in exprs {
        match expr {
            Expr::Lookup { set, dreg, invert, .. } => words.push(match dreg {
                None if *invert => format!("not in @{set}"),
                None => format!("in @{set}"),
                Some(Reg::VERDICT) => format!("vmap @{set}"),
                Some(_) => format!("map @{set}"),
            }),
            Expr::NumgenRandom { modulus, .. } => words.push(format!("numgen random mod {modulus}")),
            Expr::NumgenInc { modulus, .. } => words.push(format!("numgen inc mod {modulus}")),
            Expr::Jhash { modulus, .. } => words.push(format!("jhash ip saddr mod {modulus}")),
            Expr::Dynset { set, .. } => words.push(format!("update @{set}")),
            Expr::MetaSet { key: MetaKey::Nftrace, .. } => words.push("meta nftrace set".into()),
            Expr::Dnat { .. } => words.push("dnat".into()),
            Expr::Snat { .. } => words.push("snat".into()),
            Expr::Masquerade { .. } => words.push("masquerade".into()),
            Expr::Redirect { .. } => words.push("redirect".into()),
            Expr::Reject(Reject::TcpReset) => words.push("reject with tcp reset".into()),
            Expr::Reject(_) => words.push("reject with icmp port-unreachable".into()),
            Expr::Verdict(verdict) => words.push(verdict_text(verdict)),
            _ => {}
        }
    }
    // Setting the mark alone is what a rule is for, where it does nothing else.
    if words.is_empty() && exprs.iter().any(|e| matches!(e, Expr::MetaSet { key: MetaKey::Mark, .. })) {
        words.push("meta mark set".into());
    }
    words.join(", ")
}

/// In the words of `nft`.
pub fn verdict_text(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".into(),
        Verdict::Drop => "drop".into(),
        Verdict::Continue => "continue".into(),
        Verdict::Return => "return".into(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
        Verdict::Other(number) => format!("verdict {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nftables::object::{Pool, affinity_member, backend};
    use portolan_forward::{Endpoint, FrontendKind, PoolScope, Protocol, ServiceKey};
    use portolan_netlink::nft;

    fn pool(address: &str) -> Pool {
        let kind = FrontendKind::ClusterIp(address.parse().unwrap());
        Pool::of(Family::of(address.parse().unwrap()), Protocol::Tcp, kind, 80)
    }

    fn endpoint(address: &str) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port: 8080, local: false }
    }

    fn service(address: &str) -> ServiceTable {
        let family = Family::of(address.parse().unwrap());
        let key = ServiceKey::new("default", "web");
        let port = portolan_forward::ServicePortKey {
            service: key.clone(),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            family,
        };
        let frontend = portolan_forward::Frontend {
            kind: FrontendKind::ClusterIp(address.parse().unwrap()),
            port: 80,
            routes: portolan_forward::Routes::all(portolan_forward::Route::Reject),
            guard: None,
        };
        let empty = || std::sync::Arc::from([]);
        let port = portolan_forward::PortTable {
            key: port,
            frontends: vec![frontend],
            cluster: empty(),
            local: empty(),
            serving: empty(),
            affinity: None,
            algorithm: None,
        };
        ServiceTable { key, ports: vec![port], health_check: None }
    }

    #[test]
    fn elements_are_described_in_both_families() {
        let (key, object) = backend(pool("10.96.0.1"), PoolScope::Cluster, 2, false, &endpoint("10.0.0.9"));
        let text = describe(&key, Some(&object));
        assert!(
            text.starts_with("endpoint number 3 of 10.96.0.1:80/TCP: 10.0.0.9:8080 [element ip backends"),
            "{text}"
        );
        let (key, object) = backend(pool("fd00::1"), PoolScope::Local, 0, true, &endpoint("fd01::9"));
        let text = describe(&key, Some(&object));
        assert!(
            text.starts_with("endpoint on this node number 1 of [fd00::1]:80/TCP: [fd01::9]:8080"),
            "{text}"
        );
        let (key, _) = affinity_member(pool("fd00::1"), PoolScope::Local, &endpoint("fd01::9"));
        assert!(describe(&key, None).starts_with("that [fd01::9]:8080 may be given"));
    }

    #[test]
    fn what_acts_as_the_services_concerns_it() {
        for (address, other, pod) in
            [("10.96.0.1", "10.96.0.2", "10.0.0.9"), ("fd00::1", "fd00::2", "fd01::9")]
        {
            let service = service(address);
            let unexpected = |(key, object)| {
                let change = Change { key, from: Some(object), to: None };
                concerns(&change, &Objects::new(), Some(&service))
            };
            let endpoint = endpoint(pod);
            assert!(unexpected(backend(pool(address), PoolScope::Cluster, 5, false, &endpoint)));
            assert!(!unexpected(backend(pool(other), PoolScope::Cluster, 5, false, &endpoint)));
            assert!(unexpected(affinity_member(pool(address), PoolScope::Cluster, &endpoint)));
            assert!(!unexpected(affinity_member(pool(other), PoolScope::Cluster, &endpoint)));
        }
    }

    #[test]
    fn rules_are_told_by_what_they_ask_and_do() {
        let reg = Reg::new(0);
        let exprs =
            [Expr::saddr(nft::Family::Ip, reg), Expr::contains("pod-cidrs", reg), Expr::goto("pick-2")];
        assert_eq!(rule(&exprs), "in @pod-cidrs, goto pick-2");
        let exprs = [
            Expr::NumgenRandom { modulus: 2, offset: 0, dreg: reg },
            Expr::map("backends", reg, reg),
            Expr::dnat(nft::Family::Ip, reg, reg),
        ];
        assert_eq!(rule(&exprs), "numgen random mod 2, map @backends, dnat");
    }
}
