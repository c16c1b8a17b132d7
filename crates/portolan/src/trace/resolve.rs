//! What the user wrote, turned into addresses: who sends, and to what.

use std::net::{IpAddr, SocketAddr};

use portolan_api::suggest;
use portolan_forward::{Family, Protocol, ServiceKey, ServicePortView};

use super::report::{PartyKind, Problem, ProblemKind};
use super::world::World;

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) kind: PartyKind,
    pub(crate) name: Option<String>,
    /// At most one per family matters.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) node: Option<String>,
}

/// To what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Service { key: ServiceKey, port: Option<PortWish>, protocol: Option<Protocol> },
    Address { address: SocketAddr, protocol: Protocol },
    Pod { namespace: String, name: String, port: u16, protocol: Protocol },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortWish {
    Number(u16),
    Name(String),
}

fn problem(kind: ProblemKind, what: String, way_out: impl Into<String>) -> Problem {
    Problem::new(kind, what, way_out)
}

/// Where an address lives: a pod, a node, or outside.
pub(crate) fn source_at(world: &World, address: IpAddr) -> Source {
    if let Some(pod) = world.pod_with(address) {
        return Source {
            kind: PartyKind::Pod,
            name: Some(pod.name()),
            addresses: vec![address],
            node: node_of(pod),
        };
    }
    let node = world.node_with(address).map(str::to_owned);
    let kind = if node.is_some() { PartyKind::Node } else { PartyKind::Outside };
    Source { kind, name: node.clone(), addresses: vec![address], node }
}

fn node_of(pod: &super::world::Pod) -> Option<String> {
    let name = &*pod.fields.spec.node_name;
    (!name.is_empty()).then(|| name.to_owned())
}

/// `web-1`, `shop/web-1`, a node's name, or an address.
pub(crate) fn source(world: &World, text: &str, namespace: &str) -> Result<Source, Problem> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(source_at(world, address));
    }
    let (namespace, name) = text.split_once('/').unwrap_or((namespace, text));
    if let Some(pod) = world.pods.get(&(namespace.into(), name.into())) {
        // On the host's network it sends as the node does.
        let kind = if pod.on_host_network() { PartyKind::Node } else { PartyKind::Pod };
        if pod.addresses.is_empty() {
            let what = format!("pod {} has no address yet", pod.name());
            return Err(problem(ProblemKind::NoAddress, what, "wait until it runs: kubectl describe pod"));
        }
        let addresses = pod.addresses.clone();
        return Ok(Source { kind, name: Some(pod.name()), addresses, node: node_of(pod) });
    }
    if let Some(node) = world.nodes.get(text) {
        let addresses = node.addresses.clone();
        let name = Some(text.to_owned());
        return Ok(Source { kind: PartyKind::Node, name: name.clone(), addresses, node: name });
    }
    let what = format!("there is no pod {namespace}/{name}, and no node of that name");
    Err(problem(ProblemKind::NoSuchPod, what, near_source(world, namespace, name)))
}

fn near_source(world: &World, namespace: &str, name: &str) -> String {
    if let Some(((other, _), _)) = world.pods.iter().find(|((_, pod), _)| **pod == *name) {
        return format!("there is a pod {other}/{name}: write its namespace");
    }
    let pods = world.pods.keys().filter(|(of, _)| **of == *namespace).map(|(_, name)| &**name);
    let names: Vec<&str> = pods.chain(world.nodes.keys().map(String::as_str)).collect();
    match suggest::near_field(name, names.iter().copied()) {
        Some(near) => suggest::did_you_mean(near),
        None if names.is_empty() => "give an address, or the name of a pod or node".into(),
        None => format!("there are: {}", few(&names)),
    }
}

/// The first few of a list, for messages.
pub(crate) fn few(names: &[&str]) -> String {
    const SHOWN: usize = 8;
    match names.get(SHOWN..) {
        Some(more @ [_, ..]) => format!("{} and {} more", names[..SHOWN].join(", "), more.len()),
        _ => names.join(", "),
    }
}

