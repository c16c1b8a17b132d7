//! What to write into a Service's status, and what to say about it. Pure.

use std::net::IpAddr;

use portolan_client::EventType;
use serde_json::{Value, json};

use super::objects::Service;
use super::plan::{Note, Verdict};

/// The condition that says whether a Service has the addresses it asks for, and why not.
pub const CONDITION: &str = "portolan.dev/AddressAssigned";

/// One event about a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub kind: EventType,
    pub reason: &'static str,
    pub message: String,
}

/// The merge patch for the status; `None` when it says all of it already. The version makes it fail where somebody
/// else has written since.
pub fn patch(service: &Service, verdict: &Verdict, now: &str) -> Option<Value> {
    let ingress = ingress(service, &verdict.addresses);
    let condition = condition(service, verdict, now);
    let known = service.condition(CONDITION) == Some(&condition);
    if known && service.status.load_balancer.ingress == ingress {
        return None;
    }
    let others = service.status.conditions.iter().filter(|condition| condition["type"] != CONDITION);
    let conditions: Vec<Value> = others.cloned().chain([condition]).collect();
    // An empty list is read as none.
    let load_balancer = if ingress.is_empty() { json!(null) } else { json!({ "ingress": ingress }) };
    Some(json!({
        "metadata": { "resourceVersion": service.metadata.resource_version },
        "status": { "loadBalancer": load_balancer, "conditions": conditions },
    }))
}

/// The merge patch that takes back what [`patch`] wrote, for a Service that is none of ours any more.
pub fn cleared(service: &Service) -> Option<Value> {
    service.condition(CONDITION)?;
    let others = service.status.conditions.iter().filter(|condition| condition["type"] != CONDITION);
    let mut status = json!({ "conditions": others.collect::<Vec<_>>() });
    if service.spec.kind != "LoadBalancer" {
        status["loadBalancer"] = Value::Null;
    }
    Some(json!({
        "metadata": { "resourceVersion": service.metadata.resource_version },
        "status": status,
    }))
}

fn ingress(service: &Service, addresses: &[IpAddr]) -> Vec<Value> {
    let ports = service.spec.ports.iter();
    let ports: Vec<Value> =
        ports.map(|port| json!({ "port": port.port, "protocol": port.protocol() })).collect();
    let entry = |ip: &IpAddr| json!({ "ip": ip.to_string(), "ipMode": "VIP", "ports": ports });
    addresses.iter().map(entry).collect()
}

fn condition(service: &Service, verdict: &Verdict, now: &str) -> Value {
    let listed = list(&verdict.addresses);
    let (status, reason, message) = match &verdict.note {
        Note::Assigned { pools } => ("True", "Assigned", format!("{listed} from pool {pools}")),
        Note::Remark { reason, message } => ("True", *reason, message.clone()),
        Note::Problem(problem) if verdict.addresses.is_empty() => {
            ("False", problem.reason(), problem.to_string())
        }
        Note::Problem(problem) => {
            ("False", problem.reason(), format!("{problem}; it keeps {listed} meanwhile"))
        }
    };
    let old = service.condition(CONDITION);
    let since = old.filter(|old| old["status"] == status).and_then(|old| old["lastTransitionTime"].as_str());
    json!({
        "type": CONDITION,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since.unwrap_or(now),
    })
}

fn list(addresses: &[IpAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

/// What is new about a verdict, compared with what the status said before. Reasons are those that MetalLB's users know.
pub fn said(service: &Service, verdict: &Verdict) -> Vec<Said> {
    let before = service.addresses();
    let mut said = Vec::new();
    for ip in before.iter().filter(|ip| !verdict.addresses.contains(ip)) {
        let why = verdict.lost.iter().find(|(lost, _)| lost == ip).map(|(_, why)| why.as_str());
        let why = why.unwrap_or("another Service holds it, or it was never given");
        let message = format!("lost {ip}: {why}");
        said.push(Said { kind: EventType::Warning, reason: "ClearAssignment", message });
    }
    let gained: Vec<IpAddr> = verdict.addresses.iter().copied().filter(|ip| !before.contains(ip)).collect();
    if !gained.is_empty() {
        let message = format!("Assigned IP {}", list(&gained));
        said.push(Said { kind: EventType::Normal, reason: "IPAllocated", message });
    }
    let condition = condition(service, verdict, "");
    let message = condition["message"].as_str().unwrap_or_default().to_owned();
    let known = service.condition(CONDITION).is_some_and(|old| old["message"] == message.as_str());
    match &verdict.note {
        _ if known => {}
        Note::Assigned { .. } => {}
        Note::Remark { reason, .. } => said.push(Said { kind: EventType::Warning, reason, message }),
        Note::Problem(_) => said.push(Said { kind: EventType::Warning, reason: "AllocationFailed", message }),
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loadbalancer::objects::Port;
    use crate::loadbalancer::problem::Problem;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn service() -> Service {
        let mut service = Service::default();
        service.spec.kind = "LoadBalancer".into();
        service.spec.ports = vec![Port { protocol: String::new(), port: 80 }];
        service.metadata.resource_version = "7".into();
        service
    }

    /// The service after the patch.
    fn written(mut service: Service, patch: &Value) -> Service {
        service.status = serde_json::from_value(patch["status"].clone()).unwrap();
        service
    }

    #[test]
    fn the_status_says_address_mode_and_ports_and_is_written_once() {
        let verdict = Verdict {
            addresses: vec!["192.0.2.1".parse().unwrap()],
            note: Note::Assigned { pools: "main".into() },
            lost: Vec::new(),
        };
        let patch_ = patch(&service(), &verdict, NOW).unwrap();
        assert_eq!(
            patch_["status"]["loadBalancer"]["ingress"],
            json!([{"ip": "192.0.2.1", "ipMode": "VIP", "ports": [{"port": 80, "protocol": "TCP"}]}])
        );
        assert_eq!(patch_["metadata"]["resourceVersion"], "7");
        assert_eq!(said(&service(), &verdict)[0].message, "Assigned IP 192.0.2.1");
        let after = written(service(), &patch_);
        assert_eq!(patch(&after, &verdict, "later"), None);
        assert_eq!(said(&after, &verdict), []);
        let back = cleared(&after).unwrap();
        assert_eq!(back["status"]["conditions"], json!([]));
    }

    #[test]
    fn a_problem_is_a_condition_and_an_event_with_the_way_out() {
        let verdict = Verdict { note: Note::Problem(Problem::NoPools), ..Verdict::default() };
        let patch = patch(&service(), &verdict, NOW).unwrap();
        assert_eq!(patch["status"]["loadBalancer"], Value::Null);
        let condition = &patch["status"]["conditions"][0];
        assert_eq!(
            (condition["status"].as_str(), condition["reason"].as_str()),
            (Some("False"), Some("NoPools"))
        );
        let events = said(&service(), &verdict);
        assert_eq!((events.len(), events[0].reason), (1, "AllocationFailed"));
        assert!(events[0].message.contains("create one"), "{events:?}");
    }

    #[test]
    fn others_conditions_stay() {
        let mut with = service();
        with.status.conditions = vec![json!({"type": "example.org/Other", "status": "True"})];
        let patch = patch(&with, &Verdict::default(), NOW).unwrap();
        assert_eq!(patch["status"]["conditions"][0]["type"], "example.org/Other");
        assert_eq!(patch["status"]["conditions"].as_array().unwrap().len(), 2);
    }
}
