//! What a user sees with `kubectl`, and sharing, classes and release as users meet them.

use super::{ADDRESS, POOL, SERVICE, announced, until_unanswered, vip};
use crate::bed::{Bed, at, settles, web_pod};

/// The columns of one row.
fn row<'a>(table: &'a str, name: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {table}"));
    line.split_whitespace().collect()
}

#[test]
fn kubectl_shows_addresses_events_and_pools() {
    let bed = announced(1);
    assert_eq!(row(&bed.run(&["get", "service", "web"]), "web")[3], "10.0.0.240");
    bed.until_field("events", "{.items[*].reason}", |all| all.contains("nodeAssigned"));
    let described = bed.run(&["describe", "service", "web"]);
    for part in
        ["LoadBalancer Ingress:", "10.0.0.240", "IPAllocated", "Assigned IP 10.0.0.240", "nodeAssigned"]
    {
        assert!(described.contains(part), "{part} is not in\n{described}");
    }
    bed.until_field("lbpool main", "{.status.assignedIPv4}", |count| count == "1");
    let pools = bed.run(&["get", "loadbalancerpools"]);
    assert_eq!(row(&pools, "NAME"), ["NAME", "ADDRESSES", "AUTO-ASSIGN", "ASSIGNED", "AVAILABLE", "AGE"]);
    assert_eq!(row(&pools, "main")[..5], ["main", "10.0.0.240-10.0.0.250", "true", "1", "10"]);
    assert!(bed.run(&["describe", "lbpool", "main"]).contains("Overlapping"));
}

#[test]
fn services_share_an_address_release_it_and_take_others_classes_leave_it() {
    let bed = announced(1);
    // Two Services of one key on one address, each with a port of its own and no node port.
    let shared = |name: &str, port: u16| {
        SERVICE
            .replace(
                "{name: web}",
                &format!("{{name: {name}, annotations: {{metallb.io/allow-shared-ip: key}}}}"),
            )
            .replace("port: 80", &format!("port: {port}"))
            .replace("  selector", "  allocateLoadBalancerNodePorts: false\n  selector")
    };
    bed.apply(&format!("{}---{}", shared("one", 81), shared("two", 82)));
    bed.apply(&web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    let ingress = "{.status.loadBalancer.ingress[0].ip}";
    for (name, port) in [("one", 81), ("two", 82)] {
        let ip = bed.until_field(&format!("service {name}"), ingress, |ip| !ip.is_empty());
        assert_eq!(ip, "10.0.0.241", "{name}");
        assert_eq!(bed.field(&format!("service {name}"), "{.spec.ports[0].nodePort}"), "");
        settles(|| bed.http("client", at(ip.parse().unwrap(), port)), |answer| answer.text().is_some());
    }
    // Somebody else's class.
    bed.apply(
        &SERVICE
            .replace("{name: web}", "{name: foreign}")
            .replace("  selector", "  loadBalancerClass: example.com/other\n  selector"),
    );
    // An address that is given back is given again.
    bed.run(&["delete", "service", "web"]);
    until_unanswered(&bed);
    bed.apply(&SERVICE.replace("{name: web}", "{name: next}"));
    bed.until_field("service next", ingress, |ip| ip == ADDRESS.to_string());
    settles(|| bed.http("client", vip()), |answer| answer.text().is_some());
    assert_eq!(bed.field("service foreign", "{.status.loadBalancer}"), "{}");
    // A type that is left takes the address with it.
    bed.run(&["patch", "service", "next", "--type=merge", "-p", r#"{"spec":{"type":"ClusterIP"}}"#]);
    bed.until_field("service next", "{.status.loadBalancer}", |status| status == "{}");
    until_unanswered(&bed);
}

#[test]
fn an_address_comes_as_soon_as_there_is_a_pool() {
    let bed = Bed::up(1);
    bed.apply(SERVICE);
    assert_eq!(row(&bed.run(&["get", "service", "web"]), "web")[3], "<pending>");
    let said =
        bed.until_field("events", "{.items[*].message}", |all| all.contains("there is no LoadBalancerPool"));
    assert!(said.contains("create one whose spec.addresses are free addresses"), "{said}");
    bed.apply(POOL);
    bed.until_field("service web", "{.status.loadBalancer.ingress[0].ip}", |ip| ip == "10.0.0.240");
}
