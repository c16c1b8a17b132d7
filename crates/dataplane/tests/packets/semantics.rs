//! What `docs/semantics.md` says, paragraph by paragraph, with real packets in both families.
//!
//! Not here but in the proxy's own tests: NP-3 (its server), LB-2 and LB-3 (what it reads), CT-2 (its conntrack). AFF-1 to AFF-3, MASQ-4 and CT are in the file above this one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_forward::{
    EndpointPort, Family, LocalTraffic, NodePortAddresses, NodeView, Protocol, ServicePortView,
};

use super::common::{Case, ip, node, on_every_kernel, planes::Plane};
use super::net::{IMPATIENT, NODE_ADDRESSES, PATIENT, Seen};
use super::{ELSEWHERE, Lab, OUTSIDE, POD_1, POD_2, PORT};

pub(super) const CLUSTER_IP: [&str; 2] = ["172.30.0.1", "fd00:30::1"];
const BALANCER: [&str; 2] = ["198.51.100.1", "2001:db8:51::1"];
const EXTERNAL: [&str; 2] = ["198.51.100.9", "2001:db8:51::9"];
const NODE_PORT: u16 = 30001;
/// One of two endpoints is missed once in 10^12 runs, one of three once in 10^7.
const TRIES: usize = 40;

/// A dual-stack Service with all frontends but external IPs, and no endpoints.
fn web() -> Case {
    Case::new("web", &CLUSTER_IP).node_port(NODE_PORT).load_balancer(BALANCER[0]).load_balancer(BALANCER[1])
}

fn local(case: Case, pod: [&str; 2]) -> Case {
    pod.iter().fold(case, |case, address| case.local_endpoint(address, PORT))
}

fn remote(case: Case) -> Case {
    ELSEWHERE.iter().fold(case, |case, address| case.endpoint(address, PORT))
}

/// Both local pods and the one elsewhere.
pub(super) fn full() -> Case {
    remote(local(local(web(), POD_1), POD_2))
}

fn lab<P: Plane>(case: Case) -> Lab<P> {
    Lab::<P>::new(node(), [case])
}

pub(super) fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

/// ClusterIP, load-balancer address and node port.
pub(super) fn frontends(family: usize) -> [SocketAddr; 3] {
    [at(CLUSTER_IP[family], 80), at(BALANCER[family], 80), at(NODE_ADDRESSES[family], NODE_PORT)]
}

impl<P: Plane> Lab<P> {
    fn seen(&self, from: &str, to: SocketAddr) -> BTreeSet<Seen> {
        self.net.connect_all(from, Protocol::Tcp, to, TRIES, PATIENT).into_iter().collect()
    }

    /// Exactly these answer, and each sees the client at this address.
    fn reaches(&self, from: &str, to: SocketAddr, servers: &[&str], client: &str) {
        let answer = |server: &&str| Seen::Answer { server: (*server).into(), client: ip(client) };
        let expected: BTreeSet<_> = servers.iter().map(answer).collect();
        assert_eq!(self.seen(from, to), expected, "from {from} to {to}");
    }

    fn refuses(&self, from: &str, to: SocketAddr) {
        assert_eq!(self.net.connect(from, Protocol::Tcp, to), Seen::Refused, "from {from} to {to}");
    }

    fn ignores(&self, from: &str, to: SocketAddr) {
        let seen = self.net.connect_all(from, Protocol::Tcp, to, 1, IMPATIENT);
        assert_eq!(seen, [Seen::Nothing], "from {from} to {to}");
    }
}

const OTHERS: [&str; 3] = ["outside", "node", "elsewhere"];

fn address_of(host: &str, family: usize) -> &'static str {
    match host {
        "outside" => OUTSIDE[family],
        "pod-1" => POD_1[family],
        "pod-2" => POD_2[family],
        "elsewhere" => ELSEWHERE[family],
        _ => NODE_ADDRESSES[family],
    }
}

