//! From the question and the objects to the answer. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use portolan_forward::explain::{Explanation, port_view};
use portolan_forward::trace::Step;
use portolan_forward::{
    Family, NodePortAddresses, NodeView, Origin, Outcome, Packet, Policy, Protocol, ServiceKey, Table, Trace,
    explain, trace,
};
use portolan_proxy::{Config, DetectLocal};

use super::diagnose;
use super::report::{
    AffinityPart, Destination, EndpointPart, FrontendPart, OutcomeKind, Party, PartyKind, PolicyPart,
    PortPart, Problem, ProblemKind, Report, ServicePart, SourceAddress, SourceRangesPart, Verdict,
};
use super::resolve::{self, Source, Target};
use super::world::{Service, World};
use super::{reasons, sentences};

/// What the user wants to know.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) node: Option<String>,
    pub(crate) namespace: String,
}

/// What the kernel's part needs beside the report.
pub(crate) struct Answer {
    pub(crate) report: Report,
    pub(crate) aimed: Option<Aimed>,
}

/// A packet that can be followed.
pub(crate) struct Aimed {
    pub(crate) packet: Packet,
    pub(crate) table: Table,
    /// The Service it is for.
    pub(crate) service: Option<ServiceKey>,
    pub(crate) outcome: Outcome,
}

pub(crate) fn answer(world: &World, settings: &Config, question: &Question) -> Answer {
    let mut draft = Draft::new(world, settings, question);
    let aimed = match draft.aim() {
        Ok(aimed) => aimed,
        Err(problem) => {
            draft.report.problems.push(problem);
            None
        }
    };
    let mut report = draft.report;
    if aimed.is_none() && report.verdict.summary.is_empty() {
        report.verdict.summary = "there is nothing to follow: see the problems".into();
    }
    report.assumptions.extend(world.assumptions.iter().cloned());
    add_problems_of_objects(world, &mut report);
    Answer { report, aimed }
}

/// Those of the objects that the question is about; the others are counted.
fn add_problems_of_objects(world: &World, report: &mut Report) {
    let service = report.service.as_ref().map(|service| format!("{}/{}", service.namespace, service.name));
    let pods = report.endpoints.iter().filter_map(|endpoint| endpoint.pod.clone());
    let concerned: Vec<String> = pods.chain(service).chain(report.from.name.clone()).collect();
    let is_concerned =
        |problem: &&Problem| problem.about.as_ref().is_none_or(|name| concerned.contains(name));
    let (own, others): (Vec<&Problem>, Vec<&Problem>) = world.problems.iter().partition(is_concerned);
    report.problems.extend(own.into_iter().cloned());
    let mut names: Vec<&str> = others.iter().filter_map(|problem| problem.about.as_deref()).collect();
    names.dedup();
    if !names.is_empty() {
        let said =
            format!("other objects have problems of their own, not shown here: {}", resolve::few(&names));
        report.assumptions.push(said);
    }
}

struct Draft<'a> {
    world: &'a World,
    settings: &'a Config,
    question: &'a Question,
    report: Report,
}

impl<'a> Draft<'a> {
    fn new(world: &'a World, settings: &'a Config, question: &'a Question) -> Self {
        let report = Report {
            from: Party {
                asked: question.from.clone(),
                kind: PartyKind::Unknown,
                name: None,
                address: None,
                node: None,
            },
            to: Destination { asked: question.to.clone(), address: None, port: None, protocol: "TCP" },
            node: None,
            service: None,
            verdict: Verdict { outcome: OutcomeKind::None, summary: String::new() },
            steps: Vec::new(),
            policy: None,
            source_ranges: None,
            affinity: None,
            source_address: None,
            endpoints: Vec::new(),
            problems: Vec::new(),
            assumptions: Vec::new(),
            kernel: None,
            live: None,
        };
        Self { world, settings, question, report }
    }

