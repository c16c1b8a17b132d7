//! The Kubernetes DNS specification 1.1, section by section, as `docs/semantics.md` numbers it.

mod common;

use common::{Cluster, options};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType::{self, A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT};
use portolan_dns::zone::PodRecords;
use serde_json::json;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(options());
    cluster.service(
        "web",
        json!({ "clusterIP": "10.3.0.1", "clusterIPs": ["10.3.0.1", "fd00::3:1"], "ports": [
            { "name": "https", "port": 443 }, { "name": "dns", "port": 53, "protocol": "UDP" } ] }),
    );
    cluster.service(
        "v4",
        json!({ "clusterIP": "10.3.0.4", "clusterIPs": ["10.3.0.4"], "ports": [{ "port": 80 }] }),
    );
    cluster.service("pets", json!({ "clusterIP": "None", "ports": [{ "name": "https", "port": 443 }] }));
    cluster.slice(
        "pets",
        1,
        json!([
            { "addresses": ["10.4.0.1"], "hostname": "my-pet" },
            { "addresses": ["10.4.0.2"], "conditions": { "ready": true }, "targetRef": { "kind": "Pod", "name": "pet-2" } },
            { "addresses": ["10.4.0.3"], "hostname": "sick", "conditions": { "ready": false, "serving": true } },
        ]),
        json!([{ "name": "https", "port": 8443 }, { "name": "chat", "port": 9, "protocol": "UDP" }]),
    );
    cluster
}

fn web(host: &str) -> String {
    format!("{host}.default.svc.cluster.local")
}

#[test]
fn dns_1_a_service_has_its_cluster_ips() {
    let mut cluster = cluster();
    assert_eq!(cluster.ask(&web("web"), A).answers(), ["web.default.svc.cluster.local 5 A 10.3.0.1"]);
    assert_eq!(cluster.ask(&web("web"), AAAA).answers(), ["web.default.svc.cluster.local 5 AAAA fd00::3:1"]);
    assert!(cluster.ask(&web("web"), A).message.metadata.authoritative);
}

#[test]
fn dns_1_a_family_that_a_service_lacks_is_nodata() {
    let mut cluster = cluster();
    cluster.ask(&web("v4"), AAAA).is_nodata();
    for rtype in [MX, TXT, CNAME, NS, SOA, PTR, RecordType::ANY, RecordType::HTTPS] {
        cluster.ask(&web("v4"), rtype).is_nodata();
    }
}

#[test]
fn dns_1_names_that_do_not_exist_are_denied() {
    let mut cluster = cluster();
    for name in [
        "none.default.svc",
        "web.none.svc",
        "none.svc",
        "web.default",
        "x.y.z.web.default.svc",
        "*.default.svc",
    ] {
        cluster.ask(&format!("{name}.cluster.local"), A).is_nxdomain();
    }
}

#[test]
fn dns_1_names_between_the_zone_and_services_exist_without_records() {
    let mut cluster = cluster();
    for name in ["cluster.local", "svc.cluster.local", "default.svc.cluster.local"] {
        cluster.ask(name, A).is_nodata();
        cluster.ask(name, SRV).is_nodata();
    }
}

#[test]
fn dns_1_case_does_not_matter_and_comes_back_as_asked() {
    let reply = cluster().ask("WeB.DeFaUlT.sVc.ClUsTeR.LoCaL", A);
    assert_eq!(reply.answers().len(), 1);
    assert_eq!(reply.message.queries[0].name().to_string(), "WeB.DeFaUlT.sVc.ClUsTeR.LoCaL.");
}

#[test]
fn dns_1_a_service_without_address_has_none() {
    let mut cluster = cluster();
    cluster.service("soon", json!({ "type": "ClusterIP", "ports": [{ "port": 80 }] }));
    cluster.ask(&web("soon"), A).is_nodata();
}

#[test]
fn dns_1_the_domain_and_the_ttl_are_the_operators_choice() {
    let mut chosen = options();
    chosen.zone = portolan_dns::name::Name::parse("k8s.example.org").unwrap();
    chosen.ttl = 30;
    let mut cluster = Cluster::new(chosen);
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] }));
    let reply = cluster.ask("web.default.svc.k8s.example.org", A);
    assert_eq!(reply.answers(), ["web.default.svc.k8s.example.org 30 A 10.3.0.1"]);
    assert_eq!(cluster.ask("web.default.svc.cluster.local", A).rcode, ResponseCode::Refused, "nobody to ask");
}