fn svc_1_and_2_an_external_name_and_the_service_of_another_proxy_are_not_served<P: Plane>() {
    let mut external_name = local(Case::new("name", &CLUSTER_IP), POD_1);
    external_name.service.external_name = true;
    let mut other = local(Case::new("other", &["172.30.0.2", "fd00:30::2"]), POD_1);
    other.service.other_proxy = true;
    let lab = Lab::<P>::new(node(), [external_name, other]);
    for address in CLUSTER_IP.into_iter().chain(["172.30.0.2", "fd00:30::2"]) {
        lab.ignores("pod-1", at(address, 80));
    }
}

fn svc_3_each_port_has_the_endpoints_of_its_name<P: Plane>() {
    let mut case = Case::new("two", &CLUSTER_IP);
    let port = |name: &str, port| ServicePortView {
        name: name.into(),
        protocol: Protocol::Tcp,
        port,
        node_port: None,
    };
    case.service.ports = vec![port("a", 80), port("b", 81)];
    case = local(local(case, POD_1), POD_2);
    for endpoint in &mut case.endpoints {
        let name = if POD_1.contains(&endpoint.address.to_string().as_str()) { "a" } else { "b" };
        let port = EndpointPort { name: name.into(), protocol: Protocol::Tcp, port: PORT };
        endpoint.ports = Arc::new([port]);
    }
    let lab = lab::<P>(case);
    for family in [0, 1] {
        lab.reaches("outside", at(CLUSTER_IP[family], 80), &["pod-1"], NODE_ADDRESSES[family]);
        lab.reaches("outside", at(CLUSTER_IP[family], 81), &["pod-2"], NODE_ADDRESSES[family]);
    }
}

fn svc_4_an_endpoint_listed_twice_counts_once<P: Plane>() {
    let case = local(local(local(Case::new("web", &CLUSTER_IP), POD_1), POD_1), POD_2);
    let lab = lab::<P>(case);
    for family in Family::ALL {
        assert_eq!(lab.net.within("node", || P::endpoints(family)), 2);
    }
    lab.reaches("node", at(CLUSTER_IP[0], 80), &["pod-1", "pod-2"], NODE_ADDRESSES[0]);
}

fn svc_5_every_frontend_is_served<P: Plane>() {
    let mut case = local(web(), POD_1);
    case.service.external_ips = EXTERNAL.map(ip).into();
    let lab = lab::<P>(case);
    for family in [0, 1] {
        for to in frontends(family).into_iter().chain([at(EXTERNAL[family], 80)]) {
            lab.reaches("outside", to, &["pod-1"], NODE_ADDRESSES[family]);
        }
    }
}

fn eps_1_and_3_only_ready_endpoints_are_used<P: Plane>() {
    let mut case = full();
    for endpoint in case.endpoints.iter_mut().take(2) {
        (endpoint.ready, endpoint.serving) = (false, false);
    }
    let lab = lab::<P>(case);
    for family in [0, 1] {
        lab.reaches("pod-1", at(CLUSTER_IP[family], 80), &["pod-2", "elsewhere"], POD_1[family]);
    }
}

fn eps_2_terminating_endpoints_step_in_where_none_is_ready<P: Plane>() {
    let mut case = full().external_local();
    for endpoint in case.endpoints.iter_mut().take(4) {
        (endpoint.ready, endpoint.terminating) = (false, true);
    }
    let mut lab = lab::<P>(case.clone());
    for family in [0, 1] {
        // Elsewhere one is ready; of the local ones, none.
        lab.reaches("pod-1", at(CLUSTER_IP[family], 80), &["elsewhere"], POD_1[family]);
        lab.reaches("outside", at(BALANCER[family], 80), &["pod-1", "pod-2"], OUTSIDE[family]);
    }
    for endpoint in &mut case.endpoints {
        (endpoint.ready, endpoint.terminating) = (false, true);
    }
    lab.put([case]);
    for family in [0, 1] {
        lab.reaches(
            "outside",
            at(CLUSTER_IP[family], 80),
            &["pod-1", "pod-2", "elsewhere"],
            NODE_ADDRESSES[family],
        );
    }
}

