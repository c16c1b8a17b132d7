//! The likely reason why a Service does not answer, and the way out. Pure: objects in, problems out.

use portolan_api::suggest;
use portolan_controllers::objects::{Labels, PortRef, or_tcp};
use portolan_forward::explain::{Explanation, Out};
use portolan_forward::select::Exclusion;
use portolan_forward::{EndpointView, ServicePortView};
use portolan_proxy::views::PROXY_NAME_LABEL;

use super::derive::selects;
use super::objects::text;
use super::reasons::{Declared, declared};
use super::report::{Problem, ProblemKind};
use super::resolve::few;
use super::world::{Pod, Service, World};

fn problem(kind: ProblemKind, what: String, way_out: String) -> Problem {
    Problem::new(kind, what, way_out)
}

/// Why no proxy serves this Service at all.
pub(crate) fn not_proxied(service: &Service, endpoints: &[EndpointView]) -> Option<Problem> {
    let (view, key) = (&service.object.view, &service.object.view.key);
    if view.external_name {
        let target = text(&service.raw, "/spec/externalName");
        return Some(problem(
            ProblemKind::ExternalName,
            format!("Service {key} is of type ExternalName: only a name in DNS that stands for {target:?}"),
            format!("connect to {target} itself; its ports are the target's own, whatever the Service lists"),
        ));
    }
    if let Some(proxy) = service.raw["metadata"]["labels"].get(PROXY_NAME_LABEL) {
        let proxy = proxy.as_str().unwrap_or_default();
        return Some(problem(
            ProblemKind::OtherProxy,
            format!(
                "Service {key} carries the label {PROXY_NAME_LABEL}: {proxy}: this proxy leaves it alone"
            ),
            format!("ask the proxy {proxy:?}, or remove the label"),
        ));
    }
    if !view.cluster_ips.is_empty() {
        return None;
    }
    if text(&service.raw, "/spec/clusterIP") != "None" {
        return Some(problem(
            ProblemKind::NoClusterIp,
            format!("Service {key} has no ClusterIP (yet)"),
            "its events say why: kubectl describe service".into(),
        ));
    }
    let ready: Vec<String> =
        endpoints.iter().filter(|e| e.ready).map(|endpoint| endpoint.address.to_string()).collect();
    let names: Vec<&str> = ready.iter().map(String::as_str).collect();
    let answer = if names.is_empty() { "nothing, as no endpoint is ready".into() } else { few(&names) };
    Some(problem(
        ProblemKind::Headless,
        format!(
            "Service {key} is headless (clusterIP: None): no proxy takes part; its name in DNS gives {answer}"
        ),
        "trace to one of its pods instead, by POD:PORT".into(),
    ))
}

/// Notes of the proxy about odd input.
pub(crate) fn left_out(service: &Service) -> Vec<Problem> {
    let notes = service.object.notes.iter();
    notes.map(|note| problem(ProblemKind::LeftOut, note.to_string(), "correct the Service".into())).collect()
}

/// A port that the Service does not define.
pub(crate) fn no_such_port(service: &Service, asked: &str) -> Problem {
    let ports: Vec<String> = service.object.view.ports.iter().map(port_text).collect();
    let key = &service.object.view.key;
    let targets: Vec<String> =
        service.fields.spec.ports.iter().filter_map(|port| target_text(port, asked)).collect();
    let hint = match targets.first() {
        Some(port) => format!("{asked} is the target port behind {port}: clients use the Service's own port"),
        None => "use one of these, or add the port to spec.ports".into(),
    };
    problem(
        ProblemKind::NoSuchPort,
        format!("Service {key} has no port {asked}; it has {}", ports.join(", ")),
        hint,
    )
}

fn target_text(port: &portolan_controllers::objects::ServicePort, asked: &str) -> Option<String> {
    let target = match port.target_port.as_ref()? {
        PortRef::Number(number) => number.to_string(),
        PortRef::Name(name) => name.clone(),
    };
    asked.starts_with(&*target).then(|| format!("port {}", port.port))
}

pub(crate) fn port_text(port: &ServicePortView) -> String {
    let mut text = format!("{}/{}", port.port, port.protocol);
    if !port.name.is_empty() {
        text = format!("{} ({text})", port.name);
    }
    match port.node_port {
        Some(node_port) => format!("{text}, node port {node_port}"),
        None => text,
    }
}