#[test]
fn dns_2_named_ports_have_srv_records_whose_targets_resolve() {
    let mut cluster = cluster();
    let reply = cluster.ask(&format!("_https._tcp.{}", web("web")), SRV);
    assert_eq!(
        reply.answers(),
        ["_https._tcp.web.default.svc.cluster.local 5 SRV 0 100 443 web.default.svc.cluster.local"]
    );
    assert_eq!(
        reply.additional(),
        ["web.default.svc.cluster.local 5 A 10.3.0.1", "web.default.svc.cluster.local 5 AAAA fd00::3:1",]
    );
    assert_eq!(cluster.ask(&format!("_dns._udp.{}", web("web")), SRV).answers().len(), 1);
}

#[test]
fn dns_2_ports_that_do_not_match_are_denied() {
    let mut cluster = cluster();
    for name in ["_https._udp.web", "_none._tcp.web", "_._tcp.v4"] {
        let name = web(name);
        if !name.starts_with("_._") {
            cluster.ask(&name, SRV).is_nxdomain();
        }
    }
    cluster.ask(&web("_80._tcp.v4"), SRV).is_nxdomain();
}

#[test]
fn dns_2_other_types_at_a_port_and_the_protocol_alone_are_nodata() {
    let mut cluster = cluster();
    cluster.ask(&web("_https._tcp.web"), A).is_nodata();
    cluster.ask(&web("_tcp.web"), A).is_nodata();
    cluster.ask(&web("_sctp.web"), A).is_nxdomain();
}

#[test]
fn dns_2_a_service_itself_has_srv_records_for_all_ports() {
    let reply = cluster().ask(&web("web"), SRV);
    assert_eq!(
        reply.answers(),
        [
            "web.default.svc.cluster.local 5 SRV 0 50 443 web.default.svc.cluster.local",
            "web.default.svc.cluster.local 5 SRV 0 50 53 web.default.svc.cluster.local",
        ]
    );
}

#[test]
fn dns_3_cluster_ips_lead_back_to_services() {
    let mut cluster = cluster();
    assert_eq!(
        cluster.ask("1.0.3.10.in-addr.arpa", PTR).answers(),
        ["1.0.3.10.in-addr.arpa 5 PTR web.default.svc.cluster.local"]
    );
    let nibbles = "1.0.0.0.3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(
        cluster.ask(nibbles, PTR).answers(),
        [format!("{nibbles} 5 PTR web.default.svc.cluster.local")]
    );
    cluster.ask("1.0.3.10.in-addr.arpa", A).is_nodata();
}

#[test]
fn dns_3_endpoints_of_headless_services_lead_back_to_their_names() {
    let mut cluster = cluster();
    assert_eq!(
        cluster.ask("1.0.4.10.in-addr.arpa", PTR).answers(),
        ["1.0.4.10.in-addr.arpa 5 PTR my-pet.pets.default.svc.cluster.local"]
    );
    assert_eq!(
        cluster.ask("2.0.4.10.in-addr.arpa", PTR).answers(),
        ["2.0.4.10.in-addr.arpa 5 PTR 10-4-0-2.pets.default.svc.cluster.local"]
    );
}

#[test]
fn dns_3_endpoints_that_several_services_have_lead_to_each_and_a_cluster_ip_to_one() {
    let mut cluster = cluster();
    cluster.service("other", json!({ "clusterIP": "None" }));
    cluster.slice("other", 1, json!([{ "addresses": ["10.4.0.1", "10.3.0.1"] }]), json!([]));
    assert_eq!(cluster.ask("1.0.4.10.in-addr.arpa", PTR).answers().len(), 2);
    assert_eq!(cluster.ask("1.0.3.10.in-addr.arpa", PTR).answers().len(), 1);
    let mut only = options();
    only.ptr_hostname_only = true;
    let mut cluster = Cluster::new(only);
    cluster.service("pets", json!({ "clusterIP": "None" }));
    cluster.slice(
        "pets",
        1,
        json!([{ "addresses": ["10.4.0.9"] }, { "addresses": ["10.4.0.8"], "hostname": "h" }]),
        json!([]),
    );
    assert_eq!(cluster.ask("9.0.4.10.in-addr.arpa", PTR).rcode, ResponseCode::Refused);
    assert_eq!(cluster.ask("8.0.4.10.in-addr.arpa", PTR).answers().len(), 1);
}

