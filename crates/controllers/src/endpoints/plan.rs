//! From a Service and its pods to its Endpoints object.

use std::sync::Arc;

use super::subsets::{repack, subsets, truncate};
use crate::objects::{Labels, Pod, Service};
use crate::written::{Endpoints, HEADLESS_LABEL};

pub const MANAGED_BY_LABEL: &str = "endpoints.kubernetes.io/managed-by";
pub const MANAGED_BY: &str = "endpoint-controller";
pub const OVER_CAPACITY_ANNOTATION: &str = "endpoints.kubernetes.io/over-capacity";

#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    Create(Endpoints),
    Update(Endpoints),
}

/// What to write for a Service with a selector; `None` when all is as it should be.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    trigger: Option<&str>,
) -> Option<Write> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let labels = labels(service);
    if current.is_some_and(|current| {
        current.metadata.labels == labels
            && (current.metadata.annotations.get(OVER_CAPACITY_ANNOTATION) == Some("truncated")) == truncated
            && repack(&current.subsets) == repack(&subsets)
    }) {
        return None;
    }
    // A Service on its way out needs no Endpoints made for it.
    if current.is_none() && service.metadata.deleting() {
        return None;
    }
    let mut endpoints = current.cloned().unwrap_or_default();
    endpoints.metadata.name = service.metadata.name.to_string();
    endpoints.metadata.namespace = service.metadata.namespace.to_string();
    endpoints.metadata.labels = labels;
    endpoints.metadata.set_trigger_time(trigger);
    if truncated {
        endpoints.metadata.annotations.insert(OVER_CAPACITY_ANNOTATION, "truncated");
    } else {
        endpoints.metadata.annotations.remove(OVER_CAPACITY_ANNOTATION);
    }
    endpoints.subsets = subsets;
    Some(if current.is_some() { Write::Update(endpoints) } else { Write::Create(endpoints) })
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.metadata.labels.clone();
    labels.insert(MANAGED_BY_LABEL, MANAGED_BY);
    if service.headless() {
        labels.insert(HEADLESS_LABEL, "");
    } else {
        labels.remove(HEADLESS_LABEL);
    }
    labels
}

