use serde_json::{Value, json};

use super::*;

fn parsed(object: &Value) -> ServiceObject {
    service(object.to_string().as_bytes(), &Interner::default()).unwrap()
}

fn first(slice: &SliceObject) -> EndpointView {
    slice.endpoints.iter().next().unwrap()
}

fn parsed_slice(object: &Value) -> SliceObject {
    slice(object.to_string().as_bytes(), &Interner::default()).unwrap()
}

fn fields(notes: &[Note]) -> Vec<&str> {
    let fields = notes.iter().map(|note| match &note.kind {
        NoteKind::Invalid { field, .. } => field.as_str(),
        other => panic!("{other:?}"),
    });
    fields.collect()
}

#[test]
fn a_service_with_everything() {
    let object = parsed(&json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u" },
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "externalIPs": ["192.0.2.1"], "loadBalancerSourceRanges": [" 10.1.2.3/8 "],
            "ports": [{ "name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080, "nodePort": 30080 },
                      { "name": "dns", "protocol": "UDP", "port": 53 }],
            "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
        },
        "status": { "loadBalancer": { "ingress": [
            { "ip": "198.51.100.1", "ipMode": "VIP" }, { "ip": "198.51.100.2", "ipMode": "Proxy" },
            { "ip": "198.51.100.3" }, { "hostname": "balancer.example" },
        ] } },
    }));
    let view = &object.view;
    assert!(object.notes.is_empty());
    assert_eq!(view.key, ServiceKey::new("shop", "web"));
    assert_eq!(view.cluster_ips.len(), 2);
    assert_eq!(
        view.load_balancer_ips,
        ["198.51.100.1", "198.51.100.3"].map(|ip| ip.parse::<IpAddr>().unwrap())
    );
    assert_eq!(view.source_ranges, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
    assert_eq!((view.internal_policy, view.external_policy), (Policy::Cluster, Policy::Local));
    assert_eq!(view.affinity, Some(Affinity { timeout_seconds: 60 }));
    assert_eq!(view.health_check_node_port, Some(32000));
    assert_eq!(view.ports[0].node_port, Some(30080));
    assert_eq!((view.ports[1].protocol, view.ports[1].node_port), (Protocol::Udp, None));
}

#[test]
fn headless_external_name_and_other_proxies_are_told() {
    let headless = parsed(&json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }));
    assert!(headless.view.cluster_ips.is_empty() && headless.notes.is_empty());
    assert!(parsed(&json!({ "spec": { "type": "ExternalName" } })).view.external_name);
    let labels = json!({ "metadata": { "labels": { "service.kubernetes.io/service-proxy-name": "x" } } });
    assert!(parsed(&labels).view.other_proxy);
    let old = parsed(&json!({ "spec": { "clusterIP": "10.96.0.7" } }));
    assert_eq!(old.view.cluster_ips.len(), 1, "clusterIPs was not always there");
}

#[test]
fn odd_input_becomes_notes_and_the_rest_is_used() {
    let object = parsed(&json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": {
            "clusterIPs": ["10.96.0.1", "nonsense"], "externalIPs": ["1.2.3"],
            "loadBalancerSourceRanges": ["10.0.0.0"],
            "ports": [{ "port": 70000 }, { "port": 80, "protocol": "ICMP" }, { "port": 81, "nodePort": 99999 }],
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": -1 } },
        },
    }));
    assert_eq!(object.view.cluster_ips.len(), 1);
    let ports: Vec<(u16, Option<u16>)> =
        object.view.ports.iter().map(|port| (port.port, port.node_port)).collect();
    assert_eq!(ports, [(81, None)]);
    assert_eq!(object.view.affinity, Some(Affinity { timeout_seconds: 10_800 }));
    let mut found = fields(&object.notes);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "spec.clusterIPs",
            "spec.externalIPs",
            "spec.loadBalancerSourceRanges",
            "spec.ports[].nodePort",
            "spec.ports[].port",
            "spec.ports[].protocol",
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        ]
    );
}