#[test]
fn dns_3_unknown_addresses_are_asked_elsewhere_or_denied() {
    let mut cluster = cluster();
    assert_eq!(cluster.ask("9.9.9.9.in-addr.arpa", PTR).rcode, ResponseCode::Refused, "nobody to ask");
    let mut strict = options();
    strict.fallthrough.clear();
    let mut cluster = Cluster::new(strict);
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] }));
    let reply = cluster.ask("9.9.9.9.in-addr.arpa", PTR);
    reply.is_nxdomain();
    assert_eq!(reply.message.authorities[0].name.to_string(), "in-addr.arpa.");
    cluster.ask("3.10.in-addr.arpa", PTR).is_nodata();
    cluster.ask("x.10.in-addr.arpa", PTR).is_nxdomain();
}

#[test]
fn dns_4_a_headless_service_has_its_ready_endpoints() {
    let mut cluster = cluster();
    assert_eq!(
        cluster.ask(&web("pets"), A).answers(),
        ["pets.default.svc.cluster.local 5 A 10.4.0.1", "pets.default.svc.cluster.local 5 A 10.4.0.2"]
    );
    cluster.ask(&web("pets"), AAAA).is_nodata();
}

#[test]
fn dns_4_endpoints_have_names_hostname_or_address() {
    let mut cluster = cluster();
    assert_eq!(
        cluster.ask(&web("my-pet.pets"), A).answers(),
        ["my-pet.pets.default.svc.cluster.local 5 A 10.4.0.1"]
    );
    assert_eq!(cluster.ask(&web("10-4-0-2.pets"), A).answers().len(), 1);
    cluster.ask(&web("10-4-0-2.pets"), AAAA).is_nodata();
    cluster.ask(&web("sick.pets"), A).is_nxdomain();
    cluster.ask(&web("pet-2.pets"), A).is_nxdomain();
}

#[test]
fn dns_4_all_addresses_of_a_hostname_are_given() {
    let mut cluster = cluster();
    cluster.slice("pets", 2, json!([{ "addresses": ["fd00::9"], "hostname": "my-pet" }, { "addresses": ["10.4.0.7"], "hostname": "MY-PET" }]), json!([{ "name": "https", "port": 8443 }]));
    assert_eq!(cluster.ask(&web("my-pet.pets"), A).answers().len(), 2);
    assert_eq!(cluster.ask(&web("my-pet.pets"), AAAA).answers().len(), 1);
    let reply = cluster.ask(&web("_https._tcp.pets"), SRV);
    assert_eq!(reply.answers().len(), 2, "one for each target and port");
    assert_eq!(reply.additional().len(), 4);
}

#[test]
fn dns_4_srv_records_lead_to_each_endpoint() {
    let reply = cluster().ask(&web("_https._tcp.pets"), SRV);
    assert_eq!(
        reply.answers(),
        [
            "_https._tcp.pets.default.svc.cluster.local 5 SRV 0 50 8443 10-4-0-2.pets.default.svc.cluster.local",
            "_https._tcp.pets.default.svc.cluster.local 5 SRV 0 50 8443 my-pet.pets.default.svc.cluster.local",
        ]
    );
    assert_eq!(
        reply.additional(),
        [
            "10-4-0-2.pets.default.svc.cluster.local 5 A 10.4.0.2",
            "my-pet.pets.default.svc.cluster.local 5 A 10.4.0.1",
        ]
    );
    assert_eq!(cluster().ask(&web("pets"), SRV).answers().len(), 4, "two endpoints with two ports each");
}

#[test]
fn dns_4_not_ready_endpoints_count_where_their_slice_says_ready() {
    let mut cluster = cluster();
    // What the controller writes for publishNotReadyAddresses.
    cluster.service("early", json!({ "clusterIP": "None", "publishNotReadyAddresses": true }));
    cluster.slice(
        "early",
        1,
        json!([{ "addresses": ["10.4.1.1"], "conditions": { "ready": true, "serving": false } }]),
        json!([]),
    );
    assert_eq!(cluster.ask(&web("early"), A).answers().len(), 1);
    cluster.ask(&web("early"), SRV).is_nodata();
}

#[test]
fn dns_4_without_ready_endpoints_there_is_no_name() {
    let mut cluster = cluster();
    cluster.slice(
        "pets",
        1,
        json!([{ "addresses": ["10.4.0.1"], "conditions": { "ready": false } }]),
        json!([]),
    );
    cluster.ask(&web("pets"), A).is_nxdomain();
    cluster.ask(&web("_https._tcp.pets"), SRV).is_nxdomain();
}

