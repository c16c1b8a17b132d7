//! Small builders for tests.

use std::sync::Arc;

use crate::objects::{
    Condition, Container, ContainerPort, Labels, Node, Pod, PodIp, PortRef, Service, ServicePort,
};

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

/// A ready pod of `app=web` on node `n1` with a container port `http` 8080.
pub(crate) fn pod(name: &str, ip: &str) -> Pod {
    let mut pod = Pod::default();
    pod.metadata.name = name.into();
    pod.metadata.namespace = "default".into();
    pod.metadata.uid = format!("uid-{name}").into();
    pod.metadata.labels = labels(&[("app", "web")]);
    pod.spec.node_name = "n1".into();
    pod.spec.containers = vec![Container {
        ports: vec![ContainerPort { name: "http".into(), container_port: 8080, protocol: "TCP".into() }],
        ..Container::default()
    }];
    pod.status.phase = "Running".into();
    pod.status.pod_ip = ip.into();
    pod.status.pod_ips = vec![PodIp { ip: ip.into() }];
    pod.status.conditions =
        vec![Condition { kind: "Ready".into(), status: "True".into(), ..Condition::default() }];
    pod
}

pub(crate) fn set_ready(pod: &mut Pod, ready: bool) {
    pod.status.conditions[0].status = if ready { "True" } else { "False" }.into();
}

/// A Service of `app=web` with port 80 to the pods' 8080.
pub(crate) fn service(name: &str) -> Service {
    let mut service = Service::default();
    service.metadata.name = name.into();
    service.metadata.namespace = "default".into();
    service.metadata.uid = format!("uid-{name}").into();
    service.spec.kind = "ClusterIP".into();
    service.spec.selector = Some(labels(&[("app", "web")]));
    service.spec.cluster_ip = "10.96.0.10".into();
    service.spec.ip_families = vec!["IPv4".into()];
    service.spec.ports = vec![ServicePort {
        protocol: "TCP".into(),
        port: 80,
        target_port: Some(PortRef::Number(8080)),
        ..ServicePort::default()
    }];
    service
}

pub(crate) fn node(name: &str, zone: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = name.into();
    node.metadata.uid = format!("uid-{name}").into();
    if !zone.is_empty() {
        node.metadata.labels = labels(&[("topology.kubernetes.io/zone", zone)]);
    }
    node.status.conditions =
        vec![Condition { kind: "Ready".into(), status: "True".into(), ..Condition::default() }];
    node
}

pub(crate) fn shared<T>(items: impl IntoIterator<Item = T>) -> Vec<Arc<T>> {
    items.into_iter().map(Arc::new).collect()
}
