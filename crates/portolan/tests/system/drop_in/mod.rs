//! Our roles in a cluster of Kubernetes' own, in place of kube-proxy, CoreDNS and MetalLB, as `deploy/` describes them.

mod cluster;

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use portolan_lab::load::{Load, Manner};
use portolan_lab::{Host, probe};
use serde_json::{Value, json};

use crate::bed::{at, exe, settles, yaml};
use crate::kube_apiserver::{PATIENCE, program};
use crate::place::until;
use crate::proxy_verb::Line;
use cluster::Cluster;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const PROXY: &str = "daemonset/portolan-proxy";

/// With `deploy/proxy.yaml` applied, and a pod of the label `app: web` on each of two nodes.
fn with_pods(mode: &str) -> Cluster {
    let mut cluster = Cluster::up();
    let text = include_str!("../../../../../deploy/proxy.yaml");
    let server = format!("{}:6443", Host::ControlPlane.ip());
    let mode = format!("mode: {mode}\n");
    cluster.deploy(&text.replace("API-SERVER:6443", &server).replace("mode: nftables\n", &mode));
    for n in [1, 2] {
        cluster.echo(&format!("web-{n}"), (n, 10), &json!({ "app": "web" }), &json!({}));
    }
    cluster
}

/// With the proxy on both nodes as well.
fn with_proxies() -> Cluster {
    let mut cluster = with_pods("nftables");
    for n in [1, 2] {
        cluster.run(PROXY, &format!("node-{n}"), n);
    }
    cluster
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn the_proxy_of_deploy_serves_a_kubernetes_cluster() {
    let cluster = with_proxies();
    let bed = &cluster.bed;
    bed.apply(&yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web},
          ports: [{name: http, port: 80, targetPort: http, nodePort: 32080}]}}",
    ));
    let vip = at(bed.cluster_ip("web"), 80);
    let nodes = [1, 2].map(|n| at(Host::Node(n).ip(), 32080));
    // From a node, from a pod of its own and from outside.
    for (from, to) in
        [("node-1", vip), ("node-2", vip), ("web-1", vip), ("client", nodes[0]), ("client", nodes[1])]
    {
        bed.until_answerers(from, to, &["web-1", "web-2"]);
    }
    cluster.set_ready("default/web-1", false);
    bed.until_answerers("client", nodes[0], &["web-2"]);
    cluster.set_ready("default/web-1", true);
    bed.until_answerers("client", nodes[0], &["web-1", "web-2"]);
    // Which node an endpoint is on is known: each keeps to its own.
    let local = r#"{"spec": {"externalTrafficPolicy": "Local"}}"#;
    bed.run(&["patch", "service", "web", "-p", local]);
    bed.until_answerers("client", nodes[0], &["web-1"]);
    bed.until_answerers("client", nodes[1], &["web-2"]);

    let said = |port, path| cluster.get("node-1", LOCALHOST, port, path);
    assert_eq!(said(10249, "/proxyMode"), "nftables");
    assert!(said(10249, "/metrics").contains("kubeproxy_sync_proxy_rules_last_timestamp_seconds"));
    assert!(said(10256, "/healthz").contains("lastUpdated"));
    until("the proxies' events", PATIENCE, || {
        let reporters = bed.run(&[
            "get",
            "events",
            "-A",
            "-o",
            "jsonpath={.items[?(@.reason=='Starting')].involvedObject.name}",
        ]);
        (reporters.contains("node-1") && reporters.contains("node-2")).then_some(())
    });
    // The slices of 1.20.
    assert!(cluster.log("portolan-proxy-node-1").contains("v1beta1"));
    cluster.nobody_was_refused();
}

/// What a program says on the first node.
fn on_node_1(cluster: &Cluster, program: &str, args: &[&str]) -> String {
    let place = cluster.bed.lab.place("node-1").unwrap();
    let output = place.output(Command::new(program).args(args)).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text.into_owned()
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn the_proxy_of_deploy_takes_over_from_kube_proxy_and_hands_back_without_losing_a_connection() {
    over_and_back("nftables", "portolan", |cluster| on_node_1(cluster, "nft", &["list", "tables"]));
}

/// Beside kube-proxy's chains of the same kind.
#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn in_mode_iptables_it_takes_over_from_kube_proxy_and_hands_back_as_well() {
    over_and_back("iptables", "PORTOLAN-", |cluster| on_node_1(cluster, "iptables-save", &[]));
}

