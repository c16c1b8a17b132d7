//! ServiceCIDRs as an administrator has to do with them, by kubectl: a range more, addresses of it, and its end.

use std::time::Instant;

use serde_json::Value;

use crate::bed::{Bed, PATIENCE, at, web_pod, yaml};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const HELD: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

fn range(name: &str, cidr: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {{name: {name}}}, spec: {{cidrs: [{cidr}]}}}}"
    )
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, \
         spec: {{selector: {{app: web}}, clusterIP: {ip}, ports: [{{port: 80}}]}}}}"
    )
}

/// Waits for what the range says of itself: `Ready`, why, and the words; with its finalizers.
fn says(bed: &Bed, name: &str, expected: [&str; 3]) {
    let begin = Instant::now();
    loop {
        let object: Value =
            serde_json::from_str(&bed.run(&["get", "servicecidr", name, "-o", "json"])).unwrap();
        let condition = &object["status"]["conditions"][0];
        let found =
            ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default());
        if found == expected && object["metadata"]["finalizers"] == serde_json::json!([FINALIZER]) {
            return;
        }
        assert!(begin.elapsed() < PATIENCE, "{name} stays {object}");
    }
}

fn fails(bed: &Bed, args: &[&str], input: &str) -> String {
    let output = bed.kubectl().output(args, &yaml(input)).unwrap();
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_range_more_serves_and_goes_when_its_last_service_does() {
    let bed = Bed::up(1);
    let ready = ["True", "", "Kubernetes Service CIDR is ready"];
    says(&bed, "kubernetes", ready);
    let table = bed.run(&["get", "servicecidr"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "CIDRS", "AGE"]);
    assert_eq!(rows[1][..2], ["kubernetes", "10.96.0.0/12"], "{table}");

    let early = fails(&bed, &["create", "-f", "-"], &service("web", "172.30.7.7"));
    assert!(
        early.contains(
            "failed to allocate IP 172.30.7.7: the provided network does not match the current range"
        ),
        "{early}"
    );
    assert_eq!(
        bed.apply(&range("more", "172.30.7.0/24")).trim(),
        "servicecidr.networking.k8s.io/more created"
    );
    bed.apply(&service("web", "172.30.7.7"));
    says(&bed, "more", ready);
    bed.run(&["wait", "--for=condition=Ready", "servicecidr/more", "--timeout=30s"]);
    bed.apply(&web_pod("web-1", "app: web", None));
    bed.wait_ready("app=web");
    bed.until_answerers("node-1", at("172.30.7.7".parse().unwrap(), 80), &["web-1"]);

    bed.run(&["delete", "servicecidr", "more", "--wait=false"]);
    says(&bed, "more", ["False", "Terminating", HELD]);
    let late = fails(&bed, &["create", "-f", "-"], &service("late", "172.30.7.8"));
    assert!(
        late.contains(
            "failed to allocate IP 172.30.7.8: the provided network does not match the current range"
        ),
        "{late}"
    );
    // Who has an address keeps it, and what is on its way out for want of it stays so.
    bed.until_answerers("node-1", at("172.30.7.7".parse().unwrap(), 80), &["web-1"]);
    let waits = fails(&bed, &["wait", "--for=delete", "servicecidr/more", "--timeout=12s"], "");
    assert!(waits.contains("timed out"), "{waits}");

    bed.run(&["delete", "service", "web"]);
    bed.run(&["wait", "--for=delete", "servicecidr/more", "--timeout=30s"]);
    assert_eq!(
        bed.run(&["get", "servicecidr", "-o", "name"]).trim(),
        "servicecidr.networking.k8s.io/kubernetes"
    );
}

#[test]
fn a_range_goes_when_a_wider_one_has_its_addresses() {
    let bed = Bed::up(1);
    bed.apply(&range("narrow", "172.30.7.0/24"));
    bed.apply(&service("web", "172.30.7.7"));
    bed.run(&["wait", "--for=condition=Ready", "servicecidr/narrow", "--timeout=30s"]);
    bed.run(&["delete", "servicecidr", "narrow", "--wait=false"]);
    says(&bed, "narrow", ["False", "Terminating", HELD]);
    bed.apply(&range("wide", "172.30.0.0/16"));
    bed.run(&["wait", "--for=delete", "servicecidr/narrow", "--timeout=40s"]);
    assert_eq!(bed.field("ipaddress 172.30.7.7", "{.spec.parentRef.name}"), "web");
    // An address taken away by hand is its Service's again, and the Service hears of it.
    bed.run(&["delete", "ipaddress", "172.30.7.7"]);
    let begin = Instant::now();
    while bed.run(&["get", "ipaddress", "172.30.7.7", "--ignore-not-found", "-o", "name"]).is_empty() {
        assert!(begin.elapsed() < PATIENCE, "the address stays away");
    }
    let begin = Instant::now();
    loop {
        let described = bed.run(&["describe", "service", "web"]);
        if described.contains("Cluster IP [IPv4]: 172.30.7.7 is not allocated; repairing") {
            assert!(described.contains("ClusterIPNotAllocated"), "{described}");
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{described}");
    }
}
