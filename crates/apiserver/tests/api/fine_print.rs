//! What is easy to miss of Services: in what order things are decided, where errors are said to be, and what stays.

use http::StatusCode;
use serde_json::{Value, json};

use crate::common::{SERVICES, Server, service_with as with, text};

#[tokio::test]
async fn what_the_allocators_refuse_is_said_alone() {
    let server = Server::start().await;
    // The affinity is wrong as well, and is not mentioned.
    let wrong = with("a", &json!({ "clusterIP": "192.0.2.1", "sessionAffinity": "Sticky" }));
    let (code, reason, message) = server.post(SERVICES, &wrong).await.refusal();
    assert_eq!((code, &*reason), (422, "Invalid"));
    assert_eq!(
        message,
        "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: failed to allocate IP 192.0.2.1: the provided network does not match the current range"
    );
    let wrong = with("a", &json!({ "sessionAffinity": "Sticky", "type": "Balancer" }));
    let (_, _, message) = server.post(SERVICES, &wrong).await.refusal();
    assert!(message.contains("spec.sessionAffinity") && message.contains("spec.type"), "{message}");
}

#[tokio::test]
async fn a_health_check_port_that_is_taken_is_an_internal_error() {
    let server = Server::start().await;
    let local = |name| {
        let ports = json!([{ "port": 80, "nodePort": 31001 }]);
        let spec =
            json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000 });
        let mut object = with(name, &spec);
        if name == "one" {
            object["spec"]["ports"] = ports;
        }
        object
    };
    server.post(SERVICES, &local("one")).await.ok();
    let (code, _, message) = server.post(SERVICES, &local("two")).await.refusal();
    assert_eq!(code, 500);
    assert!(
        message.contains(
            "failed to allocate requested HealthCheck NodePort 31000: provided port is already allocated"
        ),
        "{message}"
    );
    // It is of the same pool as node ports.
    let node_port =
        with("three", &json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 31000 }] }));
    let (code, _, message) = server.post(SERVICES, &node_port).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("spec.ports[0].nodePort"), "{message}");
}

