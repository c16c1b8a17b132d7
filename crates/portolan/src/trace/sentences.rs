//! The sentences of an answer: what happens to the packet, why its source is kept or not, and what comes of it.

use std::net::SocketAddr;

use portolan_forward::explain::{Explanation, Source};
use portolan_forward::select::Topology;
use portolan_forward::{FrontendKind, Origin, Outcome, Packet, Policy, PoolScope, Trace};

use super::report::{OutcomeKind, ServicePart, Verdict};

pub(crate) fn frontend_kind(kind: FrontendKind) -> &'static str {
    match kind {
        FrontendKind::ClusterIp(_) => "ClusterIP",
        FrontendKind::ExternalIp(_) => "external IP",
        FrontendKind::LoadBalancerIp(_) => "load-balancer IP",
        FrontendKind::NodePort => "node port",
    }
}

pub(crate) fn source_why(source: Source) -> &'static str {
    match source {
        Source::MasqueradeAll => "the proxy masquerades everything (masqueradeAll)",
        Source::NotLocalTraffic => {
            "the packet does not come from a pod: the answer must come back through this node"
        }
        Source::ExternalCluster => {
            "it came to an external address with policy Cluster: the endpoint may be on another node, and the answer \
             must come back through this one"
        }
        Source::NodeToExternal => "the node itself asks for an external address with policy Local",
        Source::LocalTraffic => "it comes from a pod, and pods reach each other without translation",
        Source::CannotTell => "this node has no way to tell pods from others (no cluster CIDR)",
        Source::ExternalLocal => "policy Local keeps the client's address",
        Source::PodToExternal => "a pod asks for an external address with policy Local",
    }
}

/// What happens, in order, one sentence each.
pub(crate) fn steps(
    part: &ServicePart,
    explanation: &Explanation,
    packet: &Packet,
    node: &str,
) -> Vec<String> {
    let mut steps = Vec::new();
    let destination = SocketAddr::new(packet.destination, packet.port);
    let port = match &part.port {
        Some(port) if !port.name.is_empty() => format!(", port {}", port.name),
        _ => String::new(),
    };
    let what = part.frontend.as_ref().map_or("frontend", |frontend| frontend.kind);
    let article = if what.starts_with('e') { "an" } else { "the" };
    steps.push(format!(
        "{destination}/{} is {article} {what} of Service {}/{}{port}",
        packet.protocol, part.namespace, part.name
    ));
    if let Some(ranges) = &explanation.source_ranges {
        let allowed: Vec<String> = ranges.allowed.iter().map(ToString::to_string).collect();
        let allowed = allowed.join(", ");
        if !ranges.admitted {
            steps.push(format!(
                "{} is not within loadBalancerSourceRanges ({allowed}): dropped",
                packet.source
            ));
            return steps;
        }
        steps.push(format!("{} is within loadBalancerSourceRanges ({allowed})", packet.source));
    }
    steps.push(match explanation.origin {
        Origin::Pod => format!("{} counts as a pod of the cluster", packet.source),
        Origin::Node => format!("{} is {node} itself", packet.source),
        Origin::Outside => format!("{} counts as outside the cluster", packet.source),
    });
    steps.push(policy_step(explanation, node));
    match explanation.topology {
        Topology::SameZone if explanation.policy.scope() == PoolScope::Cluster => {
            steps.push("topology hints narrow that to the endpoints for this node's zone".into());
        }
        Topology::SameNode if explanation.policy.scope() == PoolScope::Cluster => {
            steps.push("topology hints narrow that to the endpoints for this node".into());
        }
        _ => {}
    }
    if !explanation.is_forwarded() {
        steps.push(match explanation.trace.outcome {
            Outcome::Reject => {
                "no endpoint may be used, on any node: rejected, so that the client knows at once".into()
            }
            _ => format!("no endpoint on {node} may be used: dropped"),
        });
        return steps;
    }
    if let Some(affinity) = explanation.affinity {
        steps.push(format!(
            "sessionAffinity ClientIP: a client keeps its endpoint until {} s after its last new connection",
            affinity.timeout_seconds
        ));
    }
    let kept = if explanation.source.is_masqueraded() {
        format!("the source address is replaced by that of {node}")
    } else {
        "the source address is kept".into()
    };
    steps.push(format!("{kept}: {}", source_why(explanation.source)));
    steps
}

fn policy_step(explanation: &Explanation, node: &str) -> String {
    let policy = &explanation.policy;
    let field = if policy.external { "externalTrafficPolicy" } else { "internalTrafficPolicy" };
    match (policy.policy, policy.short_circuit) {
        (Policy::Cluster, _) => format!("{field} is Cluster: any usable endpoint"),
        (Policy::Local, true) => {
            format!("{field} is Local, but that is for outside clients; from inside: any usable endpoint")
        }
        (Policy::Local, false) => format!("{field} is Local: only endpoints on {node}"),
    }
}

pub(crate) fn verdict(trace: &Trace, affine: bool) -> Verdict {
    let (outcome, summary) = match &trace.outcome {
        Outcome::Forward { backends, .. } => (
            OutcomeKind::Forward,
            match (&backends[..], affine) {
                ([only], _) => {
                    format!("goes to {}", SocketAddr::new(only.endpoint.address, only.endpoint.port))
                }
                (several, false) => {
                    format!("goes to one of {} endpoints, each new connection at random", several.len())
                }
                (several, true) => format!(
                    "goes to the endpoint this client had before, else to one of {} at random",
                    several.len()
                ),
            },
        ),
        Outcome::Reject => {
            (OutcomeKind::Reject, "rejected: the client sees \"connection refused\" at once".into())
        }
        Outcome::Drop => (OutcomeKind::Drop, "dropped: the client hears nothing and times out".into()),
        Outcome::Pass => (OutcomeKind::Pass, "no Service takes part: the packet goes straight on".into()),
    };
    Verdict { outcome, summary }
}
