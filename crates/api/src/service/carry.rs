//! What an update keeps of the stored Service, and what a change of type wipes.

use std::collections::{BTreeMap, HashSet};

use super::ServiceSpec;

/// Fills what the server once allocated and the client did not send: a PUT of the user's own manifest keeps its
/// addresses and ports.
pub fn patch_allocated(new: &mut ServiceSpec, old: &ServiceSpec) {
    if old.needs_cluster_ip() && new.needs_cluster_ip() {
        if new.cluster_ip.is_empty() {
            new.cluster_ip.clone_from(&old.cluster_ip);
        }
        if new.cluster_ips.is_empty() {
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
    }
    if old.allocates_node_ports() && new.allocates_node_ports() {
        patch_node_ports(new, old);
    }
    if old.needs_health_check_node_port()
        && new.needs_health_check_node_port()
        && new.health_check_node_port == 0
    {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// Ports are the same if their names are; a number that the client gave to another port is not taken from it.
fn patch_node_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    let numbers = |spec: &ServiceSpec| -> HashSet<i32> {
        spec.ports.iter().map(|p| p.node_port).filter(|n| *n != 0).collect()
    };
    let taken: HashSet<i32> = numbers(old).intersection(&numbers(new)).copied().collect();
    let by_name: BTreeMap<&str, i32> = old.ports.iter().map(|p| (p.name.as_str(), p.node_port)).collect();
    for port in new.ports.iter_mut().filter(|p| p.node_port == 0) {
        if let Some(number) = by_name.get(port.name.as_str()).filter(|n| !taken.contains(n)) {
            port.node_port = *number;
        }
    }
}

/// Wipes what the new type has no use for, unless the client changed it in the same write: then validation complains.
pub fn drop_type_dependent(new: &mut ServiceSpec, old: &ServiceSpec) {
    if old.needs_cluster_ip() && !new.needs_cluster_ip() {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip.clear();
            new.cluster_ips.clear();
        }
        if new.ip_families == old.ip_families {
            new.ip_families.clear();
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
    }
    if old.may_have_node_ports() && !new.may_have_node_ports() {
        let known: HashSet<i32> = old.ports.iter().map(|p| p.node_port).collect();
        if new.ports.iter().all(|p| p.node_port == 0 || known.contains(&p.node_port)) {
            new.ports.iter_mut().for_each(|p| p.node_port = 0);
        }
    }
    if old.needs_health_check_node_port()
        && !new.needs_health_check_node_port()
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = 0;
    }
    if old.is_load_balancer() && !new.is_load_balancer() {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if old.is_externally_accessible()
        && !new.is_externally_accessible()
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::v1::ServicePort;

    fn port(name: &str, port: i32, node_port: i32) -> ServicePort {
        ServicePort { name: name.into(), port, node_port, ..ServicePort::default() }
    }

    fn node_port_service(ports: Vec<ServicePort>) -> ServiceSpec {
        ServiceSpec {
            type_: "NodePort".into(),
            cluster_ip: "10.0.0.1".into(),
            cluster_ips: vec!["10.0.0.1".into()],
            ip_families: vec!["IPv4".into()],
            ip_family_policy: Some("SingleStack".into()),
            external_traffic_policy: "Cluster".into(),
            ports,
            ..ServiceSpec::default()
        }
    }

    #[test]
    fn a_put_without_allocated_values_keeps_them() {
        let old = node_port_service(vec![port("a", 80, 30080), port("b", 81, 30081)]);
        let mut new = node_port_service(vec![port("a", 8080, 0), port("c", 81, 0)]);
        new.cluster_ip.clear();
        new.cluster_ips.clear();
        patch_allocated(&mut new, &old);
        assert_eq!(new.cluster_ips, ["10.0.0.1"]);
        assert_eq!((new.ports[0].node_port, new.ports[1].node_port), (30080, 0));
    }

    #[test]
    fn a_number_given_to_another_port_is_not_given_twice() {
        let old = node_port_service(vec![port("a", 80, 30080), port("b", 81, 30081)]);
        let mut new = node_port_service(vec![port("a", 80, 0), port("b", 81, 30080)]);
        patch_allocated(&mut new, &old);
        assert_eq!((new.ports[0].node_port, new.ports[1].node_port), (0, 30080));
    }

    #[test]
    fn a_change_of_type_wipes_what_it_does_not_have() {
        let old = node_port_service(vec![port("a", 80, 30080)]);
        let mut new = ServiceSpec { type_: "ClusterIP".into(), ..old.clone() };
        drop_type_dependent(&mut new, &old);
        assert_eq!(new.ports[0].node_port, 0);
        assert_eq!(new.external_traffic_policy, "");
        assert_eq!(new.cluster_ip, "10.0.0.1");

        let mut new = ServiceSpec { type_: "ExternalName".into(), ..old.clone() };
        drop_type_dependent(&mut new, &old);
        assert!(new.cluster_ip.is_empty() && new.cluster_ips.is_empty() && new.ip_families.is_empty());
        assert_eq!(new.ip_family_policy, None);
    }

    #[test]
    fn what_the_user_changed_in_the_same_write_stays() {
        let old = node_port_service(vec![port("a", 80, 30080)]);
        let mut new = ServiceSpec { type_: "ClusterIP".into(), ..old.clone() };
        new.ports[0].node_port = 31000;
        new.external_traffic_policy = "Local".into();
        drop_type_dependent(&mut new, &old);
        assert_eq!(new.ports[0].node_port, 31000);
        assert_eq!(new.external_traffic_policy, "Local");
    }

    #[test]
    fn a_balancer_loses_its_own_fields() {
        let mut old = node_port_service(vec![port("a", 80, 30080)]);
        old.type_ = "LoadBalancer".into();
        old.external_traffic_policy = "Local".into();
        old.health_check_node_port = 31000;
        old.allocate_load_balancer_node_ports = Some(true);
        old.load_balancer_class = Some("a/b".into());
        let mut new = ServiceSpec { type_: "NodePort".into(), ..old.clone() };
        drop_type_dependent(&mut new, &old);
        assert_eq!(new.health_check_node_port, 0);
        assert_eq!(new.allocate_load_balancer_node_ports, None);
        assert_eq!(new.load_balancer_class, None);
        assert_eq!(new.external_traffic_policy, "Local");
        assert_eq!(new.ports[0].node_port, 30080);
    }
}