    fn aim(&mut self) -> Result<Option<Aimed>, Problem> {
        let (world, question) = (self.world, self.question);
        let source = resolve::source(world, &question.from, &question.namespace);
        if let Ok(source) = &source {
            self.report.from.kind = source.kind;
            self.report.from.name.clone_from(&source.name);
            self.report.from.node.clone_from(&source.node);
            self.report.from.address = source.addresses.first().copied();
        }
        // Both halves are looked at before giving up: the user corrects both at once.
        let target = resolve::target(world, &question.to, &question.namespace);
        let (source, target) = match (source, target) {
            (Ok(source), Ok(target)) => (source, target),
            (Err(first), Err(second)) => {
                self.report.problems.push(first);
                return Err(second);
            }
            (Err(problem), _) | (_, Err(problem)) => return Err(problem),
        };
        let node = self.node(&source, &target)?;
        let Some((destination, protocol)) = self.destination(&source, &target, &node)? else {
            return Ok(None);
        };
        self.report.to.address = Some(destination.ip());
        self.report.to.port = Some(destination.port());
        self.report.to.protocol = protocol.as_str();
        let Some(address) = resolve::of_family(&source.addresses, destination.ip()) else {
            return Err(Problem::new(
                ProblemKind::OtherFamily,
                format!("{} has no address of the family of {}", question.from, destination.ip()),
                "use a Service address of the other family, or make the pods dual-stack",
            ));
        };
        self.report.from.address = Some(address);
        let packet = packet(&node, &source, address, destination, protocol);
        Ok(Some(self.follow(node, packet)))
    }

    /// Whose rules the packet meets first.
    fn node(&mut self, source: &Source, target: &Target) -> Result<NodeView, Problem> {
        let world = self.world;
        let of_destination = match target {
            Target::Address { address, .. } => world.node_with(address.ip()).map(str::to_owned),
            _ => None,
        };
        let asked = self.question.node.clone().or_else(|| source.node.clone()).or(of_destination);
        let name = match asked {
            Some(name) => name,
            None if source.kind == PartyKind::Pod => {
                return Err(Problem::new(
                    ProblemKind::NoNode,
                    format!("pod {} is on no node yet", self.question.from),
                    "wait until it is scheduled, or name a node with --node",
                ));
            }
            None => {
                let Some(first) = world.nodes.keys().next() else {
                    return Err(Problem::new(
                        ProblemKind::NoSuchNode,
                        "the cluster has no node",
                        "join one: portolan node",
                    ));
                };
                if world.nodes.len() > 1 {
                    let said =
                        format!("the packet is taken to come to {first} first; --node names another node");
                    self.report.assumptions.push(said);
                }
                first.clone()
            }
        };
        let Some(view) = world.node_view(&name, self.settings) else {
            let names: Vec<&str> = world.nodes.keys().map(String::as_str).collect();
            return Err(Problem::new(
                ProblemKind::NoSuchNode,
                format!("there is no node {name}"),
                format!("there are: {}", resolve::few(&names)),
            ));
        };
        self.report.node = Some(name);
        Ok(view)
    }

    /// The address that is asked for, by name or not. `None`: no proxy serves it, and the report says so.
    fn destination(
        &mut self,
        source: &Source,
        target: &Target,
        node: &NodeView,
    ) -> Result<Option<(SocketAddr, Protocol)>, Problem> {
        let (key, port, protocol) = match target {
            Target::Address { address, protocol } => return Ok(Some((*address, *protocol))),
            Target::Pod { namespace, name, port, protocol } => {
                let pod = &self.world.pods[&(namespace.as_str().into(), name.as_str().into())];
                let like = source.addresses.first().copied().unwrap_or(IpAddr::from([0, 0, 0, 0]));
                let address = resolve::of_family(&pod.addresses, like).or(pod.addresses.first().copied());
                let Some(address) = address else {
                    return Err(Problem::new(
                        ProblemKind::NoAddress,
                        format!("pod {} has no address yet", pod.name()),
                        "wait until it runs",
                    ));
                };
                return Ok(Some((SocketAddr::new(address, *port), *protocol)));
            }
            Target::Service { key, port, protocol } => (key, port, *protocol),
        };
        let service = &self.world.services[key];
        let endpoints = self.world.endpoints(key);
        self.report.service = Some(service_part(service));
        if let Some(problem) = diagnose::not_proxied(service, &endpoints) {
            self.report.verdict.summary.clone_from(&problem.what);
            return Err(problem);
        }
        let ports = &service.object.view.ports;
        let Some((found, by_node_port)) = resolve::service_port(ports, port.as_ref(), protocol) else {
            let mut asked = match port {
                Some(resolve::PortWish::Number(number)) => number.to_string(),
                Some(resolve::PortWish::Name(name)) => name.clone(),
                None => "at all".into(),
            };
            if let Some(protocol) = protocol {
                asked = format!("{asked}/{protocol}");
            }
            // An address and a number can be followed all the same: what a client would meet is part of the answer.
            self.report.problems.push(diagnose::no_such_port(service, &asked));
            let number = match port {
                Some(resolve::PortWish::Number(number)) => *number,
                _ => return Ok(None),
            };
            let address = cluster_ip(service, source);
            return Ok(Some((SocketAddr::new(address, number), protocol.unwrap_or(Protocol::Tcp))));
        };
        if port.is_none() && ports.len() > 1 {
            let said = format!("no port was named: took the first, {}", diagnose::port_text(found));
            self.report.assumptions.push(said);
        }
        let address =
            frontend_for(service, source, node, found.node_port.filter(|_| by_node_port), found.port);
        Ok(Some((address, found.protocol)))
    }

