//! `portolan trace` on a running cluster: what it says is what packets do and what the kernel holds.

use std::process::Command;

use portolan_lab::Host;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::bed::{Bed, at, exe, peer, web_pod, who};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 32001}
  - {name: datagram, port: 9001, targetPort: datagram, protocol: UDP, nodePort: 32003}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec:
  internalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
";

/// Two nodes, the only pod of the Services on the second, and pods to ask from on both.
fn bed() -> Bed {
    bed_in(None)
}

/// With the nodes' proxies in this mode.
fn bed_in(mode: Option<&str>) -> Bed {
    let bed = Bed::up_in(2, mode);
    let pods = web_pod("web-1", "app: web", Some("node-2"))
        + &web_pod("shell-1", "app: shell", Some("node-1"))
        + &web_pod("shell-2", "app: shell", Some("node-2"));
    bed.apply(&(pods + "---" + SERVICES));
    bed.run(&["wait", "--for=condition=Ready", "pod", "--all", "--timeout=30s"]);
    for shell in ["shell-1", "shell-2"] {
        bed.until_answerers(shell, at(bed.cluster_ip("web"), 80), &["web-1"]);
    }
    bed
}

fn run(bed: &Bed, arguments: &[&str]) -> (String, bool) {
    let output =
        Command::new(exe()).args(["trace", "--lab", &bed.lab.layout.name]).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (said, output.status.success())
}