fn eps_4_hints_narrow_policy_cluster_and_not_local<P: Plane>() {
    let mut case = full().external_local();
    for (index, endpoint) in case.endpoints.iter_mut().enumerate() {
        let zone = if index / 2 == 1 { "here" } else { "there" };
        endpoint.for_zones = vec![zone.into()];
    }
    let lab = Lab::<P>::new(NodeView { zone: Some("here".into()), ..node() }, [case]);
    for family in [0, 1] {
        lab.reaches("pod-1", at(CLUSTER_IP[family], 80), &["pod-2"], POD_1[family]);
        lab.reaches("outside", at(BALANCER[family], 80), &["pod-1", "pod-2"], OUTSIDE[family]);
    }
}

fn eps_5_the_choice_is_uniform<P: Plane>() {
    let lab = lab::<P>(full());
    for family in [0, 1] {
        let seen = lab.net.connect_all("node", Protocol::Tcp, at(CLUSTER_IP[family], 80), 900, PATIENT);
        let mut counts = BTreeMap::new();
        for seen in seen {
            *counts.entry(seen).or_insert(0) += 1;
        }
        // 300 each, give or take seven standard deviations.
        assert!(counts.len() == 3 && counts.values().all(|count| (201..400).contains(count)), "{counts:?}");
    }
}

fn pol_1_internal_policy_local_uses_this_nodes_endpoints_drops_or_refuses<P: Plane>() {
    let mut lab = lab::<P>(full().internal_local());
    for family in [0, 1] {
        lab.reaches("outside", at(CLUSTER_IP[family], 80), &["pod-1", "pod-2"], NODE_ADDRESSES[family]);
    }
    lab.put([remote(web().internal_local())]);
    for family in [0, 1] {
        lab.ignores("pod-1", at(CLUSTER_IP[family], 80));
    }
    lab.put([web().internal_local()]);
    for family in [0, 1] {
        lab.refuses("pod-1", at(CLUSTER_IP[family], 80));
    }
}

fn pol_2_external_policy_cluster_reaches_all_and_masquerades<P: Plane>() {
    let lab = lab::<P>(full());
    for family in [0, 1] {
        for to in &frontends(family)[1..] {
            for from in ["outside", "pod-1", "node"] {
                lab.reaches(from, *to, &["pod-1", "pod-2", "elsewhere"], NODE_ADDRESSES[family]);
            }
        }
    }
}

fn pol_3_external_policy_local_keeps_the_source_and_stays_drops_or_refuses<P: Plane>() {
    let mut lab = lab::<P>(full().external_local());
    for family in [0, 1] {
        for to in &frontends(family)[1..] {
            lab.reaches("outside", *to, &["pod-1", "pod-2"], OUTSIDE[family]);
        }
    }
    lab.put([remote(web().external_local())]);
    for family in [0, 1] {
        for to in &frontends(family)[1..] {
            lab.ignores("outside", *to);
        }
    }
    lab.put([web().external_local()]);
    for family in [0, 1] {
        for to in &frontends(family)[1..] {
            lab.refuses("outside", *to);
        }
    }
}

fn pol_4_pods_and_the_node_short_circuit_external_policy_local<P: Plane>() {
    let lab = lab::<P>(remote(web().external_local()));
    for family in [0, 1] {
        for to in &frontends(family)[1..] {
            lab.reaches("pod-1", *to, &["elsewhere"], POD_1[family]);
            lab.reaches("node", *to, &["elsewhere"], NODE_ADDRESSES[family]);
        }
    }
}