#[test]
fn a_slice_fills_in_missing_conditions() {
    let object = parsed_slice(&json!({
        "metadata": { "namespace": "shop", "labels": { "kubernetes.io/service-name": "web" },
                      "annotations": { "endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:01.5Z" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }, { "name": "all" }, { "port": 1 }, { "name": "", "port": 9, "protocol": "UDP" }],
        "endpoints": [
            { "addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "n1",
              "hints": { "forZones": [{ "name": "z1" }], "forNodes": [{ "name": "n1" }] } },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
            { "addresses": ["10.0.0.3"], "conditions": { "ready": false, "serving": true, "terminating": true } },
            { "addresses": [] },
        ],
    }));
    assert_eq!(object.service, Some(ServiceKey::new("shop", "web")));
    assert_eq!(object.trigger_ns, Some(1_500_000_000));
    assert!(object.notes.is_empty());
    let flags: Vec<_> = object.endpoints.iter().map(|e| (e.ready, e.serving, e.terminating)).collect();
    assert_eq!(flags, [(true, true, false), (false, true, false), (false, true, true)]);
    let one = first(&object);
    let ports: Vec<(&str, u16)> = one.ports.iter().map(|port| (&*port.name, port.port)).collect();
    assert_eq!(ports, [("http", 8080), ("", 9)]);
    assert_eq!(one.node_name.as_deref(), Some("n1"));
    assert_eq!(one.for_zones.len(), 1);
}

#[test]
fn older_slices_have_the_nodes_name_in_the_topology() {
    let object = parsed_slice(&json!({
        "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.0.0.1"], "topology": { "kubernetes.io/hostname": "n1" } },
                      { "addresses": ["10.0.0.2"], "topology": null }],
    }));
    let nodes: Vec<_> = object.endpoints.iter().map(|endpoint| endpoint.node_name.clone()).collect();
    assert_eq!(nodes, [Some("n1".into()), None]);
}

#[test]
fn slices_of_names_or_without_label_serve_nobody() {
    let names = json!({ "metadata": { "labels": { "kubernetes.io/service-name": "web" } }, "addressType": "FQDN",
                        "endpoints": [{ "addresses": ["a.example"] }] });
    let object = parsed_slice(&names);
    assert!(object.endpoints.is_empty() && object.notes.is_empty());
    assert_eq!(parsed_slice(&json!({ "addressType": "IPv4" })).service, None);
    let wrong = json!({ "addressType": "IPv6", "endpoints": [{ "addresses": ["10.0.0.1"] }, { "addresses": ["x"] }] });
    assert_eq!(parsed_slice(&wrong).notes.len(), 2);
    let nulls =
        json!({ "metadata": { "labels": null }, "addressType": "IPv4", "endpoints": null, "ports": null });
    assert!(parsed_slice(&nulls).endpoints.is_empty());
}

#[test]
fn escaped_text_is_read_too() {
    let text = r#"{"addressType":"IPv4","ports":[{"name":"h\u0074tp","port":1}],"endpoints":[{"addresses":["10.0.0.\u0031"]}]}"#;
    let object = slice(text.as_bytes(), &Interner::default()).unwrap();
    assert_eq!(&*first(&object).ports[0].name, "http");
    assert_eq!(first(&object).address.to_string(), "10.0.0.1");
}

#[test]
fn a_node_has_one_primary_address_per_family() {
    let object = node(
        json!({
            "metadata": { "labels": { "topology.kubernetes.io/zone": "z1" } },
            "spec": { "podCIDRs": ["10.244.1.0/24"] },
            "status": { "addresses": [
                { "type": "Hostname", "address": "n1" }, { "type": "ExternalIP", "address": "203.0.113.1" },
                { "type": "InternalIP", "address": "192.168.0.1" }, { "type": "InternalIP", "address": "192.168.0.2" },
                { "type": "ExternalIP", "address": "2001:db8::1" },
            ] },
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    assert_eq!(object.addresses, ["192.168.0.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(object.zone.as_deref(), Some("z1"));
    assert!(object.eligible);
    let tainted = json!({ "spec": { "taints": [{ "key": "ToBeDeletedByClusterAutoscaler" }] } });
    assert!(!node(tainted.to_string().as_bytes()).unwrap().eligible);
}

#[test]
fn text_is_shared() {
    let interner = Interner::default();
    assert!(Arc::ptr_eq(&interner.get("n1"), &interner.get("n1")));
}

#[test]
fn an_algorithm_is_asked_for_by_annotation() {
    let service =
        |text: &str| parsed(&json!({ "metadata": { "annotations": { "portolan.dev/lb-algorithm": text } } }));
    assert_eq!(service("sh").view.algorithm, Some(Algorithm::SourceHash));
    assert_eq!(service("least-connection").view.algorithm, None);
    let note = service("round robin").notes[0].to_string();
    for part in ["metadata.annotations[portolan.dev/lb-algorithm]", "\"round robin\"", "round-robin", "wlc"] {
        assert!(note.contains(part), "{note}");
    }
}
