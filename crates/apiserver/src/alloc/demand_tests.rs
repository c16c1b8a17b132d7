use super::*;
use crate::alloc::carry_over;
use portolan_api::core::v1::Service;
use portolan_api::service::{families, read};
use serde_json::{Value, json};

const DUAL: &[Family] = &[Family::V4, Family::V6];

fn service(spec: Value) -> Service {
    let mut object = json!({"metadata": {"name": "web"}, "spec": spec});
    for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
        port["protocol"] = port.get("protocol").cloned().unwrap_or("TCP".into());
    }
    read(&object).unwrap()
}

fn create(spec: Value) -> Demand {
    let mut new = service(spec);
    families::normalise_cluster_ips(&mut new.spec, None);
    families::init_ip_families(&mut new, None, DUAL).unwrap();
    on_create(&new.spec)
}

fn update(old: Value, new: Value) -> Result<(Demand, ServiceSpec), AllocError> {
    let (mut old, mut new) = (service(old), service(new));
    carry_over(&mut new, &mut old, DUAL)?;
    Ok((on_update(&old.spec, &new.spec)?, new.spec))
}

fn entries(indexes: &[usize], want: Want) -> PortWant {
    PortWant { slot: Slot::Ports(indexes.to_vec()), want }
}

fn node_port_service(ports: Value) -> Value {
    json!({"type": "NodePort", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": ports})
}

#[test]
fn tcp_and_udp_on_one_port_share_a_node_port() {
    let ports = json!([
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "web", "port": 80, "nodePort": 30080},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": 30053},
        {"name": "other", "port": 53, "protocol": "SCTP", "nodePort": 30054},
    ]);
    let demand = create(json!({"type": "NodePort", "ports": ports}));
    assert_eq!(
        demand.ports,
        [
            entries(&[0, 2], Want::This(30053)),
            entries(&[1], Want::This(30080)),
            entries(&[3], Want::This(30054))
        ]
    );
}

#[test]
fn balancers_may_do_without_node_ports_but_keep_those_asked_for() {
    let balancer = |allocate: bool| {
        create(json!({
            "type": "LoadBalancer", "allocateLoadBalancerNodePorts": allocate, "externalTrafficPolicy": "Local",
            "ports": [{"port": 80}, {"port": 81, "nodePort": 30081}],
        }))
    };
    let health = PortWant { slot: Slot::HealthCheck, want: Want::Any };
    assert_eq!(balancer(false).ports, [entries(&[1], Want::This(30081)), health.clone()]);
    assert_eq!(balancer(true).ports, [entries(&[0], Want::Any), entries(&[1], Want::This(30081)), health]);
}

#[test]
fn cluster_services_take_no_node_ports() {
    let demand = create(json!({"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30080}]}));
    assert_eq!(demand.ports, []);
    assert_eq!(demand.addresses, [AddressWant { index: 0, family: Family::V4, asked: None }]);
    assert_eq!(create(json!({"type": "ClusterIP", "clusterIP": "None"})), Demand::default());
    assert_eq!(create(json!({"type": "ExternalName"})), Demand::default());
}

#[test]
fn an_update_carries_ports_over_by_name() {
    let old = node_port_service(
        json!([{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}]),
    );
    let new = node_port_service(json!([{"name": "b", "port": 82}, {"name": "c", "port": 80}]));
    let (demand, spec) = update(old, new).unwrap();
    assert_eq!(spec.ports[0].node_port, 30081);
    assert_eq!(demand.ports, [entries(&[1], Want::Any)]);
    assert_eq!(demand.port_releases, [30080]);
}

#[test]
fn a_port_explicitly_reused_is_not_carried_over_as_well() {
    let old = node_port_service(json!([{"name": "a", "port": 80, "nodePort": 30080}]));
    let new =
        node_port_service(json!([{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30080}]));
    let (demand, spec) = update(old, new).unwrap();
    assert_eq!(spec.ports[0].node_port, 0);
    assert_eq!(demand.ports, [entries(&[0], Want::Any)]);
}

#[test]
fn one_number_twice_for_one_protocol_is_refused_for_two_it_is_not() {
    let old = node_port_service(json!([{"name": "a", "port": 80, "nodePort": 30080}]));
    let ports = |protocol| json!([{"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30090}, {"name": "b", "port": 80, "protocol": protocol, "nodePort": 30090}]);
    let error = update(old.clone(), node_port_service(ports("TCP"))).unwrap_err();
    assert!(matches!(error, AllocError::Plain(text) if text == "duplicate nodePort: {TCP 30090}"));
    let (demand, _) = update(old, node_port_service(ports("UDP"))).unwrap();
    assert_eq!(demand.ports, [entries(&[0], Want::This(30090))]);
}

#[test]
fn a_change_of_type_gives_back_what_the_new_type_has_not() {
    let old = node_port_service(json!([{"port": 80, "nodePort": 30080}]));
    let mut cluster = old.clone();
    cluster["type"] = "ClusterIP".into();
    let (demand, _) = update(old.clone(), cluster).unwrap();
    assert_eq!(demand, Demand { port_releases: vec![30080], ..Demand::default() });
    let (demand, _) = update(old.clone(), json!({"type": "ExternalName"})).unwrap();
    assert_eq!(demand.address_releases, ["10.0.0.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(demand.port_releases, [30080]);
    let (demand, _) = update(json!({"type": "ExternalName"}), json!({"type": "ClusterIP"})).unwrap();
    assert_eq!(demand.addresses.len(), 1);
}

#[test]
fn the_health_check_port_comes_and_goes_with_the_local_policy() {
    let cluster =
        json!({"type": "LoadBalancer", "clusterIP": "10.0.0.7", "ports": [{"port": 80, "nodePort": 30080}]});
    let mut local = cluster.clone();
    local["externalTrafficPolicy"] = "Local".into();
    let (demand, _) = update(cluster.clone(), local.clone()).unwrap();
    assert_eq!(demand.ports, [PortWant { slot: Slot::HealthCheck, want: Want::Any }]);
    let mut held = local.clone();
    held["healthCheckNodePort"] = 31000.into();
    let (demand, spec) = update(held.clone(), local).unwrap();
    assert_eq!((demand, spec.health_check_node_port), (Demand::default(), 31000));
    let (demand, _) = update(held, cluster).unwrap();
    assert_eq!(demand.port_releases, [31000]);
}

#[test]
fn a_second_family_is_added_and_released_alone() {
    let single = json!({"type": "ClusterIP", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"});
    let mut wanted = single.clone();
    wanted["ipFamilyPolicy"] = "RequireDualStack".into();
    let (demand, _) = update(single.clone(), wanted).unwrap();
    assert_eq!(demand.addresses, [AddressWant { index: 1, family: Family::V6, asked: None }]);
    let mut dual = single.clone();
    dual["clusterIPs"] = json!(["10.0.0.7", "fd00::7"]);
    dual["ipFamilies"] = json!(["IPv4", "IPv6"]);
    dual["ipFamilyPolicy"] = "RequireDualStack".into();
    let mut shrunk = dual.clone();
    shrunk["ipFamilyPolicy"] = "SingleStack".into();
    let (demand, _) = update(dual.clone(), shrunk).unwrap();
    assert_eq!(demand.address_releases, ["fd00::7".parse::<IpAddr>().unwrap()]);
    assert_eq!(on_delete(&service(dual).spec).address_releases.len(), 2);
}

#[test]
fn numbers_that_are_no_ports_are_asked_for_as_they_stand() {
    let demand = create(json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 70000}]}));
    assert_eq!(demand.ports, [entries(&[0], Want::This(70000))]);
}