#[test]
fn dns_4_endpoints_of_services_with_an_address_have_names_too() {
    let mut cluster = cluster();
    cluster.slice(
        "web",
        1,
        json!([{ "addresses": ["10.4.2.1"] }, { "addresses": ["fd00::"], "conditions": {} }]),
        json!([{ "name": "https", "port": 8443 }]),
    );
    assert_eq!(cluster.ask(&web("10-4-2-1.web"), A).answers().len(), 1);
    assert_eq!(cluster.ask(&web("fd00--0.web"), AAAA).answers().len(), 1, "no label ends in a dash");
    let reply = cluster.ask(&web("10-4-2-1.web"), SRV);
    assert_eq!(
        reply.answers(),
        ["10-4-2-1.web.default.svc.cluster.local 5 SRV 0 100 8443 10-4-2-1.web.default.svc.cluster.local"]
    );
}

#[test]
fn dns_4_endpoints_may_be_named_after_their_pods() {
    let mut named = options();
    named.endpoint_pod_names = true;
    let mut cluster = Cluster::new(named);
    cluster.service("pets", json!({ "clusterIP": "None" }));
    let long = "x".repeat(64);
    cluster.slice(
        "pets",
        1,
        json!([
            { "addresses": ["10.4.0.2"], "targetRef": { "kind": "Pod", "name": "pet-2" } },
            { "addresses": ["10.4.0.3"], "targetRef": { "kind": "Pod", "name": long } },
        ]),
        json!([]),
    );
    assert_eq!(cluster.ask(&web("pet-2.pets"), A).answers().len(), 1);
    assert_eq!(cluster.ask(&web("10-4-0-3.pets"), A).answers().len(), 1, "a name too long for a label");
}

#[test]
fn dns_5_an_external_name_is_an_alias() {
    let mut cluster = cluster();
    cluster.service("out", json!({ "type": "ExternalName", "externalName": "www.example.com" }));
    for rtype in [A, AAAA, CNAME, SRV] {
        assert_eq!(
            cluster.ask(&web("out"), rtype).answers(),
            ["out.default.svc.cluster.local 5 CNAME www.example.com"]
        );
    }
    cluster.ask(&web("_http._tcp.out"), SRV).is_nxdomain();
    cluster.ask(&web("x.out"), A).is_nxdomain();
}

#[test]
fn dns_5_aliases_within_the_zone_are_followed() {
    let mut cluster = cluster();
    cluster
        .service("one", json!({ "type": "ExternalName", "externalName": "two.default.svc.cluster.local" }));
    cluster
        .service("two", json!({ "type": "ExternalName", "externalName": "Web.Default.svc.cluster.local." }));
    assert_eq!(
        cluster.ask(&web("one"), A).answers(),
        [
            "one.default.svc.cluster.local 5 CNAME two.default.svc.cluster.local",
            "two.default.svc.cluster.local 5 CNAME web.default.svc.cluster.local",
            "web.default.svc.cluster.local 5 A 10.3.0.1",
        ]
    );
    cluster
        .service("gone", json!({ "type": "ExternalName", "externalName": "none.default.svc.cluster.local" }));
    let reply = cluster.ask(&web("gone"), A);
    assert_eq!(
        (reply.rcode, reply.answers().len()),
        (ResponseCode::NXDomain, 1),
        "of the last name (RFC 6604)"
    );
    assert_eq!(reply.message.authorities.len(), 1);
}

#[test]
fn dns_5_aliases_in_a_circle_fail() {
    let mut cluster = cluster();
    cluster
        .service("one", json!({ "type": "ExternalName", "externalName": "two.default.svc.cluster.local" }));
    cluster
        .service("two", json!({ "type": "ExternalName", "externalName": "one.default.svc.cluster.local" }));
    let reply = cluster.ask(&web("one"), A);
    assert_eq!((reply.rcode, reply.answers().len()), (ResponseCode::ServFail, 0));
}

#[test]
fn dns_5_an_address_or_nonsense_is_no_external_name() {
    let mut cluster = cluster();
    for target in ["192.0.2.1", "", "a..b", "."] {
        cluster.service("odd", json!({ "type": "ExternalName", "externalName": target }));
        cluster.ask(&web("odd"), A).is_nxdomain();
    }
}

#[test]
fn dns_6_the_zone_says_its_version() {
    let mut cluster = cluster();
    let reply = cluster.ask("dns-version.cluster.local", TXT);
    assert_eq!(reply.answers(), ["dns-version.cluster.local 28800 TXT 1.1.0"]);
    cluster.ask("dns-version.cluster.local", A).is_nodata();
    cluster.ask("x.dns-version.cluster.local", TXT).is_nxdomain();
}