    fn follow(&mut self, node: NodeView, packet: Packet) -> Aimed {
        let table = self.world.table(node);
        let trace = trace(&table, &packet);
        let matched = trace.steps.iter().find_map(|step| match step {
            Step::Matched { service, .. } => Some(service.service.clone()),
            Step::UnknownPort { holder } => Some(holder.clone()),
            _ => None,
        });
        let service = matched.as_ref().and_then(|key| self.world.services.get(key));
        let explanation = service.and_then(|service| {
            let endpoints = self.world.endpoints(&service.object.view.key);
            Some((service, explain(&table, &service.object.view, &endpoints, &packet)?, endpoints))
        });
        match &explanation {
            Some((service, explanation, endpoints)) => {
                self.explained(service, explanation, endpoints, &packet);
            }
            None => self.unexplained(&trace, service, &packet),
        }
        let outcome = trace.outcome;
        Aimed { packet, table, service: matched, outcome }
    }

    fn explained(
        &mut self,
        service: &Service,
        explanation: &Explanation,
        endpoints: &[portolan_forward::EndpointView],
        packet: &Packet,
    ) {
        let world = self.world;
        let mut part = service_part(service);
        let port = port_view(&service.object.view, &explanation.port.port_name, explanation.port.protocol);
        part.port = port.map(|port| PortPart {
            name: port.name.to_string(),
            number: port.port,
            protocol: port.protocol.as_str(),
        });
        part.frontend = Some(FrontendPart {
            kind: sentences::frontend_kind(explanation.frontend),
            address: packet.destination,
            port: explanation.frontend_port,
        });
        let policy = &explanation.policy;
        self.report.policy = Some(PolicyPart {
            field: if policy.external { "externalTrafficPolicy" } else { "internalTrafficPolicy" },
            value: if policy.policy == Policy::Local { "Local" } else { "Cluster" },
            short_circuit: policy.short_circuit,
        });
        self.report.source_ranges = explanation.source_ranges.as_ref().map(|ranges| SourceRangesPart {
            allowed: ranges.allowed.iter().map(ToString::to_string).collect(),
            admitted: ranges.admitted,
        });
        self.report.affinity = explanation
            .affinity
            .map(|affinity| AffinityPart { kind: "ClientIP", timeout_seconds: affinity.timeout_seconds });
        self.report.source_address = explanation.is_forwarded().then(|| SourceAddress {
            masqueraded: explanation.source.is_masqueraded(),
            why: sentences::source_why(explanation.source),
        });
        self.report.endpoints = explanation
            .endpoints
            .iter()
            .map(|fate| {
                let view = &endpoints[fate.view];
                let pod = world.pod_at(&service.object.view.key, view.address);
                let used = fate.out.is_none();
                let about = (policy.scope(), explanation.port.protocol);
                let reason = fate.out.as_ref().map(|out| reasons::reason(world, service, view, out, about));
                let hairpin =
                    fate.hairpin.then(|| "the source itself: it sees the node's address".to_owned());
                let last_resort = (used && !view.ready)
                    .then(|| "terminating, but it still serves, and no other is ready".to_owned());
                EndpointPart {
                    address: view.address,
                    port: fate.endpoint.map(|endpoint| endpoint.port),
                    pod: pod.map(super::world::Pod::name),
                    node: view.node_name.as_ref().map(ToString::to_string),
                    used,
                    reason: reason.or(hairpin).or(last_resort),
                    masqueraded: (used && explanation.is_forwarded())
                        .then(|| explanation.source.is_masqueraded() || fate.hairpin),
                }
            })
            .collect();
        self.report.endpoints.sort_by_key(|part| (!part.used, part.address, part.port));
        self.report.steps =
            sentences::steps(&part, explanation, packet, self.report.node.as_deref().unwrap_or_default());
        self.report.service = Some(part);
        self.report.verdict = sentences::verdict(&explanation.trace, explanation.affinity.is_some());
        self.report.problems.extend(diagnose::left_out(service));
        self.report.problems.extend(diagnose::endpoints(world, service, explanation));
        let stranger = self.report.from.kind == PartyKind::Pod && explanation.origin == Origin::Outside;
        let by_cluster = self.settings.detect_local == DetectLocal::ClusterCidr;
        if stranger && by_cluster && !self.settings.cluster_cidrs.is_empty() {
            self.report.problems.push(diagnose::not_local(packet.source, &self.settings.cluster_cidrs));
        }
    }