fn pol_5_the_two_policies_are_independent<P: Plane>() {
    let mut lab = lab::<P>(full().internal_local());
    let all = ["pod-1", "pod-2", "elsewhere"];
    for family in [0, 1] {
        lab.reaches("outside", at(CLUSTER_IP[family], 80), &all[..2], NODE_ADDRESSES[family]);
        lab.reaches("outside", at(BALANCER[family], 80), &all, NODE_ADDRESSES[family]);
    }
    lab.put([full().external_local()]);
    for family in [0, 1] {
        lab.reaches("outside", at(CLUSTER_IP[family], 80), &all, NODE_ADDRESSES[family]);
        lab.reaches("outside", at(BALANCER[family], 80), &all[..2], OUTSIDE[family]);
    }
}

fn pol_6_without_endpoints_every_frontend_refuses<P: Plane>() {
    let udp = Case::new("udp", &["172.30.0.2", "fd00:30::2"]).port(Protocol::Udp, 53);
    let lab = Lab::<P>::new(node(), [web(), udp]);
    for family in [0, 1] {
        for from in ["outside", "node", "pod-1"] {
            for to in frontends(family) {
                lab.refuses(from, to);
            }
            let to = at(["172.30.0.2", "fd00:30::2"][family], 53);
            assert_eq!(lab.net.connect(from, Protocol::Udp, to), Seen::Refused, "from {from} to {to}");
        }
    }
}

fn pol_7_an_unknown_port_refuses_and_an_unallocated_address_drops<P: Plane>() {
    let lab = lab::<P>(full());
    for family in [0, 1] {
        for from in OTHERS {
            lab.refuses(from, at(CLUSTER_IP[family], 81));
            lab.ignores(from, at(["172.30.9.9", "fd00:30::99"][family], 80));
        }
    }
}

fn masq_1_and_3_internal_traffic_from_beyond_the_pods_gets_the_nodes_address<P: Plane>() {
    let case = || local(Case::new("web", &CLUSTER_IP), POD_1);
    let lab = lab::<P>(case());
    let unknown = Lab::<P>::new(NodeView { local_traffic: LocalTraffic::Unknown, ..node() }, [case()]);
    let always = Lab::<P>::new(NodeView { masquerade_all: true, ..node() }, [case()]);
    for family in [0, 1] {
        let to = at(CLUSTER_IP[family], 80);
        lab.reaches("outside", to, &["pod-1"], NODE_ADDRESSES[family]);
        lab.reaches("pod-2", to, &["pod-1"], POD_2[family]);
        unknown.reaches("outside", to, &["pod-1"], OUTSIDE[family]);
        always.reaches("pod-2", to, &["pod-1"], NODE_ADDRESSES[family]);
    }
}

fn masq_2_a_pod_that_meets_itself_sees_the_node<P: Plane>() {
    let lab = lab::<P>(local(web().external_local(), POD_1));
    for family in [0, 1] {
        for to in frontends(family) {
            lab.reaches("pod-1", to, &["pod-1"], NODE_ADDRESSES[family]);
            lab.reaches("pod-2", to, &["pod-1"], POD_2[family]);
        }
    }
}

fn np_1_one_number_serves_tcp_and_udp_apart<P: Plane>() {
    let tcp = local(Case::new("tcp", &[CLUSTER_IP[0]]).node_port(NODE_PORT), POD_1);
    let udp = Case::new("udp", &["172.30.0.2"]).port(Protocol::Udp, 53).node_port(NODE_PORT);
    let udp = local(udp, POD_2);
    let lab = Lab::<P>::new(node(), [tcp, udp]);
    for (protocol, server) in [(Protocol::Tcp, "pod-1"), (Protocol::Udp, "pod-2")] {
        let seen = lab.net.connect("outside", protocol, at(NODE_ADDRESSES[0], NODE_PORT));
        assert_eq!(seen, Seen::Answer { server: server.into(), client: ip(NODE_ADDRESSES[0]) });
    }
}