/// In `mode`, `mark` is in what `look` sees as long as there is anything of ours.
fn over_and_back(mode: &str, mark: &str, look: impl Fn(&Cluster) -> String) {
    let mut cluster = with_pods(mode);
    cluster.bed.apply(&yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: NodePort, selector: {app: web},
          ports: [{name: http, port: 80, nodePort: 32080}, {name: line, port: 9000, nodePort: 32090}]}}",
    ));
    let kube_proxy = cluster.kube_proxy(1);
    let [http, line] = [32080, 32090].map(|port| at(Host::Node(1).ip(), port));
    cluster.bed.until_answerers("client", http, &["web-1", "web-2"]);
    let client = cluster.bed.lab.host(Host::Client).unwrap();
    let mut old = Line::connect(&client, line);
    let load = Load::start(client.try_clone().unwrap(), http, Manner::Patient);

    // Over: both side by side, then kube-proxy goes, and then what it left.
    assert!(on_node_1(&cluster, "iptables-save", &[]).contains("KUBE-SVC-"));
    cluster.begin(PROXY, "node-1", 1);
    until("both are there", PATIENCE, || {
        cluster.log("portolan-proxy-node-1").contains("in step").then_some(())
    });
    assert!(look(&cluster).contains(mark));
    assert!(load.more(20, PATIENCE));
    drop(kube_proxy);
    let exe = exe();
    let portolan = exe.to_str().unwrap();
    let removed = on_node_1(&cluster, portolan, &["proxy", "cleanup", "--only-kube-proxy"]);
    let left = on_node_1(&cluster, "iptables-save", &[]);
    assert!(!left.contains("KUBE-SVC-") && !left.contains("KUBE-SEP-"), "{removed}\n{left}");
    assert!(load.more(20, PATIENCE));
    cluster.bed.until_answerers("client", http, &["web-1", "web-2"]);
    until("its port is free", PATIENCE, || {
        let netns = cluster.bed.lab.host(Host::Node(1)).unwrap();
        probe::http_get(&netns, at(LOCALHOST, 10256), "/livez").unwrap().text().map(drop)
    });
    let mut new = Line::connect(&client, line);

    // Back: kube-proxy's rules come, then ours go.
    let _kube_proxy = cluster.kube_proxy(1);
    until("kube-proxy's rules are back", PATIENCE, || {
        on_node_1(&cluster, "iptables-save", &[]).contains("KUBE-SEP-").then_some(())
    });
    cluster.stop("portolan-proxy-node-1");
    on_node_1(&cluster, portolan, &["proxy", "cleanup"]);
    assert!(!look(&cluster).contains(mark));
    assert!(load.more(20, PATIENCE));
    let seen = load.end().unwrap();
    assert!(seen.failures().is_empty(), "{:?} of {}", seen.failures(), seen.count());
    old.still_works();
    new.still_works();
}

/// Every field that 1.20 knows, the one that was taken out later included.
#[test]
#[ignore = "needs target/kube-proxy: scripts/kube-apiserver builds it in some 20 minutes"]
fn the_configuration_that_kube_proxy_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let [theirs, ours] = ["theirs", "ours"].map(|name| dir.path().join(name).display().to_string());
    let run = |program: &std::path::Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{program:?} {args:?}: {said}");
    };
    run(&program("kube-proxy"), &["--write-config-to", &theirs]);
    run(&exe(), &["proxy", "--config", &theirs, "--write-config-to", &ours]);
    let read =
        |path: &str| -> Value { serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap() };
    let (theirs, ours) = (read(&theirs), read(&ours));
    assert!(theirs["udpIdleTimeout"].is_string() && ours["udpIdleTimeout"].is_null());
    for field in ["healthzBindAddress", "metricsBindAddress", "oomScoreAdj", "conntrack"] {
        for (name, value) in theirs[field].as_object().into_iter().flatten() {
            assert_eq!(ours[field][name], *value, "{field}.{name}");
        }
        assert!(theirs[field].is_object() || ours[field] == theirs[field], "{field}");
    }
}

/// With proxies, and `deploy/dns.yaml` in a pod.
fn with_dns() -> Cluster {
    let mut cluster = with_proxies();
    cluster.deploy(include_str!("../../../../../deploy/dns.yaml"));
    cluster.pod("kube-system/dns-1", (1, 53), &json!({ "k8s-app": "kube-dns" }), &json!({}));
    cluster.run("deployment/portolan-dns", "kube-system/dns-1", 1);
    cluster
}

