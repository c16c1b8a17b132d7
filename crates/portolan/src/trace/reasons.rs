//! Why one endpoint is out, in words: from its slice, and from what its pod says of itself.

use portolan_controllers::objects::or_tcp;
use portolan_forward::explain::Out;
use portolan_forward::select::Exclusion;
use portolan_forward::{EndpointView, PoolScope, Protocol};
use serde_json::Value;

use super::objects::{list, text};
use super::world::{Pod, Service, World};

/// The words for one endpoint's exclusion.
pub(crate) fn reason(
    world: &World,
    service: &Service,
    view: &EndpointView,
    out: &Out,
    (scope, protocol): (PoolScope, Protocol),
) -> String {
    let pod = world.pod_at(&service.object.view.key, view.address);
    match out {
        Out::Excluded(Exclusion::NotReady) if view.terminating => "not ready: it is being deleted".into(),
        Out::Excluded(Exclusion::NotReady) => match pod {
            Some(pod) => format!("not ready: {}", not_ready(pod)),
            None => "not ready, as its EndpointSlice says".into(),
        },
        Out::Excluded(Exclusion::TerminatingAndOthersReady) => {
            let others = if scope == PoolScope::Local { "others on this node" } else { "others" };
            format!("terminating, and {others} are ready")
        }
        Out::Excluded(Exclusion::HintedForOtherZone) => {
            let zones: Vec<&str> = view.for_zones.iter().map(|zone| &**zone).collect();
            format!("its topology hint is for zone {}, not for this node's", zones.join(", "))
        }
        Out::Excluded(Exclusion::HintedForOtherNode) => {
            let nodes: Vec<&str> = view.for_nodes.iter().map(|node| &**node).collect();
            format!("its topology hint is for node {}, not for this one", nodes.join(", "))
        }
        Out::Excluded(Exclusion::OnOtherNode) => "it runs on another node, and the policy is Local".into(),
        Out::OtherFamily => "it is of the other address family".into(),
        Out::NoSuchPort { has } if has.is_empty() => {
            let named = pod.map(declared).unwrap_or_default();
            let named: Vec<String> = named.iter().map(Declared::text).collect();
            let has =
                if named.is_empty() { String::new() } else { format!("; the pod has {}", named.join(", ")) };
            format!("it has no port for this Service port{has}")
        }
        Out::NoSuchPort { has } => {
            let has: Vec<String> =
                has.iter().map(|port| format!("{} ({}/{})", port.name, port.port, port.protocol)).collect();
            format!("it has no {protocol} port of this name; it has {}", has.join(", "))
        }
        Out::Duplicate => "listed once more; it counts once".into(),
    }
}

/// Why a pod is not ready, as its own status says.
fn not_ready(pod: &Pod) -> String {
    if pod.fields.metadata.deleting() {
        return "it is being deleted".into();
    }
    for status in list(&pod.raw, "/status/containerStatuses") {
        if status["ready"].as_bool() == Some(true) {
            continue;
        }
        let container = text(status, "/name");
        for state in ["waiting", "terminated"] {
            if let Some(detail) = status.pointer(&format!("/state/{state}")) {
                let why = [text(detail, "/reason"), text(detail, "/message")];
                let why: Vec<&str> = why.into_iter().filter(|text| !text.is_empty()).collect();
                return format!("container {container} is {state}: {}", why.join(": "));
            }
        }
        if let Some(probe) = readiness_probe(&pod.raw, container) {
            return format!("the readinessProbe of container {container} does not succeed ({probe})");
        }
    }
    let Some(condition) = pod.fields.condition("Ready") else {
        return format!("it has no condition Ready, its phase is {}", pod.fields.status.phase);
    };
    let detail: Vec<&str> =
        [&*condition.reason, &*condition.message].into_iter().filter(|text| !text.is_empty()).collect();
    let probes: Vec<String> = list(&pod.raw, "/spec/containers")
        .iter()
        .filter_map(|container| readiness_probe(&pod.raw, text(container, "/name")))
        .collect();
    match (detail.is_empty(), probes.first()) {
        (false, _) => format!("its condition Ready is {} ({})", condition.status, detail.join(": ")),
        (true, Some(probe)) => {
            format!("its condition Ready is {}; readinessProbe: {probe}", condition.status)
        }
        (true, None) => format!("its condition Ready is {}", condition.status),
    }
}

fn readiness_probe(pod: &Value, container: &str) -> Option<String> {
    let container = list(pod, "/spec/containers").iter().find(|c| text(c, "/name") == container)?;
    let probe = container.get("readinessProbe")?;
    let port = |of: &Value| of["port"].as_str().map_or_else(|| of["port"].to_string(), str::to_owned);
    Some(if let Some(http) = probe.get("httpGet") {
        format!("HTTP GET {} on port {}", http["path"].as_str().unwrap_or("/"), port(http))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("TCP connect to port {}", port(tcp))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("gRPC on port {}", port(grpc))
    } else {
        let command: Vec<&str> = list(probe, "/exec/command").iter().filter_map(Value::as_str).collect();
        format!("the command {:?}", command.join(" "))
    })
}

/// A port that a container says it listens on.
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) number: i32,
    pub(crate) protocol: String,
}

impl Declared {
    pub(crate) fn text(&self) -> String {
        if self.name.is_empty() {
            format!("{}/{}", self.number, self.protocol)
        } else {
            format!("{} ({}/{})", self.name, self.number, self.protocol)
        }
    }
}

pub(crate) fn declared(pod: &Pod) -> Vec<Declared> {
    let ports = pod.fields.spec.containers.iter().flat_map(|container| &container.ports);
    ports
        .map(|port| Declared {
            name: port.name.clone(),
            number: port.container_port,
            protocol: or_tcp(&port.protocol).to_owned(),
        })
        .collect()
}