    /// The packet is for no frontend of any Service.
    fn unexplained(&mut self, trace: &Trace, service: Option<&Service>, packet: &Packet) {
        self.report.steps = trace.steps.iter().map(ToString::to_string).collect();
        self.report.verdict = sentences::verdict(trace, false);
        let destination = SocketAddr::new(packet.destination, packet.port);
        if let Some(service) = service {
            self.report.service = Some(service_part(service));
            if !self.report.problems.iter().any(|problem| problem.kind == ProblemKind::NoSuchPort) {
                let asked = format!("{}/{}", packet.port, packet.protocol);
                self.report.problems.push(diagnose::no_such_port(service, &asked));
            }
        } else if let Some(Step::UnallocatedServiceAddress { cidr }) = trace.steps.last() {
            self.report.problems.push(Problem::new(
                ProblemKind::UnknownAddress,
                format!("no Service has the address {} (of the range {cidr})", packet.destination),
                "its Service may be gone: look its address up again",
            ));
        } else if let Some(pod) = self.world.pod_with(packet.destination) {
            self.report.steps = vec![format!(
                "{destination} is pod {} itself: no Service takes part, and readiness does not matter",
                pod.name()
            )];
        }
    }
}

fn packet(
    node: &NodeView,
    source: &Source,
    address: IpAddr,
    destination: SocketAddr,
    protocol: Protocol,
) -> Packet {
    let from_node = node.addresses.contains(&address);
    // A pod of another node comes in by whatever leads to that node.
    let own_pod = source.kind == PartyKind::Pod
        && !from_node
        && source.node.as_deref().is_none_or(|of_pod| *of_pod == *node.name);
    let interface: Option<Arc<str>> = match &node.local_traffic {
        portolan_forward::LocalTraffic::Interface(name)
        | portolan_forward::LocalTraffic::InterfacePrefix(name)
            if own_pod =>
        {
            Some(name.as_str().into())
        }
        _ => (!from_node).then(|| "?".into()),
    };
    Packet {
        source: address,
        destination: destination.ip(),
        protocol,
        port: destination.port(),
        interface,
        from_node,
        to_node: node.addresses.contains(&destination.ip()),
    }
}

/// The ClusterIP that the source can speak to, else the first.
fn cluster_ip(service: &Service, source: &Source) -> IpAddr {
    let ips = &service.object.view.cluster_ips;
    let speaks = |ip: &&IpAddr| resolve::of_family(&source.addresses, **ip).is_some();
    ips.iter().find(speaks).or(ips.first()).copied().unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// Where a client in this place would reach for the Service: inside by its ClusterIP; outside by a load-balancer
/// address, an external IP, or a node port, in this order.
fn frontend_for(
    service: &Service,
    source: &Source,
    node: &NodeView,
    node_port: Option<u16>,
    port: u16,
) -> SocketAddr {
    let view = &service.object.view;
    let of_port = view.ports.iter().find(|one| one.port == port).and_then(|one| one.node_port);
    let own_node_port = node_port.or(of_port.filter(|_| source.kind == PartyKind::Outside));
    let listening: &[IpAddr] = match &node.node_port_addresses {
        NodePortAddresses::Addresses(addresses) => addresses,
        NodePortAddresses::All => &node.addresses,
    };
    let speaks = |ip: &&IpAddr| source.addresses.iter().any(|own| Family::of(*own) == Family::of(**ip));
    let of_node = listening.iter().find(speaks);
    if let (Some(number), Some(ip)) = (node_port, of_node) {
        return SocketAddr::new(*ip, number);
    }
    if source.kind == PartyKind::Outside {
        if let Some(ip) = view.load_balancer_ips.iter().chain(&view.external_ips).find(speaks) {
            return SocketAddr::new(*ip, port);
        }
        if let (Some(number), Some(ip)) = (own_node_port, of_node) {
            return SocketAddr::new(*ip, number);
        }
    }
    SocketAddr::new(cluster_ip(service, source), port)
}

fn service_part(service: &Service) -> ServicePart {
    let key = &service.object.view.key;
    let kind = super::objects::text(&service.raw, "/spec/type");
    ServicePart {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        kind: if kind.is_empty() { "ClusterIP".into() } else { kind.into() },
        port: None,
        frontend: None,
    }
}