/// What dig prints of the cluster's DNS, asked from a pod.
fn dig(cluster: &Cluster, args: &[&str]) -> String {
    let place = cluster.bed.lab.place("web-2").unwrap();
    let mut command = Command::new("dig");
    command.args(["@10.96.0.10", "+tries=1", "+timeout=2"]).args(args);
    String::from_utf8(place.output(&mut command).unwrap().stdout).unwrap()
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn the_dns_of_deploy_answers_for_a_kubernetes_cluster() {
    let cluster = with_dns();
    cluster.pod(
        "default/db-0",
        (2, 20),
        &json!({ "app": "db" }),
        &json!({ "hostname": "db-0", "subdomain": "db" }),
    );
    for service in [
        "{name: web}, spec: {selector: {app: web}, ports: [{name: http, port: 80}]}",
        "{name: db}, spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}",
        "{name: elsewhere}, spec: {type: ExternalName, externalName: example.org}",
    ] {
        cluster.bed.apply(&yaml(&format!("{{apiVersion: v1, kind: Service, metadata: {service}}}")));
    }
    let vip = cluster.bed.cluster_ip("web").to_string();
    let names = [
        (vec!["web.default.svc.cluster.local", "A"], format!("{vip}\n")),
        (vec!["+tcp", "web.default.svc.cluster.local", "A"], format!("{vip}\n")),
        (
            vec!["_http._tcp.web.default.svc.cluster.local", "SRV"],
            "0 100 80 web.default.svc.cluster.local.\n".into(),
        ),
        (vec!["-x", &vip], "web.default.svc.cluster.local.\n".into()),
        (vec!["db.default.svc.cluster.local", "A"], "10.244.2.20\n".into()),
        (vec!["db-0.db.default.svc.cluster.local", "A"], "10.244.2.20\n".into()),
        (
            vec!["_sql._tcp.db.default.svc.cluster.local", "SRV"],
            "0 100 5432 db-0.db.default.svc.cluster.local.\n".into(),
        ),
        (vec!["-x", "10.244.2.20"], "db-0.db.default.svc.cluster.local.\n".into()),
        (vec!["elsewhere.default.svc.cluster.local", "CNAME"], "example.org.\n".into()),
        (vec!["kubernetes.default.svc.cluster.local", "A"], "10.96.0.1\n".into()),
        (vec!["10-244-2-20.default.pod.cluster.local", "A"], "10.244.2.20\n".into()),
    ];
    for (args, expected) in &names {
        until(&format!("{args:?}"), PATIENCE, || {
            (dig(&cluster, &[&["+short"], &args[..]].concat()) == *expected).then_some(())
        });
    }
    let denied = dig(&cluster, &["+noall", "+comments", "nobody.default.svc.cluster.local", "A"]);
    assert!(denied.contains("NXDOMAIN"), "{denied}");
    cluster.set_ready("default/db-0", false);
    until("what is not ready has no name", PATIENCE, || {
        dig(&cluster, &["+noall", "+comments", names[5].0[0]]).contains("NXDOMAIN").then_some(())
    });

    let address = IpAddr::from([10, 244, 1, 53]);
    let metrics = cluster.get("web-2", address, 9153, "/metrics");
    assert!(metrics.contains("coredns_dns_requests_total"), "{metrics}");
    assert_eq!(cluster.get("node-1", address, 8080, "/health"), "OK");
    assert_eq!(cluster.get("node-1", address, 8181, "/ready"), "OK");
    cluster.nobody_was_refused();
}

/// On both nodes, with a pool, and with the manifest changed as `change` says.
fn add_balancers(cluster: &mut Cluster, change: impl Fn(&str) -> String) {
    cluster.deploy(include_str!("../../../../../deploy/loadbalancerpool-crd.yaml"));
    until("the kind is there", PATIENCE, || cluster.bed.kubectl().run(&["get", "lbpool"]).ok());
    cluster.deploy(&change(include_str!("../../../../../deploy/lb.yaml")));
    for n in [1, 2] {
        cluster.run("daemonset/portolan-lb", &format!("node-{n}"), n);
    }
    cluster.bed.apply(&yaml(
        "{apiVersion: portolan.dev/v1alpha1, kind: LoadBalancerPool, metadata: {name: main},
          spec: {addresses: [10.0.0.240-10.0.0.250]}}",
    ));
}