#[test]
fn dns_6_the_zone_has_a_start_of_authority_and_a_name_server() {
    let mut cluster = cluster();
    let reply = cluster.ask("cluster.local", SOA);
    assert_eq!(reply.answers().len(), 1);
    assert!(
        reply.answers()[0].contains("ns.dns.cluster.local hostmaster.cluster.local"),
        "{:?}",
        reply.answers()
    );
    let mut with_service = options();
    with_service.dns_service = portolan_client::Key::new("default", "web");
    with_service.own_addresses = vec!["192.0.2.53".parse().unwrap()];
    let mut cluster = Cluster::new(with_service);
    cluster.0.set_namespace("x", true);
    let reply = cluster.ask("cluster.local", NS);
    assert_eq!(reply.answers(), ["cluster.local 5 NS ns.dns.cluster.local"]);
    assert_eq!(reply.additional(), ["ns.dns.cluster.local 5 A 192.0.2.53"], "before the Service is there");
    cluster.service("web", json!({ "clusterIP": "10.3.0.10", "ports": [{ "port": 53 }] }));
    assert_eq!(cluster.ask("cluster.local", NS).additional(), ["ns.dns.cluster.local 5 A 10.3.0.10"]);
    assert_eq!(cluster.ask("ns.dns.cluster.local", A).answers(), ["ns.dns.cluster.local 5 A 10.3.0.10"]);
    cluster.ask("ns.dns.cluster.local", AAAA).is_nodata();
    cluster.ask("dns.cluster.local", A).is_nodata();
    cluster.ask("x.cluster.local", A).is_nxdomain();
}

#[test]
fn dns_6_pods_have_names_as_the_operator_chooses() {
    let ask = |pods, name: &str, rtype| {
        let mut chosen = options();
        chosen.pods = pods;
        let mut cluster = Cluster::new(chosen);
        cluster.pod("p", "10.1.2.3");
        cluster.ask(&format!("{name}.cluster.local"), rtype)
    };
    ask(PodRecords::Disabled, "10-1-2-3.default.pod", A).is_nxdomain();
    ask(PodRecords::Disabled, "pod", A).is_nodata();
    for mode in [PodRecords::Insecure, PodRecords::Verified] {
        assert_eq!(
            ask(mode, "10-1-2-3.default.pod", A).answers(),
            ["10-1-2-3.default.pod.cluster.local 5 A 10.1.2.3"]
        );
        ask(mode, "10-1-2-3.default.pod", AAAA).is_nodata();
        ask(mode, "10-1-2-3.none.pod", A).is_nxdomain();
        ask(mode, "nonsense.default.pod", A).is_nxdomain();
        ask(mode, "default.pod", A).is_nodata();
    }
    assert_eq!(ask(PodRecords::Insecure, "10-9-9-9.default.pod", A).answers().len(), 1);
    assert_eq!(ask(PodRecords::Insecure, "fd00--1.default.pod", AAAA).answers().len(), 1);
    ask(PodRecords::Verified, "10-9-9-9.default.pod", A).is_nxdomain();
}

#[test]
fn dns_6_only_chosen_namespaces_are_shown() {
    let mut chosen = options();
    chosen.namespaces.insert("other".into());
    let mut cluster = Cluster::new(chosen);
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] }));
    cluster.ask(&web("web"), A).is_nxdomain();
    cluster.ask("default.svc.cluster.local", A).is_nxdomain();
    cluster.0.set_namespace("other", true);
    cluster.ask("other.svc.cluster.local", A).is_nodata();
}

#[test]
fn dns_6_services_without_endpoints_may_be_hidden() {
    let mut chosen = options();
    chosen.ignore_empty_service = true;
    let mut cluster = Cluster::new(chosen);
    cluster.service("web", json!({ "clusterIP": "10.3.0.1", "ports": [{ "port": 80 }] }));
    cluster.ask(&web("web"), A).is_nxdomain();
    cluster.slice("web", 1, json!([{ "addresses": ["10.4.0.1"] }]), json!([]));
    assert_eq!(cluster.ask(&web("web"), A).answers().len(), 1);
}

#[test]
fn dns_7_names_on_the_search_path_are_denied_at_once_and_found_at_last() {
    // With ndots 5 a pod's resolver tries `web.other` below each search domain before it takes the name as it is.
    let mut cluster = cluster();
    cluster.ask("web.default.default.svc.cluster.local", A).is_nxdomain();
    assert_eq!(cluster.ask("web.default.svc.cluster.local", A).answers().len(), 1);
    cluster.ask("web.default.cluster.local", A).is_nxdomain();
}