fn np_2_node_ports_listen_where_they_are_told_to<P: Plane>() {
    let only_v4 = NodePortAddresses::Addresses(vec![ip(NODE_ADDRESSES[0])]);
    let lab = Lab::<P>::new(NodeView { node_port_addresses: only_v4, ..node() }, [full()]);
    let all = ["pod-1", "pod-2", "elsewhere"];
    lab.reaches("outside", at(NODE_ADDRESSES[0], NODE_PORT), &all, NODE_ADDRESSES[0]);
    lab.refuses("outside", at(NODE_ADDRESSES[1], NODE_PORT));
    let lab = Lab::<P>::new(NodeView { node_port_addresses: NodePortAddresses::All, ..node() }, [full()]);
    for (family, loopback) in ["127.0.0.1", "::1"].into_iter().enumerate() {
        lab.reaches("outside", at(NODE_ADDRESSES[family], NODE_PORT), &all, NODE_ADDRESSES[family]);
        lab.refuses("node", at(loopback, NODE_PORT));
    }
}

fn lb_1_only_source_ranges_reach_the_balancer_address<P: Plane>() {
    let sources = ["203.0.113.0/24", "2001:db8:113::/48"];
    let mut lab = lab::<P>(full().sources(&sources));
    let all = ["pod-1", "pod-2", "elsewhere"];
    for family in [0, 1] {
        lab.reaches("outside", at(BALANCER[family], 80), &all, NODE_ADDRESSES[family]);
        for from in ["pod-1", "node", "elsewhere"] {
            lab.ignores(from, at(BALANCER[family], 80));
            assert!(
                lab.seen(from, at(NODE_ADDRESSES[family], NODE_PORT)).len() > 1,
                "node ports are not limited"
            );
        }
    }
    lab.put([web().sources(&sources)]);
    for family in [0, 1] {
        lab.ignores("pod-1", at(BALANCER[family], 80));
        lab.refuses("outside", at(BALANCER[family], 80));
    }
    lab.put([full().sources(&["203.0.113.0/24", "0.0.0.0/0", "::/0"])]);
    for family in [0, 1] {
        lab.reaches("pod-1", at(BALANCER[family], 80), &all, NODE_ADDRESSES[family]);
    }
}

fn aff_4_what_counts_is_the_source_before_masquerade<P: Plane>() {
    let lab = lab::<P>(full().affinity(60));
    for (family, of) in Family::ALL.into_iter().enumerate() {
        let to = at(NODE_ADDRESSES[family], NODE_PORT);
        for from in ["outside", "elsewhere", "pod-1"] {
            lab.net.connect(from, Protocol::Tcp, to);
        }
        let clients: BTreeSet<IpAddr> =
            ["outside", "elsewhere", "pod-1"].map(|host| ip(address_of(host, family))).into();
        assert_eq!(lab.net.within("node", || P::remembered(of)), clients);
    }
}

fn ct_1_a_connection_outlives_its_endpoints_readiness<P: Plane>() {
    use std::io::{Read, Write};
    let case = Case::new("long", &CLUSTER_IP).local_endpoint(POD_2[0], 9090);
    let mut lab = lab::<P>(case.clone());
    let listener = lab.net.within("pod-2", || std::net::TcpListener::bind((ip(POD_2[0]), 9090)).unwrap());
    let mut near = lab.net.within("pod-1", || std::net::TcpStream::connect(at(CLUSTER_IP[0], 80)).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    let mut unready = case;
    (unready.endpoints[0].ready, unready.endpoints[0].serving) = (false, false);
    lab.put([unready]);
    lab.refuses("pod-1", at(CLUSTER_IP[0], 80));
    near.write_all(b"still").unwrap();
    let mut word = [0; 5];
    far.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"still");
}