#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn the_balancer_of_deploy_gives_and_announces_addresses_of_a_kubernetes_cluster() {
    let mut cluster = with_proxies();
    add_balancers(&mut cluster, str::to_owned);
    let bed = &cluster.bed;
    bed.apply(&yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, selector: {app: web},
          ports: [{name: http, port: 80, targetPort: http}]}}",
    ));
    bed.until_field("service web", "{.status.loadBalancer.ingress[0].ip}", |ip| ip == "10.0.0.240");
    let address = at([10, 0, 0, 240].into(), 80);
    bed.until_answerers("client", address, &["web-1", "web-2"]);
    bed.until_field("lbpool main", "{.status.assignedIPv4}/{.status.availableIPv4}", |counts| {
        counts == "1/10"
    });
    let announcing = |n: u8| {
        let metrics = cluster.get(&format!("node-{n}"), LOCALHOST, 7472, "/metrics");
        metrics.contains("metallb_speaker_announced{service=\"default/web\"")
    };
    let owner = until("one of them announces", PATIENCE, || [1, 2].into_iter().find(|n| announcing(*n)));
    let events = "{.items[?(@.reason=='nodeAssigned')].message}";
    bed.until_field("events", events, |said| said.contains(&format!("node-{owner}")));
    // The other one takes over.
    cluster.stop(&format!("portolan-lb-node-{owner}"));
    settles(|| cluster.bed.http("client", address), |answer| answer.text().is_some());
    cluster.bed.until_field("events", events, |said| said.contains(&format!("node-{}", 3 - owner)));
    cluster.nobody_was_refused();
}

/// Beside another balancer, which serves what has no class: that one's addresses are the test's.
#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn a_balancer_of_its_class_alone_leaves_others_services_to_others() {
    let mut cluster = with_proxies();
    // 1.20 does not know the field: it keeps no class.
    let only = |manifest: &str| manifest.replace("[portolan, lb,", "[portolan, lb, --only-class,");
    add_balancers(&mut cluster, only);
    let bed = &cluster.bed;
    bed.apply(&yaml(
        "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {type: LoadBalancer, selector: {app: web},
          ports: [{name: http, port: 80, targetPort: http}]}}",
    ));
    let ingress =
        json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "10.0.0.245" }] } } }).to_string();
    bed.run(&["patch", "service", "web", "--subresource=status", "--type=merge", "-p", &ingress]);
    // The rules lead there, whoever announces it.
    bed.until_answerers("node-1", at([10, 0, 0, 245].into(), 80), &["web-1", "web-2"]);
    for n in [1, 2] {
        let metrics = cluster.get(&format!("node-{n}"), LOCALHOST, 7472, "/metrics");
        assert!(!metrics.contains("speaker_announced{"), "{metrics}");
    }
    assert!(bed.http("client", at([10, 0, 0, 245].into(), 80)).text().is_none(), "nobody announces it");
    bed.until_field("lbpool main", "{.status.assignedIPv4}", |count| count == "0" || count.is_empty());
    let condition = "{.status.conditions[?(@.type==\"portolan.dev/AddressAssigned\")].reason}";
    assert_eq!(bed.field("service web", condition), "");
}

/// Whether the new server can resume the watches of the old one or not.
#[test]
#[ignore = "needs target/kube-apiserver: scripts/kube-apiserver builds it in some 20 minutes"]
fn rules_and_names_stay_while_the_api_server_is_away_and_follow_when_it_is_back() {
    let mut cluster = with_dns();
    let service = |name: &str, port: u16| {
        yaml(&format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{type: NodePort, selector: {{app: web}},
               ports: [{{port: 80, nodePort: {port}}}]}}}}"
        ))
    };
    let [before, after] = [32080, 32081].map(|port| at(Host::Node(1).ip(), port));
    cluster.bed.apply(&service("before", 32080));
    cluster.bed.until_answerers("client", before, &["web-1", "web-2"]);
    let resolves = |cluster: &Cluster, service: &str| {
        dig(cluster, &["+short", &format!("{service}.default.svc.cluster.local"), "A"]).starts_with("10.")
    };
    until("the name is there", PATIENCE, || resolves(&cluster, "before").then_some(()));
    cluster.kill_api_server();
    let roles = ["portolan-proxy-node-1", "portolan-dns-kube-system-dns-1"];
    until("the roles have noticed", PATIENCE, || {
        roles.iter().all(|name| cluster.log(name).contains("watch broke off")).then_some(())
    });
    assert_eq!(cluster.bed.answerers("client", before, 20), ["web-1", "web-2"]);
    assert!(resolves(&cluster, "before"));

    cluster.start_api_server();
    cluster.bed.apply(&service("after", 32081));
    cluster.bed.run(&["delete", "service", "before"]);
    cluster.bed.until_answerers("client", after, &["web-1", "web-2"]);
    until("names follow", PATIENCE, || {
        (resolves(&cluster, "after") && !resolves(&cluster, "before")).then_some(())
    });
    settles(|| cluster.bed.http("client", before), |answer| answer.text().is_none());
}