/// What keeps packets from getting to an endpoint, or only luck lets them through.
pub(crate) fn endpoints(world: &World, service: &Service, explanation: &Explanation) -> Vec<Problem> {
    let mut problems = Vec::new();
    if explanation.endpoints.is_empty() {
        problems.push(no_endpoints(world, service));
    } else if !explanation.is_forwarded() && explanation.source_ranges.as_ref().is_none_or(|r| r.admitted) {
        problems.push(none_usable(world, service, explanation));
    }
    problems.extend(undeclared_port(world, service, explanation));
    if let Some(ranges) = explanation.source_ranges.as_ref().filter(|ranges| !ranges.admitted) {
        let allowed: Vec<String> = ranges.allowed.iter().map(ToString::to_string).collect();
        problems.push(problem(
            ProblemKind::OutsideSourceRanges,
            format!("the source is not within spec.loadBalancerSourceRanges ({})", allowed.join(", ")),
            "add its range there, or use the ClusterIP or node port, which are not limited".into(),
        ));
    }
    problems
}

/// The Service has no endpoint at all.
fn no_endpoints(world: &World, service: &Service) -> Problem {
    let key = &service.object.view.key;
    let Some(selector) = service.fields.selector() else {
        return problem(
            ProblemKind::NoSelector,
            format!("Service {key} has no selector, and nobody has given it endpoints"),
            format!(
                "create Endpoints named {} or an EndpointSlice labelled kubernetes.io/service-name: {}",
                key.name, key.name
            ),
        );
    };
    let selected: Vec<&Pod> =
        world.pods.values().filter(|pod| selects(selector, &service.fields, &pod.fields)).collect();
    if !selected.is_empty() {
        let names: Vec<String> = selected.iter().map(|pod| pod.name()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return problem(
            ProblemKind::NoReadyEndpoint,
            format!(
                "the selected pods ({}) are no endpoints yet: without an address, or at their end",
                few(&names)
            ),
            "kubectl describe pod says what they wait for".into(),
        );
    }
    let wanted: Vec<String> = selector.iter().map(|(label, value)| format!("{label}={value}")).collect();
    problem(
        ProblemKind::NoMatchingPod,
        format!(
            "the selector {} of Service {key} matches no pod of namespace {}",
            wanted.join(","),
            key.namespace
        ),
        nearest_labels(world, service, selector),
    )
}

/// The pods that nearly match, or match elsewhere.
fn nearest_labels(world: &World, service: &Service, selector: &Labels) -> String {
    let key = &service.object.view.key;
    let has = |pod: &Pod| {
        selector.iter().filter(|(label, value)| pod.fields.metadata.labels.get(label) == Some(*value)).count()
    };
    let (here, elsewhere): (Vec<&Pod>, Vec<&Pod>) =
        world.pods.values().partition(|pod| pod.fields.metadata.namespace == key.namespace);
    if let Some(pod) = elsewhere.iter().find(|pod| has(pod) == selector.len()) {
        return format!("pod {} matches, but a Service selects only in its own namespace", pod.name());
    }
    let near = |pod: &&&Pod| {
        let likely = selector.iter().filter(|(label, value)| {
            let value_of = pod.fields.metadata.labels.get(label);
            value_of.is_some_and(|other| other == *value || suggest::near_value(value, &[other]).is_some())
                || pod
                    .fields
                    .metadata
                    .labels
                    .iter()
                    .any(|(other, of)| of == *value && suggest::near_value(label, &[other]).is_some())
        });
        (likely.count(), has(pod))
    };
    match here.iter().max_by_key(near).filter(|pod| near(pod).0 > 0) {
        Some(pod) => {
            let labels: Vec<String> =
                pod.fields.metadata.labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
            format!("the nearest is pod {} with the labels {}", pod.name(), labels.join(","))
        }
        None if here.is_empty() => format!("namespace {} has no pod at all", key.namespace),
        None => {
            let mut labels: Vec<String> = here
                .iter()
                .flat_map(|pod| &pod.fields.metadata.labels)
                .map(|(l, v)| format!("{l}={v}"))
                .collect();
            labels.sort();
            labels.dedup();
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            format!("its pods carry the labels {}", few(&labels))
        }
    }
}

/// There are endpoints, and none may be used.
fn none_usable(world: &World, service: &Service, explanation: &Explanation) -> Problem {
    let key = &service.object.view.key;
    let only =
        |out: fn(&Out) -> bool| explanation.endpoints.iter().all(|fate| fate.out.as_ref().is_some_and(out));
    if only(|out| matches!(out, Out::OtherFamily)) {
        return problem(
            ProblemKind::OtherFamily,
            format!("Service {key} has endpoints of the other address family only"),
            "make the Service and its pods of one family, or dual-stack".into(),
        );
    }
    let explained = explanation.endpoints.iter();
    if explained.clone().any(|f| matches!(f.out, Some(Out::Excluded(Exclusion::OnOtherNode)))) {
        let field =
            if explanation.policy.external { "externalTrafficPolicy" } else { "internalTrafficPolicy" };
        return problem(
            ProblemKind::NoLocalEndpoint,
            format!(
                "spec.{field} is Local and no usable endpoint runs on this node: packets vanish here, by design"
            ),
            "ask on a node that has one, run a pod on every node (DaemonSet), or set the policy to Cluster"
                .into(),
        );
    }
    if only(|out| matches!(out, Out::NoSuchPort { .. } | Out::OtherFamily)) {
        return no_target_port(world, service, explanation);
    }
    problem(
        ProblemKind::NoReadyEndpoint,
        format!("no endpoint of Service {key} is ready"),
        "see the reason beside each endpoint; kubectl describe pod tells more".into(),
    )
}

/// No endpoint has a port of the name that the Service port asks for.
fn no_target_port(world: &World, service: &Service, explanation: &Explanation) -> Problem {
    let key = &service.object.view.key;
    let port = service.fields.spec.ports.iter().find(|port| {
        port.name == *explanation.port.port_name
            && or_tcp(&port.protocol) == explanation.port.protocol.as_str()
    });
    let Some(PortRef::Name(target)) = port.and_then(|port| port.target_port.clone()) else {
        return problem(
            ProblemKind::NoSuchPort,
            format!("no endpoint of Service {key} has a port named {:?}", &*explanation.port.port_name),
            "ports of the EndpointSlice (or Endpoints) must have the names of the Service's ports".into(),
        );
    };
    let selector = service.fields.selector().cloned().unwrap_or_default();
    let pods = world.pods.values().filter(|pod| selects(&selector, &service.fields, &pod.fields));
    let mut named: Vec<String> =
        pods.flat_map(|pod| declared(pod).into_iter().map(|port| port.text())).collect();
    named.sort();
    named.dedup();
    let has =
        if named.is_empty() { "they name no port".into() } else { format!("they have {}", named.join(", ")) };
    problem(
        ProblemKind::NoSuchPort,
        format!(
            "targetPort {target:?} of Service {key}: no selected pod has a container port of that name; {has}"
        ),
        "name a container port so, or give targetPort as a number".into(),
    )
}

/// The pods say on which ports they listen, and the target port is none of them.
fn undeclared_port(world: &World, service: &Service, explanation: &Explanation) -> Option<Problem> {
    let protocol = explanation.port.protocol.as_str();
    let used = explanation.endpoints.iter().filter(|fate| fate.out.is_none());
    let suspicious = |endpoint: portolan_forward::Endpoint| {
        let pod = world.pod_at(&service.object.view.key, endpoint.address)?;
        let declared = declared(pod);
        let right = declared.iter().any(|d| d.number == i32::from(endpoint.port) && d.protocol == protocol);
        (!declared.is_empty() && !right).then_some((endpoint.port, declared))
    };
    let (port, declared) = used.filter_map(|fate| fate.endpoint).find_map(suspicious)?;
    let declared: Vec<String> = declared.iter().map(Declared::text).collect();
    Some(problem(
        ProblemKind::PortNotDeclared,
        format!("the target port is {port}/{protocol}, but the pods declare {}", declared.join(", ")),
        "if nothing listens there the pod refuses the connection: correct targetPort".into(),
    ))
}

/// A pod that the proxy does not take for one.
pub(crate) fn not_local(source: std::net::IpAddr, cidrs: &[ipnet::IpNet]) -> Problem {
    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    problem(
        ProblemKind::NotLocalTraffic,
        format!(
            "{source} is a pod, but not within the cluster's range {}: the proxy takes it for a stranger",
            cidrs.join(", ")
        ),
        "give --cluster-cidr as the proxy has it; if this is how it has it, correct the proxy's".into(),
    )
}