/// `web`, `shop/web:http`, `web:53/udp`, `10.96.0.1:80`, `[fd00::1]:53/udp`, a pod with a port, or a Service by its DNS
/// name.
pub(crate) fn target(world: &World, text: &str, namespace: &str) -> Result<Target, Problem> {
    let (rest, protocol) = split_protocol(text);
    if let Ok(address) = rest.parse::<SocketAddr>() {
        return Ok(Target::Address { address, protocol: protocol.unwrap_or(Protocol::Tcp) });
    }
    if let Ok(address) = rest.trim_matches(['[', ']']).parse::<IpAddr>() {
        let with_port = SocketAddr::new(address, 80);
        return Err(problem(
            ProblemKind::PortMissing,
            format!("{address} says no port"),
            format!("write it behind the address, for example {with_port}"),
        ));
    }
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (rest, None),
    };
    let port = port.map(|port| port.parse().map_or(PortWish::Name(port.into()), PortWish::Number));
    let (namespace, name) = service_name(name, namespace);
    let key = ServiceKey::new(namespace, name);
    if world.services.contains_key(&key) {
        return Ok(Target::Service { key, port, protocol });
    }
    if let Some(pod) = world.pods.get(&(namespace.into(), name.into())) {
        let Some(PortWish::Number(port)) = port else {
            let what = format!("{} is a pod, and no port is given", pod.name());
            let example = format!("write a number behind it, for example {name}:80");
            return Err(problem(ProblemKind::PortMissing, what, example));
        };
        let protocol = protocol.unwrap_or(Protocol::Tcp);
        return Ok(Target::Pod { namespace: namespace.into(), name: name.into(), port, protocol });
    }
    Err(no_such_service(world, &key))
}

/// `/udp` at the end, where a port stands before it.
fn split_protocol(text: &str) -> (&str, Option<Protocol>) {
    if let Some((rest, protocol)) = text.rsplit_once('/')
        && rest.contains(':')
        && let Ok(protocol) = protocol.to_ascii_uppercase().parse()
    {
        return (rest, Some(protocol));
    }
    (text, None)
}

/// `web`, `shop/web`, or `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`: names of Services have no dots.
fn service_name<'a>(text: &'a str, namespace: &'a str) -> (&'a str, &'a str) {
    if let Some(parts) = text.split_once('/') {
        return parts;
    }
    let mut labels = text.trim_end_matches('.').split('.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(name), Some(namespace), None | Some("svc")) => (namespace, name),
        _ => (namespace, text),
    }
}

fn no_such_service(world: &World, key: &ServiceKey) -> Problem {
    let what = format!("there is no Service (and no pod) {key}");
    let elsewhere: Vec<String> =
        world.services.keys().filter(|other| other.name == key.name).map(ToString::to_string).collect();
    if !elsewhere.is_empty() {
        let way_out = format!("a Service of that name is in another namespace: {}", elsewhere.join(", "));
        return problem(ProblemKind::NoSuchService, what, way_out);
    }
    let names: Vec<&str> =
        world.services.keys().filter(|other| other.namespace == key.namespace).map(|k| &*k.name).collect();
    let way_out = match suggest::near_field(&key.name, names.iter().copied()) {
        Some(near) => suggest::did_you_mean(near),
        None if names.is_empty() => format!("namespace {} has no Service at all", key.namespace),
        None => format!("namespace {} has: {}", key.namespace, few(&names)),
    };
    problem(ProblemKind::NoSuchService, what, way_out)
}

/// The port of a Service that is meant, and whether by its node port.
pub(crate) fn service_port<'a>(
    ports: &'a [ServicePortView],
    wish: Option<&PortWish>,
    protocol: Option<Protocol>,
) -> Option<(&'a ServicePortView, bool)> {
    let fits = |port: &&ServicePortView| protocol.is_none_or(|protocol| port.protocol == protocol);
    let mut fitting = ports.iter().filter(fits);
    match wish {
        None => fitting.next().map(|port| (port, false)),
        Some(PortWish::Name(name)) => fitting.find(|port| *port.name == **name).map(|port| (port, false)),
        Some(PortWish::Number(number)) => {
            let by_port = fitting.clone().find(|port| port.port == *number).map(|port| (port, false));
            by_port.or_else(|| fitting.find(|port| port.node_port == Some(*number)).map(|port| (port, true)))
        }
    }
}

/// The source's address in the family of the destination.
pub(crate) fn of_family(addresses: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|ip| Family::of(*ip) == Family::of(like))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_in_every_spelling() {
        for (text, expected) in [
            ("web", ("default", "web")),
            ("shop/web", ("shop", "web")),
            ("web.shop", ("shop", "web")),
            ("web.shop.svc.cluster.local.", ("shop", "web")),
        ] {
            assert_eq!(service_name(text, "default"), expected, "{text}");
        }
        assert_eq!(split_protocol("web:53/udp"), ("web:53", Some(Protocol::Udp)));
        assert_eq!(split_protocol("shop/udp"), ("shop/udp", None), "a Service may be called so");
    }
}