fn trace(bed: &Bed, from: &str, to: &str, more: &[&str]) -> Value {
    let arguments = [&["--from", from, "--to", to, "-o", "json"], more].concat();
    let (said, _) = run(bed, &arguments);
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn kernel_is_same(answer: &Value) {
    assert_eq!(answer["kernel"]["state"], "Same", "{answer:#}");
}

#[test]
fn the_explanation_agrees_with_what_packets_do() {
    let bed = bed();
    let web = at(bed.cluster_ip("web"), 80);
    for from in ["shell-1", "node-1", "web-1"] {
        let answer = trace(&bed, from, "web", &[]);
        kernel_is_same(&answer);
        assert_eq!(answer["verdict"]["outcome"], "Forward");
        let endpoint = &answer["endpoints"][0];
        assert_eq!(endpoint["pod"], "default/web-1");
        assert_eq!((&endpoint["used"], &endpoint["node"]), (&true.into(), &"node-2".into()));
        let source: std::net::IpAddr = answer["from"]["address"].as_str().unwrap().parse().unwrap();
        let got = bed.http(from, web);
        assert_eq!(who(&got), "web-1");
        // The node's masquerade shows its own address, so only pods can tell.
        if from != "node-1" {
            assert_eq!(endpoint["masqueraded"], peer(&got) != source, "{from}: {answer:#}");
        }
    }
    let answer = trace(&bed, "shell-1", "near", &[]);
    kernel_is_same(&answer);
    assert_eq!(answer["verdict"]["outcome"], "Drop");
    assert_eq!(answer["problems"][0]["kind"], "NoLocalEndpoint");
    assert_eq!(trace(&bed, "shell-2", "near", &[])["verdict"]["outcome"], "Forward");

    let answer = trace(&bed, "shell-1", "empty", &[]);
    kernel_is_same(&answer);
    assert_eq!(answer["verdict"]["outcome"], "Reject");
    assert_eq!(answer["problems"][0]["kind"], "NoMatchingPod");

    bed.post("node-1", at(bed.pod_ip("web-1"), 80), "/ready?value=false");
    bed.until_field("endpointslices -l kubernetes.io/service-name=web", "{..conditions.ready}", |ready| {
        ready == "false"
    });
    let answer = trace(&bed, "shell-1", "web", &[]);
    let reason = answer["endpoints"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("readinessProbe") && reason.contains("/ready"), "{reason}");
}

#[test]
fn a_live_probe_shows_the_chain_it_met_and_leaves_nothing() {
    let bed = bed();
    let chains = |answer: &Value| -> Vec<String> {
        let hops = answer["live"]["hops"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
        hops.iter().filter_map(|hop| hop["chain"].as_str().map(str::to_owned)).collect()
    };
    let node_port = format!("{}:32001", Host::Node(1).ip());
    let cases = [
        ("shell-1", "web:80", "prerouting", "connected"),
        ("node-1", "web:80", "output", "connected"),
        ("web-1", "web:80", "prerouting", "connected"),
        ("shell-1", "web:9001/udp", "prerouting", "answered"),
        ("shell-1", "empty", "prerouting", "refused"),
        ("shell-1", "near", "prerouting", "no answer"),
        (&Host::Client.ip().to_string(), &node_port, "prerouting", "connected"),
    ];
    for (from, to, first, said) in cases {
        // The client is no place that the API knows: its namespace is named.
        let netns = bed.lab.layout.netns(Host::Client);
        let netns = ["--live", "--probe-netns", netns.to_str().unwrap()];
        let more = if from.starts_with("10.") { &netns[..] } else { &netns[..1] };
        let answer = trace(&bed, from, to, more);
        let met = chains(&answer);
        assert_eq!(met.first().map(String::as_str), Some(first), "{from} {to}: {answer:#}");
        assert!(met.contains(&"services".to_owned()), "{from} {to}: {met:?}");
        let live = &answer["live"];
        assert!(live["answer"].as_str().unwrap().starts_with(said), "{from} {to}: {live:#}");
        assert_eq!(live["asExplained"], true, "{from} {to}: {answer:#}");
        if answer["verdict"]["outcome"] == "Forward" {
            let port = if to.ends_with("udp") { 9001 } else { 80 };
            let endpoint = at(bed.pod_ip("web-1"), port).to_string();
            assert_eq!(live["flow"]["endpoint"], *endpoint, "{from} {to}");
        }
    }
    let refused = trace(&bed, "shell-1", "empty", &["--live"]);
    assert!(chains(&refused).contains(&"refuse".to_owned()), "{refused:#}");
    for node in ["node-1", "node-2"] {
        assert!(!nft(&bed, node, &["list", "tables"]).contains("portolan-trace"));
    }
}

/// To the processes of a host; those of its pods are elsewhere.
fn signal(bed: &Bed, host: Host, signal: Signal) {
    let hosts = bed.lab.status().hosts;
    let (_, pids) = hosts.into_iter().find(|(other, _)| *other == host).unwrap();
    for pid in pids {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

fn nft(bed: &Bed, node: &str, arguments: &[&str]) -> String {
    let place = bed.lab.place(node).unwrap();
    let output = place.output(place.command("nft").args(arguments)).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_somebody_changed_in_the_kernel_is_shown_as_drift() {
    let bed = bed();
    let web = bed.cluster_ip("web");
    let of = |answer: &Value, what: &str| -> String { answer["kernel"][what].to_string() };
    // A proxy that runs mends at once: this one is held.
    signal(&bed, Host::Node(1), Signal::STOP);
    nft(
        &bed,
        "node-1",
        &["delete", "element", "ip", "portolan", "backends", &format!("{{ {web} . tcp . 80 . 0 }}")],
    );
    let answer = trace(&bed, "shell-1", "web", &[]);
    assert_eq!(answer["kernel"]["state"], "Drifted", "{answer:#}");
    let endpoint = format!("endpoint number 1 of {web}:80/TCP: {}:80", bed.pod_ip("web-1"));
    assert!(of(&answer, "missing").contains(&endpoint), "{answer:#}");
    let (text, ok) = run(&bed, &["--from", "shell-1", "--to", "web"]);
    assert!(!ok && text.contains("missing: endpoint number 1"), "{text}");

    kernel_is_same(&trace(&bed, "shell-1", "empty", &[]));
    kernel_is_same(&trace(&bed, "shell-2", "web", &[]));

    let wrong = format!("{{ {web} . tcp . 80 . 0 : 10.9.9.9 . 80 }}");
    nft(&bed, "node-1", &["add", "element", "ip", "portolan", "backends", &wrong]);
    let answer = trace(&bed, "shell-1", "web", &[]);
    assert!(of(&answer, "different").contains("10.9.9.9:80"), "{answer:#}");

    let more = format!("{{ {web} . tcp . 80 . 7 : 10.9.9.9 . 80 }}");
    nft(&bed, "node-1", &["add", "element", "ip", "portolan", "backends", &more]);
    let answer = trace(&bed, "shell-1", "web", &[]);
    assert!(of(&answer, "unexpected").contains("endpoint number 8"), "{answer:#}");

    signal(&bed, Host::Node(1), Signal::CONT);
    let begin = std::time::Instant::now();
    loop {
        let answer = trace(&bed, "shell-1", "web", &[]);
        if answer["kernel"]["state"] == "Same" {
            break;
        }
        assert!(begin.elapsed() < crate::bed::PATIENCE, "it is not mended: {answer:#}");
    }
}

#[test]
fn the_kernel_is_compared_in_mode_iptables_too() {
    let bed = bed_in(Some("iptables"));
    for to in ["web", "near", "empty"] {
        kernel_is_same(&trace(&bed, "shell-1", to, &[]));
    }
    // A proxy that runs mends it in time: this one is held.
    signal(&bed, Host::Node(1), Signal::STOP);
    let place = bed.lab.place("node-1").unwrap();
    let flushed =
        place.output(place.command("iptables").args(["-t", "nat", "-F", "PORTOLAN-MARK-OTHERS"])).unwrap();
    assert!(flushed.status.success());
    let answer = trace(&bed, "shell-1", "web", &[]);
    assert_eq!(answer["kernel"]["state"], "Drifted", "{answer:#}");
    assert!(answer["kernel"]["different"].to_string().contains("PORTOLAN-MARK-OTHERS"), "{answer:#}");
    kernel_is_same(&trace(&bed, "shell-2", "web", &[]));
    signal(&bed, Host::Node(1), Signal::CONT);
}

#[test]
fn a_live_probe_shows_the_rules_of_iptables_in_its_words() {
    let bed = bed_in(Some("iptables"));
    for (from, to, said) in [("shell-1", "web:80", "connected"), ("node-1", "empty", "refused")] {
        let answer = trace(&bed, from, to, &["--live"]);
        let hops = answer["live"]["hops"].as_array().unwrap_or_else(|| panic!("{answer:#}"));
        let rules: Vec<&str> = hops.iter().filter_map(|hop| hop["rule"].as_str()).collect();
        let jump = rules.iter().position(|rule| *rule == "-j PORTOLAN-SERVICES");
        assert!(
            jump.is_some_and(|jump| rules[jump + 1..].contains(&"-j PORTOLAN-IP")),
            "{from} {to}: {answer:#}"
        );
        assert!(answer["live"]["answer"].as_str().unwrap().starts_with(said), "{from} {to}: {answer:#}");
        assert_eq!(answer["live"]["asExplained"], true, "{from} {to}: {answer:#}");
    }
    become_legacy(&bed);
    let answer = trace(&bed, "shell-1", "web:80", &["--live"]);
    let note = answer["live"]["note"].as_str().unwrap_or_default();
    assert!(note.contains("iptables-legacy"), "{answer:#}");
    assert_eq!(answer["live"]["asExplained"], true, "{answer:#}");
}

/// The first node starts again where kubelet has left a chain with iptables-legacy; in its mode, which the lab knows.
fn become_legacy(bed: &Bed) {
    let node = Host::Node(1);
    let run = |program: &str, arguments: &str| {
        let place = bed.lab.place("node-1").unwrap();
        let output = place.output(place.command(program).args(arguments.split(' '))).unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = std::time::Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < crate::bed::PATIENCE, "{what}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    let runs = |(host, pids): &(Host, Vec<u32>)| *host == node && !pids.is_empty();
    signal(bed, node, Signal::TERM);
    until("the node does not end", &|| !bed.lab.status().hosts.iter().any(runs));
    run(exe().to_str().unwrap(), "proxy cleanup");
    run("iptables-legacy", "-t mangle -N KUBE-KUBELET-CANARY");
    bed.lab.start_node(&exe(), 1).unwrap();
    until("the pod is not made anew", &|| bed.lab.place("shell-1").is_ok());
    bed.until_answerers("shell-1", at(bed.cluster_ip("web"), 80), &["web-1"]);
    assert!(run("iptables-legacy-save", "-t nat").contains("-A OUTPUT -j PORTOLAN-SERVICES"));
}

#[test]
fn a_place_that_cannot_see_the_kernel_says_how_to() {
    let bed = bed();
    // A copy elsewhere of the lab's kubeconfig: nothing tells that it is a lab.
    let elsewhere = std::env::temp_dir().join(format!("kubeconfig-{}", bed.lab.layout.name));
    std::fs::copy(bed.lab.layout.kubeconfig(), &elsewhere).unwrap();
    let in_place = |place: &str, more: &[&str]| {
        let place = bed.lab.place(place).unwrap();
        let mut command = place.command(exe().to_str().unwrap());
        command.args(["trace", "--from", "shell-1", "--to", "web"]).args(more).env("KUBECONFIG", &elsewhere);
        let output = place.output(&mut command).unwrap();
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
        (said, output.status.success())
    };
    let (said, ok) = in_place("node-1", &[]);
    assert!(ok && said.contains("Kernel of node-1: holds exactly this"), "{said}");
    let (said, ok) = in_place("node-2", &[]);
    assert!(ok && said.contains("not looked at: this is not node node-1"), "{said}");
    let (said, ok) = in_place("node-2", &["--kernel", "require"]);
    assert!(!ok && said.contains("this is not node node-1"), "{said}");
    std::fs::remove_file(&elsewhere).unwrap();
}