/// Whether Endpoints without a Service are ours to delete, after the Service was seen to go (`service_seen`) or not.
/// Endpoints that a user wrote before the Service are left alone.
pub fn leftover(endpoints: &Endpoints, service_seen: bool) -> bool {
    let ours = endpoints.metadata.labels.get(MANAGED_BY_LABEL).is_some_and(|by| by == MANAGED_BY);
    let leader = endpoints.metadata.annotations.contains_key("control-plane.alpha.kubernetes.io/leader");
    !leader && !endpoints.metadata.deleting() && (ours || service_seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::{PodIp, PortRef, ServicePort};
    use crate::testing::{labels, pod, service, set_ready, shared};
    use crate::written::TRIGGER_TIME_ANNOTATION;

    fn created(service: &Service, pods: Vec<Pod>) -> Endpoints {
        match plan(service, &shared(pods), None, None) {
            Some(Write::Create(endpoints)) => endpoints,
            other => panic!("{other:?}"),
        }
    }

    /// `ready | not ready : ports` per subset.
    fn lines(endpoints: &Endpoints) -> Vec<String> {
        let names = |addresses: &[crate::written::Address]| {
            addresses.iter().map(|a| a.ip.as_str()).collect::<Vec<_>>().join(" ")
        };
        let lines = endpoints.subsets.iter().map(|subset| {
            let ports: Vec<String> = subset.ports.iter().map(|p| format!("{}{}", p.name, p.port)).collect();
            format!(
                "{} | {} : {}",
                names(&subset.addresses),
                names(&subset.not_ready_addresses),
                ports.join(" ")
            )
        });
        lines.collect()
    }

    #[test]
    fn ready_and_not_ready_addresses_in_order() {
        let mut waiting = pod("b", "10.0.0.2");
        set_ready(&mut waiting, false);
        let endpoints =
            created(&service("web"), vec![pod("c", "10.0.0.10"), waiting.clone(), pod("a", "10.0.0.9")]);
        assert_eq!(lines(&endpoints), ["10.0.0.9 10.0.0.10 | 10.0.0.2 : 8080"]);
        assert_eq!(endpoints.metadata.name, "web");
        let address = &endpoints.subsets[0].addresses[0];
        assert_eq!(address.node_name.as_deref(), Some("n1"));
        assert_eq!(address.target_ref.as_ref().unwrap().name, "a");
        let mut eager = service("web");
        eager.spec.publish_not_ready_addresses = true;
        waiting.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
        assert_eq!(lines(&created(&eager, vec![waiting.clone()])), ["10.0.0.2 |  : 8080"]);
        assert!(created(&service("web"), vec![waiting]).subsets.is_empty(), "deleted pods leave");
    }

    #[test]
    fn pods_without_address_or_finished_are_left_out() {
        let mut ended = pod("a", "10.0.0.1");
        ended.status.phase = "Failed".into();
        let mut early = pod("b", "");
        early.status.pod_ips.clear();
        assert!(created(&service("web"), vec![ended, early]).subsets.is_empty());
    }

    #[test]
    fn ports_share_a_subset_only_with_the_same_addresses() {
        let mut web = service("web");
        web.spec.ports[0].name = "http".into();
        web.spec.ports[0].target_port = Some(PortRef::Name("http".into()));
        web.spec.ports.push(ServicePort { name: "m".into(), port: 9000, ..ServicePort::default() });
        let mut other = pod("b", "10.0.0.2");
        other.spec.containers[0].ports[0].container_port = 9090;
        let mut without = pod("c", "10.0.0.3");
        without.spec.containers.clear();
        assert_eq!(
            lines(&created(&web, vec![pod("a", "10.0.0.1"), other, without])),
            ["10.0.0.1 |  : http8080", "10.0.0.2 |  : http9090", "10.0.0.1 10.0.0.2 10.0.0.3 |  : m9000"]
        );
        assert_eq!(lines(&created(&web, vec![pod("a", "10.0.0.1")])), ["10.0.0.1 |  : http8080 m9000"]);
    }

    #[test]
    fn only_the_primary_family() {
        let mut web = service("web");
        web.spec.ip_families = vec!["IPv6".into(), "IPv4".into()];
        let mut dual = pod("a", "10.0.0.1");
        dual.status.pod_ips.push(PodIp { ip: "fd00:0:0::1".into() });
        assert_eq!(lines(&created(&web, vec![dual, pod("b", "10.0.0.2")])), ["fd00::1 |  : 8080"]);
    }

    #[test]
    fn headless_without_ports_has_addresses_and_a_label() {
        let mut web = service("web");
        web.spec.cluster_ip = "None".into();
        web.spec.ports.clear();
        let endpoints = created(&web, vec![pod("a", "10.0.0.1")]);
        assert_eq!(lines(&endpoints), ["10.0.0.1 |  : "]);
        assert_eq!(endpoints.metadata.labels.get(HEADLESS_LABEL), Some(""));
    }

    #[test]
    fn nothing_is_written_while_all_is_right() {
        let mut web = service("web");
        web.metadata.labels = labels(&[("team", "a")]);
        let pods = shared([pod("a", "10.0.0.1")]);
        let mut now = created(&web, vec![pod("a", "10.0.0.1")]);
        now.metadata.annotations.insert("someone/else", "x");
        let target = now.subsets[0].addresses[0].target_ref.as_mut().unwrap();
        target.rest.insert("resourceVersion".into(), "7".into());
        assert_eq!(plan(&web, &pods, Some(&now), Some("2026-01-01T00:00:00Z")), None);
        web.metadata.labels = labels(&[("team", "b")]);
        let Some(Write::Update(next)) = plan(&web, &pods, Some(&now), Some("2026-01-01T00:00:00Z")) else {
            panic!()
        };
        assert_eq!(next.metadata.annotations.len(), 2, "other annotations stay");
        assert_eq!(next.metadata.annotations.get(TRIGGER_TIME_ANNOTATION), Some("2026-01-01T00:00:00Z"));
        assert_eq!(next.metadata.labels.get("team"), Some("b"));
    }

    #[test]
    fn more_than_a_thousand_are_truncated_ready_first() {
        let many = |ready: usize, waiting: usize| -> Vec<Pod> {
            (0..ready + waiting)
                .map(|i| {
                    let mut pod =
                        pod(&format!("p{i}"), &format!("10.{}.{}.{}", i / 62500, i / 250 % 250, i % 250));
                    set_ready(&mut pod, i < ready);
                    pod
                })
                .collect()
        };
        for (ready, waiting, kept) in [(900, 300, (900, 100)), (1200, 50, (1000, 0)), (900, 100, (900, 100))]
        {
            let endpoints = created(&service("web"), many(ready, waiting));
            let subset = &endpoints.subsets[0];
            assert_eq!((subset.addresses.len(), subset.not_ready_addresses.len()), kept);
            let marked = endpoints.metadata.annotations.contains_key(OVER_CAPACITY_ANNOTATION);
            assert_eq!(marked, ready + waiting > 1000, "{ready} {waiting}");
        }
    }

    #[test]
    fn a_share_of_every_subset_is_kept() {
        let mut web = service("web");
        web.spec.ports[0].target_port = Some(PortRef::Name("http".into()));
        let pods = (0..1500).map(|i| {
            let mut pod = pod(&format!("p{i}"), &format!("10.0.{}.{}", i / 250, i % 250));
            pod.spec.containers[0].ports[0].container_port = if i < 500 { 1 } else { 2 };
            pod
        });
        let endpoints = created(&web, pods.collect());
        let kept: Vec<usize> = endpoints.subsets.iter().map(|subset| subset.addresses.len()).collect();
        assert_eq!(kept, [334, 666]);
    }

    #[test]
    fn endpoints_in_full() {
        let mut web = service("web");
        web.metadata.labels = labels(&[("team", "a"), (HEADLESS_LABEL, "spoofed")]);
        web.spec.ports[0].name = "http".into();
        web.spec.ports[0].app_protocol = Some("a/b".into());
        let mut it = pod("a", "10.0.0.1");
        it.spec.hostname = "host-a".into();
        it.spec.subdomain = "web".into();
        assert_eq!(
            serde_json::to_value(created(&web, vec![it])).unwrap(),
            serde_json::json!({
                "apiVersion": "v1", "kind": "Endpoints",
                "metadata": { "name": "web", "namespace": "default",
                    "labels": { "team": "a", MANAGED_BY_LABEL: MANAGED_BY } },
                "subsets": [{
                    "addresses": [{ "ip": "10.0.0.1", "nodeName": "n1", "hostname": "host-a",
                        "targetRef": { "kind": "Pod", "namespace": "default", "name": "a", "uid": "uid-a" } }],
                    "ports": [{ "name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "a/b" }],
                }],
            })
        );
    }

    #[test]
    fn marks_go_when_there_is_no_more_reason_for_them() {
        let pods =
            |count: u32| (0..count).map(|i| pod(&format!("p{i}"), &format!("10.0.{}.{}", i / 250, i % 250)));
        let full = created(&service("web"), pods(1001).collect());
        assert_eq!(full.metadata.annotations.get(OVER_CAPACITY_ANNOTATION), Some("truncated"));
        let pods = shared(pods(1000));
        let Some(Write::Update(mut next)) = plan(&service("web"), &pods, Some(&full), Some("t")) else {
            panic!()
        };
        assert_eq!(next.metadata.annotations.get(OVER_CAPACITY_ANNOTATION), None);
        assert_eq!(next.metadata.annotations.get(TRIGGER_TIME_ANNOTATION), Some("t"));
        // A write for another reason takes an old trigger away.
        next.metadata.labels.insert(HEADLESS_LABEL, "");
        let Some(Write::Update(last)) = plan(&service("web"), &pods, Some(&next), None) else { panic!() };
        assert_eq!(last.metadata.annotations.len(), 0);
        assert_eq!(last.metadata.labels.get(HEADLESS_LABEL), None);
    }

    #[test]
    fn leftovers_are_ours_or_of_a_service_seen_to_go() {
        let mut custom = Endpoints::default();
        assert!(!leftover(&custom, false), "a user may write Endpoints before the Service");
        assert!(leftover(&custom, true));
        let ours = created(&service("web"), vec![]);
        assert!(leftover(&ours, false));
        custom.metadata.annotations.insert("control-plane.alpha.kubernetes.io/leader", "{}");
        assert!(!leftover(&custom, true));
    }
}