#[tokio::test]
async fn source_ranges_are_named_with_a_capital_letter() {
    let server = Server::start().await;
    let wrong = with("a", &json!({ "loadBalancerSourceRanges": ["10.0.0.0/8"] }));
    let (_, _, message) = server.post(SERVICES, &wrong).await.refusal();
    assert!(
        message.contains(
            "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn defaults_that_nobody_asked_for() {
    let server = Server::start().await;
    let spec = json!({
        "sessionAffinity": "None", "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 5 } },
        "ports": [{ "port": 80, "targetPort": "" }],
    });
    let made = server.post(SERVICES, &with("a", &spec)).await.ok();
    assert_eq!(made["spec"].get("sessionAffinityConfig"), None);
    assert_eq!(made["spec"]["ports"][0]["targetPort"], 80);

    let mut headless = with("b", &json!({ "clusterIP": "None" }));
    headless["spec"].as_object_mut().unwrap().remove("selector");
    let made = server.post(SERVICES, &headless).await.ok();
    assert_eq!(made["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));

    let reply = server.post(SERVICES, &with("c", &json!({ "externalIPs": ["198.51.100.7"] }))).await;
    assert!(
        reply.warnings().iter().any(|text| text.contains("spec.externalIPs is deprecated")),
        "{:?}",
        reply.warnings()
    );
    assert_eq!(reply.ok()["spec"]["externalTrafficPolicy"], "Cluster");
}

#[tokio::test]
async fn node_ports_follow_the_names_of_ports() {
    let server = Server::start().await;
    let ports = json!([
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
        { "name": "web", "port": 80 },
    ]);
    let made = server.post(SERVICES, &with("a", &json!({ "type": "NodePort", "ports": ports }))).await.ok();
    let number = |object: &Value, index: usize| object["spec"]["ports"][index]["nodePort"].as_u64().unwrap();
    assert_eq!(number(&made, 0), number(&made, 1), "one number for both protocols of a port");
    assert_ne!(number(&made, 0), number(&made, 2));
    // A PUT that says nothing of numbers keeps those of the names it keeps.
    let mut put = with("a", &json!({ "type": "NodePort", "ports": ports }));
    put["spec"]["ports"][2]["name"] = "http".into();
    let kept = server.put(&format!("{SERVICES}/a"), &put).await.ok();
    assert_eq!(kept["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    assert_eq!((number(&kept, 0), number(&kept, 1)), (number(&made, 0), number(&made, 1)));
    assert_ne!(number(&kept, 2), number(&made, 2), "another name is another port");
}

#[tokio::test]
async fn the_lower_bands_are_left_to_those_who_choose() {
    let server = Server::start().await;
    for number in 0..50 {
        let made =
            server.post(SERVICES, &with(&format!("s{number}"), &json!({ "type": "NodePort" }))).await.ok();
        let address: std::net::Ipv4Addr = text(&made["spec"]["clusterIP"]).parse().unwrap();
        assert!(address > std::net::Ipv4Addr::new(10, 96, 1, 0), "{address}");
        assert!(made["spec"]["ports"][0]["nodePort"].as_u64().unwrap() >= 30086);
    }
    let chosen = with(
        "low",
        &json!({ "clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30001 }] }),
    );
    assert_eq!(server.post(SERVICES, &chosen).await.code, StatusCode::CREATED);
}

#[tokio::test]
async fn metrics_say_how_full_the_ranges_are() {
    let server = Server::start().await;
    let count = async |name: &str| {
        let text = String::from_utf8(server.get("/metrics").await.body.to_vec()).unwrap();
        let line =
            text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let of = "{cidr=\"10.96.0.0/12\"}";
    let [ips, left] = ["allocated_ips", "available_ips"]
        .map(|name| format!("kube_apiserver_clusterip_allocator_{name}{of}"));
    let [ports, ports_left] = ["allocated_ports", "available_ports"]
        .map(|name| format!("kube_apiserver_nodeport_allocator_{name}"));
    let before = [count(&ips).await, count(&left).await, count(&ports).await, count(&ports_left).await];
    assert_eq!(before, [1, (1 << 20) - 3, 0, 2768], "the Service kubernetes has one");
    server.post(SERVICES, &with("a", &json!({ "type": "NodePort" }))).await.ok();
    let after = [count(&ips).await, count(&left).await, count(&ports).await, count(&ports_left).await];
    assert_eq!(after, [2, (1 << 20) - 4, 1, 2767]);
    server.delete(&format!("{SERVICES}/a")).await.ok();
    assert_eq!(count(&ips).await, 1);
}

#[tokio::test]
async fn a_dry_run_shows_what_is_plainly_not_real() {
    let server = Server::start().await;
    let path = format!("{SERVICES}?dryRun=All");
    let shown = server.post(&path, &with("a", &json!({ "type": "NodePort" }))).await.ok();
    assert_eq!(shown["spec"]["clusterIP"], "10.96.0.0");
    assert_eq!(shown["spec"]["ports"][0]["nodePort"], 32769);
    assert_eq!(server.get(&format!("{SERVICES}/a")).await.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_balancers_status_goes_with_its_type() {
    let server = Server::start().await;
    server.post(SERVICES, &with("a", &json!({ "type": "LoadBalancer" }))).await.ok();
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.7" }] } } });
    let path = format!("{SERVICES}/a");
    let balanced = server.patch(&format!("{path}/status"), "merge", &status).await.ok();
    assert_eq!(
        balanced["status"]["loadBalancer"]["ingress"],
        json!([{ "ip": "192.0.2.7", "ipMode": "VIP" }])
    );
    let plain = server.patch(&path, "merge", &json!({ "spec": { "type": "ClusterIP" } })).await.ok();
    assert_eq!(plain["status"], json!({ "loadBalancer": {} }));
    let (_, _, message) = server.patch(&format!("{path}/status"), "merge", &status).await.refusal();
    assert!(
        message.contains(
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"
        ),
        "{message}"
    );
}