fn fam_1_each_family_stands_alone<P: Plane>() {
    let case = Case::new("dual", &CLUSTER_IP).local_endpoint(POD_1[0], PORT).local_endpoint(POD_2[1], PORT);
    let lab = lab::<P>(case);
    lab.reaches("outside", at(CLUSTER_IP[0], 80), &["pod-1"], NODE_ADDRESSES[0]);
    lab.reaches("outside", at(CLUSTER_IP[1], 80), &["pod-2"], NODE_ADDRESSES[1]);
    let v4_only = local(Case::new("single", &["172.30.0.7"]).node_port(30007), POD_1);
    let lab = Lab::<P>::new(node(), [v4_only]);
    lab.refuses("outside", at(NODE_ADDRESSES[1], 30007));
}

/// The kernel under test translates SCTP, but has no SCTP sockets: packets are made and read by hand.
fn fam_2_sctp_is_translated_too<P: Plane>() {
    use socket2::{Domain, Protocol as Number, Socket, Type};
    use std::io::Read;
    let case = Case::new("sctp", &[CLUSTER_IP[0]]).port(Protocol::Sctp, 80).local_endpoint(POD_2[0], PORT);
    let lab = lab::<P>(case);
    let raw = || Socket::new(Domain::IPV4, Type::RAW, Some(Number::from(132))).unwrap();
    let mut far = lab.net.within("pod-2", raw);
    far.set_read_timeout(Some(PATIENT)).unwrap();
    for (from, client) in [("pod-1", POD_1[0]), ("outside", NODE_ADDRESSES[0])] {
        let near = lab.net.within(from, raw);
        near.send_to(&sctp_init(40_000, 80), &at(CLUSTER_IP[0], 0).into()).unwrap();
        let mut packet = [0; 256];
        let length = far.read(&mut packet).unwrap();
        let source: [u8; 4] = packet[12..16].try_into().unwrap();
        assert_eq!(IpAddr::from(source), ip(client), "from {from}");
        assert!(length >= 20 + 32, "{length}");
        assert_eq!(u16::from_be_bytes([packet[22], packet[23]]), PORT, "the endpoint's port");
    }
    far.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(far.read(&mut [0; 256]).is_err(), "one packet each");
}

/// A packet with an INIT chunk, as an association begins.
fn sctp_init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 20]); // INIT, no flags, its length
    packet.extend([0, 0, 0, 7, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 7]); // tag, window, streams, sequence number
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

on_every_kernel! {
    svc_1_and_2_an_external_name_and_the_service_of_another_proxy_are_not_served,
    svc_3_each_port_has_the_endpoints_of_its_name,
    svc_4_an_endpoint_listed_twice_counts_once,
    svc_5_every_frontend_is_served,
    eps_1_and_3_only_ready_endpoints_are_used,
    eps_2_terminating_endpoints_step_in_where_none_is_ready,
    eps_4_hints_narrow_policy_cluster_and_not_local,
    eps_5_the_choice_is_uniform,
    pol_1_internal_policy_local_uses_this_nodes_endpoints_drops_or_refuses,
    pol_2_external_policy_cluster_reaches_all_and_masquerades,
    pol_3_external_policy_local_keeps_the_source_and_stays_drops_or_refuses,
    pol_4_pods_and_the_node_short_circuit_external_policy_local,
    pol_5_the_two_policies_are_independent,
    pol_6_without_endpoints_every_frontend_refuses,
    pol_7_an_unknown_port_refuses_and_an_unallocated_address_drops,
    masq_1_and_3_internal_traffic_from_beyond_the_pods_gets_the_nodes_address,
    masq_2_a_pod_that_meets_itself_sees_the_node,
    np_1_one_number_serves_tcp_and_udp_apart,
    np_2_node_ports_listen_where_they_are_told_to,
    lb_1_only_source_ranges_reach_the_balancer_address,
    aff_4_what_counts_is_the_source_before_masquerade,
    ct_1_a_connection_outlives_its_endpoints_readiness,
    fam_1_each_family_stands_alone,
    fam_2_sctp_is_translated_too,
}
